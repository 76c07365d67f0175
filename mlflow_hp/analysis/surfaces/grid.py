"""A function on a grid, evaluated where necessary and interpolated where that is accurate enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

CLIFF = 1000.0
"""Stand-in for the logarithm of an infinite loss; larger than that of the largest float64."""


def coarse_to_fine(
    evaluate: Callable[[np.ndarray], np.ndarray], a: np.ndarray, b: np.ndarray, tolerance: float
) -> tuple[np.ndarray, int]:
    """Compute losses on the grid of `a` and `b`, interpolating where that is accurate enough.

    Every fourth point of each axis is evaluated, then the middle of each cell between them. Where cubic
    interpolation of the logarithm of the loss is off by at most `tolerance` there, the cell is interpolated;
    otherwise it is split into four cells, which are treated in the same way. (Where a loss is not positive, the loss
    itself is interpolated, and the tolerance is relative to the spread of the first points.)

    Parameters
    ----------
    evaluate : callable
        Points (k, 2) -> losses (k,). Called at most five times.
    a, b : ndarray of at least two numbers each
        Ascending.
    tolerance : float
        Relative error allowed in the middle of an interpolated cell; elsewhere in the cell the error may be larger
        (up to three times in the tests).

    Returns
    -------
    losses : ndarray of shape (len(b), len(a))
    evaluated : int
        Number of points evaluated.
    """
    losses, known = np.full((len(b), len(a)), np.nan), np.zeros((len(b), len(a)), bool)

    def evaluate_at(wanted: np.ndarray) -> None:
        row, column = np.nonzero(wanted & ~known)
        if len(row):
            losses[row, column] = evaluate(np.column_stack([a[column], b[row]]))
            known[row, column] = True

    rows, columns = _every(4, len(b)), _every(4, len(a))
    evaluate_at(_mask(known.shape, rows, columns))
    finite = losses[np.isfinite(losses)]
    logarithmic = bool((finite > 0).all())
    spread = 1.0 if logarithmic else float(np.ptp(finite)) or 1.0
    allowed = np.log1p(tolerance) if logarithmic else tolerance

    def log_losses() -> np.ndarray:
        """Quantity to interpolate; bounded, so that a cell next to an infinite loss fails the tolerance."""
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log(losses) if logarithmic else losses / spread
        return np.nan_to_num(values, nan=CLIFF, posinf=CLIFF, neginf=-CLIFF)

    heights = log_losses()
    active = np.ones((len(rows) - 1, len(columns) - 1), bool)
    for stride in (2, 1):
        guess = _cubic(b[rows], b) @ heights[np.ix_(rows, columns)] @ _cubic(a[columns], a).T
        row, column = (knots[:-1] + stride * (np.diff(knots) > stride) for knots in (rows, columns))
        middle = np.ix_(row, column)
        untried = (row == rows[:-1])[:, None] & (column == columns[:-1])  # a border cell without a middle point
        wanted = np.zeros_like(known)
        wanted[middle] = active
        evaluate_at(wanted)
        active &= untried | ~(np.abs(log_losses() - guess)[middle] <= allowed)
        for i, j in np.argwhere(active):
            wanted[rows[i] : rows[i + 1] + 1, columns[j] : columns[j + 1] + 1] = True
        finer_rows, finer_columns = _every(stride, len(b)), _every(stride, len(a))
        evaluate_at(wanted & _mask(known.shape, finer_rows, finer_columns))
        heights = np.where(known, log_losses(), guess)
        parents = (np.searchsorted(k, f[:-1], "right") - 1 for k, f in ((rows, finer_rows), (columns, finer_columns)))
        active = active[np.ix_(*parents)]
        rows, columns = finer_rows, finer_columns
    with np.errstate(over="ignore"):
        filled = np.exp(heights) if logarithmic else spread * heights
    filled[heights > CLIFF / 2] = np.inf
    return np.where(known, losses, filled), int(known.sum())


def _every(stride: int, n: int) -> np.ndarray:
    """0, stride, 2 stride, ... and n - 1."""
    return np.unique(np.append(np.arange(0, n, stride), n - 1))


def _mask(shape: tuple[int, int], rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[np.ix_(rows, columns)] = True
    return mask


def _cubic(knots: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Matrix (len(at), len(knots)) of cubic Lagrange interpolation from the four nearest knots."""
    order = min(4, len(knots))
    first = np.clip(np.searchsorted(knots, at, "right") - order // 2, 0, len(knots) - order)
    matrix = np.zeros((len(at), len(knots)))
    for i in range(order):
        others = [first + j for j in range(order) if j != i]
        near = [(at - knots[other]) / (knots[first + i] - knots[other]) for other in others]
        matrix[np.arange(len(at)), first + i] = np.prod(near, axis=0)
    return matrix
