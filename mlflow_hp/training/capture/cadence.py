"""Interval between the steps at which large tensors are reduced, such that it costs a given share of the time."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

LARGE = 2**14
"""Number of elements above which a tensor is large: it is then reduced by itself, and only when it is due."""
FIRST_INTERVAL = 16
"""Interval in steps before anything is measured."""
ENOUGH_STEPS = 24
"""Ordinary steps after which the interval is set for the first time."""
LONGEST_INTERVAL = 2**20


class Cadence:
    """Chooses the interval from the times of the steps.

    A step at which statistics are due is longer than the others: before its end by copies of the weights, after it by
    the statistics. Both come on top of the median of the other steps; their median, divided by `overhead` and by the
    median step, is the interval.

    Parameters
    ----------
    overhead : float
        Share of the time of the other steps, 0 to 1: 1 means every step, 0 the first step alone.

    Attributes
    ----------
    interval : int
        Statistics are due at steps 0, n, 2n, ... of a fit.
    """

    def __init__(self, overhead: float) -> None:
        self._overhead = overhead
        self.interval = 1 if overhead >= 1 else LONGEST_INTERVAL if overhead <= 0 else FIRST_INTERVAL
        self._ordinary: deque[float] = deque(maxlen=256)
        self._costs: deque[float] = deque(maxlen=16)
        self.start()

    def start(self) -> None:
        """Begin a fit: the time since the last step says nothing."""
        self._times: list[float] = []
        self._due: list[bool] = []

    @property
    def is_measured(self) -> bool:
        """Whether the interval follows from measured times."""
        return not 0 < self._overhead < 1 or bool(self._costs and len(self._ordinary) >= ENOUGH_STEPS)

    def observe(self, times: np.ndarray, due: np.ndarray) -> None:
        """Take the times (k,), in seconds, of the next k steps, and at which of them statistics were due."""
        if not 0 < self._overhead < 1:
            return
        self._times += times.tolist()
        self._due += due.tolist()
        spans = np.diff(self._times)  # spans[i]: from step i to step i + 1
        is_due = np.array(self._due, bool)
        self._ordinary.extend(spans[~is_due[:-1] & ~is_due[1:]])
        if self._ordinary:
            typical = float(np.median(self._ordinary))
            for index in np.flatnonzero(is_due[1:-1] & ~is_due[:-2] & ~is_due[2:]) + 1:
                self._costs.append(spans[index - 1] + spans[index] - 2 * typical)
            if self.is_measured and typical > 0:
                steps = float(np.median(self._costs)) / (self._overhead * typical)
                self.interval = min(max(1 if steps <= 0.5 else 2, math.ceil(steps)), LONGEST_INTERVAL)
        n_open = 2 if len(is_due) > 1 and is_due[-1] else 1  # the span after the last step is not known yet
        self._times, self._due = self._times[-n_open:], self._due[-n_open:]
