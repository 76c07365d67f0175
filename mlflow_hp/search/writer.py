"""Runs on their way to MLflow: what is to be written is collected, and one thread writes it."""

from __future__ import annotations

import contextlib
import functools
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from mlflow_hp import provenance
from mlflow_hp.errors import UserError
from mlflow_hp.forks import abandon_in_child
from mlflow_hp.masking import masked
from mlflow_hp.names import LONGEST_NAME, distinct_metric_names
from mlflow_hp.runs import ensure_reachable
from mlflow_hp.sender import REFUSALS
from mlflow_hp.texts import storable, texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

EVERY_SECONDS = 1.0
"""How often what has come together is written: each run in as few calls as MLflow allows."""
LONGEST_PAUSE_SECONDS = 30.0
"""Pause between two attempts to reach a store that fails."""
PATIENCE_SECONDS = 60.0
"""How long the end of a search waits for a store that is away: what is left then is lost."""
RETRIED_SECONDS = 1.0
"""A call that takes longer may have been made twice by MLflow's client, whose connection broke in between."""
METRICS_AT_ONCE = 800
OTHERS_AT_ONCE = 100
"""MLflow takes 100 params and 100 tags in a call, and 1000 things in all."""

Point = tuple[str, float, float, int]
"""A metric's name, value, time in seconds since the epoch, and step (0-based)."""


class Run:
    """A run, and what is still to be written of it. Its methods return at once.

    Attributes
    ----------
    run_id : str or None
        None until the run has been made in MLflow.
    start : float
        In seconds since the epoch; it counts when the run is made.
    """

    def __init__(self, writer: Writer, run_id: str | None, name: str, start: float, parent: Run | None = None) -> None:
        self.run_id = run_id
        self.name = name
        self.start = start
        self._writer = writer
        self._parent = parent
        self._goes_on = False
        self._params: dict[str, str] = {}
        self._tags: dict[str, str] = {}
        self._metrics: list[Point] = []
        self._texts: dict[str, str] = {}
        self._metric_names: dict[str, str] = {}
        self._end: tuple[str, float] | None = None
        self._may_be_doubled = False

    def params(self, params: Mapping[str, str]) -> None:
        """Have params written, without secrets; what is too long for MLflow is whole in an artifact."""
        made = texts("params", params)
        self._writer.note(self, lambda: (self._params.update(made.values), self._texts.update(made.whole)))

    def tags(self, tags: Mapping[str, str]) -> None:
        """Have tags written as `params`, in place of those with the same names."""
        made = texts("tags", tags)
        self._writer.note(self, lambda: (self._tags.update(made.values), self._texts.update(made.whole)))

    def keep(self, tags: Mapping[str, str]) -> None:
        """Have tags written to the letter: those that a later process is to read."""
        self._writer.note(self, lambda: self._tags.update(tags))

    def metrics(self, points: Iterable[Point]) -> None:
        """Have metric points written, under names that MLflow takes."""
        points = list(points)
        self._writer.note(self, lambda: self._metrics.extend(self._named(points)))

    def text(self, path: str, text: str) -> None:
        """Have an artifact written, without secrets."""
        self._writer.note(self, lambda: self._texts.update({path: masked(text)}))

    def go_on(self) -> None:
        """Have a run that had been ended be running."""
        self._writer.note(self, lambda: setattr(self, "_goes_on", True))

    def end(self, status: str, at: float) -> None:
        """Have the run ended with ``"FINISHED"``, ``"FAILED"`` or ``"KILLED"``, as of `at` seconds."""
        self._writer.note(self, lambda: setattr(self, "_end", (status, at)))

    def _named(self, points: Iterable[Point]) -> Iterator[Point]:
        if new := {name for name, *_ in points} - self._metric_names.keys():
            self._metric_names |= distinct_metric_names([*self._metric_names, *sorted(new)])
        return ((self._metric_names[p[0]], *p[1:]) for p in points)

    def write(self, client: mlflow.MlflowClient, experiment_id: str, common: Mapping[str, str]) -> None:
        """Write what has come; what fails stays to be written, and the rest is written nevertheless."""
        if self.run_id is None:
            self._create(client, experiment_id, common)
        if self._goes_on:
            client.update_run(self.run_id, status="RUNNING")
            self._goes_on = False
        errors = []
        drop_doubles = functools.partial(self._drop_doubles, experiment_id=experiment_id)
        for part in (self._write_batches, self._write_texts, drop_doubles, self._write_end):
            try:
                part(client)
            except Exception as error:  # noqa: BLE001 - raised below
                errors.append(error)
        if errors:
            raise errors[0]

    def _create(self, client: mlflow.MlflowClient, experiment_id: str, common: Mapping[str, str]) -> None:
        assert self._parent is not None
        if self._parent.run_id is None:
            self._parent._create(client, experiment_id, common)
        _, _, own = self._take(tags_only=True)  # tags cost least where the run is made
        tags = {**common, **own, "mlflow.parentRunId": self._parent.run_id}
        began = time.monotonic()
        try:
            run = client.create_run(experiment_id, start_time=_ms(self.start), tags=tags, run_name=self.name)
        except Exception:
            self._may_be_doubled = True
            self._put_back([], {}, own)
            raise
        self.run_id = run.info.run_id
        self._may_be_doubled |= time.monotonic() - began > RETRIED_SECONDS

    def _drop_doubles(self, client: mlflow.MlflowClient, experiment_id: str) -> None:
        """Delete what the store made of this run beside it, when its answer was lost on the way."""
        if not self._may_be_doubled or self._parent is None or self.run_id is None:
            return
        alike = f"tags.`mlflow.parentRunId` = '{self._parent.run_id}' and attributes.start_time = {_ms(self.start)}"
        for run in client.search_runs([experiment_id], alike):
            if run.info.run_id != self.run_id and run.info.run_name == self.name and not run.data.params:
                client.delete_run(run.info.run_id)
        self._may_be_doubled = False

    def _write_batches(self, client: mlflow.MlflowClient) -> None:
        while any(batch := self._take()):
            metrics, params, tags = batch
            try:
                client.log_batch(
                    self.run_id,
                    metrics=[Metric(name, value, _ms(at), step) for name, value, at, step in metrics],
                    params=[Param(*item) for item in params.items()],
                    tags=[RunTag(*item) for item in tags.items()],
                )
            except Exception:
                self._put_back(*batch)
                raise

    def _take(self, *, tags_only: bool = False) -> tuple[list[Point], dict[str, str], dict[str, str]]:
        """Metrics, params and tags for one call, taken from what is to be written."""
        with self._writer.lock:
            tags = {name: self._tags.pop(name) for name in list(self._tags)[:OTHERS_AT_ONCE]}
            if tags_only:
                return [], {}, tags
            metrics, self._metrics = self._metrics[:METRICS_AT_ONCE], self._metrics[METRICS_AT_ONCE:]
            params = {name: self._params.pop(name) for name in list(self._params)[:OTHERS_AT_ONCE]}
        return metrics, params, tags

    def _put_back(self, metrics: list[Point], params: dict[str, str], tags: dict[str, str]) -> None:
        with self._writer.lock:
            self._metrics = metrics + self._metrics
            self._params = params | self._params
            self._tags = tags | self._tags

    def _write_texts(self, client: mlflow.MlflowClient) -> None:
        for path in list(self._texts):
            client.log_text(self.run_id, self._texts[path], path)
            del self._texts[path]

    def _write_end(self, client: mlflow.MlflowClient) -> None:
        if self._end is not None:
            status, at = self._end
            client.set_terminated(self.run_id, status, end_time=max(_ms(at), _ms(self.start)))
            self._end = None


class Writer:
    """Writes runs to MLflow, in the background.

    A store that fails is tried again while the search goes on.

    Parameters
    ----------
    parent : mlflow.entities.Run
        The run below which others are opened.

    Attributes
    ----------
    parent : Run
    error : Exception or None
        Why the last attempt to write failed; None where it did not.
    busy_seconds : float
        How long it has written.
    tracking_uri : str
        Of MLflow's store.
    """

    def __init__(self, parent: mlflow.entities.Run) -> None:
        self.parent = Run(self, parent.info.run_id, parent.info.run_name, parent.info.start_time / 1000)
        self.error: Exception | None = None
        self.busy_seconds = 0.0
        self._experiment_id = parent.info.experiment_id
        self._common = {
            name: value
            for name, value in parent.data.tags.items()
            if name.startswith(("mlflow.user", "mlflow.source."))
        }
        # MLflow does not ask its context providers about runs that are made by a client.
        own = {f"mlflow_hp.{name}": value for name, value in provenance.tags().items()}
        self._common |= texts("tags", own).values
        self.tracking_uri = mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(self.tracking_uri)
        self._dirty: dict[Run | Callable[[], Any], None] = {}
        self.lock = threading.RLock()
        self._requests: queue.SimpleQueue[tuple[threading.Event, bool]] = queue.SimpleQueue()
        abandon_in_child(self)
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-writer", daemon=True)
        self._thread.start()

    def open(self, name: str, start: float, parent: Run | None = None) -> Run:
        """A new run below `parent`, by default the writer's, that started at `start` seconds since the epoch."""
        run = Run(self, None, storable(masked(name))[:LONGEST_NAME], start, parent or self.parent)
        self.note(run, lambda: None)
        return run

    def known(self, run_id: str, name: str, start: float) -> Run:
        """A run that is there already."""
        return Run(self, run_id, name, start)

    def note(self, run: Run, change: Callable[[], Any]) -> None:
        """Make a change to what is to be written of `run`, after all that is noted before."""
        with self.lock:
            change()
            self._dirty.pop(run, None)
            self._dirty[run] = None

    def do(self, action: Callable[[], Any]) -> None:
        """Have `action` called in the writer's thread, when all noted before has been written."""
        with self.lock:
            self._dirty[action] = None

    def flush(self, *, stop: bool = False, patience: float = 0.0) -> None:
        """Wait until all has been written, or been tried; what fails is in `error`.

        Parameters
        ----------
        stop : bool
            Whether nothing comes after that.
        patience : float
            For how many seconds a store that is away is tried again.
        """
        until = time.monotonic() + patience
        while True:
            written = threading.Event()
            self._requests.put((written, stop))
            while self._thread.is_alive() and not written.wait(0.2):
                pass
            if not _may_come_back(self.error) or time.monotonic() > until:
                return
            if patience:
                print(f"mlflow_hp: waiting up to {patience:.0f} s for MLflow: {self.error}", file=sys.stderr)
                patience = 0.0
            time.sleep(EVERY_SECONDS)

    def made(self, run: Run) -> str | None:
        """The id of `run`, made now if it has not been; None where it can't be."""
        if run.run_id is None:
            self.flush()
        return run.run_id

    def abandon(self) -> None:
        """In a forked child: the thread is the parent's, and the lock may be held by it."""
        self.lock = threading.RLock()

    def _work(self) -> None:
        pause, stop = EVERY_SECONDS, False
        while not stop:
            written = None
            with contextlib.suppress(queue.Empty):
                written, stop = self._requests.get(timeout=pause)
            self._write_all()
            pause = EVERY_SECONDS if self.error is None else min(2 * pause, LONGEST_PAUSE_SECONDS)
            if written is not None:
                written.set()

    def _write_all(self) -> None:
        with self.lock:
            waiting, self._dirty = list(self._dirty), {}
        if not waiting:
            return
        self.error = None
        try:
            ensure_reachable(self.tracking_uri)
        except Exception as error:  # noqa: BLE001 - it may be back at the next attempt
            self._again(waiting, error)
            return
        for item in waiting:
            began = time.perf_counter()
            try:
                if isinstance(item, Run):
                    item.write(self._client, self._experiment_id, self._common)
                else:
                    item()
            except Exception as error:  # noqa: BLE001 - the recording tells it
                self._again([item], error)
            self.busy_seconds += time.perf_counter() - began

    def _again(self, items: list[Run | Callable[[], Any]], error: Exception) -> None:
        """Have what failed tried again, before what has come since."""
        self.error = error
        with self.lock:
            self._dirty = dict.fromkeys([*items, *self._dirty])


def _may_come_back(error: Exception | None) -> bool:
    """Whether it is a store that is away which says so, and none that will never take it."""
    return isinstance(error, UserError | MlflowException) and getattr(error, "error_code", "") not in REFUSALS


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
