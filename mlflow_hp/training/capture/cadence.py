"""Interval between the steps at which large tensors are reduced, such that it costs a given share of the time."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGE = 2**14
"""Number of elements above which a tensor is large: it is then reduced by itself, and only when it is due."""
FIRST_INTERVAL = 16
"""Interval in steps before anything is measured."""
ENOUGH_STEPS = 24
"""Ordinary steps after which the interval is set for the first time."""
ENOUGH_COSTS, MAX_COSTS = 16, 64
"""Measured costs of each turn from which statistics may be taken at every step, and number that is kept."""
SHORTEST_INTERVAL = 3
"""Shortest interval, unless it is 1, so that there are steps between which nothing is taken."""
LONGEST_INTERVAL = 2**20


class Cadence:
    """Chooses the interval from the times of the steps.

    A step at which statistics are due is longer than the others: before its end by copies of the weights, after it by
    the statistics. Both come on top of the median of the other steps. Their median for each turn of tensors, plus its
    standard error, the mean of that over the turns, divided by `overhead` and by the median step, is the interval.
    Statistics are taken at every step only if that is known well, as nothing can be measured then.

    Parameters
    ----------
    overhead : float
        Share of the time of the other steps, 0 to 1: 1 means every step, 0 once in a fit.

    Attributes
    ----------
    interval : int
        Statistics of a turn are due at steps 0, n, 2n, ... of a fit, and at its first steps, until all had their turn.
    """

    def __init__(self, overhead: float) -> None:
        self._overhead = overhead
        self.interval = 1 if overhead >= 1 else LONGEST_INTERVAL if overhead <= 0 else FIRST_INTERVAL
        self._ordinary: deque[float] = deque(maxlen=256)
        self._costs: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=MAX_COSTS))
        self.start()

    def start(self) -> None:
        """Begin a fit: the time since the last step says nothing."""
        self._times: list[float] = []
        self._turns: list[int] = []

    @property
    def is_measured(self) -> bool:
        """Whether the interval follows from measured times."""
        return not 0 < self._overhead < 1 or bool(self._costs and len(self._ordinary) >= ENOUGH_STEPS)

    def is_due(self, step: int, n_turns: int) -> bool:
        """Whether statistics of one of the turns are due at a step of the fit (0-based)."""
        return step < n_turns or step % self.interval == 0

    def observe(self, times: np.ndarray, turns: np.ndarray) -> None:
        """Take the times (k,), in seconds, of the next k steps, and the turn of each, -1 where none was due."""
        if not 0 < self._overhead < 1:
            return
        self._times += times.tolist()
        self._turns += turns.tolist()
        spans = np.diff(self._times)  # spans[i]: from step i to step i + 1
        is_due = np.array(self._turns) >= 0
        self._ordinary.extend(spans[~is_due[:-1] & ~is_due[1:]])
        if self._ordinary:
            typical = float(np.median(self._ordinary))
            for index in np.flatnonzero(is_due[1:-1] & ~is_due[:-2] & ~is_due[2:]) + 1:
                self._costs[self._turns[index]].append(spans[index - 1] + spans[index] - 2 * typical)
            if self.is_measured and typical > 0:
                cost = float(np.mean([_upper_median(costs) for costs in self._costs.values()]))
                steps = cost / (self._overhead * typical)
                is_cheap = steps <= 0.5 and min(map(len, self._costs.values())) >= ENOUGH_COSTS
                self.interval = (
                    1 if is_cheap else min(max(SHORTEST_INTERVAL, math.ceil(steps - 1e-6)), LONGEST_INTERVAL)
                )
        n_open = 2 if len(is_due) > 1 and is_due[-1] else 1  # the span after the last step is not known yet
        self._times, self._turns = self._times[-n_open:], self._turns[-n_open:]


def _upper_median(costs: Sequence[float]) -> float:
    """Median plus its standard error, from the median deviation, as of a normal distribution."""
    values = np.array(costs)
    median = np.median(values)
    deviation = 1.4826 * np.median(np.abs(values - median))
    return float(median + math.sqrt(math.pi / 2) * deviation / math.sqrt(len(values)))
