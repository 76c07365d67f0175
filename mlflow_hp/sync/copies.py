"""The places of runs and models at the target: found again, or made."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_USER

from mlflow_hp.errors import UserError
from mlflow_hp.sync.id_map import (
    SYNCED,
    SYNCED_FROM,
    Identities,
    copies_of_models,
    copies_of_run,
    is_deleted,
    mentioned,
    origin,
)
from mlflow_hp.sync.lock import CLAIM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Experiment, LoggedModel, Run

    from mlflow_hp.sync.selection import Scope


class Places:
    """Where at the target what a scope names is.

    Attributes
    ----------
    identities : Identities
        Ids of the source -> ids of the target.
    new : set of str
        Ids at the target of the runs that were made just now.
    duplicates : dict of str to list of str
        Ids of the source -> ids at the target, where a run or a model has several copies that were not deleted; the
        first is the one that is completed.
    at_home : set of str
        Ids of source runs that are copies of runs of the target: nothing is copied back onto the original.
    """

    def __init__(self, client: MlflowClient, scope: Scope) -> None:
        self._client, self._scope = client, scope
        self.identities = Identities()
        self.new: set[str] = set()
        self.duplicates: dict[str, list[str]] = {}
        self.at_home: set[str] = set()
        self._mark = f"begun by {uuid.uuid4().hex}"
        self._everywhere = _all_experiments(client)
        for run in scope.runs:
            self._find(run)
        models = copies_of_models(client, self._everywhere) if scope.models else {}
        for model in scope.models:
            ids = [copy.model_id for copy in models.get(origin(model.tags, model.model_id), [])]
            if ids:
                self.identities[model.model_id] = ids[0]
            if len(ids) > 1:
                self.duplicates[model.model_id] = ids
        self._find_mentioned()

    def make(self, experiments: Mapping[str, str], go_on: Callable[[], None]) -> None:
        """Make the runs and models that are not there yet, empty so far.

        Parameters
        ----------
        experiments : mapping of str to str
            As of `experiments_at`.
        go_on : callable
            Called before each: raises where it is not to be made any more.
        """
        for run in self._scope.runs:
            if run.info.run_id not in self.identities:
                go_on()
                self._make_run(run, experiments[run.info.experiment_id])
        for run in self._scope.runs:
            if self.identities[run.info.run_id] in self.new:
                self._delete_those_made_twice(origin(run.data.tags, run.info.run_id))
        for model in self._scope.models:
            if model.model_id not in self.identities:
                go_on()
                self._make_model(model, experiments[model.experiment_id])

    def _find(self, run: Run) -> None:
        original = origin(run.data.tags, run.info.run_id)
        copies = copies_of_run(self._client, self._everywhere, original)
        if copies:
            self.identities[run.info.run_id] = copies[0].info.run_id
        elif original != run.info.run_id and _has_run(self._client, original):
            self.identities[run.info.run_id] = original
            self.at_home.add(run.info.run_id)
        not_deleted = [copy.info.run_id for copy in copies if not is_deleted(copy)]
        if len(not_deleted) > 1:
            self.duplicates[run.info.run_id] = not_deleted

    def _find_mentioned(self) -> None:
        """Find the copies of runs that are not in the scope and are named in tags of those that are."""
        texts = " ".join(value for run in self._scope.runs for value in run.data.tags.values())
        for run_id in sorted(mentioned(texts) - self.identities.keys() - {run.info.run_id for run in self._scope.runs}):
            copies = copies_of_run(self._client, self._everywhere, run_id)
            if copies:
                self.identities[run_id] = copies[0].info.run_id

    def _make_run(self, run: Run, experiment_id: str) -> None:
        tags = {SYNCED_FROM: origin(run.data.tags, run.info.run_id), SYNCED: self._mark}
        if MLFLOW_USER in run.data.tags:
            tags[MLFLOW_USER] = run.data.tags[MLFLOW_USER]
        if MLFLOW_PARENT_RUN_ID in run.data.tags:
            tags[MLFLOW_PARENT_RUN_ID] = self.identities.translate(run.data.tags[MLFLOW_PARENT_RUN_ID])
        made = self._client.create_run(experiment_id, run.info.start_time, tags, run.info.run_name)
        self.identities[run.info.run_id] = made.info.run_id
        self.new.add(made.info.run_id)

    def _delete_those_made_twice(self, original: str) -> None:
        """Delete the empty runs that come of asking again: the server's answer to the first time was lost."""
        for copy in copies_of_run(self._client, self._everywhere, original):
            if copy.data.tags.get(SYNCED) == self._mark and copy.info.run_id not in self.new and not is_deleted(copy):
                self._client.delete_run(copy.info.run_id)

    def _make_model(self, model: LoggedModel, experiment_id: str) -> None:
        made = self._client.create_logged_model(
            experiment_id,
            model.name,
            self.identities.get(model.source_run_id or ""),
            {SYNCED_FROM: origin(model.tags, model.model_id)},
            model_type=model.model_type,
        )
        self.identities[model.model_id] = made.model_id


def experiments_at(client: MlflowClient, scope: Scope) -> dict[str, str]:
    """The experiments of a scope at the target, by their names, made where they are not there: id -> id there.

    Raises
    ------
    UserError
        Where one of them has been deleted there.
    """
    return {key: _experiment(client, experiment) for key, experiment in scope.experiments.items()}


def _experiment(client: MlflowClient, experiment: Experiment) -> str:
    found = client.get_experiment_by_name(experiment.name)
    if found is None:
        tags = {name: value for name, value in experiment.tags.items() if not name.startswith(CLAIM)}
        try:
            return str(client.create_experiment(experiment.name, tags=tags))
        except MlflowException:  # another synchronization may have made it just now
            found = client.get_experiment_by_name(experiment.name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"the experiment {experiment.name!r} has been deleted at the target: restore it there, `mlflow "
            f"experiments restore -x {found.experiment_id}`, or rename it here"
        )
    return str(found.experiment_id)


def _all_experiments(client: MlflowClient) -> list[str]:
    """Ids of all experiments: one that has been renamed since keeps its copies."""
    found, token = [], None
    while True:
        page = client.search_experiments(ViewType.ACTIVE_ONLY, page_token=token)
        found += [experiment.experiment_id for experiment in page]
        token = page.token
        if not token:
            return found


def _has_run(client: MlflowClient, run_id: str) -> bool:
    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.get_http_status_code() >= 500:
            raise
        return False
    return True
