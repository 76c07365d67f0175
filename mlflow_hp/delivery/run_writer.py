"""Write the runs of an outbox to MLflow: items in full batches, artifacts, and status."""

from __future__ import annotations

import functools
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric

from mlflow_hp.delivery.batches import BatchWriter, kind_of
from mlflow_hp.delivery.retry import AbandonedError
from mlflow_hp.delivery.run_changes import RunChanges, milliseconds
from mlflow_hp.delivery.run_creation import RunCreation
from mlflow_hp.terminal import count
from mlflow_hp.tracking.artifact_paths import REFUSED_FOLDER
from mlflow_hp.tracking.server_health import blames_content, ensure_reachable
from mlflow_hp.tracking.tags import REFUSED_TAG
from mlflow_hp.tracking.uncommitted_code import log_patch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import mlflow

    from mlflow_hp.delivery.batches import Item
    from mlflow_hp.delivery.outbox import Outbox
    from mlflow_hp.delivery.patience import Patience
    from mlflow_hp.delivery.retry import Retry

REFUSED_FILE = "refused_by_mlflow.json"
"""Artifact of a run with the items that MLflow has refused for their content."""


class RunWriter:
    """Writes the runs of an outbox.

    Parameters
    ----------
    outbox : Outbox
        The runs.
    client : MlflowClient
        Client of the store.
    tracking_uri : str
        Tracking URI of the store.
    retry : Retry
        Reports failures, and ends the calls when it is abandoned.
    patience : Patience
        Measures the calls.
    report_folder : callable
        Returns the folder of the report's files.
    skips_logged_points : bool
        Whether to skip the metric points that MLflow has already, as a file store keeps those twice that are sent
        twice. Defaults to False.

    Attributes
    ----------
    busy_seconds : float
        Time spent on writing.
    n_skipped_points : int
        Number of metric points that MLflow had already.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: mlflow.MlflowClient,
        tracking_uri: str,
        retry: Retry,
        patience: Patience,
        report_folder: Callable[[], Path],
        *,
        skips_logged_points: bool = False,
    ) -> None:
        self.busy_seconds = 0.0
        self.n_skipped_points = 0
        self._skips_logged_points = skips_logged_points
        self._outbox = outbox
        self._client = client
        self._tracking_uri = tracking_uri
        self._retry = retry
        self._patience = patience
        self._report_folder = report_folder
        self._creation = RunCreation(outbox, client, self._call_mlflow)
        self._failing: set[RunChanges] = set()
        self._batch_writers: dict[RunChanges, BatchWriter] = {}

    def write_due(self, *, at_once: bool = False) -> None:
        """Write the queued runs, and call the queued actions; failures of one run do not affect others.

        Parameters
        ----------
        at_once : bool
            Whether to include runs that have failed and are not due again yet. Defaults to False.

        Raises
        ------
        Exception
            If the server does not answer. The rest is written later.
        """
        tasks, unwritten = self._outbox.take_all(), []
        due = {task for task in tasks if isinstance(task, RunChanges) and (at_once or task.back_off.is_due)}
        outage = self._outage() if due else None
        for task in tasks:
            if not isinstance(task, RunChanges):
                self._call_action(task)
            elif outage is not None or task not in due:
                unwritten.append(task)
            elif (error := self._error_of(task)) is not None:
                unwritten.append(task)
                outage = error if isinstance(error, AbandonedError) else self._outage()
        self._outbox.enqueue_first(unwritten)
        if outage is not None:
            raise outage
        if not self._failing:
            self._retry.note_success()

    def _outage(self) -> Exception | None:
        """Error of a server that does not answer, or None. Calls to one that does not would take minutes."""
        try:
            with self._patience.health_check():
                ensure_reachable(self._tracking_uri)
        except Exception as error:  # noqa: BLE001 - raised after the rest is enqueued again
            return error
        return None

    def _call_action(self, action: Callable[[], Any]) -> None:
        try:
            self._call_mlflow(action)
        except AbandonedError:
            self._outbox.enqueue(action)
        except Exception as error:  # noqa: BLE001 - the search goes on
            self._outbox.problems.append(f"{type(error).__name__}: {error}")

    def _error_of(self, run: RunChanges) -> Exception | None:
        """Write a run; return the error of a failure, and start its back-off."""
        began = time.perf_counter()
        try:
            self._write(run)
        except AbandonedError as error:
            return error
        except Exception as error:  # noqa: BLE001 - reported, and retried
            run.back_off.note_failure()
            self._failing.add(run)
            self._retry.note_failure(error)
            return error
        finally:
            self.busy_seconds += time.perf_counter() - began
        run.back_off.reset()
        self._failing.discard(run)
        self._outbox.note_written(run)
        return None

    def _write(self, run: RunChanges) -> None:
        """Write all pending changes of a run; those that fail stay pending, and do not prevent the others."""
        if run.is_dropped:
            return
        if run.run_id is None:
            self._creation.create(run)
        if self._skips_logged_points:
            self._skip_logged_points(run)
        errors = []
        for write_part in (self._add_missing, self._write_items, self._write_artifacts, self._write_code,
                           self._write_report, self._creation.delete_duplicates, self._write_status):  # fmt: skip
            try:
                write_part(run)
            except AbandonedError:
                raise
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
        if errors:
            raise errors[0]

    def _call_mlflow(self, call: Callable[[], Any], n_bytes: int = 0) -> Any:
        """Make a call to MLflow, unless the retry is abandoned."""
        self._retry.raise_if_abandoned()
        with self._patience.call(n_bytes):
            return call()

    def _call_control(self, call: Callable[[], object]) -> None:
        self._call_mlflow(call)
        self._patience.note_refusal()

    def _add_missing(self, run: RunChanges) -> None:
        """Add those params and tags to be written if missing that the run lacks."""
        pending = run.pending
        if not pending.if_missing:
            return
        data = self._call_mlflow(lambda: self._client.get_run(run.run_id)).data
        existing = {"params": data.params, "tags": data.tags}
        with self._outbox.lock:
            items, pending.if_missing = pending.if_missing, []
            for kind, name, value, path, full_text in items:
                if name not in existing[kind]:
                    (pending.params if kind == "params" else pending.tags).setdefault(name, value)
                    pending.artifacts |= {} if path is None or full_text is None else {path: full_text}

    def _skip_logged_points(self, run: RunChanges) -> None:
        logged = {
            (point.key, str(point.value), point.timestamp, point.step)
            for name in {name for name, *_ in run.pending.metrics}
            for point in self._call_mlflow(functools.partial(self._client.get_metric_history, run.run_id, name))
        }
        with self._outbox.lock:
            points = run.pending.metrics
            run.pending.metrics = [p for p in points if (p[0], str(p[1]), milliseconds(p[2]), p[3]) not in logged]
            self.n_skipped_points += len(points) - len(run.pending.metrics)

    def _write_items(self, run: RunChanges) -> None:
        """Write params, tags and metrics, including those that are added meanwhile."""
        while items := self._take_items(run):
            try:
                error = self._batch_writer(run).write(items)
            finally:
                run.put_back(items)
            if error is not None:
                raise error

    def _take_items(self, run: RunChanges) -> list[Item]:
        with self._outbox.lock:
            run_id_tags, tags = run.pending.run_id_tags, run.pending.tags
            for name, number in list(run_id_tags.items()):
                tagged_run = self._outbox.runs[number]
                if tagged_run.run_id is not None:
                    tags[name] = tagged_run.run_id
                if tagged_run.run_id is not None or tagged_run.is_dropped:
                    del run_id_tags[name]
            return run.take_items() if run.pending.has_items else []

    def _batch_writer(self, run: RunChanges) -> BatchWriter:
        assert run.run_id is not None
        if run not in self._batch_writers:
            self._batch_writers[run] = BatchWriter(
                self._client,
                run.run_id,
                functools.partial(self._set_aside, run),
                call_mlflow=self._call_mlflow,
                call_control=self._call_control,
            )
        return self._batch_writers[run]

    def _set_aside(self, run: RunChanges, item: Item, error: Exception) -> None:
        """Write an item that MLflow refuses for its content to an artifact."""
        kind = kind_of(item)
        value = [item.value, item.timestamp / 1000, item.step] if isinstance(item, Metric) else [item.value]
        refused = {"kind": kind, "name": item.key, "value": value, "why": str(error)[:500]}
        with self._outbox.lock:
            if refused not in run.refused_items:
                run.note(refused=refused)
            run.note(
                texts={REFUSED_FILE: json.dumps(run.refused_items, indent=1)},
                tags={REFUSED_TAG: f"{count(len(run.refused_items), 'value')}: see the artifact {REFUSED_FILE}"},
            )
        self._outbox.refusals.append(
            f"the {kind} {item.key!r:.200} of the run {run.name!r:.200} ({error!s:.200}), which is in the run's "
            f"artifact {REFUSED_FILE}"
        )

    def _write_artifacts(self, run: RunChanges) -> None:
        errors = []
        for path, text in list(run.pending.artifacts.items()):
            try:
                self._write_artifact(run, path, text)
            except AbandonedError:
                raise
            except Exception as error:  # noqa: BLE001 - raised after the others are written
                errors.append(error)
                continue
            with self._outbox.lock:
                if run.pending.artifacts.get(path) is text:
                    del run.pending.artifacts[path]
        if errors:
            raise errors[0]

    def _write_artifact(self, run: RunChanges, path: str, text: str) -> None:
        """Write a text artifact; under another path if its own is refused."""

        def write(path: str) -> None:
            self._call_mlflow(lambda: self._client.log_text(run.run_id, text, path), len(text))

        error = self._batch_writer(run).error_of(lambda: write(path))
        if error is None:
            return
        if not blames_content(error):
            raise error
        if not self._batch_writer(run).is_refused(lambda: write(path), error):
            return
        accepted_path = f"{REFUSED_FOLDER}/{hashlib.sha256(path.encode()).hexdigest()[:8]}.txt"
        write(accepted_path)
        self._outbox.refusals.append(
            f"the artifact {path!r:.200} of the run {run.name!r:.200} ({error!s:.200}), which is in {accepted_path}"
        )

    def _write_code(self, run: RunChanges) -> None:
        patch = run.pending.code
        if patch is not None:
            assert run.run_id is not None
            self._call_mlflow(functools.partial(log_patch, self._client, run.run_id, patch), len(patch))
            run.pending.code = None

    def _write_report(self, run: RunChanges) -> None:
        if run.pending.report and (folder := self._report_folder()).is_dir():
            n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            self._call_mlflow(lambda: self._client.log_artifacts(run.run_id, str(folder)), n_bytes)
        run.pending.report = False

    def _write_status(self, run: RunChanges) -> None:
        pending = run.pending
        if not run.owns_status:
            pending.resumes, pending.end = False, None
        if pending.resumes:
            self._call_mlflow(lambda: self._client.update_run(run.run_id, status="RUNNING"))
            pending.resumes = False
        if (end := pending.end) is not None:
            status, at = end
            end_time = max(milliseconds(at), milliseconds(run.start))
            self._call_mlflow(lambda: self._client.set_terminated(run.run_id, status, end_time=end_time))
            with self._outbox.lock:
                pending.end = None if pending.end is end else pending.end
