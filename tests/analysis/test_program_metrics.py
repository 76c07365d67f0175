"""Metrics against the task: accuracies that count something else."""

from __future__ import annotations

import pytest

from mlflow_hp.analysis.diagnosis import Change
from mlflow_hp.analysis.diagnosis.program import diagnose_program, metrics
from tests.helpers.programs_described import RNG, heights, labels, network, one_hot, several_labels

FAULTS = {
    "accuracy on a regression": (
        network(1, "linear", loss="MeanSquaredError", y=heights(), metrics=["BinaryAccuracy"]),
        ("accuracy_of_numbers", "problem", 'metrics=["mae"]'),
        [Change("metrics", "BinaryAccuracy", "mean_absolute_error")],
    ),
    "equality as accuracy": (
        network(1, "sigmoid", loss="BinaryCrossentropy", y=labels(k=2), metrics=["Accuracy"]),
        ("accuracy_of_other_task", "problem", 'metrics=["accuracy"]'),
        [Change("metrics", "Accuracy", "accuracy")],
    ),
    "binary accuracy of ten classes": (
        network(10, "softmax", loss="CategoricalCrossentropy", y=one_hot(k=10), metrics=["BinaryAccuracy"]),
        ("accuracy_of_other_task", "problem", 'metrics=["accuracy"]'),
        [Change("metrics", "BinaryAccuracy", "accuracy")],
    ),
    "binary accuracy by its name": (
        network(10, "softmax", loss="CategoricalCrossentropy", y=one_hot(k=10), metrics=["binary_accuracy"]),
        ("accuracy_of_other_task", "problem", 'metrics=["accuracy"]'),
        [Change("metrics", "binary_accuracy", "accuracy")],
    ),
    "binary accuracy beside another": (
        network(10, "softmax", loss="CategoricalCrossentropy", y=one_hot(k=10),
                metrics=["CategoricalAccuracy", "BinaryAccuracy"]),
        ("accuracy_of_other_task", "hint", 'metrics=["accuracy"]'),
        [Change("metrics", "BinaryAccuracy", "accuracy")],
    ),
    "the largest of one unit": (
        network(1, "sigmoid", loss="BinaryCrossentropy", y=labels(k=2), metrics=["sparse_categorical_accuracy"]),
        ("accuracy_of_other_task", "problem", 'metrics=["accuracy"]'),
        [Change("metrics", "sparse_categorical_accuracy", "accuracy")],
    ),
    "accuracy of several labels": (
        network(5, "sigmoid", loss="BinaryCrossentropy", y=several_labels(), metrics=["accuracy"]),
        ("accuracy_of_other_task", "hint", 'metrics=["binary_accuracy"]'),
        [Change("metrics", "accuracy", "binary_accuracy")],
    ),
    "accuracy of logits": (
        network(1, "linear", loss="BinaryCrossentropy", loss_config={"from_logits": True}, y=labels(k=2),
                metrics=["accuracy"]),
        ("accuracy_of_logits", "hint", "metrics=[keras.metrics.BinaryAccuracy(threshold=0)]"),
        [Change("metrics", "accuracy", "BinaryAccuracy(threshold=0)")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_metric_of_another_task(case):
    faulty, (name, severity, code), change = FAULTS[case]
    (finding,) = diagnose_program(faulty)
    assert (finding.name, finding.severity) == (name, severity)
    assert code in finding.suggestion
    assert list(finding.change) == change
    assert finding.cause
    assert finding.where == {"layer": "dense_1"}


def test_accuracy_of_an_autoencoder_is_a_hint():
    several = network(4, "linear", loss="mse", y=RNG.normal(size=(400, 4)), metrics=["CategoricalAccuracy"])
    assert metrics.accuracy_of_numbers(several).severity == "hint"
