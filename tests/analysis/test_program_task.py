"""Task of a program, and its number of classes, from last activation, loss and targets."""

from __future__ import annotations

import pytest

from mlflow_hp.analysis.diagnosis.program import n_classes, task_of
from mlflow_hp.history.program import Program
from tests.helpers.programs_described import (
    RNG,
    heights,
    labels,
    network,
    one_hot,
    several_labels,
)


@pytest.mark.parametrize(
    ("described", "task", "classes"),
    [
        (network(3, "softmax", y=labels()), "classification", 3),
        (network(10, "softmax"), "classification", 10),
        (network(10, "softmax", y=labels(k=4)), "classification", 4),
        (network(3, "softmax", loss="CategoricalCrossentropy", y=one_hot()), "classification", 3),
        (network(3, "softmax", loss="MeanSquaredError", y=one_hot()), "classification", 3),
        (network(1, "sigmoid", loss="BinaryCrossentropy"), "binary", 2),
        (network(1, "sigmoid", loss="BinaryCrossentropy", y=labels()), "classification", 3),
        (network(5, "sigmoid", loss="BinaryCrossentropy", y=several_labels()), "multi-label", None),
        (network(1, "linear", loss="Hinge", y=labels(k=2)), "binary", 2),
        (network(1, "linear", loss="mse", y=heights()), "regression", None),
        (network(1, "linear", loss="mse", y=RNG.integers(25, 347, 400)), "regression", None),
        (network(1, "linear", loss="mse", y=labels(k=6)), "regression", None),
        (network(1, "exponential", loss="Poisson"), "regression", None),
        (network(20, "sigmoid", loss="BinaryCrossentropy", y=RNG.random((400, 20))), "unknown", None),
        (network(1, "linear", loss="own_loss", y=heights()), "unknown", None),
        (network(3, "softmax", y=labels(), is_own_step=True), "unknown", None),
        (Program(), "unknown", None),
    ],
)
def test_task_and_classes(described, task, classes):
    assert (task_of(described), n_classes(described)) == (task, classes)
