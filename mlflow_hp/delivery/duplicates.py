"""Metrics of an epoch that the program logs itself, by MLflow's autologging or a callback: they take precedence."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from mlflow_hp.tracking.run_observer import observer

if TYPE_CHECKING:
    from mlflow_hp.delivery.metric_points import Points

MAX_CALLBACK_SECONDS = 60.0
"""Longest time that an epoch's metrics wait for the callbacks after the recorder."""


class Duplicates:
    """Filter of an epoch's metrics that the program logs to the run itself; closed at the end of the fit.

    A metric that the program logs with the number of the epoch as its step is left out of that epoch; one that it logs
    at other steps, such as those of batches, is left out altogether.

    Parameters
    ----------
    run_id : str
        Id of the recorded run.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._names: set[str] = set()
        self._points: set[tuple[str, int]] = set()
        self._epoch: int | None = None
        self._epoch_steps: tuple[int, ...] = ()
        self._last_finished_epoch = -math.inf
        self._changed = threading.Condition()
        observer.on_metric(run_id, self._note_metric)

    def begin_epoch(self, epoch: int, keras_epoch: int) -> None:
        """Note that an epoch begins, which has another number in Keras: the callbacks of earlier epochs have run."""
        with self._changed:
            self._epoch, self._epoch_steps, self._last_finished_epoch = epoch, (epoch, keras_epoch), epoch - 1
            self._changed.notify_all()

    def close(self) -> None:
        """Note that the fit has ended."""
        observer.on_metric(self._run_id, None)
        with self._changed:
            self._last_finished_epoch = math.inf
            self._changed.notify_all()

    def must_wait(self, epoch: int) -> bool:
        """Return whether callbacks of an epoch may still log metrics."""
        return self._last_finished_epoch < epoch

    def remove(self, points: Points) -> Points:
        """Return an epoch's points without those that the program has logged; wait until all callbacks have run."""
        with self._changed:
            epoch = max((step for *_, step in points), default=0)
            self._changed.wait_for(lambda: self._last_finished_epoch >= epoch, MAX_CALLBACK_SECONDS)
            return [
                point for point in points if point[0] not in self._names and (point[0], point[3]) not in self._points
            ]

    def _note_metric(self, name: str, step: int) -> None:
        with self._changed:
            if self._epoch is not None and step in self._epoch_steps:
                self._points.add((name, self._epoch))
            elif self._epoch is not None:
                self._names.add(name)
