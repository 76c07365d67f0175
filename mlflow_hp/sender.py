"""On the way to MLflow: metrics in full batches, from a background thread that leaves training its time."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

import mlflow
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from mlflow_hp.runs import ensure_reachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_hp.points import Points

FULL_BATCH = 1000
"""Metrics that MLflow takes in one call."""
SHARE_OF_TIME = 0.05
"""Share of the time that writing may take while training runs; it and training compete for Python's lock."""
FIRST_SECONDS = 1.0
"""Nothing is written before a training has run for so long: a shorter one is written at its end."""
OLDEST_SECONDS = 5.0
"""A batch that is not full is sent when it has waited for this long."""
LONGEST_PAUSE_SECONDS = 30.0
"""Pause between two attempts to reach a store that fails."""
PATIENCE_SECONDS = 10.0
"""How long `flush` tries a store that fails."""
REFUSALS = ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "PERMISSION_DENIED")
"""MLflow's error codes for what it will not take later either."""
STUCK_SECONDS = 60.0
"""How long `flush` waits for a call that does not come back."""


class _Item(NamedTuple):
    """Points to be made and sent, or something to be done; and the journal's record that says so."""

    make_points: Callable[[], Points] | None
    do: Callable[[], None] | None
    record: int | None


class Sender:
    """Writes to one run of MLflow in the background, and tries a store that fails again while training goes on.

    What is submitted is a function that makes the points when their turn comes: so the backlog of a slow store
    takes no memory.

    Parameters
    ----------
    run_id : str
        The run.
    tracking_uri : str, optional
        Where it is; by default the tracking URI in force.
    on_acknowledged : callable, optional
        Given, each time that MLflow has taken more, the number of the journal's records that it has all of.
    on_trouble : callable, optional
        Given a sentence when the store begins to fail, and when it is back.

    Attributes
    ----------
    sent, submitted : int
        Points that MLflow has, and that it is to have.
    error : Exception or None
        Why the last attempt to write failed; None where it did not.
    tracking_uri : str
        Where the run is.
    refused : list of Exception
        Why MLflow will never take some of it: that is left out.
    """

    def __init__(
        self,
        run_id: str,
        tracking_uri: str | None = None,
        *,
        on_acknowledged: Callable[[int], None] | None = None,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self.sent = 0
        self.submitted = 0
        self.error: Exception | None = None
        self.refused: list[Exception] = []
        self._run_id = run_id
        self.tracking_uri = tracking_uri or mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(self.tracking_uri)
        self._on_acknowledged = on_acknowledged or (lambda _: None)
        self._on_trouble = on_trouble or (lambda _: None)
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._hurried_at = 0.0
        self._waiting: list[Metric] = []
        self._taken = self._handled = 0
        self._unacknowledged: deque[tuple[int, int]] = deque()
        self._not_before = time.monotonic() + FIRST_SECONDS
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-sender", daemon=True)
        self._thread.start()

    def submit(self, count: int, make_points: Callable[[], Points], record: int | None = None) -> None:
        """Have the `count` points that `make_points` will give written, after all those before."""
        self.submitted += count
        self._queue.put(_Item(make_points, None, record))

    def do(self, action: Callable[[], None], record: int | None = None) -> None:
        """Have `action` done, which writes something else to MLflow; again, where the store fails."""
        self._queue.put(_Item(None, action, record))

    def flush(self, on_progress: Callable[[], object] | None = None) -> None:
        """Write what is left without pauses, and end.

        Parameters
        ----------
        on_progress : callable, optional
            Called some times a second meanwhile.

        Raises
        ------
        Exception
            Why MLflow didn't take all.
        """
        self._hurried_at = time.monotonic()
        self._hurry.set()
        self._queue.put(None)
        last, before = time.monotonic(), self.sent
        while self._thread.is_alive():
            self._thread.join(0.2)
            if on_progress is not None:
                on_progress()
            if self.sent != before:
                last, before = time.monotonic(), self.sent
            elif time.monotonic() - last > STUCK_SECONDS:
                raise TimeoutError(f"MLflow has not answered for {STUCK_SECONDS:g} s")
        if self.error is not None:
            raise self.error
        if self.refused:
            raise self.refused[0]

    def _work(self) -> None:
        try:
            oldest = time.monotonic()
            while True:
                item: _Item | None = _Item(list, None, None)
                with contextlib.suppress(queue.Empty):
                    item = self._queue.get(timeout=OLDEST_SECONDS)
                if item is None:
                    break
                if not self._waiting:
                    oldest = time.monotonic()
                self._take(item)
                while len(self._waiting) >= FULL_BATCH:
                    self._send()
                if self._waiting and time.monotonic() - oldest > OLDEST_SECONDS:
                    self._send()
            while self._waiting:
                self._send()
        except Exception as error:  # noqa: BLE001 - whatever it is, `flush` raises it
            self.error = error

    def _take(self, item: _Item) -> None:
        self._rest()
        if item.do is not None:
            self._until_it_works(item.do)
        elif item.make_points is not None:
            began = time.monotonic()
            points = [Metric(*point) for point in item.make_points()]
            self._waiting += points
            self._taken += len(points)
            self._worked_since(began)
        if item.record is not None:
            self._unacknowledged.append((self._taken, item.record))
            self._acknowledge()

    def _send(self) -> None:
        """Write the oldest points."""
        batch = self._waiting[:FULL_BATCH]
        if self._until_it_works(lambda: self._client.log_batch(self._run_id, metrics=batch)):
            self.sent += len(batch)
        self._handled += len(batch)
        del self._waiting[:FULL_BATCH]
        self._acknowledge()

    def _acknowledge(self) -> None:
        """Tell which records of the journal MLflow has all of."""
        done = None
        while self._unacknowledged and self._unacknowledged[0][0] <= self._handled:
            done = self._unacknowledged.popleft()[1]
        if done is not None:
            self._on_acknowledged(done + 1)

    def _until_it_works(self, write: Callable[[], None]) -> bool:
        """Do it; try again while training runs, and for a while once it has ended; then raise.

        Gives False where MLflow refuses it.
        """
        pause = 1.0
        while True:
            self._rest()
            began = time.monotonic()
            try:
                ensure_reachable(self.tracking_uri)
                write()
            except Exception as error:
                if isinstance(error, MlflowException) and error.error_code in REFUSALS:
                    self.refused.append(error)
                    return False
                if self.error is None:
                    self._on_trouble(f"MLflow does not take what is recorded, which is kept meanwhile: {error}")
                self.error = error
                if self._hurry.is_set() and time.monotonic() - self._hurried_at > PATIENCE_SECONDS:
                    raise
                self._not_before = time.monotonic() + pause
                if self._hurry.is_set():
                    time.sleep(min(pause, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            if self.error is not None:
                self._on_trouble("MLflow takes again what is recorded")
            self.error = None
            self._worked_since(began)
            return True

    def _rest(self) -> None:
        """Leave the time to the training until it is our turn; once it has ended, do not."""
        self._hurry.wait(max(0.0, self._not_before - time.monotonic()))

    def _worked_since(self, began: float) -> None:
        """Earn the pause for work that began at `began`."""
        now = time.monotonic()
        self._not_before = max(self._not_before, now) + (now - began) * (1 / SHARE_OF_TIME - 1)
