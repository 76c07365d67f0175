"""Events of a training: the largest jumps of the loss, and values that are not finite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

N_JUMPS = 5
"""Jumps that are listed."""
BEFORE = 20
"""Steps before a jump that it is compared with."""
LEAST = 5.0
"""Rise above the mean before, in usual changes, from which it is a jump."""
FEWEST = 5
"""Steps that a comparison takes at least."""
MAX_LISTED = 20
"""Beginnings of stretches that are not finite that are listed."""


def jumps(loss: np.ndarray, steps: np.ndarray, places: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Find the largest jumps of a loss by step: above the mean of the steps before, in their usual changes.

    The usual change is the mean absolute difference of consecutive losses among the ``BEFORE`` steps before. Of
    several jumps within as many steps, the largest is listed.

    Parameters
    ----------
    loss : ndarray of shape (n,)
        Loss of each batch.
    steps : ndarray of int, shape (n,)
        Numbers of these steps (0-based).
    places : mapping of str to ndarray of shape (n,)
        ``epoch`` and ``batch`` of each step, as far as known.

    Returns
    -------
    list of dict
        At most five, the largest first: ``step``, the ``places``, ``before`` (the mean before), ``loss``.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.run_page.events import jumps
    >>> loss = 1 + 0.01 * np.sin(np.arange(100.0))
    >>> loss[70] = 9.0
    >>> [jump["step"] for jump in jumps(loss, np.arange(100), {})][:1]
    [70]
    """
    if len(loss) < FEWEST + 1:
        return []
    known = np.flatnonzero(np.isfinite(loss))
    values = loss[known]
    if len(values) < FEWEST + 1:
        return []
    with np.errstate(all="ignore"):  # a loss of 1e300 is no reason to warn
        before = _mean_before(values, BEFORE)
        usual = _mean_before(np.abs(np.diff(values, prepend=values[:1])), BEFORE)
        rise = (values - before) / np.maximum(usual, 1e-12 * np.abs(before))
    rise[:FEWEST] = np.nan
    height = np.where(np.isfinite(rise) & (values > before), rise, -np.inf)
    found: list[dict[str, Any]] = []
    while len(found) < N_JUMPS and height.max() > LEAST:
        best = int(height.argmax())
        at = int(known[best])
        place = {name: int(column[at]) for name, column in places.items()}
        numbers = {"before": float(f"{before[best]:.6g}"), "loss": float(f"{values[best]:.6g}")}
        found.append({"step": int(steps[at]), **place, **numbers})
        height[max(0, best - BEFORE) : best + BEFORE + 1] = -np.inf
    return found


def _mean_before(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of the up to `width` values before each; NaN for the first."""
    sums = np.convolve(values, np.ones(width))[: len(values) - 1]  # no differences of sums: those cancel out
    return np.append(np.nan, sums / np.minimum(np.arange(1, len(values)), width))


def not_finite(
    columns: Mapping[str, np.ndarray], steps: np.ndarray, places: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """List where each column becomes NaN or infinite.

    Parameters
    ----------
    columns : mapping of str to ndarray of shape (n,)
        Values by step.
    steps : ndarray of int, shape (n,)
        Numbers of these steps (0-based).
    places : mapping of str to ndarray of shape (n,)
        ``epoch`` and ``batch`` of each step, as far as known.

    Returns
    -------
    list of dict
        ``column``, ``step`` at which it begins, ``n``, the number of such steps on end, and the ``places``; NaN in a
        column that has gaps, such as the cosine at the first step, is left out.
    """
    found: list[dict[str, Any]] = []
    for name, values in columns.items():
        bad = np.isinf(values) if _has_gaps(name) else ~np.isfinite(values)
        begins = np.flatnonzero(bad & ~np.append(False, bad[:-1])[: len(bad)])
        ends = np.flatnonzero(bad & ~np.append(bad[1:], False)[: len(bad)])
        for begin, end in list(zip(begins, ends, strict=True))[:MAX_LISTED]:
            place = {key: int(column[begin]) for key, column in places.items()}
            found.append({"column": name, "step": int(steps[begin]), "n": int(end - begin) + 1, **place})
    return sorted(found, key=lambda each: each["step"])[:MAX_LISTED]


def _has_gaps(column: str) -> bool:
    return not column.startswith(("batch_", "running_"))
