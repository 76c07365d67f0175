"""Recognise a linear regression on one feature among trainings of any model, and its exact cost surface."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
from mlflow_hp.errors import UserError

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.program import Program

NORMALIZED = 0.05
"""Largest distance of a feature's mean from 0, and of its standard deviation from 1, where it is standardised."""


class Regression(NamedTuple):
    """Linear regression on one feature.

    Attributes
    ----------
    surface : LinearRegressionSurface
        Cost surface of its training data.
    w, b : ndarray of shape (n_steps + 1,)
        Weight and bias before the first step and after each.
    settings : dict of str to object
        Settings `optimizer`, `learning_rate`, `momentum`, `epochs` and `standardize`.
    """

    surface: LinearRegressionSurface
    w: np.ndarray
    b: np.ndarray
    settings: dict[str, Any]


def regression_of(history: TrainingHistory) -> Regression | None:
    """Return the linear regression that was trained; None if it is another model, or something of it is unknown.

    That is a single ``Dense(1)`` without activation on one feature, under the mean squared error, with a constant
    learning rate. Its cost surface follows from the moments of the data.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training, with the values of the weights.

    Returns
    -------
    Regression or None
        The regression.
    """
    optimizer = history.meta.get("optimizer", {})
    rate, surface = optimizer.get("learning_rate"), surface_of(history)
    if surface is None or not (isinstance(rate, int | float) and history.n_epochs):
        return None
    assert history.program.training is not None
    feature = history.program.training.inputs[0]
    is_standardized = abs(feature.mean[0]) < NORMALIZED and abs(feature.std[0] - 1) < NORMALIZED
    settings = {
        "optimizer": optimizer.get("name", ""),
        "learning_rate": float(rate),
        "momentum": optimizer.get("momentum", 0.0),
        "epochs": history.n_epochs,
        "standardize": is_standardized,
    }
    return Regression(surface, *line_path(history), settings)


def surface_of(history: TrainingHistory) -> LinearRegressionSurface | None:
    """Compute the cost surface of a linear regression on one feature, of which no step is read.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    LinearRegressionSurface or None
        The surface; None for another model, or where something of it is unknown.
    """
    shapes = {tensor.shape for tensor in history.tensors}
    is_line = shapes == {(1, 1), (1,)} and len(history.tensors) == 2 and history.recorded == "values"
    return _surface(history.program) if is_line and history.n_steps and _is_least_squares(history.program) else None


def line_path(history: TrainingHistory) -> tuple[np.ndarray, np.ndarray]:
    """Read weight and bias of a training that has a surface by `surface_of`.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    tuple of two ndarray of shape (n_steps + 1,)
        Weight and bias before the first step and after each.
    """
    tensors = {tensor.shape: tensor.name for tensor in history.tensors}
    w, b = (history.weights(tensors[shape]).astype(np.float64).ravel() for shape in ((1, 1), (1,)))
    return w, b


def _is_least_squares(program: Program) -> bool:
    """Whether a program is one ``Dense(1)`` without activation or penalty, under the mean squared error."""
    if len(program.layers) != 1 or len(program.outputs) != 1 or program.is_own_step:
        return False
    (layer,), (output,) = program.layers, program.outputs
    has_penalty = any(name.endswith(("regularizer", "constraint")) and each for name, each in layer.config.items())
    return (
        (layer.kind, layer.activation, output.loss) == ("Dense", "linear", "MeanSquaredError")
        and not has_penalty
        and not program.fit.get("has_class_weight")
    )


def _surface(program: Program) -> LinearRegressionSurface | None:
    """Cost surface from the moments of feature and target: that of four points with the same moments."""
    data = program.training
    if data is None or len(data.inputs) != 1 or len(data.targets) != 1 or not data.inputs[0].target_products:
        return None
    feature, target = data.inputs[0], data.targets[0]
    std, covariance = feature.std[0], feature.target_products[0] - feature.mean[0] * target.mean[0]  # type: ignore[index]
    if not (std > 0 and math.isfinite(covariance)):
        return None
    slope = covariance / std**2
    residual = math.sqrt(max(target.std[0] ** 2 - slope * covariance, 0.0))
    dx = std * np.array([-1.0, -1.0, 1.0, 1.0])
    dy = slope * dx + residual * np.array([-1.0, 1.0, -1.0, 1.0])
    try:
        return LinearRegressionSurface(feature.mean[0] + dx, target.mean[0] + dy)
    except UserError:
        return None
