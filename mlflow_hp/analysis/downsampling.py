"""Points of a long history that are drawn: the lowest and highest of each stretch, so that no spike is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator


class Points(NamedTuple):
    """A metric of a run by step.

    Attributes
    ----------
    steps : ndarray of int64, shape (n_points,)
        Ascending, 0-based.
    values : ndarray of float64, shape (n_points,)
        Not finite where the metric was not.
    n : int
        How many points there are in the range that was asked for; more than n_points where they were downsampled.
    times : ndarray of int64, shape (n_points,)
        When each was logged, in milliseconds since the epoch.
    """

    steps: np.ndarray
    values: np.ndarray
    n: int
    times: np.ndarray


def downsample(
    steps: np.ndarray, *series: np.ndarray, buckets: int, low: float | None = None, high: float | None = None
) -> np.ndarray:
    """Choose points of one or more series over the same steps, so that their picture keeps its extremes.

    The axis is divided into equal stretches, the buckets: the pixels of a screen, or fewer. Of each bucket and series
    are kept the first lowest and the first highest finite point, and the first NaN, infinity and negative infinity; of
    all the first and the last point. Where there are no more than two points for each bucket and series, all are kept.

    Parameters
    ----------
    steps : ndarray of shape (n,)
        Ascending.
    *series : ndarray of shape (n,)
        Values at these steps: one series for a curve, two for a path in the plane.
    buckets : int
        Into how many stretches the axis is divided.
    low, high : float, optional
        First and last step of the axis, which curves of different length may share. Default to those of `steps`.

    Returns
    -------
    ndarray of int64, shape (n_kept,)
        Ascending indices of the points to keep.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.analysis import downsample
    >>> loss = np.array([5.0, 4.0, 9.0, 3.0, 2.0, 2.5, 1.0, 1.5])
    >>> downsample(np.arange(8), loss, buckets=2).tolist()
    [0, 2, 3, 5, 6, 7]
    """
    n = len(steps)
    if n <= 2 * buckets * len(series):
        return np.arange(n)
    low = steps[0] if low is None else low
    high = steps[-1] if high is None else high
    bucket = (steps.astype(np.float64) - low) // ((float(high) - float(low) + 1) / buckets)
    chosen = [np.array([0, n - 1])]
    for values in series:
        chosen += _extremes(np.flatnonzero(np.isfinite(values)), bucket, values)
        for other in (np.isnan(values), values == np.inf, values == -np.inf):
            index = np.flatnonzero(other)
            chosen.append(index[_is_start(bucket[index])])
    return np.unique(np.concatenate(chosen))


def _extremes(index: np.ndarray, bucket: np.ndarray, values: np.ndarray) -> Iterator[np.ndarray]:
    """Give the indices of each bucket's first lowest, and first highest, among the points `index`."""
    if len(index) == 0:
        return
    own, is_start = values[index], _is_start(bucket[index])
    group = np.cumsum(is_start) - 1
    for extreme in (np.minimum, np.maximum):
        reached = np.flatnonzero(own == extreme.reduceat(own, np.flatnonzero(is_start))[group])
        yield index[reached[_is_start(group[reached])]]


def _is_start(groups: np.ndarray) -> np.ndarray:
    """Mark the first of each run of equal numbers."""
    return np.append(True, groups[1:] != groups[:-1])[: len(groups)]
