"""Selection of the runs and models to copy: the named ones and those that they depend on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlflow_hp.errors import UserError
from mlflow_hp.tracking.nesting import chain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mlflow import MlflowClient
    from mlflow.entities import Experiment, LoggedModel, Run


class Scope(NamedTuple):
    """Runs and models that one sync copies.

    Attributes
    ----------
    experiments : dict of str to Experiment
        Experiments of the runs and models, by id.
    runs : list of Run
        Runs to copy, parents before their children.
    models : list of LoggedModel
        Models that the runs produced, use or have metrics of.
    damaged : dict of str to str
        Folder of a file store that could not be read and is left out -> reason.
    """

    experiments: dict[str, Experiment]
    runs: list[Run]
    models: list[LoggedModel]
    damaged: dict[str, str]


def find(client: MlflowClient, experiment: str | None = None, run_ids: Sequence[str] = ()) -> Scope:
    """Select runs of the source, with everything that they depend on.

    Parameters
    ----------
    client : MlflowClient
        Client of the source.
    experiment : str, optional
        Name of an experiment, all runs of which are selected. Defaults to the active one.
    run_ids : sequence of str
        Runs to select instead of an experiment: each with its nested runs, its parents, and the runs that produced
        the models it uses.

    Raises
    ------
    UserError
        If there is no such experiment or run.
    """
    cache = _RunCache(client)
    if run_ids:
        pending = list(cache.with_nested([cache.require(run_id) for run_id in run_ids]))
    else:
        pending = cache.all_of(_experiment_id(client, experiment))
    chosen: dict[str, Run] = {}
    while pending:
        run_id = pending.pop().info.run_id
        if run_id not in chosen:
            chosen[run_id] = client.get_run(run_id)
            pending += cache.needed_by(chosen[run_id])
    runs = sorted(chosen.values(), key=lambda run: (_depth(run, chosen), run.info.start_time))
    models = list(_models(client, chosen))
    ids = {run.info.experiment_id for run in runs} | {model.experiment_id for model in models}
    damaged = {str(path): why for path, why in _damaged(client).items() if not ids.isdisjoint(path.parts)}
    return Scope({key: client.get_experiment(key) for key in sorted(ids)}, runs, models, damaged)


class _RunCache:
    """Runs of a store, each read once."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client
        self._runs: dict[str, Run | None] = {}
        self._children: dict[str, dict[str, list[Run]]] = {}

    def require(self, run_id: str) -> Run:
        run = self.get(run_id)
        for path, why in _damaged(self._client).items():
            if path.name == run_id:
                raise UserError(f"run {run_id!r} cannot be read from {path}: {why}. Restore that folder from a copy")
        if run is None:
            raise UserError(
                f"run {run_id!r} is not in the source store: check the id (all 32 characters), and name the store "
                "with --from or MLFLOW_TRACKING_URI"
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
        token, runs = None, []
        while True:
            page = self._client.search_runs([experiment_id], "", ViewType.ALL, 1000, page_token=token)
            runs += page
            token = page.token
            if not token:
                self._runs.update({run.info.run_id: run for run in runs})
                return runs

    def with_nested(self, runs: list[Run]) -> Iterator[Run]:
        """Yield `runs` and the runs nested in them at any depth."""
        nested: dict[str, list[Run]] = {}
        for experiment_id in {run.info.experiment_id for run in runs}:
            for run in self.all_of(experiment_id):
                nested.setdefault(_parent(run), []).append(run)
        pending, seen = list(runs), set()
        while pending:
            run = pending.pop()
            if run.info.run_id not in seen:
                seen.add(run.info.run_id)
                pending += nested.get(run.info.run_id, [])
                yield run

    def needed_by(self, run: Run) -> list[Run]:
        """Parent of a run and the runs that produced the models it uses, as far as they exist."""
        ids = [_parent(run)]
        for used in run.inputs.model_inputs if run.inputs else []:
            model = _model(self._client, used.model_id)
            ids.append(str(model.source_run_id or "") if model is not None else "")
        return [needed for needed in (self.get(run_id) for run_id in ids if run_id) if needed is not None]


def _experiment_id(client: MlflowClient, name: str | None) -> str:
    """Id of the experiment `name`, else of MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID, or Default."""
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME")
    if not name and (experiment_id := os.environ.get("MLFLOW_EXPERIMENT_ID")):
        try:
            return str(client.get_experiment(experiment_id).experiment_id)
        except MlflowException as error:
            if error.get_http_status_code() >= 500:
                raise
            name = experiment_id
            experiment = None
    else:
        name = name or "Default"
        experiment = client.get_experiment_by_name(name)
    if experiment is None:
        names = ", ".join(sorted(repr(other.name) for other in client.search_experiments(max_results=20)))
        unread = "".join(f"; {path} could not be read: {why}" for path, why in _damaged(client).items())
        raise UserError(f"there is no experiment {name!r}: name one with --experiment; the store has {names}{unread}")
    return str(experiment.experiment_id)


def _damaged(client: Any) -> dict[Path, str]:
    """Folders of a file store that could not be read so far -> reason."""
    return getattr(client, "damaged", {})


def _parent(run: Run) -> str:
    return str(run.data.tags.get(MLFLOW_PARENT_RUN_ID, ""))


def _depth(run: Run, chosen: dict[str, Run]) -> int:
    """Number of chosen runs that a run is nested in."""
    return sum(1 for _ in chain(run, chosen.get))


def _models(client: MlflowClient, chosen: dict[str, Run]) -> Iterator[LoggedModel]:
    """Yield the models that runs produced, use or have metrics of."""
    named = {each.model_id for run in chosen.values() for each in (run.outputs.model_outputs if run.outputs else [])}
    named |= {each.model_id for run in chosen.values() for each in (run.inputs.model_inputs if run.inputs else [])}
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
    """Get a logged model; None if it is deleted."""
    try:
        return client.get_logged_model(model_id)
    except MlflowException as error:
        if error.get_http_status_code() >= 500:
            raise
        return None
