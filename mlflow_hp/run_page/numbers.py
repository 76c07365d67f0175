"""Numbers for JSON, and the smoothing of curves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable


def rounded(values: np.ndarray | Iterable[float], digits: int = 6) -> list[float | None]:
    """Round to significant digits; None for what is not finite, which JSON does not have.

    Parameters
    ----------
    values : ndarray of shape (n,)
        Numbers.
    digits : int
        Significant digits. Defaults to 6.

    Returns
    -------
    list of float or None
        The numbers.

    Examples
    --------
    >>> from mlflow_hp.run_page.numbers import rounded
    >>> rounded([0.123456789, float("nan")], 3)
    [0.123, None]
    """
    array = np.asarray(values, np.float64)
    is_finite = np.isfinite(array)
    return [float(f"{value:.{digits}g}") if ok else None for value, ok in zip(array.tolist(), is_finite, strict=True)]


def moving_mean(values: np.ndarray, width: int, positions: np.ndarray) -> np.ndarray:
    """Average the finite values of a window around some positions; it is narrower at the ends.

    Parameters
    ----------
    values : ndarray of shape (n,)
        A series.
    width : int
        Values of the window.
    positions : ndarray of int, shape (k,)
        Indices of its centres (0-based).

    Returns
    -------
    ndarray of shape (k,)
        The means, NaN where the window has no finite value.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.run_page.numbers import moving_mean
    >>> moving_mean(np.array([1.0, 2.0, 6.0, np.nan]), 3, np.arange(4)).tolist()
    [1.5, 3.0, 4.0, 6.0]
    """
    means = np.full(len(positions), np.nan)
    for number, position in enumerate(positions):
        window = values[max(0, position - (width - 1) // 2) : position + width // 2 + 1]
        window = window[np.isfinite(window)]
        if len(window):
            means[number] = window.mean()
    return means
