"""Divergence within an epoch, from the losses of single batches, as they come."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import noise
from mlflow_hp.analysis.diagnosis.descent import BLOWN_UP

if TYPE_CHECKING:
    from collections.abc import Sequence

WINDOW = 8
"""Number of batches whose median is compared with that of the first three."""
DEVIATIONS = 3.0
"""Standard deviations of the noise of the logarithm of the loss that it must also have risen by: the median of three
of them and that of eight differ by 0.8 standard deviations."""
FAR = 300.0
"""Ratio to the first batches from which one window is enough; below, the window before must have risen too. Starts with
a large momentum or without warm-up rise by a hundred and come back within some steps."""
FALLS_BACK = (0.5, 0.05)
"""A loss comes back if its logarithm falls, from the first half of the window to the second, by more than so many
standard deviations and so much more."""
KEPT = 64
"""Number of first losses that the noise is estimated from."""


class BatchLosses:
    """Watches the batch losses of a fit for divergence.

    A fit diverges if the median of the last ``WINDOW`` losses is ``BLOWN_UP`` times that of the first three, and
    ``DEVIATIONS`` of the noise above it, in logarithms, and they do not fall back. With a loss that is not positive,
    nothing can be said.

    Attributes
    ----------
    n_steps : int
        Number of losses so far.
    start, level : float
        Medians of the first three and of the last ``WINDOW`` losses.
    """

    def __init__(self) -> None:
        self.n_steps = 0
        self._first: list[float] = []
        self._last: list[float] = []
        self._is_positive = True

    @property
    def start(self) -> float:
        """Median of the first three losses."""
        return sorted(self._first[:3])[1]

    @property
    def level(self) -> float:
        """Median of the last ``WINDOW`` losses."""
        return _median(self._last[-WINDOW:])

    def add(self, losses: Sequence[float]) -> bool:
        """Add finite losses of consecutive steps; return whether the fit diverges after one of them.

        Parameters
        ----------
        losses : sequence of float
            Losses of batches.

        Returns
        -------
        bool
            Whether it diverges; further losses may then be added, but need not.
        """
        if not self._is_positive or not losses:
            return False
        if min(losses) <= 0:
            self._is_positive = False
            return False
        if len(self._first) < KEPT:
            self._first += losses[: KEPT - len(self._first)]
        if self.n_steps >= 3 and max(losses) < BLOWN_UP * self.start:  # nearly always: no median can be that large
            self.n_steps += len(losses)
            self._last = [*self._last, *losses][-4 * WINDOW :]
            return False
        for loss in losses:
            self.n_steps += 1
            self._last.append(loss)
            if self.n_steps >= WINDOW + 3 and self._has_diverged():
                return True
        self._last = self._last[-4 * WINDOW :]
        return False

    def _has_diverged(self) -> bool:
        if _median(self._last[-WINDOW:]) < BLOWN_UP * self.start:
            return False
        start, last = math.log(self.start), np.log(self._last[-4 * WINDOW :])
        window = last[-WINDOW:].tolist()
        spread = max(noise(np.log(self._first)), noise(last))
        above = _median(window) - start - DEVIATIONS * spread
        half = WINDOW // 2
        fall = _median(window[:half]) - _median(window[half:])
        if above < math.log(BLOWN_UP) or fall > FALLS_BACK[0] * spread + FALLS_BACK[1]:
            return False
        if above >= math.log(FAR):
            return True
        before = last[-2 * WINDOW : -WINDOW].tolist()
        return self.n_steps >= 2 * WINDOW + 3 and _median(before) - start > math.log(BLOWN_UP) / 2


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2
