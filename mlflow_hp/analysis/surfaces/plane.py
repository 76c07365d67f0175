"""Planes through weight space, and the paths of trainings on them.

After Li, Xu, Taylor, Studer and Goldstein 2018, Visualizing the Loss Landscape of Neural Nets (NeurIPS).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlflow_hp.history.weight_snapshots import Snapshots

MOST_ROWS = 1000
"""Snapshots, of all runs together, that the principal plane is computed from; more are thinned evenly."""

BLOCK_BYTES = 8 * 2**20
"""Size of the float64 copies that are made of parts of the snapshots."""

NEGLIGIBLE = 1e-12
"""Share of the path's variance below which a direction is rounding error."""

Weights = dict[str, np.ndarray]


class Plane(NamedTuple):
    """A plane through weight space: ``origin + a directions[0] + b directions[1]``.

    Attributes
    ----------
    origin : dict of str to ndarray
        Tensor by tensor, as the directions: float64.
    directions : tuple of two dict of str to ndarray
        Orthonormal over all weights together where the plane is principal; normalised by filter where it is random.
    kind : {"principal", "random"}
    held : tuple of float, or None
        Shares of the path's variance, 0 to 1, that the two directions of a principal plane hold.
    """

    origin: Weights
    directions: tuple[Weights, Weights]
    kind: str
    held: tuple[float, float] | None


def principal_plane(snapshots: Sequence[Snapshots]) -> Plane:
    """The plane of most variance of one path, or of the paths of several runs together.

    Principal components of w_t - w_T, with T the end of the first run (Li et al. 2018, section 7.2). They come from
    the snapshots' Gram matrix, n x n, so that there is never a matrix of n x all weights in float64. A path that
    diverges counts up to its first row that is not finite.

    Parameters
    ----------
    snapshots : sequence of Snapshots
        One per run, all with the same tensors. ``MOST_ROWS`` of all are used, equally many of each longer run.

    Raises
    ------
    UserError
        Where the runs' tensors differ, there are fewer than two weights, or a run begins with weights that are not
        finite.
    """
    snapshots = _same_architecture(snapshots)
    rows = [_rows_used(run, max(2, MOST_ROWS // len(snapshots))) for run in snapshots]
    first = snapshots[0]
    end = int(rows[0][-1])
    origin = {name: values[end].astype(np.float64) for name, values in first.tensors.items()}
    n = sum(map(len, rows))
    gram = np.zeros((n, n))
    for _, _, block in _moved(snapshots, rows, origin):
        gram += block @ block.T
    centre = np.eye(n) - 1 / n
    variances, vectors = np.linalg.eigh(centre @ gram @ centre)
    total = max(float(variances.clip(0).sum()), np.finfo(float).tiny)
    leading = [-1 - i for i in range(min(2, n)) if variances[-1 - i] > NEGLIGIBLE * total]
    coefficients = centre @ vectors[:, leading]
    found = np.zeros((len(leading), sum(values.size for values in origin.values())))
    for start, stop, block in _moved(snapshots, rows, origin):
        found[:, start:stop] = coefficients.T @ block
    held = [float(variances[i]) / total for i in leading] + [0.0] * (2 - len(leading))
    one, other = (_unflatten(direction, origin) for direction in _orthonormal(found))
    return Plane(origin, (one, other), "principal", (held[0], held[1]))


def random_plane(weights: Mapping[str, np.ndarray], seed: int) -> Plane:
    """The plane through `weights` along two random directions, normalised by filter.

    Each filter of a Gaussian direction, which is all that leads to one unit (the last axis of a kernel), is given
    the norm of that filter in the weights; tensors of one axis (biases, batch normalisation) don't move (Li et al.
    2018, section 4, and their code).

    Raises
    ------
    UserError
        Where the weights are so few that the two directions are one.
    """
    rng = np.random.default_rng(seed)
    origin = {name: np.asarray(values, np.float64) for name, values in weights.items()}
    one, other = ({name: _like_filters(values, rng) for name, values in origin.items()} for _ in range(2))
    plane = Plane(origin, (one, other), "random", None)
    products = _products(plane)
    if not np.linalg.det(products) > 1e-9 * products[0, 0] * products[1, 1]:
        raise UserError(
            "two random directions of these weights are parallel, or zero: too few of them are in kernels, or all "
            'kernels are zero or not finite; take kind="principal"'
        )
    return plane


def project(plane: Plane, snapshots: Snapshots) -> np.ndarray:
    """Coordinates (n, 2) of the point of the plane that is nearest to each snapshot; nan where one is not finite."""
    shapes = {name: values.shape for name, values in plane.origin.items()}
    snapshots = _named_as(shapes, snapshots, ("the plane", "the run"))
    directions = np.stack([_flatten(direction) for direction in plane.directions])
    rows = [np.arange(len(snapshots.steps))]
    along = np.zeros((len(rows[0]), 2))
    with np.errstate(invalid="ignore", over="ignore"):
        for start, stop, block in _moved([snapshots], rows, plane.origin):
            along += block @ directions[:, start:stop].T
        along[~np.isfinite(along).all(axis=1)] = np.nan
        return along @ np.linalg.inv(_products(plane))


def window(paths: Sequence[np.ndarray], margin: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ranges ((a_low, a_high), (b_low, b_high)) that hold all finite points (n, 2) of the paths.

    `margin` is the share of the width that is added on each side. Where all points have one coordinate in common,
    its range is as wide as the other's, or 1.
    """
    points = np.concatenate([np.asarray(path, np.float64).reshape(-1, 2) for path in paths])
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        raise UserError("no point of any path is finite, so there is nothing to draw; lower the learning rate")
    low, high = points.min(axis=0), points.max(axis=0)
    width = high - low
    width = np.where(width > 1e-9 * width.max(), width, width.max() or 1.0)
    middle, half = (low + high) / 2, (0.5 + margin) * width
    (a_low, b_low), (a_high, b_high) = (middle - half).tolist(), (middle + half).tolist()
    return (a_low, a_high), (b_low, b_high)


def same_tensors(
    one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]], who: tuple[str, str]
) -> dict[str, str]:
    """Which tensor of the other is each of one: by name, or by place where all shapes and last names agree in order.

    Keras numbers the layers of a process, so that the same model made twice has ``dense/kernel`` and then
    ``dense_1/kernel``.

    Parameters
    ----------
    one, other : mapping of str to tuple of int
        Name -> shape, in the model's order.
    who : tuple of str
        What the two are called in the error.

    Raises
    ------
    UserError
        Where both fail; it names the tensors that differ.
    """
    if dict(one) == dict(other):
        return {name: name for name in one}
    ours, theirs = ([(name.rpartition("/")[2], shape) for name, shape in it.items()] for it in (one, other))
    if ours == theirs:
        return dict(zip(one, other, strict=True))
    differ = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    said = ", ".join(f"{name} ({one.get(name, 'none')} and {other.get(name, 'none')})" for name in differ)
    raise UserError(f"{who[0]} and {who[1]} differ in the tensors {said}; they have to be of one architecture")


def _same_architecture(runs: Sequence[Snapshots]) -> list[Snapshots]:
    """The runs with the tensors named and ordered as in the first."""
    if not runs:
        raise UserError("there are no snapshots to lay a plane through; give those of at least one run")
    first = _shapes(runs[0])
    if (size := sum(map(math.prod, first.values()))) < 2:
        raise UserError(f"the model has {size} trainable weights, and a plane needs two; draw the loss over it instead")
    return [_named_as(first, run, ("run 1", f"run {number}")) for number, run in enumerate(runs, start=1)]


def _named_as(shapes: Mapping[str, tuple[int, ...]], run: Snapshots, who: tuple[str, str]) -> Snapshots:
    names = same_tensors(shapes, _shapes(run), who)
    return run._replace(tensors={name: run.tensors[theirs] for name, theirs in names.items()})


def _shapes(run: Snapshots) -> dict[str, tuple[int, ...]]:
    return {name: values.shape[1:] for name, values in run.tensors.items()}


def _rows_used(run: Snapshots, most: int) -> np.ndarray:
    """Rows of a run before the first that is not finite, thinned evenly to `most`, with both ends."""
    finite = np.ones(len(run.steps), bool)
    for values in run.tensors.values():
        step = max(1, BLOCK_BYTES // max(1, values[0].nbytes))
        for start in range(0, len(values), step):
            part = values[start : start + step]
            finite[start : start + step] &= np.isfinite(part).reshape(len(part), -1).all(axis=1)
    n = len(finite) if finite.all() else int(np.argmin(finite))
    if not n:
        raise UserError("the weights of a run are not finite before its first step; start it from finite weights")
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(int))


def _moved(
    snapshots: Sequence[Snapshots], rows: Sequence[np.ndarray], origin: Mapping[str, np.ndarray]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Columns start to stop of w - origin, all weights flattened: (start, stop, float64 (n, stop - start))."""
    n, done = sum(map(len, rows)), 0
    width = max(1, BLOCK_BYTES // (8 * n))
    for name, at in origin.items():
        flat = [run.tensors[name].reshape(len(run.steps), -1) for run in snapshots]
        for start in range(0, at.size, width):
            part = slice(start, min(start + width, at.size))
            block = np.concatenate([tensor[chosen, part] for tensor, chosen in zip(flat, rows, strict=True)])
            yield done + part.start, done + part.stop, block - at.reshape(-1)[part]
        done += at.size


def _orthonormal(found: np.ndarray) -> np.ndarray:
    """Two orthonormal directions (2, size), the given ones (0 to 2 of them) first; what lacks is random."""
    rng = np.random.default_rng(0)
    result = np.zeros((2, found.shape[1]))
    for i in range(2):
        direction = found[i] if i < len(found) else rng.normal(size=found.shape[1])
        for _ in range(2):  # twice is enough (Parlett 1998, section 6.9)
            direction = direction / np.linalg.norm(direction)
            direction = direction - result[:i].T @ (result[:i] @ direction)
        result[i] = direction / np.linalg.norm(direction)
    return result


def _like_filters(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian direction of which each filter (last axis) has the norm that it has in the weights."""
    direction = rng.normal(size=weights.shape)
    if weights.ndim <= 1:
        return np.zeros_like(weights)
    axes = tuple(range(weights.ndim - 1))
    ours, theirs = (np.sqrt(np.square(values).sum(axis=axes)) for values in (direction, weights))
    return direction * (theirs / ours)


def _products(plane: Plane) -> np.ndarray:
    directions = np.stack([_flatten(direction) for direction in plane.directions])
    return directions @ directions.T


def _flatten(weights: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(values) for values in weights.values()])


def _unflatten(flat: np.ndarray, like: Mapping[str, np.ndarray]) -> Weights:
    ends = np.cumsum([values.size for values in like.values()])
    return {n: part.reshape(v.shape) for (n, v), part in zip(like.items(), np.split(flat, ends[:-1]), strict=True)}


class Landscape(NamedTuple):
    """The loss on a plane, and the paths on it.

    Attributes
    ----------
    a, b : ndarray of shape (resolution,)
        Coordinates along the two directions of the plane, which is ``origin + a d1 + b d2``.
    loss : ndarray of shape (len(b), len(a))
        Not finite where the network's outputs are not.
    paths : dict of str to ndarray of shape (n, 2)
        Label -> (a, b) of each snapshot: where it is nearest on the plane.
    steps : dict of str to ndarray of shape (n,)
        Label -> how many steps were taken before each snapshot.
    kind : {"principal", "random"}
    held : tuple of float, or None
        Shares of the paths' variance that the directions of a principal plane hold.
    thinning : str
        Which of the trainings' steps the paths show.
    n_samples : int
        Rows of the data that the loss was taken over.
    evaluated : int
        Points of the grid whose loss was computed; the others are interpolated.
    """

    a: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    paths: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    kind: str
    held: tuple[float, float] | None
    thinning: str
    n_samples: int
    evaluated: int
