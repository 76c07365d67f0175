"""Metrics on their way to MLflow: full batches, from a background thread that leaves training its time."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Metric

from mlflow_hp.runs import ensure_reachable

if TYPE_CHECKING:
    from collections.abc import Callable

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

Points = list[tuple[str, float, int, int]]
"""Metric points: name, value, time in milliseconds since the epoch, and step (0-based)."""


class MetricSender:
    """Writes metrics of one run to MLflow in the background.

    What is submitted is a function that makes the points when their turn comes: so the backlog of a slow store
    takes no memory.

    Parameters
    ----------
    run_id : str
        The run.

    Attributes
    ----------
    sent, submitted : int
        Points that MLflow has, and that it is to have.
    error : Exception or None
        Why the last attempt to write failed; None where it did not.
    """

    def __init__(self, run_id: str) -> None:
        self.sent = 0
        self.submitted = 0
        self.error: Exception | None = None
        self._run_id = run_id
        self._tracking_uri = mlflow.get_tracking_uri()
        self._client = mlflow.MlflowClient(self._tracking_uri)
        self._queue: queue.SimpleQueue[Callable[[], Points] | None] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self._waiting: list[Metric] = []
        self._not_before = time.monotonic() + FIRST_SECONDS
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-sender", daemon=True)
        self._thread.start()

    def submit(self, count: int, make_points: Callable[[], Points]) -> None:
        """Have the `count` points that `make_points` will give written, after all those before."""
        self.submitted += count
        self._queue.put(make_points)

    def flush(self, on_progress: Callable[[], object] | None = None) -> None:
        """Write what is left without pauses, and end.

        Parameters
        ----------
        on_progress : callable, optional
            Called some times a second meanwhile.

        Raises
        ------
        Exception
            Why MLflow didn't take all: `error`.
        """
        self._hurry.set()
        self._queue.put(None)
        while self._thread.is_alive():
            self._thread.join(0.2)
            if on_progress is not None:
                on_progress()
        if self.error is not None:
            raise self.error

    def _work(self) -> None:
        oldest = time.monotonic()
        while True:
            make_points: Callable[[], Points] | None = list
            with contextlib.suppress(queue.Empty):
                make_points = self._queue.get(timeout=OLDEST_SECONDS)
            if make_points is None:
                break
            if not self._waiting:
                oldest = time.monotonic()
            try:
                self._rest()
                began = time.monotonic()
                self._waiting += [Metric(*point) for point in make_points()]
                self._worked_since(began)
                while len(self._waiting) >= FULL_BATCH:
                    self._send()
                if self._waiting and time.monotonic() - oldest > OLDEST_SECONDS:
                    self._send()
            except Exception as error:  # noqa: BLE001 - whatever it is, `flush` raises it
                self.error = error
                return
        try:
            while self._waiting:
                self._send()
        except Exception as error:  # noqa: BLE001
            self.error = error

    def _rest(self) -> None:
        """Leave the time to the training until it is our turn; once it has ended, do not."""
        self._hurry.wait(max(0.0, self._not_before - time.monotonic()))

    def _worked_since(self, began: float) -> None:
        """Earn the pause for work that began at `began`."""
        now = time.monotonic()
        self._not_before = max(self._not_before, now) + (now - began) * (1 / SHARE_OF_TIME - 1)

    def _send(self) -> None:
        """Write the oldest points; try again while training runs, and raise once it has ended."""
        pause = 1.0
        while True:
            self._rest()
            began = time.monotonic()
            batch = self._waiting[:FULL_BATCH]
            try:
                ensure_reachable(self._tracking_uri)
                self._client.log_batch(self._run_id, metrics=batch)
            except Exception as error:
                self.error = error
                if self._hurry.is_set():
                    raise
                self._not_before = time.monotonic() + pause
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            self.error = None
            self.sent += len(batch)
            del self._waiting[:FULL_BATCH]
            self._worked_since(began)
            return
