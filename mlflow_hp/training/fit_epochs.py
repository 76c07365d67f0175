"""Epochs of one fit: their numbers in the run, their values, and which was the best."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from mlflow_hp.history.step_record import distinct_names
from mlflow_hp.training.best_epoch import BestEpoch, Monitors
from mlflow_hp.training.capture.step_layout import numbers_of

if TYPE_CHECKING:
    from collections.abc import Iterable


class FitEpochs:
    """Counts the epochs of a fit, and keeps their values.

    Parameters
    ----------
    first : int
        Number (0-based) of the fit's first epoch in its run.
    callbacks : iterable of keras.callbacks.Callback
        Callbacks of the fit.

    Attributes
    ----------
    rows : list of dict of str to float
        ``epoch`` (0-based, in the run), Keras' logs and ``seconds`` of each epoch that has ended.
    current : int
        Number (0-based) of the current epoch in the run.
    restored : int or None
        Epoch (0-based, in the run) whose weights `EarlyStopping` restored at the end of the fit.
    best : BestEpoch or None
        The best epoch, once it is noted.
    """

    def __init__(self, first: int, callbacks: Iterable[Any]) -> None:
        self._first = self.current = first
        self._monitors = Monitors(callbacks)
        self._shift: int | None = None
        self._started = time.perf_counter()
        self.rows: list[dict[str, float]] = []
        self.restored: int | None = None
        self.best: BestEpoch | None = None

    @property
    def next(self) -> int:
        """Number (0-based) of the next epoch in the run; 0 if none has ended."""
        return int(self.rows[-1]["epoch"]) + 1 if self.rows else 0

    def begin(self, epoch: int) -> int:
        """Begin Keras' `epoch` (0-based in the fit); return its number in the run."""
        if self._shift is None:  # a second fit continues the run's epochs, unless `initial_epoch` does so already
            self._shift = max(0, self._first - epoch)
        self.current = epoch + self._shift
        self._started = time.perf_counter()
        return self.current

    def end(self, logs: dict[str, Any]) -> dict[str, float]:
        """End the current epoch; return its row."""
        numbers = numbers_of(logs)
        names = distinct_names(["epoch", "seconds", *numbers])[2:]  # a metric may have one of these names, too
        values = dict(zip(names, numbers.values(), strict=True))
        row = {"epoch": self.current, **values, "seconds": time.perf_counter() - self._started}
        self.rows.append(row)
        return row

    def note_restored(self) -> None:
        """Note from which epoch `EarlyStopping` restores the weights at the end of the fit."""
        restored = self._monitors.restored_epoch
        self.restored = None if restored is None else restored + (self._shift or 0)

    def note_best(self) -> BestEpoch | None:
        """Note which epoch was the best, and return it."""
        self.best = self._monitors.best_epoch(self.rows, self.restored)
        return self.best
