"""Which runs and models are to be brought: those that were named, and what they can't be without."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlflow_hp.errors import UserError
from mlflow_hp.tracking.runs import chain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Experiment, LoggedModel, Run


class Scope(NamedTuple):
    """What one synchronization is about.

    Attributes
    ----------
    experiments : dict of str to Experiment
        By id: those of the runs and the models.
    runs : list of Run
        Parents stand before their children.
    models : list of LoggedModel
        Those that the runs made, use, or measure.
    damaged : dict of str to str
        Folders of a store of files that could not be read and are left out, and why.
    """

    experiments: dict[str, Experiment]
    runs: list[Run]
    models: list[LoggedModel]
    damaged: dict[str, str]


def find(client: MlflowClient, experiment: str | None = None, run_ids: Sequence[str] = ()) -> Scope:
    """Find runs at the source.

    Parameters
    ----------
    client : MlflowClient
        Of the source.
    experiment : str, optional
        Name of the experiment of which all runs are meant; by default the active one.
    run_ids : sequence of str
        Runs to take instead: each with those nested in it, those that it is nested in, and those that made the
        models which it uses.

    Raises
    ------
    UserError
        Where there is no such experiment or run.
    """
    known = _Known(client)
    if run_ids:
        wanted = list(known.with_nested([known.named(run_id) for run_id in run_ids]))
    else:
        wanted = known.all_of(_experiment(client, experiment))
    chosen: dict[str, Run] = {}
    while wanted:
        run_id = wanted.pop().info.run_id
        if run_id not in chosen:
            chosen[run_id] = client.get_run(run_id)
            wanted += known.needed_by(chosen[run_id])
    runs = sorted(chosen.values(), key=lambda run: (_depth(run, chosen), run.info.start_time))
    models = list(_models(client, chosen))
    ids = {run.info.experiment_id for run in runs} | {model.experiment_id for model in models}
    damaged = {str(path): why for path, why in _damaged(client).items() if not ids.isdisjoint(path.parts)}
    return Scope({key: client.get_experiment(key) for key in sorted(ids)}, runs, models, damaged)


class _Known:
    """The runs of a store, asked for once."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._runs: dict[str, Run | None] = {}
        self._children: dict[str, dict[str, list[Run]]] = {}

    def named(self, run_id: str) -> Run:
        run = self.get(run_id)
        for path, why in _damaged(self._client).items():
            if path.name == run_id:
                raise UserError(f"run {run_id!r} can't be read from {path}: {why}. Restore that folder from a copy")
        if run is None:
            raise UserError(
                f"run {run_id!r} is not in the store that is copied from: check the id (a whole one, of 32 "
                "characters), and name the store with --from or MLFLOW_TRACKING_URI"
            )
        return run

    def get(self, run_id: str) -> Run | None:
        if run_id not in self._runs:
            try:
                self._runs[run_id] = self._client.get_run(run_id)
            except MlflowException as error:
                if error.get_http_status_code() >= 500:
                    raise
                self._runs[run_id] = None
        return self._runs[run_id]

    def all_of(self, experiment_id: str) -> list[Run]:
        token, found = None, []
        while True:
            page = self._client.search_runs([experiment_id], "", ViewType.ALL, 1000, page_token=token)
            found += page
            token = page.token
            if not token:
                self._runs.update({run.info.run_id: run for run in found})
                return found

    def with_nested(self, runs: list[Run]) -> Iterator[Run]:
        """Runs, and all that are nested in them, however deep."""
        nested: dict[str, list[Run]] = {}
        for experiment_id in {run.info.experiment_id for run in runs}:
            for run in self.all_of(experiment_id):
                nested.setdefault(_parent(run), []).append(run)
        wanted, seen = list(runs), set()
        while wanted:
            run = wanted.pop()
            if run.info.run_id not in seen:
                seen.add(run.info.run_id)
                wanted += nested.get(run.info.run_id, [])
                yield run

    def needed_by(self, run: Run) -> list[Run]:
        """The run that one is nested in, and those that made the models which it uses, as far as they are there."""
        needed = [_parent(run)]
        for given in run.inputs.model_inputs if run.inputs else []:
            model = _model(self._client, given.model_id)
            needed.append(str(model.source_run_id or "") if model is not None else "")
        return [found for found in (self.get(run_id) for run_id in needed if run_id) if found is not None]


def _experiment(client: MlflowClient, name: str | None) -> str:
    """Id of the experiment `name`, else of the one that MLflow's variables name, the name first, else of Default."""
    wanted = name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if not wanted and (experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        try:
            return str(client.get_experiment(experiment_id).experiment_id)
        except MlflowException as error:
            if error.get_http_status_code() >= 500:
                raise
            wanted = experiment_id
            found = None
    else:
        wanted = wanted or "Default"
        found = client.get_experiment_by_name(wanted)
    if found is None:
        names = ", ".join(sorted(repr(other.name) for other in client.search_experiments(max_results=20)))
        others = "".join(f"; {path} could not be read: {why}" for path, why in _damaged(client).items())
        raise UserError(f"there is no experiment {wanted!r}: name one with --experiment; the store has {names}{others}")
    return str(found.experiment_id)


def _damaged(client: Any) -> dict[Path, str]:
    """Folders of a store of files that could not be read so far, and why."""
    return getattr(client, "damaged", {})


def _parent(run: Run) -> str:
    return str(run.data.tags.get(MLFLOW_PARENT_RUN_ID, ""))


def _depth(run: Run, chosen: dict[str, Run]) -> int:
    """How many of the chosen runs a run is nested in."""
    return sum(1 for _ in chain(run, chosen.get))


def _models(client: MlflowClient, chosen: dict[str, Run]) -> Iterator[LoggedModel]:
    """The models that runs made, use or measure."""
    named = {made.model_id for run in chosen.values() for made in (run.outputs.model_outputs if run.outputs else [])}
    named |= {given.model_id for run in chosen.values() for given in (run.inputs.model_inputs if run.inputs else [])}
    token = None
    while chosen:
        experiments = sorted({run.info.experiment_id for run in chosen.values()})
        page = client.search_logged_models(experiments, page_token=token)
        for model in page:
            runs = {model.source_run_id, *(metric.run_id for metric in model.metrics or [])}
            if model.model_id in named or not runs.isdisjoint(chosen):
                named.discard(model.model_id)
                yield model
        token = page.token
        if not token:
            break
    yield from (model for model in (_model(client, model_id) for model_id in sorted(named)) if model is not None)


def _model(client: MlflowClient, model_id: str) -> LoggedModel | None:
    """A logged model; None where it has been deleted."""
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if error.get_http_status_code() >= 500:
            raise
        return None
