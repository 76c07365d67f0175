"""Thinning of metrics by step: the lowest and highest of each bucket of consecutive steps, so that no spike is lost."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

SMALLEST_BUCKET = 4
"""Steps of the first buckets: the lowest and highest of two are all."""
HORIZON = 3
"""A training whose end is not near is expected to last this many times as long as up to now, so that one that is
stopped early was not thinned for steps that it never did."""
THE_REST = 2**62
"""Steps of a last bucket that is never full."""
RESERVE = 6
"""Points of each metric that are kept for the last bucket and the last step."""
_N_KINDS = 5
"""Of a bucket are kept the first lowest and highest finite value, and the first NaN, infinity and negative infinity."""


class Chosen(NamedTuple):
    """Chosen points of one metric, by the number of the metric: values, times and steps in the order of the steps."""

    metric: int
    values: np.ndarray
    times: np.ndarray
    steps: np.ndarray


class Thinning:
    """Chooses the points of metrics, row by row, within a budget. A replay of the rows chooses the same.

    As long as the budget allows, every point is chosen. Then the rows are divided into buckets, of which each metric
    keeps its extremes; the buckets are doubled as the budget is used up. The first and the last row are always chosen.

    Parameters
    ----------
    n_metrics : int
        Number of metrics.
    max_points : int, optional
        The budget, in points. Defaults to no limit; four for each metric are chosen whatever it is.
    n_rows : int, optional
        Number of rows at most. Defaults to unknown.

    Attributes
    ----------
    bucket : int
        Number of rows of the current bucket; 1 while every point is chosen.
    n_whole : int
        Number of rows of which every point was chosen, before the first bucket.
    """

    def __init__(self, n_metrics: int, max_points: int | None = None, n_rows: int | None = None) -> None:
        self.bucket = 1
        self.n_whole = 0
        self._n_metrics = n_metrics
        self._budget = math.inf if max_points is None else max_points
        self._n_rows = math.inf if n_rows is None else n_rows
        self._n_used = self._n_seen = 0
        self._extremes: _Extremes | None = None

    def add(self, values: np.ndarray, times: np.ndarray, steps: np.ndarray) -> list[Chosen]:
        """Take the next rows, and return the points that are chosen by now.

        Parameters
        ----------
        values : ndarray of shape (k, n_metrics)
            Perhaps masked: a masked value is no point.
        times, steps : ndarray of shape (k,)
            Time and step of each row.
        """
        chosen, start = list[Chosen](), 0
        while start < len(steps):
            if self._extremes is None or self._extremes.n_rows >= self.bucket:
                chosen += self._next_bucket()
            n_rows = self._n_that_fit() if self._extremes is None else self.bucket - self._extremes.n_rows
            rows = slice(start, min(start + n_rows, len(steps)))
            start = rows.stop
            n_new = rows.stop - rows.start
            self._n_seen += n_new
            if self._extremes is None:
                chosen += _all_points(values[rows], times[rows], steps[rows])
                self._n_used += n_new * self._n_metrics
                self.n_whole += n_new
            else:
                self._extremes.add(values[rows], times[rows], steps[rows])
        return chosen

    def rest(self) -> list[Chosen]:
        """Return the points of the last bucket, and of the last row."""
        extremes, self._extremes = self._extremes, None
        return [] if extremes is None else extremes.points(with_last=True)

    def _next_bucket(self) -> list[Chosen]:
        """Close the bucket, return its points, and open the next if there are to be buckets."""
        chosen: list[Chosen] = []
        if self._extremes is not None:
            chosen = self._extremes.points()
            self._n_used += 2 * self._n_metrics + self._extremes.n_not_finite
        elif self._n_that_fit():
            return chosen
        left = self._budget - self._n_used - RESERVE * self._n_metrics
        needed = 2 * self._n_metrics * self._n_expected / left if left > 0 else math.inf
        self.bucket = max(self.bucket, SMALLEST_BUCKET)
        while self.bucket < min(needed, THE_REST):
            self.bucket *= 2
        self._extremes = _Extremes(self._n_metrics)
        return chosen

    @property
    def _n_expected(self) -> float:
        """Number of rows that are still expected."""
        rest = self._n_rows - self._n_seen
        horizon = HORIZON * self._n_seen
        return min(rest, horizon) if rest > 0 else horizon

    def _n_that_fit(self) -> int:
        """Number of rows of which every point can be chosen before the expected rest would exceed the budget."""
        if self._budget == math.inf:
            return THE_REST
        if self._n_seen < self._n_rows <= self._budget / max(self._n_metrics, 1):
            return int(self._n_rows) - self._n_seen
        n_whole = int(self._budget // ((HORIZON + 1) * max(self._n_metrics, 1)))
        return max(n_whole, 1) - self._n_seen if self._n_seen < max(n_whole, 1) else 0


class _Extremes:
    """Extremes of each metric in the rows of one bucket, and its last row."""

    def __init__(self, n_metrics: int) -> None:
        self.n_rows = 0
        shape = (_N_KINDS, n_metrics)
        self._ranks = np.full(shape, np.inf)
        self._values, self._times, self._steps = np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self._last: tuple[np.ndarray, int, int]

    @property
    def n_not_finite(self) -> int:
        """Number of points that are not finite."""
        return int(np.count_nonzero(self._ranks[2:] < np.inf))

    def add(self, values: np.ndarray, times: np.ndarray, steps: np.ndarray) -> None:
        """Take further rows."""
        self.n_rows += len(steps)
        self._last = values[-1], int(times[-1]), int(steps[-1])
        numbers, is_there = np.ma.getdata(values), ~np.ma.getmaskarray(values)
        is_finite = np.isfinite(numbers)
        zeros, columns = np.zeros_like(numbers), np.arange(numbers.shape[1])
        kinds = (
            (is_finite, numbers),
            (is_finite, -numbers),
            (np.isnan(numbers), zeros),
            (numbers == np.inf, zeros),
            (numbers == -np.inf, zeros),
        )
        for kind, (is_kind, rank) in enumerate(kinds):
            ranks = np.where(is_kind & is_there, rank, np.inf)
            row = ranks.argmin(axis=0)
            first = ranks[row, columns]
            is_new = first < self._ranks[kind]
            self._ranks[kind, is_new] = first[is_new]
            self._values[kind, is_new] = numbers[row, columns][is_new]
            self._times[kind, is_new], self._steps[kind, is_new] = times[row][is_new], steps[row][is_new]

    def points(self, *, with_last: bool = False) -> list[Chosen]:
        """Return the points of the extremes, and of the last row if `with_last`."""
        values, times, steps, is_there = self._values, self._times, self._steps, self._ranks < np.inf
        if with_last:
            last, time, step = self._last
            values = np.vstack([values, np.ma.getdata(last)])
            times, steps = (
                np.vstack([times, np.full_like(times[0], time)]),
                np.vstack([steps, np.full_like(steps[0], step)]),
            )
            is_there = np.vstack([is_there, ~np.ma.getmaskarray(last)])
        chosen = []
        for metric in np.flatnonzero(is_there.any(axis=0)).tolist():
            kinds = np.flatnonzero(is_there[:, metric])
            _, distinct = np.unique(steps[kinds, metric], return_index=True)
            at = kinds[distinct]
            chosen.append(Chosen(metric, values[at, metric], times[at, metric], steps[at, metric]))
        return chosen


def _all_points(values: np.ndarray, times: np.ndarray, steps: np.ndarray) -> list[Chosen]:
    is_there = ~np.ma.getmaskarray(values)
    numbers = np.ma.getdata(values)
    rows = ((metric, np.flatnonzero(is_there[:, metric])) for metric in range(numbers.shape[1]))
    return [Chosen(metric, numbers[at, metric], times[at], steps[at]) for metric, at in rows if len(at)]
