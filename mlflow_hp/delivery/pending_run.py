"""A run on its way to MLflow: how what is still to be written of it is written."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException

from mlflow_hp.delivery.batches import METRICS_AT_ONCE, OTHERS_AT_ONCE, Batches, is_refused, ms
from mlflow_hp.delivery.run_changes import Changes
from mlflow_hp.tracking import runs

if TYPE_CHECKING:
    import mlflow

    from mlflow_hp.delivery.batches import Item

KEY = "mlflow_hp.key"
"""The tag by which a run is found whose id was lost on the way."""
REFUSED = "mlflow_hp.refused"
"""The tag that names what MLflow refused of a run; `REFUSED_FILE` holds it."""
REFUSED_FILE = "refused_by_mlflow.json"
RETRIED_SECONDS = 1.0
"""A call that takes longer may have been made twice by MLflow's client, whose connection broke in between."""
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""MLflow's error codes of a call that has done nothing."""


class GivenUpError(Exception):
    """Nobody waits for what is written any more."""


class Run(Changes):
    """A run that can be written to MLflow."""

    def write(self, client: mlflow.MlflowClient) -> None:
        """Write what has come; what fails stays to be written, and the rest is written nevertheless."""
        if self.is_dropped:
            return
        if self.run_id is None:
            self._create(client)
        errors = []
        for part in (self._choose, self._write_batches, self._write_texts, self._write_code, self._write_report,
                     self._drop_duplicates, self._write_status):  # fmt: skip
            try:
                part(client)
            except GivenUpError:
                raise
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
        if errors:
            raise errors[0]

    def _create(self, client: mlflow.MlflowClient) -> None:
        assert self.parent is not None
        if self.parent.run_id is None:
            self.parent._create(client)
        if self.may_be_there and (there := self._there(client)):
            self._made(there[0])
            return
        own = self._take(tags_only=True)  # tags cost least where the run is made
        needed = {KEY: self._key, "mlflow.parentRunId": self.parent.run_id}
        tags = {**self._outbox.common, **{name: value for _, name, value in own}}
        create = functools.partial(client.create_run, self._outbox.experiment_id, ms(self.start), run_name=self.name)
        began = time.monotonic()
        try:
            try:
                run = create(tags={**tags, **needed})
            except MlflowException as error:
                if error.error_code not in REFUSALS:
                    raise
                run = create(tags=needed)
                own = [("tag", name, value) for name, value in tags.items()]  # which of them it refuses is seen then
                self._put_back(own)
        except Exception:
            self.may_be_there = True
            self._put_back(own)
            raise
        self.may_be_there |= time.monotonic() - began > RETRIED_SECONDS
        self._made(run.info.run_id)

    @property
    def _key(self) -> str:
        return f"{self._outbox.key}/{self.number}"

    def _made(self, run_id: str) -> None:
        self._outbox.note(self, {"run_id": run_id})

    def _there(self, client: mlflow.MlflowClient) -> list[str]:
        """Ids of the runs that are this one, but for those that hold something and are others; the oldest first."""
        alike = client.search_runs([self._outbox.experiment_id], f"tags.`{KEY}` = '{self._key}'")
        alike.sort(key=lambda run: (not run.data.params and not run.data.metrics, run.info.run_id))
        return [run.info.run_id for run in alike]

    def _drop_duplicates(self, client: mlflow.MlflowClient) -> None:
        """Delete what the store made of this run next to it, when its answer was lost on the way."""
        if not self.may_be_there or self.parent is None or self.run_id is None:
            return
        for run_id in self._there(client):
            if run_id != self.run_id:
                client.delete_run(run_id)
        self.may_be_there = False

    def _choose(self, client: mlflow.MlflowClient) -> None:
        """Choose what the run does not have."""
        if not self._unless_there:
            return
        data = client.get_run(self.run_id).data
        have = {"params": data.params, "tags": data.tags}
        with self._outbox.lock:
            waiting, self._unless_there = self._unless_there, []
            for kind, name, value, path, whole in waiting:
                if name not in have[kind]:
                    (self._params if kind == "params" else self._tags).setdefault(name, value)
                    self._texts |= {} if path is None or whole is None else {path: whole}

    def _write_batches(self, client: mlflow.MlflowClient) -> None:
        assert self.run_id is not None
        batches = Batches(client, self.run_id, ("tag", KEY, self._key), self._refuse)
        while items := self._take():
            self._put_back(batches.write(items))
            if batches.error is not None:
                raise batches.error
            self._outbox.go_on_or_raise()

    def _take(self, *, tags_only: bool = False) -> list[Item]:
        """Metrics, params and tags for one call, taken from what is to be written."""
        with self._outbox.lock:
            for name, number in list(self._ids.items()):
                run = self._outbox.runs[number]
                if run.run_id is not None:
                    self._tags[name] = run.run_id
                if run.run_id is not None or run.is_dropped:
                    del self._ids[name]
            tags = [("tag", name, self._tags.pop(name)) for name in list(self._tags)[:OTHERS_AT_ONCE]]
            if tags_only:
                return tags
            metrics, self._metrics = self._metrics[:METRICS_AT_ONCE], self._metrics[METRICS_AT_ONCE:]
            params = [("param", name, self._params.pop(name)) for name in list(self._params)[:OTHERS_AT_ONCE]]
        return [*params, *tags, *(("metric", *point) for point in metrics)]

    def _put_back(self, items: list[Item]) -> None:
        with self._outbox.lock:
            self._metrics = [item[1:] for item in items if item[0] == "metric"] + self._metrics
            self._params = {item[1]: item[2] for item in items if item[0] == "param"} | self._params
            self._tags = {item[1]: item[2] for item in items if item[0] == "tag"} | self._tags

    def _refuse(self, item: Item, error: Exception) -> None:
        """Set aside, in an artifact, what MLflow refuses for what it is."""
        kind, name, *rest = item
        refused = {"kind": kind, "name": name, "value": rest, "why": str(error)[:500]}
        with self._outbox.lock:
            if refused not in self._refused:
                self._outbox.note(self, {"refused": refused})
            self._note(
                texts={REFUSED_FILE: json.dumps(self._refused, indent=1)},
                tags={REFUSED: f"{len(self._refused)} values, which are in the artifact {REFUSED_FILE}"},
            )
        self._outbox.refusals.append(f"the {kind} {name!r:.200} of the run {self.name!r:.200} ({error!s:.200}), which "
                                     f"is in the run's artifact {REFUSED_FILE}")  # fmt: skip

    def _write_texts(self, client: mlflow.MlflowClient) -> None:
        errors = []
        for path, text in list(self._texts.items()):
            try:
                self._write_text(client, path, text)
            except Exception as error:  # noqa: BLE001 - the others come first
                errors.append(error)
                continue
            with self._outbox.lock:
                if self._texts.get(path) is text:
                    del self._texts[path]
        if errors:
            raise errors[0]

    def _write_text(self, client: mlflow.MlflowClient, path: str, text: str) -> None:
        try:
            client.log_text(self.run_id, text, path)
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            other = f"refused/{hashlib.sha256(path.encode()).hexdigest()[:8]}.txt"
            write = functools.partial(client.log_text, self.run_id, text)
            if is_refused(lambda: write(path), lambda: write(other)):
                self._outbox.refusals.append(f"the artifact {path!r:.200} of the run {self.name!r:.200} "
                                             f"({error!s:.200}), which is there as {other}")  # fmt: skip

    def _write_code(self, client: mlflow.MlflowClient) -> None:
        if self._code is not None:
            assert self.run_id is not None
            runs.bring_code(client, self.run_id, self._code)
            self._code = None

    def _write_report(self, client: mlflow.MlflowClient) -> None:
        if self._report:
            folder = self._outbox.report_folder
            if folder is not None and folder.is_dir():
                client.log_artifacts(self.run_id, str(folder))
            self._report = False

    def _write_status(self, client: mlflow.MlflowClient) -> None:
        goes_on, end = self._goes_on, self._end
        if not self._outbox.is_in_charge:
            goes_on, end = False, None
            self._goes_on, self._end = False, None
        if goes_on:
            client.update_run(self.run_id, status="RUNNING")
            self._goes_on = False
        if end is not None:
            status, at = end
            client.set_terminated(self.run_id, status, end_time=max(ms(at), ms(self.start)))
            with self._outbox.lock:
                self._end = None if self._end is end else self._end
