"""Losses of a Keras model at points of a plane through its weight space."""

from __future__ import annotations

import contextlib
from importlib import import_module
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from mlflow_hp.analysis.surfaces.plane import match_tensors
from mlflow_hp.training.capture.step_layout import to_numpy
from mlflow_hp.training.stateless_loss import (
    DrawnRows,
    batch_statistics,
    draw_rows,
    loss_at,
    prepare_loss,
    trainable_variables,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlflow_hp.analysis.surfaces.plane import WeightPlane

POINTS_PER_CALL = 32
"""Points that one call of the compiled function computes."""


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
    variables = variables_of_plane(model, plane)
    rows = draw_rows(x, y, n_samples=n_samples, batch_size=batch_size, seed=seed)
    return PlaneLosses(model, plane, variables, rows, progress=progress)(points)


class PlaneLosses:
    """Function from points (k, 2) to losses (k,), compiled once.

    Parameters
    ----------
    model, plane
        As of `losses_on_plane`.
    variables : list of keras.Variable
        As from `variables_of_plane`.
    rows : DrawnRows
        Data.
    normalizations : sequence of keras.layers.BatchNormalization
        Layers that normalise by the statistics of each batch of the rows. Defaults to none.
    progress : callable, optional
        Called with the number of points just computed. Defaults to nothing.
    """

    def __init__(
        self,
        model: Any,
        plane: WeightPlane,
        variables: list[Any],
        rows: DrawnRows,
        *,
        normalizations: Sequence[Any] = (),
        progress: Callable[[int], Any] | None = None,
    ) -> None:
        self._progress = progress or (lambda _: None)
        self._rows, self._normalizations = rows, normalizations
        prepare_loss(model, rows)
        self._losses = _compiled(model, variables, plane)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Compute the losses (k,), float64, at points (k, 2)."""
        points = np.asarray(points, np.float32)
        losses = np.zeros(len(points))
        for start in range(0, len(points), POINTS_PER_CALL):
            part = points[start : start + POINTS_PER_CALL]
            padded = np.concatenate(
                [part, np.repeat(part[:1], POINTS_PER_CALL - len(part), axis=0)]
            )  # one shape: one trace
            for (x, y), share in zip(self._rows.batches, self._rows.shares, strict=True):
                with batch_statistics(self._normalizations) if self._normalizations else contextlib.nullcontext():
                    values = self._losses(padded, x, y)
                losses[start : start + len(part)] += share * values[: len(part)]
            self._progress(len(part))
        return losses


def variables_of_plane(model: Any, plane: WeightPlane) -> list[Any]:
    """Return the model's trainable variables, in the order of the plane's tensors.

    Raises
    ------
    UserError
        If the model is not compiled or not built, or its trainable tensors are not the plane's.
    """
    plane_shapes = {name: values.shape for name, values in plane.origin.items()}
    return variables_like(model, plane_shapes, "the paths")


def variables_like(model: Any, shapes: Mapping[str, tuple[int, ...]], title: str) -> list[Any]:
    """Return the model's trainable variables, in the order of tensors of these names and shapes.

    Raises
    ------
    UserError
        If the model is not compiled or not built, or its trainable tensors are others; the message names the other
        side by `title`.
    """
    named = trainable_variables(model)
    names = match_tensors(
        shapes, {name: tuple(variable.shape) for name, variable in named.items()}, (title, "the model")
    )
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
            return ops.cast(loss_at(model, variables, weights, x, y), "float32")

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
