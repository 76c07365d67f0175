"""Send the metrics of a training in full batches, from a background thread with a limited time share."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import mlflow
from mlflow.entities import Metric, RunTag

from mlflow_hp.delivery import batches, patience
from mlflow_hp.delivery.acknowledgements import Acknowledgements
from mlflow_hp.delivery.batches import BatchWriter, n_per_call
from mlflow_hp.delivery.patience import Patience
from mlflow_hp.delivery.retry import AbandonedError, Retry
from mlflow_hp.delivery.side_calls import SideCalls
from mlflow_hp.delivery.time_share import TimeShare
from mlflow_hp.tracking.server_health import ensure_reachable, reason, silence_locked_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mlflow_hp.delivery.batches import Item
    from mlflow_hp.delivery.metric_points import Points

OLDEST_SECONDS = 0.25
"""Age at which a batch is sent although it is not full, so that MLflow is hardly behind the training."""
ATTEMPTS = 3
"""Attempts for an action that fails while the run accepts other data: the artifact store may be another server."""
DENIED_ITEMS = "a part of its metrics, params and tags"
"""Name in `MetricSender.undone` of single items to which MLflow denies access."""


class _Task(NamedTuple):
    """Items to be made and sent, or an action to be called.

    `reads_mlflow` says whether making the items calls MLflow. While `must_wait` returns True, making them would block.
    `is_side_call` says whether later tasks need not wait for the action.
    """

    make_items: Callable[[], Iterable[Item]] | None = None
    reads_mlflow: bool = False
    action: Callable[[], None] | None = None
    name: str = "a part of the recorded data"
    must_wait: Callable[[], bool] | None = None
    n_bytes: int = 0
    record: int | None = None
    is_side_call: bool = False


class MetricSender:
    """Writes to one run of MLflow in the background, with retries, while training goes on.

    Items are submitted as functions that make them when they are sent, so that the backlog of a slow store takes no
    memory.

    Parameters
    ----------
    run_id : str
        Id of the run.
    tracking_uri : str, optional
        Tracking URI of the run. Defaults to the current one.
    on_acknowledged : callable, optional
        Called with the number of the journal's records, from the first, that MLflow has, whenever it grows. Defaults to
        nothing.
    on_trouble : callable, optional
        Called with a message when the store begins to fail, and when it works again. Defaults to nothing.
    set_aside : callable, optional
        Called with a metric, param or tag that MLflow refuses for its content, and the reason; keeps the item
        elsewhere. Defaults to nothing.

    Attributes
    ----------
    n_sent, n_submitted : int
        Number of metric points that MLflow has, and of all points, of which some are estimated until they are made.
    n_refused, n_unreadable : int
        Number of items that were set aside, and of tasks whose items could not be made.
    refusal, read_error : Exception or None
        First error of each kind.
    undone : dict of str to Exception
        Name of data that could not be sent while MLflow accepted other data -> error. It stays in the journal.
    """

    def __init__(
        self,
        run_id: str,
        tracking_uri: str | None = None,
        *,
        on_acknowledged: Callable[[int], None] | None = None,
        on_trouble: Callable[[str], object] | None = None,
        set_aside: Callable[[Item, str], None] | None = None,
    ) -> None:
        self.n_sent = self.n_submitted = self.n_refused = self.n_unreadable = 0
        self.refusal: Exception | None = None
        self.read_error: Exception | None = None
        self.undone: dict[str, Exception | None] = {}
        self._tracking_uri = tracking_uri or mlflow.get_tracking_uri()
        self._on_trouble = on_trouble or (lambda _: None)
        self._set_aside = set_aside or (lambda _, __: None)
        self._retry = Retry(on_trouble)
        self._patience = Patience(lambda: self.error is not None)
        self._share = TimeShare(self._retry)
        self._writer = BatchWriter(
            mlflow.MlflowClient(self._tracking_uri),
            run_id,
            self._note_refusal,
            on_written=self._count,
            extra_tags=lambda: [RunTag(*tag) for tag in self._progress_tags.items()],
            call_mlflow=self._call_mlflow,
            call_control=self._call_control,
        )
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._items: list[Item] = []
        self._progress_tags: dict[str, str] = {}
        self._acknowledgements = Acknowledgements(on_acknowledged or (lambda _: None))
        self._side_calls = SideCalls(self._tracking_uri, self._acknowledgements, self._patience, self._retry)
        silence_locked_database()
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-sender", daemon=True)
        self._thread.start()

    def submit(
        self,
        count: int,
        make_points: Callable[[], Points],
        record: int | None = None,
        progress_tags: Callable[[], Mapping[str, str]] | None = None,
        must_wait: Callable[[], bool] | None = None,
    ) -> None:
        """Send the points that `make_points` returns, some `count`, after everything submitted before.

        The tags of `progress_tags` are written with them. While `must_wait` returns True, `make_points` would block,
        and earlier items are sent first.
        """
        self.n_submitted += count

        def make_items() -> Iterator[Item]:
            points = make_points()
            self.n_submitted += len(points) - count
            if progress_tags is not None:
                self._progress_tags |= progress_tags()
            return (Metric(*point) for point in points)

        self._queue.put(_Task(make_items, record=record, must_wait=must_wait))

    def describe(self, make_items: Callable[[], Iterable[Item]], record: int | None = None) -> None:
        """Send items after everything submitted before; `make_items` may call MLflow."""
        self._queue.put(_Task(make_items, reads_mlflow=True, record=record))

    def do(self, name: str, action: Callable[[], None], n_bytes: int = 0) -> None:
        """Call `action`, which uploads `n_bytes`, after everything submitted before, with retries.

        `name` is its name in `undone` if it fails.
        """
        self._queue.put(_Task(action=action, name=name, n_bytes=n_bytes))

    def do_apart(self, name: str, action: Callable[[], None], record: int | None = None) -> None:
        """Call `action` after everything submitted before, with retries, while what is submitted later is sent.

        `name` is its name in `undone` if it fails.
        """
        self._queue.put(_Task(action=action, name=name, record=record, is_side_call=True))

    def hurry(self) -> None:
        """Send without pauses from now on, as the training has ended."""
        self._retry.hurry()
        self._side_calls.hurry()

    def flush(self, on_progress: Callable[[], object] | None = None) -> bool:
        """Send the rest without pauses, for at most `PATIENCE_SECONDS`; nothing may be submitted afterwards.

        Parameters
        ----------
        on_progress : callable, optional
            Called several times a second meanwhile. Defaults to nothing.

        Returns
        -------
        bool
            Whether everything was processed. If not, sending continues: `wait` for it.

        Raises
        ------
        Exception
            If MLflow fails or hangs at the end of that time; nothing more is sent then.
        """
        self.hurry()
        self._queue.put(None)
        until = time.monotonic() + patience.PATIENCE_SECONDS
        with self._abandon_on_error():
            while not self._joined(0.1) and time.monotonic() < until:
                if on_progress is not None:
                    on_progress()
            if not self._thread.is_alive():
                return True
            if self.error is not None or self._patience.is_hanging:
                raise self._error_or_timeout()
        return False

    def wait(self, on_progress: Callable[[], object] | None = None) -> None:
        """Wait for the rest as long as MLflow accepts it; slow and failed calls may take `PATIENCE_SECONDS` in all.

        Parameters
        ----------
        on_progress : callable, optional
            Called several times a second meanwhile. Defaults to nothing.

        Raises
        ------
        Exception
            As `flush`.
        """
        with self._abandon_on_error():
            self._patience.wait(self._joined, patience.PATIENCE_SECONDS, on_progress)
            if self._thread.is_alive():
                raise self._error_or_timeout()

    @property
    def error(self) -> Exception | None:
        """Error of the last attempt to write; None if it succeeded."""
        return self._retry.error

    @property
    def failing(self) -> dict[str, Exception]:
        """Name of data that MLflow has not accepted so far, while others were sent -> error of the last attempt."""
        return self._side_calls.failing

    @property
    def is_complete(self) -> bool:
        """Whether everything submitted so far is sent or set aside, and nothing failed."""
        return self._acknowledgements.is_complete and self.error is None

    def _joined(self, seconds: float) -> bool:
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _error_or_timeout(self) -> Exception:
        seconds = f"{patience.PATIENCE_SECONDS:g} s"
        if (name := self._side_calls.waits_for) is not None:
            return TimeoutError(f"MLflow has everything except {name}, which it has not accepted in {seconds}")
        return self.error or TimeoutError(f"MLflow has not answered for {seconds}")

    @contextlib.contextmanager
    def _abandon_on_error(self) -> Iterator[None]:
        """Stop sending if the block raises; raise the error that ended the thread."""
        try:
            yield
        except BaseException:
            self._retry.abandon()
            raise
        if not self._thread.is_alive() and self.error is not None:
            raise self.error

    def _work(self) -> None:
        try:
            self._send_all()
        except AbandonedError:
            pass
        except Exception as error:  # noqa: BLE001 - raised by `flush`
            self._retry.error = error

    def _send_all(self) -> None:
        oldest = time.monotonic()
        while True:
            task: _Task | None = _Task()
            with contextlib.suppress(queue.Empty):
                task = self._queue.get(timeout=OLDEST_SECONDS)
            if task is None:
                break
            if not self._items:
                oldest = time.monotonic()
            while self._items and task.must_wait is not None and task.must_wait():
                self._send()
            self._take(task)
            while len(self._items) >= batches.ITEMS_PER_CALL:
                self._send()
            if self._items and time.monotonic() - oldest > OLDEST_SECONDS:
                self._send()
            self._side_calls.acknowledge()
        while self._items:
            self._send()
        self._side_calls.finish(self._call_action)

    def _take(self, task: _Task) -> None:
        self._share.wait_for_turn()
        if task.action is not None and task.is_side_call:
            self._side_calls.begin(task.action, task.name)
            items: list[Item] | None = []
        elif task.action is not None:
            while self._items:
                self._send()
            self._side_calls.wait_for_quick()
            items = [] if self._call_action(task.action, task.name, task.n_bytes) else None
        else:
            items = self._make_items(task)
        if items is None:
            self._acknowledgements.note_gap()
            return
        self._items += items
        self._acknowledgements.add_items(len(items), task.record)

    def _make_items(self, task: _Task) -> list[Item] | None:
        """Make the items of a task; None if MLflow does not answer the questions, or the disk cannot be read."""
        items: list[Item] = []
        make_items = task.make_items or (lambda: items)
        if task.reads_mlflow:
            return items if self._call_action(lambda: items.extend(make_items()), "params and tags") else None
        try:
            with self._share.work():
                return list(make_items())
        except Exception as error:  # noqa: BLE001 - later tasks are sent all the same
            self.n_unreadable += 1
            self.read_error = self.read_error or error
            return None

    def _call_action(self, action: Callable[[], None], name: str, n_bytes: int = 0) -> bool:
        """Call an action; return False if it fails while the run accepts other data."""
        for attempt in range(ATTEMPTS):
            if attempt:
                self._retry.pause(1.0)
            error = self._retry.until_it_works(
                lambda: self._writer.error_of(lambda: self._call_mlflow(action, n_bytes))
            )
            if error is None:
                return True
        self.undone[name] = error
        return False

    def _send(self) -> None:
        """Send the oldest items, as many as MLflow accepts in one call."""
        n = n_per_call(self._items)
        batch = self._items[:n]
        error = self._retry.until_it_works(lambda: self._writer.write(batch))
        if error is not None:
            self._note_denied(error)
        del self._items[:n]
        self._acknowledgements.note_sent(n)

    def _note_denied(self, error: Exception) -> None:
        """Leave items to a recovery to which MLflow denies access, although it accepts others."""
        self._acknowledgements.note_gap()
        if DENIED_ITEMS not in self.undone:
            self.undone[DENIED_ITEMS] = error
            self._on_trouble(f"MLflow does not accept {DENIED_ITEMS}, which is kept meanwhile: {reason(error)}")

    def _note_refusal(self, item: Item, error: Exception) -> None:
        self.n_refused += 1
        self.refusal = self.refusal or error
        self._set_aside(item, str(error))

    def _call_mlflow(self, call: Callable[[], object], n_bytes: int = 0) -> None:
        """Make a call to MLflow, within the time share, and if the server answers."""
        self._share.wait_for_turn()
        with self._share.work(), self._patience.call(n_bytes):
            ensure_reachable(self._tracking_uri)
            call()
        self._retry.note_success()

    def _call_control(self, call: Callable[[], object]) -> None:
        """Make the call for the control, after a call that failed."""
        self._call_mlflow(call)
        self._patience.note_refusal()

    def _count(self, items: list[Item]) -> None:
        self.n_sent += sum(isinstance(item, Metric) for item in items)
