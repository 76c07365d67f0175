"""Last activation against loss against targets: the root cause, or silence."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.analysis.diagnosis import Change
from mlflow_hp.analysis.diagnosis.program import diagnose_program, losses, outputs, ranges, task_of
from mlflow_hp.history.program import Output, Program
from tests.helpers.programs_described import (
    RNG,
    SGD,
    conv,
    data,
    dense,
    features,
    heights,
    labels,
    layer,
    network,
    one_hot,
    program,
    several_labels,
    statistics,
)

SPARSE, CATEGORICAL, BINARY, SQUARED = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "mean_squared_error",
)


X = features()


def activation(old, new):
    return Change("last_activation", old, new, "dense_1")


def units(old, new):
    return Change("last_units", old, new, "dense_1")


FAULTS = {
    "softmax on one unit": (
        network(1, "softmax", loss="BinaryCrossentropy", y=labels(k=2)),
        ("softmax_on_one_unit", "problem", 'Dense(1, activation="sigmoid")'),
        [activation("softmax", "sigmoid")],
    ),
    "softmax on one unit, unknown targets": (
        network(1, "softmax", loss="binary_crossentropy"),
        ("softmax_on_one_unit", "problem", 'Dense(1, activation="sigmoid")'),
        [activation("softmax", "sigmoid")],
    ),
    "softmax on one unit for three labels": (
        network(1, "softmax", y=labels()),
        ("softmax_on_one_unit", "problem", 'Dense(3, activation="softmax")'),
        [units(1, 3)],
    ),
    "softmax on one unit for a regression": (
        network(1, "softmax", loss="mse", y=heights()),
        ("softmax_on_one_unit", "problem", "Dense(1)"),
        [activation("softmax", "linear")],
    ),
    "sigmoid on one unit for a sparse loss": (
        network(1, "sigmoid", y=labels(k=2)),
        ("one_unit_for_classes", "problem", f'loss="{BINARY}"'),
        [Change("loss", SPARSE, BINARY)],
    ),
    "one unit for a categorical loss": (
        network(1, "sigmoid", loss="CategoricalCrossentropy", y=labels(k=2).reshape(-1, 1)),
        ("one_unit_for_classes", "problem", f'loss="{BINARY}"'),
        [Change("loss", CATEGORICAL, BINARY)],
    ),
    "one unit for four labels": (
        network(1, "sigmoid", y=labels(k=4)),
        ("one_unit_for_classes", "problem", 'Dense(4, activation="softmax")'),
        [units(1, 4), activation("sigmoid", "softmax")],
    ),
    "no activation": (
        network(3, "linear", y=labels()),
        ("missing_probabilities", "problem", 'Dense(3, activation="softmax")'),
        [activation("linear", "softmax")],
    ),
    "ReLU for two classes": (
        network(1, "relu", loss="BinaryCrossentropy", y=labels(k=2)),
        ("missing_probabilities", "problem", 'Dense(1, activation="sigmoid")'),
        [activation("relu", "sigmoid")],
    ),
    "logits twice": (
        network(3, "softmax", loss_config={"from_logits": True}, y=labels()),
        ("logits_twice", "hint", "from_logits=False"),
        [Change("from_logits", True, False)],
    ),
    "limited logits": (
        network(3, "tanh", loss_config={"from_logits": True}, y=labels()),
        ("squashed_logits", "problem", "Dense(3)"),
        [activation("tanh", "linear")],
    ),
    "limited logits in front of a softmax": (
        program(dense(32, "relu"), dense(3, "relu"), layer("Softmax", axis=-1), x=X, y=labels()),
        ("squashed_logits", "problem", "Dense(3)"),
        [activation("relu", "linear")],
    ),
    "sigmoid for exclusive classes": (
        network(10, "sigmoid", loss="CategoricalCrossentropy", y=one_hot(k=10)),
        ("sigmoid_for_exclusive_classes", "problem", 'Dense(10, activation="softmax")'),
        [activation("sigmoid", "softmax")],
    ),
    "categorical loss for several labels": (
        network(5, "sigmoid", loss="CategoricalCrossentropy", y=several_labels()),
        ("sigmoid_for_exclusive_classes", "problem", f'loss="{BINARY}"'),
        [Change("loss", CATEGORICAL, BINARY)],
    ),
    "each class against the others": (
        network(3, "sigmoid", loss="BinaryCrossentropy", y=one_hot()),
        ("sigmoid_for_exclusive_classes", "hint", f'loss="{CATEGORICAL}"'),
        [activation("sigmoid", "softmax"), Change("loss", BINARY, CATEGORICAL)],
    ),
    "softmax for several labels": (
        network(5, "softmax", loss="BinaryCrossentropy", y=several_labels()),
        ("softmax_for_several_labels", "problem", 'Dense(5, activation="sigmoid")'),
        [activation("softmax", "sigmoid")],
    ),
    "cross-entropy for numbers": (
        network(1, "sigmoid", loss="BinaryCrossentropy", y=heights()),
        ("classification_loss_for_numbers", "problem", f'Dense(1), loss="{SQUARED}"'),
        [Change("loss", BINARY, SQUARED), activation("sigmoid", "linear")],
    ),
    "cross-entropy for whole numbers as of the diabetes data": (
        network(1, "sigmoid", loss="BinaryCrossentropy", y=RNG.integers(25, 347, 400)),
        ("classification_loss_for_numbers", "problem", "Dense(1)"),
        [Change("loss", BINARY, SQUARED), activation("sigmoid", "linear")],
    ),
    "sparse loss for numbers": (
        network(4, "softmax", y=heights()),
        ("classification_loss_for_numbers", "problem", "Dense(1)"),
        [Change("loss", SPARSE, SQUARED), units(4, 1), activation("softmax", "linear")],
    ),
    "pixels as targets": (
        network(20, "sigmoid", loss="BinaryCrossentropy", y=RNG.integers(0, 256, (400, 20))),
        ("classification_loss_for_numbers", "problem", "targets / 255"),
        [Change("scale_targets", 255.0, 1.0)],
    ),
    "binary loss for three labels": (
        network(1, "sigmoid", loss="BinaryCrossentropy", y=labels()),
        ("binary_loss_for_classes", "problem", f'Dense(3, activation="softmax"), loss="{SPARSE}"'),
        [Change("loss", BINARY, SPARSE), units(1, 3), activation("sigmoid", "softmax")],
    ),
    "binary loss for a softmax": (
        network(3, "softmax", loss="BinaryCrossentropy", y=one_hot()),
        ("binary_loss_for_classes", "problem", f'loss="{CATEGORICAL}"'),
        [Change("loss", BINARY, CATEGORICAL)],
    ),
    "categorical loss for labels": (
        network(3, "softmax", loss="CategoricalCrossentropy", y=labels()),
        ("form_of_labels", "problem", f'loss="{SPARSE}"'),
        [Change("loss", CATEGORICAL, SPARSE)],
    ),
    "sparse loss for one-hot rows": (
        network(3, "softmax", y=one_hot()),
        ("form_of_labels", "problem", f'loss="{CATEGORICAL}"'),
        [Change("loss", SPARSE, CATEGORICAL)],
    ),
    "labels from 1 on": (
        network(3, "softmax", y=labels() + 1),
        ("labels_out_of_range", "problem", "labels - 1"),
        [Change("targets", "1..3", "0..2")],
    ),
    "labels -1 and 1": (
        network(1, "sigmoid", loss="BinaryCrossentropy", y=2 * labels(k=2) - 1),
        ("labels_out_of_range", "problem", "(labels == 1).astype(int)"),
        [Change("targets", "-1/1", "0/1")],
    ),
    "labels -1 and 1 for two units": (
        network(2, "softmax", y=2 * labels(k=2) - 1),
        ("labels_out_of_range", "problem", "(labels == 1).astype(int)"),
        [Change("targets", "-1/1", "0/1")],
    ),
    "labels 1 and 2": (
        network(1, "sigmoid", loss="BinaryCrossentropy", y=labels(k=2) + 1),
        ("labels_out_of_range", "problem", "(labels == 2).astype(int)"),
        [Change("targets", "1/2", "0/1")],
    ),
    "units too few for the classes": (
        network(3, "softmax", y=labels(k=6)),
        ("labels_out_of_range", "problem", 'Dense(6, activation="softmax")'),
        [units(3, 6)],
    ),
    "three units for a regression": (
        network(3, "linear", loss="mse", y=heights()),
        ("columns_differ", "problem", "Dense(1)"),
        [units(3, 1)],
    ),
    "squared error of a softmax and labels": (
        network(3, "softmax", loss="MeanSquaredError", y=labels().reshape(-1, 1)),
        ("columns_differ", "problem", f'loss="{SPARSE}"'),
        [Change("loss", SQUARED, SPARSE)],
    ),
    "squared error for classes": (
        network(3, "softmax", loss="MeanSquaredError", y=one_hot(), optimizer=SGD),
        ("squared_error_for_classes", "problem", f'loss="{CATEGORICAL}"'),
        [Change("loss", SQUARED, CATEGORICAL)],
    ),
    "squared error for classes, which Adam can do": (
        network(3, "softmax", loss="MeanSquaredError", y=one_hot()),
        ("squared_error_for_classes", "hint", f'loss="{CATEGORICAL}"'),
        [Change("loss", SQUARED, CATEGORICAL)],
    ),
    "Brier score": (
        network(1, "sigmoid", loss="MeanSquaredError", y=labels(k=2), optimizer=SGD),
        ("squared_error_for_classes", "hint", f'loss="{BINARY}"'),
        [Change("loss", SQUARED, BINARY)],
    ),
    "one number for four classes": (
        network(1, "linear", loss="MeanSquaredError", y=labels(k=4), metrics=["SparseCategoricalAccuracy"]),
        ("squared_error_for_classes", "problem", f'Dense(4, activation="softmax"), loss="{SPARSE}"'),
        [Change("loss", SQUARED, SPARSE), units(1, 4), activation("linear", "softmax")],
    ),
    "sigmoid on a regression": (
        network(1, "sigmoid", loss="MeanSquaredError", y=25 + 10 * heights()),
        ("output_range", "problem", "Dense(1)"),
        [activation("sigmoid", "linear")],
    ),
    "ReLU on standardised targets": (
        network(1, "relu", loss="Huber", y=heights().reshape(-1, 1)),
        ("output_range", "problem", "Dense(1)"),
        [activation("relu", "linear")],
    ),
    "ReLU on positive targets": (
        network(1, "relu", loss="mse", y=np.exp(heights())),
        ("relu_output", "hint", "Dense(1)"),
        [activation("relu", "linear")],
    ),
    "Poisson loss without activation": (
        network(1, "linear", loss="Poisson", y=RNG.poisson(3, 400)),
        ("poisson_output", "problem", 'Dense(1, activation="exponential")'),
        [activation("linear", "exponential")],
    ),
    "softmax of an autoencoder": (
        network(20, "softmax", loss="MeanSquaredError", y=np.random.default_rng(0).random((400, 20))),
        ("softmax_for_numbers", "problem", 'activation="sigmoid"'),
        [Change("last_activation", "softmax", "linear", "dense_1")],
    ),
    "a cosine of a number": (
        network(1, "linear", loss="CosineSimilarity", y=heights()),
        ("loss_of_directions", "problem", 'loss="mean_squared_error"'),
        [Change("loss", "cosine_similarity", "mean_squared_error")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_the_root_cause_is_reported_once(case):
    faulty, (name, severity, code), change = FAULTS[case]
    (finding,) = diagnose_program(faulty)
    assert (finding.name, finding.severity) == (name, severity)
    assert code in finding.suggestion
    assert list(finding.change) == change
    assert finding.cause
    assert finding.where == {"layer": "dense_1"}


HEALTHY = {
    "labels": network(3, "softmax", y=labels(), metrics=["SparseCategoricalAccuracy"]),
    "labels in a column": network(3, "softmax", y=labels().reshape(-1, 1)),
    "one-hot": network(3, "softmax", loss="CategoricalCrossentropy", y=one_hot(), metrics=["CategoricalAccuracy"]),
    "label smoothing": network(
        3, "softmax", loss="CategoricalCrossentropy", y=one_hot(), loss_config={"label_smoothing": 0.1}
    ),
    "smoothed targets": network(3, "softmax", loss="CategoricalCrossentropy", y=0.9 * one_hot() + 0.1 / 3),
    "logits": network(3, "linear", loss_config={"from_logits": True}, y=labels()),
    "a class that is ignored": network(3, "softmax", loss_config={"ignore_class": -1}, y=labels() - 1),
    "two classes": network(1, "sigmoid", loss="BinaryCrossentropy", y=labels(k=2), metrics=["BinaryAccuracy"]),
    "threshold of the user's": network(
        1, "linear", loss="BinaryCrossentropy", loss_config={"from_logits": True}, y=labels(k=2),
        metrics=["BinaryAccuracy"],
    ),
    "one class so far": network(1, "sigmoid", loss="BinaryCrossentropy", y=np.ones(8, int)),
    "two units": network(2, "softmax", y=labels(k=2)),
    "two units, binary loss": network(2, "softmax", loss="BinaryCrossentropy", y=one_hot(k=2)),
    "several labels": network(5, "sigmoid", loss="BinaryCrossentropy", y=several_labels()),
    "one of several may be true": network(
        3, "softmax", loss="CategoricalCrossentropy", y=one_hot() * (labels(k=2)[:, None])
    ),
    "autoencoder": network(20, "sigmoid", loss="BinaryCrossentropy", y=RNG.random((400, 20))),
    "autoencoder with squared error": network(20, "sigmoid", loss="MeanSquaredError", y=RNG.random((400, 20))),
    "regression": network(1, "linear", loss="mse", y=heights(), metrics=["MeanAbsoluteError"]),
    "several targets": network(4, "linear", loss="mae", y=RNG.normal(size=(400, 4))),
    "whole targets": network(1, "linear", loss="mse", y=RNG.integers(3, 9, 400), metrics=["MeanAbsoluteError"]),
    "ratings": network(1, "linear", loss="mse", y=labels(k=5) + 1),
    "positive targets": network(1, "softplus", loss="mse", y=np.exp(heights())),
    "targets in -1..1": network(1, "tanh", loss="mse", y=np.tanh(heights())),
    "labels -1/1 under hinge": network(1, "tanh", loss="Hinge", y=2 * labels(k=2) - 1),
    "labels 0/1 under hinge": network(1, "linear", loss="Hinge", y=labels(k=2)),
    "counts": network(1, "exponential", loss="Poisson", y=RNG.poisson(3, 400)),
    "probabilities as targets": network(1, "sigmoid", loss="BinaryCrossentropy", y=RNG.random(400)),
    "a loss of the user's": network(1, "relu", loss="quantile_loss", y=heights()),
    "next of many tokens": network(5000, "softmax", y=RNG.integers(0, 5000, 400)),
    "a step of the user's": network(1, "softmax", loss="BinaryCrossentropy", y=heights(), is_own_step=True),
    "unknown activation": network(3, "", y=labels()),
    "segmentation": program(
        conv(8, "relu"), conv(1, "sigmoid"), loss="BinaryCrossentropy", x=RNG.random((40, 8, 8, 1)),
        y=RNG.integers(0, 2, (40, 8, 8, 1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HEALTHY)
def test_nothing_is_said_of_healthy_outputs(case):
    assert diagnose_program(HEALTHY[case]) == []


@pytest.mark.parametrize("case", FAULTS)
def test_nothing_is_known_of_the_loss_in_a_step_of_the_users(case):
    faulty, (name, *_), _ = FAULTS[case]
    assert name not in {finding.name for finding in diagnose_program(faulty._replace(is_own_step=True))}


def test_text_as_labels():
    faulty = network(3, "softmax", y=labels())
    target = faulty.training.targets[0]._replace(dtype="string")
    finding = losses.text_labels(faulty._replace(training=faulty.training._replace(targets=(target,))))
    assert (finding.severity, finding.change[0].parameter) == ("problem", "targets")
    assert losses.text_labels(faulty) is None


def test_targets_that_leave_the_range_seldom_are_a_hint():
    rarely_negative = np.r_[np.exp(heights(396)), -1.5 * np.ones(4)]
    assert ranges.output_range(network(1, "softplus", loss="mse", y=rarely_negative)).severity == "hint"


def test_ranking_of_labels_by_softmax_is_a_hint():
    ranking = network(5, "softmax", loss="CategoricalCrossentropy", y=several_labels())
    assert outputs.softmax_for_several_labels(ranking).severity == "hint"


def test_labels_of_validation_count_too():
    faulty = network(3, "softmax", y=labels(), x_val=X, y_val=labels(k=4))
    (finding,) = diagnose_program(faulty)
    assert finding.name == "labels_out_of_range"
    assert finding.change == (units(3, 4),)


def test_activation_in_a_layer_of_its_own():
    faulty = program(dense(32, "relu"), dense(3), layer("Activation", activation="sigmoid"), x=X, y=labels())
    (finding,) = diagnose_program(faulty)
    assert finding.suggestion == 'Activation("softmax") at the output'


def test_softmax_over_another_axis_is_left_alone():
    attention = program(dense(1), layer("Softmax", axis=1), loss="BinaryCrossentropy", x=X, y=labels(k=2))
    assert diagnose_program(attention) == []


def test_outputs_are_judged_one_by_one():
    first = Output("kind", "a", "softmax", (3,), "SparseCategoricalCrossentropy")
    second = Output("size", "b", "sigmoid", (1,), "MeanSquaredError")
    both = Program(outputs=(first, second), training=data(X)._replace(
        targets=(statistics(labels()), statistics(20 + 5 * heights()))
    ))  # fmt: skip
    (finding,) = diagnose_program(both)
    assert (finding.name, finding.where) == ("output_range", {"layer": "b", "output": "size"})
    assert task_of(both) == "unknown"
