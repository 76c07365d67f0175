"""Centred moving average of noisy values, such as the losses of batches."""

from __future__ import annotations

import numpy as np

SHARE = 20
"""Windows that a series is divided into."""
MIN_WIDTH, MAX_WIDTH = 5, 501
"""Fewest and most values in a window."""


def window_width(n: int) -> int:
    """Width of the window of a moving average over a series: a twentieth of it, odd, from 5 to 501 values.

    Parameters
    ----------
    n : int
        Values in the series.

    Returns
    -------
    int
        Values in a window.

    Examples
    --------
    >>> from mlflow_hp.analysis import window_width
    >>> window_width(1000)
    51
    """
    return int(np.clip(n // SHARE, MIN_WIDTH, MAX_WIDTH)) // 2 * 2 + 1


def centred_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of the finite ones of the `width` values around each; at both ends of the series, of fewer.

    Unlike an exponential or a running mean it has no lag, so it rises and falls where the values do.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Noisy values.
    width : int
        Values in a window, odd.

    Returns
    -------
    ndarray of shape (n,)
        The means; NaN where the value itself is not finite.
    """
    if not len(values):
        return np.zeros(0)
    width = min(width, 2 * len(values) - 1)
    finite = np.isfinite(values)
    window = np.ones(width)
    total = np.convolve(np.where(finite, values, 0.0), window)[width // 2 : width // 2 + len(values)]
    count = np.convolve(finite.astype(np.float64), window)[width // 2 : width // 2 + len(values)]
    return np.where(finite, total / np.maximum(np.round(count), 1), np.nan)
