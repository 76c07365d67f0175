"""How far two recordings are apart: series of numbers, compared bit for bit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_hp.history import TrainingHistory


class Difference(NamedTuple):
    """One series that is not the same in two recordings.

    Attributes
    ----------
    name : str
        What it is of.
    n_differing, n_points : int
        Steps at which it differs, or that only one side has; and all steps of both sides.
    largest : float
        The largest absolute difference; nan where no step has two different numbers to subtract.
    relative : float
        The largest difference in relation to the larger of the two values.
    step : int
        Where the largest absolute difference is, or else the first of all differing steps.
    """

    name: str
    n_differing: int
    n_points: int
    largest: float
    relative: float
    step: int

    def __str__(self) -> str:
        told = f"{self.name}: {self.n_differing:,} of {self.n_points:,} steps differ"
        if np.isnan(self.largest):
            return f"{told}, first at step {self.step}"
        return f"{told}, at most by {self.largest:.3g} at step {self.step} (relative: {self.relative:.3g})"


class Series(NamedTuple):
    """Numbers by step.

    Attributes
    ----------
    steps : ndarray of int, shape (n,)
        Ascending, each once.
    values : ndarray, shape (n, ...)
    """

    steps: np.ndarray
    values: np.ndarray


def difference(name: str, one: Series, other: Series) -> Difference | None:
    """How two series differ; None where they are the same, bit for bit. Any NaN equals any NaN."""
    steps, here, there = np.intersect1d(one.steps, other.steps, assume_unique=True, return_indices=True)
    n_points = len(one.steps) + len(other.steps) - len(steps)
    alone = np.setxor1d(one.steps, other.steps, assume_unique=True)
    if one.values.shape[1:] != other.values.shape[1:]:
        return Difference(name, n_points, n_points, np.nan, np.nan, int(min(one.steps.min(), other.steps.min())))
    width = math.prod(one.values.shape[1:])
    a, b = (side.values[rows].reshape(len(rows), width) for side, rows in ((one, here), (other, there)))
    same = (a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b)
    differing = ~same.all(axis=1)
    n_differing = int(differing.sum()) + len(alone)
    if not n_differing:
        return None
    a, b = a[differing].astype(np.float64), b[differing].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        apart = np.abs(a - b)
        relative = apart / np.maximum(np.abs(a), np.abs(b))
    known = np.isfinite(apart) & (apart > 0)
    if not known.any():
        return Difference(name, n_differing, n_points, np.nan, np.nan, int(min([*steps[differing], *alone])))
    row = np.where(known, apart, -1.0).max(axis=1).argmax()
    most = float(apart[known].max()), float(relative[known].max())
    return Difference(name, n_differing, n_points, *most, int(steps[differing][row]))


def history_differences(one: TrainingHistory, other: TrainingHistory) -> Iterator[Difference]:
    """How two recorded trainings differ in steps, epochs and weights; times aside.

    Weights are compared as far as both have them: values, else statistics. Their rows are after steps, and -1 is
    before the first one. One tensor is in memory at a time.
    """
    for kind, columns, others in (("step", one.steps, other.steps), ("epoch", one.epochs, other.epochs)):
        for name in sorted({*columns, *others} - {kind, "time", "seconds"}):
            yield from _column(f"{kind} {name}", columns.get(name), others.get(name), first=0)
    recorded = {one.recorded, other.recorded}
    if "none" in recorded:
        return
    for name in dict.fromkeys(tensor.name for tensor in (*one.tensors, *other.tensors)):
        both = [_rows(history, name, values=recorded == {"values"}) for history in (one, other)]
        for kind in both[0] | both[1]:
            yield from _column(f"weights {name}{kind}", both[0].get(kind), both[1].get(kind), first=-1)


def _rows(history: TrainingHistory, tensor: str, *, values: bool) -> dict[str, np.ndarray]:
    """What was recorded of a tensor, by row."""
    if tensor not in [known.name for known in history.tensors]:
        return {}
    if values:
        return {"": history.weights(tensor)}
    return {f"/{name}": column for name, column in history.statistics(tensor).items()}


def _column(name: str, one: np.ndarray | None, other: np.ndarray | None, first: int) -> Iterator[Difference]:
    present = one if one is not None else other
    assert present is not None
    pair = (present[:0] if side is None else side for side in (one, other))
    found = difference(name, *(Series(np.arange(first, first + len(values)), values) for values in pair))
    if found is not None:
        yield found
