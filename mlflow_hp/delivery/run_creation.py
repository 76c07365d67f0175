"""Creation of runs: once each, although MLflow's answer to the call that creates a run may be lost."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

from mlflow.entities import RunTag
from mlflow.exceptions import MlflowException

from mlflow_hp.delivery.run_changes import milliseconds
from mlflow_hp.tracking.tags import KEY_TAG, PARENT_TAG

if TYPE_CHECKING:
    from collections.abc import Callable

    import mlflow

    from mlflow_hp.delivery.outbox import Outbox
    from mlflow_hp.delivery.run_changes import RunChanges

RETRIED_SECONDS = 1.0
"""Duration of a call above which MLflow's client may have made it twice, after a broken connection."""
REFUSAL_CODES = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""MLflow's error codes of a call that has changed nothing."""


class RunCreation:
    """Creates the runs of an outbox.

    Parameters
    ----------
    outbox : Outbox
        The runs.
    client : MlflowClient
        Client of the store.
    call_mlflow : callable
        Makes the given call to MLflow, and returns its result.
    """

    def __init__(
        self, outbox: Outbox, client: mlflow.MlflowClient, call_mlflow: Callable[[Callable[[], Any]], Any]
    ) -> None:
        self._outbox = outbox
        self._client = client
        self._call = call_mlflow

    def create(self, run: RunChanges) -> None:
        """Create a run, after its parent, unless MLflow has it already."""
        assert run.parent is not None
        if run.parent.run_id is None:
            self.create(run.parent)
        if run.may_exist and (run_ids := self._existing(run)):
            run.note(run_id=run_ids[0])
            return
        own_tags = run.take_tags()  # tags cost least at creation
        needed_tags = {KEY_TAG: self._outbox.key_of(run), PARENT_TAG: run.parent.run_id}
        tags = {**self._outbox.common_tags, **own_tags}
        create_run = functools.partial(
            self._client.create_run, self._outbox.experiment_id, milliseconds(run.start), run_name=run.name
        )
        began = time.monotonic()
        try:
            try:
                created = self._call(lambda: create_run(tags={**tags, **needed_tags}))
            except MlflowException as error:
                if error.error_code not in REFUSAL_CODES:
                    raise
                own_tags = tags  # written later one by one, which shows the refused one
                created = self._call(lambda: create_run(tags=needed_tags))
                run.put_back([RunTag(*tag) for tag in own_tags.items()])
        except Exception:
            run.may_exist = True
            run.put_back([RunTag(*tag) for tag in own_tags.items()])
            raise
        run.may_exist |= time.monotonic() - began > RETRIED_SECONDS
        run.note(run_id=created.info.run_id)

    def delete_duplicates(self, run: RunChanges) -> None:
        """Delete further runs that MLflow created for a run when its answer was lost."""
        if not run.may_exist or run.parent is None or run.run_id is None:
            return
        for run_id in self._existing(run):
            if run_id != run.run_id:
                self._call(functools.partial(self._client.delete_run, run_id))
        run.may_exist = False

    def _existing(self, run: RunChanges) -> list[str]:
        """Ids of the runs in MLflow with the key of a run; those with params or metrics first, then by id."""
        filter_string = f"tags.`{KEY_TAG}` = '{self._outbox.key_of(run)}'"
        runs = self._call(lambda: self._client.search_runs([self._outbox.experiment_id], filter_string))
        runs.sort(key=lambda each: (not each.data.params and not each.data.metrics, each.info.run_id))
        return [each.info.run_id for each in runs]
