"""The loss of a Keras model on a plane through its weight space, with the paths of trainings on it."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops, tree
from tqdm import tqdm

from mlflow_hp._compat.keras import build_loss, compute_loss
from mlflow_hp.analysis.surfaces.grid import coarse_to_fine
from mlflow_hp.analysis.surfaces.plane import (
    Landscape,
    WeightPlane,
    match_tensors,
    principal_plane,
    project,
    random_plane,
    window,
)
from mlflow_hp.errors import UserError
from mlflow_hp.training.capture.step_layout import to_numpy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow_hp.history.weight_snapshots import Snapshots

MARGIN = 0.15
"""Margin on each side of the paths, as a share of their width."""

UNIT = np.array([[-1.0, -1.0], [1.0, 1.0]])
"""Corners of the smallest window of a random plane: each filter moved by its own norm."""

TOLERANCE = 0.02
"""Relative error of the loss allowed for interpolated points."""

POINTS_PER_CALL = 32
"""Points that one call of the compiled function computes."""


def landscape(
    model: Any,
    snapshots: Mapping[str, Snapshots],
    x: Any,
    y: Any,
    *,
    kind: str = "principal",
    resolution: int = 51,
    n_samples: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> Landscape:
    """Compute the loss around the paths of one or several trainings of one architecture, on one plane.

    Parameters
    ----------
    model : keras.Model
        Compiled, of the snapshots' architecture; it is not modified. Its trainable weights do not matter; the others
        (such as the statistics of batch normalisation) are used as they are.
    snapshots : mapping of str to Snapshots
        Label -> path. The plane's origin is the end of the first.
    x, y : array_like, or nested structures of them
        Inputs and targets, as for ``model.evaluate``.
    kind : {"principal", "random"}
        The plane of most variance of the paths, or one along two random directions normalised by filter. The latter
        is shown from -1 to 1 at least, as in the paper; paths hardly move along random directions. Defaults to
        "principal".
    resolution : int
        Points along each axis of the grid. Defaults to 51.
    n_samples : int
        Number of rows, drawn by `seed`, that the loss is the mean of. Defaults to 2000.
    seed : int
        Seed for drawing the rows and for random directions. Defaults to 0.
    progress : bool
        Whether to show a progress bar. Defaults to True.

    Returns
    -------
    Landscape
        Losses on the grid and the paths, for `mlflow_hp.plots.landscape_info`.

    Raises
    ------
    UserError
        If the model is not compiled, its tensors are not those of the snapshots, or an argument is out of range.

    Examples
    --------
    >>> import keras, mlflow, numpy as np
    >>> from mlflow_hp import TrainingRecorder
    >>> from mlflow_hp.training import landscape
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.arange(16.0).reshape(8, 2) / 16
    >>> recorder = TrainingRecorder(report=False, snapshot_megabytes=1)
    >>> with mlflow.start_run():
    ...     _ = model.fit(x, x.sum(axis=1), batch_size=4, epochs=3, verbose=0, callbacks=[recorder])
    >>> landscape(model, {"sgd": recorder.snapshots}, x, x.sum(axis=1), resolution=5, progress=False).loss.shape
    (5, 5)
    """
    if kind not in ("principal", "random"):
        raise UserError(f"kind={kind!r} is unknown; choose 'principal' or 'random'")
    if resolution < 2:
        raise UserError(f"resolution={resolution} is no grid; give 2 points along each axis or more")
    runs = list(snapshots.values())
    if kind == "random" and runs:
        plane = random_plane({name: values[-1] for name, values in runs[0].tensors.items()}, seed)
    else:
        plane = principal_plane(runs)
    paths = {label: project(plane, run) for label, run in snapshots.items()}
    ranges = window(list(paths.values()), MARGIN)
    if kind == "random":
        ranges = window([*paths.values(), UNIT], 0.0)
    a, b = (np.linspace(low, high, resolution) for low, high in ranges)
    with tqdm(total=a.size * b.size, desc="loss landscape", unit=" points", leave=False, disable=not progress) as bar:
        losses = _Losses(model, plane, x, y, n_samples=n_samples, batch_size=1024, seed=seed, progress=bar.update)
        loss, evaluated = coarse_to_fine(losses, a, b, TOLERANCE)
        bar.update(a.size * b.size - evaluated)
    steps = {label: run.steps for label, run in snapshots.items()}
    return Landscape(
        a, b, loss, paths, steps, kind, plane.variance_shares, _sampling(runs), losses.n_samples, evaluated
    )


def losses_on_plane(
    model: Any,
    plane: WeightPlane,
    points: np.ndarray,
    x: Any,
    y: Any,
    *,
    n_samples: int = 2000,
    batch_size: int = 1024,
    seed: int = 0,
    progress: Callable[[int], Any] | None = None,
) -> np.ndarray:
    """Compute the compiled loss at points of a plane, in inference mode, with the losses of regularisers.

    The result equals ``model.evaluate`` with those weights. The model is not modified: it is called with other values
    in place of its trainable variables.

    Parameters
    ----------
    model : keras.Model
        Compiled, of the plane's architecture, on any backend of Keras.
    plane : WeightPlane
        As from `principal_plane` or `random_plane`.
    points : ndarray of shape (k, 2)
        Coordinates (a, b): the trainable weights are ``origin + a d1 + b d2``.
    x, y : array_like, or nested structures of them
        Inputs and targets, as for ``model.evaluate``.
    n_samples : int
        Number of rows, drawn by `seed`, that the loss is the mean of; all if there are no more. Defaults to 2000.
    batch_size : int
        Rows that go through the network at a time. Defaults to 1024.
    seed : int
        Seed for drawing the rows. Defaults to 0.
    progress : callable, optional
        Called with the number of points just computed. Defaults to nothing.

    Returns
    -------
    ndarray of shape (k,)
        Losses as float64.

    Raises
    ------
    UserError
        If the model is not compiled or not built, or its trainable tensors are not the plane's.
    """
    losses = _Losses(model, plane, x, y, n_samples=n_samples, batch_size=batch_size, seed=seed, progress=progress)
    return losses(points)


class _Losses:
    """Function from points (k, 2) to losses (k,): holds the data, and the computation compiled once."""

    def __init__(
        self,
        model: Any,
        plane: WeightPlane,
        x: Any,
        y: Any,
        *,
        n_samples: int,
        batch_size: int,
        seed: int,
        progress: Callable[[int], Any] | None,
    ) -> None:
        self._progress = progress or (lambda _: None)
        x, y = (tree.map_structure(_as_evaluated, data) for data in (x, y))
        lengths = {len(array) for array in tree.flatten((x, y))}
        if len(lengths) != 1 or not min(lengths) or n_samples < 1 or batch_size < 1:
            raise UserError(
                f"x and y have {sorted(lengths)} rows, n_samples={n_samples}, batch_size={batch_size}: give x and y "
                "equally many rows, one or more, and positive numbers"
            )
        variables = _variables(model, plane)
        n = lengths.pop()
        rows = np.arange(n)
        if n_samples < n:
            rows = np.sort(np.random.default_rng(seed).choice(n, n_samples, replace=False))
        self.n_samples = len(rows)
        parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
        self._batches = [tree.map_structure(lambda v, i=part: ops.convert_to_tensor(v[i]), (x, y)) for part in parts]
        self._shares = [len(part) / len(rows) for part in parts]
        build_loss(model, *self._batches[0])
        self._losses = _compiled(model, variables, plane)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        points = np.asarray(points, np.float32)
        losses = np.zeros(len(points))
        for start in range(0, len(points), POINTS_PER_CALL):
            part = points[start : start + POINTS_PER_CALL]
            padded = np.concatenate(
                [part, np.repeat(part[:1], POINTS_PER_CALL - len(part), axis=0)]
            )  # one shape: one trace
            for (x, y), share in zip(self._batches, self._shares, strict=True):
                losses[start : start + len(part)] += share * self._losses(padded, x, y)[: len(part)]
            self._progress(len(part))
        return losses


def _variables(model: Any, plane: WeightPlane) -> list[Any]:
    """The model's trainable variables, in the order of the plane's tensors."""
    from mlflow_hp.training.capture.step_layout import tensors_of

    if not getattr(model, "compiled", False):
        raise UserError(f"the model {model.name!r} is not compiled, so it has no loss; call model.compile(loss=...)")
    if not model.built:
        raise UserError(f"the model {model.name!r} has no weights yet; call it once on data")
    named = {t.name: v for t, v in zip(tensors_of(model), model.weights, strict=True) if t.trainable}
    shapes = {name: tuple(variable.shape) for name, variable in named.items()}
    plane_shapes = {name: values.shape for name, values in plane.origin.items()}
    names = match_tensors(plane_shapes, shapes, ("the paths", "the model"))
    return [named[name] for name in names.values()]


def _compiled(model: Any, variables: list[Any], plane: WeightPlane) -> Callable[[np.ndarray, Any, Any], np.ndarray]:
    """Compile the function (points (k, 2), x, y) -> losses (k,) by the backend, unless the model runs eagerly."""
    origin, first, second = (
        [ops.convert_to_tensor(weights[name].astype(np.float32)) for name in plane.origin]
        for weights in (plane.origin, *plane.directions)
    )

    def losses(points: Any, x: Any, y: Any) -> Any:
        def loss(point: Any) -> Any:
            weights = [o + point[0] * d1 + point[1] * d2 for o, d1, d2 in zip(origin, first, second, strict=True)]
            # model.stateless_call with the loss inside: the losses that layers add in their call are part of it
            with keras.StatelessScope(list(zip(variables, weights, strict=True)), collect_losses=True):
                total = compute_loss(model, x, y, model(x, training=False))
            return ops.cast(total, "float32")

        return ops.map(loss, points)

    backend = keras.backend.backend()
    if model.run_eagerly:
        compiled = losses
    elif backend == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(losses)
    elif backend == "jax":
        compiled = import_module("jax").jit(losses)
    else:
        compiled = losses

    def computed(points: np.ndarray, x: Any, y: Any) -> np.ndarray:
        values = compiled(ops.convert_to_tensor(points), x, y)
        return np.asarray(to_numpy(values), np.float64)

    return computed


def _as_evaluated(data: Any) -> np.ndarray:
    """Convert to an array as ``model.evaluate`` does: floats in Keras' precision."""
    array = np.asarray(data)
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array


def _sampling(runs: list[Snapshots]) -> str:
    """Text of the steps that the paths show, such as "every 4th of 12,000 steps"."""
    every, steps = (
        [min(numbers), max(numbers)] for numbers in zip(*((run.every, run.n_steps) for run in runs), strict=True)
    )
    total = " to ".join(dict.fromkeys(f"{n:,}" for n in steps))
    ordinals = " to ".join(dict.fromkeys("1st" if n == 1 else f"{n:,}{_ending(n)}" for n in every))
    return f"all {total} steps" if every == [1, 1] else f"every {ordinals} of {total} steps"


def _ending(n: int) -> str:
    """Ending of the ordinal of a power of two."""
    return "nd" if n % 10 == 2 and n % 100 != 12 else "th"
