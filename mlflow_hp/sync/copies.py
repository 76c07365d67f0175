"""Copies of runs and models at the target: finds the existing ones and creates the missing ones."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_USER

from mlflow_hp.errors import UserError
from mlflow_hp.sync.id_map import (
    IdMap,
    copies_of_models,
    copies_of_run,
    ids_in,
    is_deleted,
    origin,
)
from mlflow_hp.tracking.tags import SYNC_CLAIM_TAG_PREFIX, SYNCED_FROM_TAG, SYNCED_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow import MlflowClient
    from mlflow.entities import Experiment, LoggedModel, Run

    from mlflow_hp.sync.selection import Scope


class Copies:
    """Copies at the target of the runs and models of a scope.

    Attributes
    ----------
    id_map : IdMap
        Source id -> target id.
    new : set of str
        Target ids of the runs that this object created.
    duplicates : dict of str to list of str
        Source id -> target ids, where a run or a model has several copies that are not deleted; the first one is
        the one that is completed.
    copied_from_target : set of str
        Source ids of runs that are themselves copies of runs of the target: the originals are never overwritten.
    """

    def __init__(self, client: MlflowClient, scope: Scope) -> None:
        self._client, self._scope = client, scope
        self.id_map = IdMap()
        self.new: set[str] = set()
        self.duplicates: dict[str, list[str]] = {}
        self.copied_from_target: set[str] = set()
        self._begun = f"begun by {uuid.uuid4().hex}"
        self._experiment_ids = _all_experiment_ids(client)
        for run in scope.runs:
            self._find_run(run)
        models = copies_of_models(client, self._experiment_ids) if scope.models else {}
        for model in scope.models:
            ids = [copy.model_id for copy in models.get(origin(model.tags, model.model_id), [])]
            if ids:
                self.id_map[model.model_id] = ids[0]
            if len(ids) > 1:
                self.duplicates[model.model_id] = ids
        self._find_mentioned()

    def create_missing(self, experiments: Mapping[str, str], check: Callable[[], None]) -> None:
        """Create the missing copies, empty.

        Parameters
        ----------
        experiments : mapping of str to str
            Source id -> target id, as `experiments_at_target` returns.
        check : callable
            Called before each creation; raises to stop.
        """
        for run in self._scope.runs:
            if run.info.run_id not in self.id_map:
                check()
                self._create_run(run, experiments[run.info.experiment_id])
        for run in self._scope.runs:
            if self.id_map[run.info.run_id] in self.new:
                self._delete_repeated_creations(origin(run.data.tags, run.info.run_id))
        for model in self._scope.models:
            if model.model_id not in self.id_map:
                check()
                self._create_model(model, experiments[model.experiment_id])

    def _find_run(self, run: Run) -> None:
        original = origin(run.data.tags, run.info.run_id)
        copies = copies_of_run(self._client, self._experiment_ids, original)
        if copies:
            self.id_map[run.info.run_id] = copies[0].info.run_id
        elif original != run.info.run_id and _has_run(self._client, original):
            self.id_map[run.info.run_id] = original
            self.copied_from_target.add(run.info.run_id)
        not_deleted = [copy.info.run_id for copy in copies if not is_deleted(copy)]
        if len(not_deleted) > 1:
            self.duplicates[run.info.run_id] = not_deleted

    def _find_mentioned(self) -> None:
        """Find copies of runs outside the scope that tags of runs in the scope refer to."""
        texts = " ".join(value for run in self._scope.runs for value in run.data.tags.values())
        for run_id in sorted(ids_in(texts) - self.id_map.keys() - {run.info.run_id for run in self._scope.runs}):
            copies = copies_of_run(self._client, self._experiment_ids, run_id)
            if copies:
                self.id_map[run_id] = copies[0].info.run_id

    def _create_run(self, run: Run, experiment_id: str) -> None:
        tags = {SYNCED_FROM_TAG: origin(run.data.tags, run.info.run_id), SYNCED_TAG: self._begun}
        if MLFLOW_USER in run.data.tags:
            tags[MLFLOW_USER] = run.data.tags[MLFLOW_USER]
        if MLFLOW_PARENT_RUN_ID in run.data.tags:
            tags[MLFLOW_PARENT_RUN_ID] = self.id_map.translate(run.data.tags[MLFLOW_PARENT_RUN_ID])
        copy = self._client.create_run(experiment_id, run.info.start_time, tags, run.info.run_name)
        self.id_map[run.info.run_id] = copy.info.run_id
        self.new.add(copy.info.run_id)

    def _delete_repeated_creations(self, original: str) -> None:
        """Delete empty runs left by retries: the server created one whose response was lost."""
        for copy in copies_of_run(self._client, self._experiment_ids, original):
            if (
                copy.data.tags.get(SYNCED_TAG) == self._begun
                and copy.info.run_id not in self.new
                and not is_deleted(copy)
            ):
                self._client.delete_run(copy.info.run_id)

    def _create_model(self, model: LoggedModel, experiment_id: str) -> None:
        copy = self._client.create_logged_model(
            experiment_id,
            model.name,
            self.id_map.get(model.source_run_id or ""),
            {SYNCED_FROM_TAG: origin(model.tags, model.model_id)},
            model_type=model.model_type,
        )
        self.id_map[model.model_id] = copy.model_id


def experiments_at_target(client: MlflowClient, scope: Scope) -> dict[str, str]:
    """Find the experiments of `scope` at the target by name, creating missing ones.

    Returns
    -------
    dict of str to str
        Source id -> target id.

    Raises
    ------
    UserError
        If one of them is deleted at the target.
    """
    return {key: _experiment_id(client, experiment) for key, experiment in scope.experiments.items()}


def _experiment_id(client: MlflowClient, experiment: Experiment) -> str:
    copy = client.get_experiment_by_name(experiment.name)
    if copy is None:
        tags = {name: value for name, value in experiment.tags.items() if not name.startswith(SYNC_CLAIM_TAG_PREFIX)}
        try:
            return str(client.create_experiment(experiment.name, tags=tags))
        except MlflowException:  # another sync may have created it just now
            copy = client.get_experiment_by_name(experiment.name)
            if copy is None:
                raise
    if copy.lifecycle_stage == "deleted":
        raise UserError(
            f"the experiment {experiment.name!r} is deleted at the target: restore it there with `mlflow "
            f"experiments restore -x {copy.experiment_id}`, or rename it at the source"
        )
    return str(copy.experiment_id)


def _all_experiment_ids(client: MlflowClient) -> list[str]:
    """Ids of all experiments of the target: copies are found even after their experiment was renamed."""
    ids, token = [], None
    while True:
        page = client.search_experiments(ViewType.ACTIVE_ONLY, page_token=token)
        ids += [experiment.experiment_id for experiment in page]
        token = page.token
        if not token:
            return ids


def _has_run(client: MlflowClient, run_id: str) -> bool:
    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.get_http_status_code() >= 500:
            raise
        return False
    return True
