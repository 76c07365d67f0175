"""Metrics of an epoch that the program logs itself, by MLflow's autologging or a callback: ours give way to them."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from mlflow_hp.tracking.run_observer import observer

if TYPE_CHECKING:
    from mlflow_hp.delivery.metric_points import Points

LONGEST_CALLBACKS_SECONDS = 60.0
"""How long an epoch's metrics wait for the callbacks that come behind the recorder."""


class Duplicates:
    """Tells which metrics of an epoch the run has from somebody else; closed when the fit ends.

    A metric that the program logs at the number of the epoch is left out at that epoch; one that it logs at other
    steps, as batches have them, is the program's altogether.

    Parameters
    ----------
    run_id : str
        The run that is recorded into.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._names: set[str] = set()
        self._points: set[tuple[str, int]] = set()
        self._epoch: int | None = None
        self._numbers: tuple[int, ...] = ()
        self._over = -math.inf
        self._changed = threading.Condition()
        observer.on_metric(run_id, self._see)

    def begin_epoch(self, epoch: int, number: int) -> None:
        """An epoch begins, which is `number` to Keras; the callbacks of those before are through."""
        with self._changed:
            self._epoch, self._numbers, self._over = epoch, (epoch, number), epoch - 1
            self._changed.notify_all()

    def close(self) -> None:
        """The fit has ended."""
        observer.on_metric(self._run_id, None)
        with self._changed:
            self._over = math.inf
            self._changed.notify_all()

    def has_to_wait(self, epoch: int) -> bool:
        """Whether callbacks of an epoch may still log something."""
        return self._over < epoch

    def left(self, points: Points) -> Points:
        """Those points of an epoch that the program has not logged, once all callbacks had their turn."""
        with self._changed:
            epoch = max((step for *_, step in points), default=0)
            self._changed.wait_for(lambda: self._over >= epoch, LONGEST_CALLBACKS_SECONDS)
            return [
                point for point in points if point[0] not in self._names and (point[0], point[3]) not in self._points
            ]

    def _see(self, name: str, step: int) -> None:
        with self._changed:
            if self._epoch is not None and step in self._numbers:
                self._points.add((name, self._epoch))
            elif self._epoch is not None:
                self._names.add(name)
