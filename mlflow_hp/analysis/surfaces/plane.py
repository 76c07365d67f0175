"""Planes through weight space, and the paths of trainings on them.

After Li, Xu, Taylor, Studer and Goldstein 2018, Visualizing the Loss Landscape of Neural Nets (NeurIPS).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mlflow_hp.history.weight_snapshots import Snapshots

MAX_SNAPSHOTS = 1000
"""Snapshots of all runs together that the principal plane is computed from; more are downsampled evenly."""

BLOCK_BYTES = 8 * 2**20
"""Size of the float64 blocks that snapshots are converted in."""

NEGLIGIBLE = 1e-12
"""Share of the path's variance below which a direction is rounding error."""

Weights = dict[str, np.ndarray]


class WeightPlane(NamedTuple):
    """A plane through weight space: ``origin + a directions[0] + b directions[1]``.

    Attributes
    ----------
    origin : dict of str to ndarray
        Tensor name -> float64 weights.
    directions : tuple of two dict of str to ndarray
        In the form of `origin`; orthonormal over all weights together in a principal plane, normalised by filter in a
        random one.
    kind : {"principal", "random"}
    variance_shares : tuple of float, or None
        Shares of the path's variance, 0 to 1, that the two directions of a principal plane explain.
    """

    origin: Weights
    directions: tuple[Weights, Weights]
    kind: str
    variance_shares: tuple[float, float] | None


def principal_plane(snapshots: Sequence[Snapshots]) -> WeightPlane:
    """Compute the plane of most variance of one path, or of the paths of several runs together.

    Principal components of w_t - w_T, with T the end of the first run (Li et al. 2018, section 7.2). They come from
    the n x n Gram matrix of the snapshots, which avoids a float64 matrix of n x all weights. A diverging path counts
    up to its first row that is not finite.

    Parameters
    ----------
    snapshots : sequence of Snapshots
        One per run, all with the same tensors. At most ``MAX_SNAPSHOTS`` are used, equally many of each run.

    Raises
    ------
    UserError
        If the runs' tensors differ, there are fewer than two weights, or a run begins with weights that are not
        finite.
    """
    snapshots = _with_common_names(snapshots)
    rows = [_usable_rows(run, max(2, MAX_SNAPSHOTS // len(snapshots))) for run in snapshots]
    first = snapshots[0]
    end = int(rows[0][-1])
    origin = {name: values[end].astype(np.float64) for name, values in first.tensors.items()}
    n = sum(map(len, rows))
    gram = np.zeros((n, n))
    for _, _, block in _displacements(snapshots, rows, origin):
        gram += block @ block.T
    centre = np.eye(n) - 1 / n
    variances, vectors = np.linalg.eigh(centre @ gram @ centre)
    total = max(float(variances.clip(0).sum()), np.finfo(float).tiny)
    leading = [-1 - i for i in range(min(2, n)) if variances[-1 - i] > NEGLIGIBLE * total]
    coefficients = centre @ vectors[:, leading]
    directions = np.zeros((len(leading), sum(values.size for values in origin.values())))
    for start, stop, block in _displacements(snapshots, rows, origin):
        directions[:, start:stop] = coefficients.T @ block
    shares = [float(variances[i]) / total for i in leading] + [0.0] * (2 - len(leading))
    one, other = (_unflatten(direction, origin) for direction in _orthonormal(directions))
    return WeightPlane(origin, (one, other), "principal", (shares[0], shares[1]))


def random_plane(weights: Mapping[str, np.ndarray], seed: int) -> WeightPlane:
    """Choose a plane through `weights` along two random directions, normalised by filter.

    A filter is everything that leads to one unit: a slice along the last axis of a kernel. Each filter of a Gaussian
    direction is scaled to the norm of that filter in the weights; tensors of one axis (biases, batch normalisation)
    stay as they are (Li et al. 2018, section 4, and their code).

    Raises
    ------
    UserError
        If the two directions are parallel or zero, as with very few weights.
    """
    rng = np.random.default_rng(seed)
    origin = {name: np.asarray(values, np.float64) for name, values in weights.items()}
    first, second = ({name: _normalized_by_filter(values, rng) for name, values in origin.items()} for _ in range(2))
    plane = WeightPlane(origin, (first, second), "random", None)
    products = _gram_matrix(plane)
    if not np.linalg.det(products) > 1e-9 * products[0, 0] * products[1, 1]:
        raise UserError(
            "two random directions of these weights are parallel, or zero: too few weights are in kernels, or all "
            'kernels are zero or not finite; choose kind="principal"'
        )
    return plane


def project(plane: WeightPlane, snapshots: Snapshots) -> np.ndarray:
    """Project snapshots onto the plane: coordinates (n, 2) of the nearest points; nan where one is not finite."""
    shapes = {name: values.shape for name, values in plane.origin.items()}
    snapshots = _rename_tensors(shapes, snapshots, ("the plane", "the run"))
    directions = np.stack([_flatten(direction) for direction in plane.directions])
    rows = [np.arange(len(snapshots.steps))]
    products = np.zeros((len(rows[0]), 2))
    with np.errstate(invalid="ignore", over="ignore"):
        for start, stop, block in _displacements([snapshots], rows, plane.origin):
            products += block @ directions[:, start:stop].T
        products[~np.isfinite(products).all(axis=1)] = np.nan
        return products @ np.linalg.inv(_gram_matrix(plane))


def window(paths: Sequence[np.ndarray], margin: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Ranges ((a_low, a_high), (b_low, b_high)) that contain all finite points (n, 2) of the paths.

    `margin` is the share of the width added on each side. Where a coordinate is the same for all points, its range
    is as wide as the other's, or 1.

    Raises
    ------
    UserError
        If no point is finite.
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


def match_tensors(
    first: Mapping[str, tuple[int, ...]], second: Mapping[str, tuple[int, ...]], titles: tuple[str, str]
) -> dict[str, str]:
    """Match the tensors of two models: by name, or by position where shapes and last parts of the names agree.

    Keras numbers the layers of a process, so that building the same model twice gives ``dense/kernel`` and then
    ``dense_1/kernel``.

    Parameters
    ----------
    first, second : mapping of str to tuple of int
        Name -> shape, in the model's order.
    titles : tuple of str
        Names of the two models in the error message.

    Returns
    -------
    dict of str to str
        Tensor of `first` -> the same tensor of `second`.

    Raises
    ------
    UserError
        If the tensors differ; the message names those that do.
    """
    if dict(first) == dict(second):
        return {name: name for name in first}
    unscoped_first, unscoped_second = (
        [(name.rpartition("/")[2], shape) for name, shape in shapes.items()] for shapes in (first, second)
    )
    if unscoped_first == unscoped_second:
        return dict(zip(first, second, strict=True))
    differ = [name for name in {**first, **second} if first.get(name) != second.get(name)]
    listed = ", ".join(f"{name} ({first.get(name, 'none')} and {second.get(name, 'none')})" for name in differ)
    raise UserError(f"{titles[0]} and {titles[1]} differ in the tensors {listed}; they must be of one architecture")


def _with_common_names(runs: Sequence[Snapshots]) -> list[Snapshots]:
    """Name and order the tensors of all runs as in the first."""
    if not runs:
        raise UserError("no snapshots to fit a plane to; give those of at least one run")
    first = _shapes(runs[0])
    if (size := sum(map(math.prod, first.values()))) < 2:
        raise UserError(f"the model has {size} trainable weights, and a plane needs two; draw the loss over it instead")
    return [_rename_tensors(first, run, ("run 1", f"run {number}")) for number, run in enumerate(runs, start=1)]


def _rename_tensors(shapes: Mapping[str, tuple[int, ...]], run: Snapshots, titles: tuple[str, str]) -> Snapshots:
    names = match_tensors(shapes, _shapes(run), titles)
    return run._replace(tensors={name: run.tensors[name_in_run] for name, name_in_run in names.items()})


def _shapes(run: Snapshots) -> dict[str, tuple[int, ...]]:
    return {name: values.shape[1:] for name, values in run.tensors.items()}


def _usable_rows(run: Snapshots, limit: int) -> np.ndarray:
    """Rows of a run before the first that is not finite, downsampled evenly to `limit`, with both ends."""
    finite = np.ones(len(run.steps), bool)
    for values in run.tensors.values():
        step = max(1, BLOCK_BYTES // max(1, values[0].nbytes))
        for start in range(0, len(values), step):
            part = values[start : start + step]
            finite[start : start + step] &= np.isfinite(part).reshape(len(part), -1).all(axis=1)
    n = len(finite) if finite.all() else int(np.argmin(finite))
    if not n:
        raise UserError("the weights of a run are not finite before its first step; start it from finite weights")
    return np.unique(np.linspace(0, n - 1, min(n, limit)).astype(int))


def _displacements(
    snapshots: Sequence[Snapshots], rows: Sequence[np.ndarray], origin: Mapping[str, np.ndarray]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield w - origin of all weights, flattened, in blocks: (start, stop, float64 columns (n, stop - start))."""
    n, done = sum(map(len, rows)), 0
    width = max(1, BLOCK_BYTES // (8 * n))
    for name, values in origin.items():
        flat = [run.tensors[name].reshape(len(run.steps), -1) for run in snapshots]
        for start in range(0, values.size, width):
            part = slice(start, min(start + width, values.size))
            block = np.concatenate([tensor[selected, part] for tensor, selected in zip(flat, rows, strict=True)])
            yield done + part.start, done + part.stop, block - values.reshape(-1)[part]
        done += values.size


def _orthonormal(directions: np.ndarray) -> np.ndarray:
    """Two orthonormal directions (2, size): those of `directions` (0 to 2 of them) first, then random ones."""
    rng = np.random.default_rng(0)
    result = np.zeros((2, directions.shape[1]))
    for i in range(2):
        direction = directions[i] if i < len(directions) else rng.normal(size=directions.shape[1])
        for _ in range(2):  # twice is enough (Parlett 1998, section 6.9)
            direction = direction / np.linalg.norm(direction)
            direction = direction - result[:i].T @ (result[:i] @ direction)
        result[i] = direction / np.linalg.norm(direction)
    return result


def _normalized_by_filter(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian direction whose filters (last axis) have the norms of those of `weights`."""
    direction = rng.normal(size=weights.shape)
    if weights.ndim <= 1:
        return np.zeros_like(weights)
    axes = tuple(range(weights.ndim - 1))
    norms, target_norms = (np.sqrt(np.square(values).sum(axis=axes)) for values in (direction, weights))
    return direction * (target_norms / norms)


def _gram_matrix(plane: WeightPlane) -> np.ndarray:
    directions = np.stack([_flatten(direction) for direction in plane.directions])
    return directions @ directions.T


def _flatten(weights: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(values) for values in weights.values()])


def _unflatten(flat: np.ndarray, like: Mapping[str, np.ndarray]) -> Weights:
    ends = np.cumsum([values.size for values in like.values()])
    return {n: part.reshape(v.shape) for (n, v), part in zip(like.items(), np.split(flat, ends[:-1]), strict=True)}


class Landscape(NamedTuple):
    """The loss on a plane, and the paths of trainings projected on it.

    Attributes
    ----------
    a, b : ndarray of shape (resolution,)
        Coordinates along the two directions of the plane, which is ``origin + a d1 + b d2``.
    loss : ndarray of shape (len(b), len(a))
        Not finite where the network's outputs are not.
    paths : dict of str to ndarray of shape (n, 2)
        Label -> (a, b) of each snapshot's nearest point on the plane.
    steps : dict of str to ndarray of shape (n,)
        Label -> number of steps taken before each snapshot.
    kind : {"principal", "random"}
    variance_shares : tuple of float, or None
        Shares of the paths' variance that the directions of a principal plane explain.
    sampling : str
        The steps that the paths show, as text.
    n_samples : int
        Rows of data that the loss is the mean of.
    evaluated : int
        Number of grid points whose loss was computed; the others are interpolated.
    """

    a: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    paths: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    kind: str
    variance_shares: tuple[float, float] | None
    sampling: str
    n_samples: int
    evaluated: int

    def __repr__(self) -> str:
        finite = self.loss[np.isfinite(self.loss)]
        span = f", from {finite.min():.4g} to {finite.max():.4g}" if finite.size else ", nowhere finite"
        return (
            f"Landscape: the loss on a {self.kind} plane of {len(self.a)} x {len(self.b)} points{span}, over "
            f"{count(self.n_samples, 'sample')}; paths of {printable(', '.join(self.paths)) or 'no training'}"
        )
