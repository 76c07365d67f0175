"""Histories thinned for the screen: of each pixel's width the lowest and the highest stay, so that no spike is lost."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Points(NamedTuple):
    """A metric of a run by step.

    Attributes
    ----------
    steps : ndarray of int64, shape (n_points,)
        Ascending, 0-based.
    values : ndarray of float64, shape (n_points,)
        Not finite where the metric was not.
    n : int
        How many points there are in the range that was asked for; more than n_points where they were thinned.
    """

    steps: np.ndarray
    values: np.ndarray
    n: int


def thinned(steps: np.ndarray, values: np.ndarray, pixels: int, low: int, high: int) -> Points:
    """Points as they came where there are two for each pixel at most, else each pixel's lowest and highest.

    Parameters
    ----------
    steps, values : ndarray of shape (n,)
        By step, ascending.
    pixels : int
        Into how many the axis from step `low` to step `high` is divided.
    low, high : int
        Ends of the axis, which histories of different length may share.

    Returns
    -------
    Points
        Also the first and the last point are kept, and of a pixel with points that are not finite one of these.
    """
    n = len(steps)
    if n <= 2 * pixels:
        return Points(steps, values, n)
    pixel = (steps - low) * pixels // (high - low + 1)
    order = np.lexsort((values, pixel))  # what is nan comes last within its pixel
    ends = np.flatnonzero(np.diff(pixel[order], append=pixel.max() + 1))
    starts = np.append(0, ends[:-1] + 1)
    finite = np.isfinite(values[order])
    n_finite = np.add.reduceat(finite.astype(np.int64), starts)
    # Infinities sort to both sides of what is finite, so that the extremes hold them.
    kept = np.concatenate([[0, n - 1], order[starts], order[ends], order[starts + np.maximum(n_finite - 1, 0)]])
    kept = np.unique(kept)
    return Points(steps[kept], values[kept], n)
