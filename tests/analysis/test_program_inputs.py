"""The data: features and targets that keep a network from learning, and healthy data of which nothing is said."""

from __future__ import annotations

import numpy as np
import pytest

from mlflow_hp.analysis.diagnosis import Change
from mlflow_hp.analysis.diagnosis.program import diagnose_program, inputs, targets
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
    program,
)

X, Y = features(), labels()
PIXELS = RNG.integers(0, 256, (400, 28, 28))
TOKENS = RNG.integers(0, 20_000, (400, 50))
TOKENS[:, 0] = 1  # each begins with the same one


def classifier(x=X, y=Y, **fields):
    return program(dense(32, "relu"), dense(3, "softmax"), x=x, y=y, **fields)


def regressor(y, **fields):
    return program(dense(32, "relu"), dense(1), x=X, y=y, **{"loss": "mse", **fields})


def with_column(values, column=3, x=X):
    changed = x.copy()
    changed[:, column] = values
    return changed


def image_classifier(*first, x=PIXELS, **fields):
    return program(*first, dense(32, "relu"), dense(3, "softmax"), x=x, y=Y, **fields)


UNSCALED = Change("standardize", False, True)
FAULTS = {
    "NaN in a feature": (
        classifier(with_column(np.where(np.arange(400) < 4, np.nan, 0.5 * X[:, 3]))),
        ("not_finite_inputs", "problem", "feature 3 (0-based), up to 1.00%"),
        Change("features", "not finite", "finite"),
    ),
    "infinite features": (
        classifier(np.where(X > 2, np.inf, X)),
        ("not_finite_inputs", "problem", "all 20 features"),
        Change("features", "not finite", "finite"),
    ),
    "a feature that is not scaled": (
        classifier(with_column(746 + 314 * X[:, 3])),
        ("unscaled_inputs", "problem", "feature 3 (0-based)"),
        UNSCALED,
    ),
    "features that are not scaled": (
        classifier(X + 100 * (np.arange(20) < 8)),
        ("unscaled_inputs", "problem", "and 3 more (0-based)"),
        UNSCALED,
    ),
    "a feature that is larger than others": (
        classifier(with_column(20 * X[:, 3])),
        ("unscaled_inputs", "hint", "feature 3 (0-based)"),
        UNSCALED,
    ),
    "tiny features": (classifier(X * 0.001), ("unscaled_inputs", "problem", "hardly differ"), UNSCALED),
    "small features of SGD": (
        classifier(X * 0.05, optimizer=SGD), ("unscaled_inputs", "hint", "hardly differ"), UNSCALED,
    ),
    "pixels": (image_classifier(layer("Flatten")), ("pixels", "problem", "from 0 to 255"), UNSCALED),
    "pixels as a row": (
        image_classifier(x=PIXELS.reshape(400, -1)), ("pixels", "problem", "from 0 to 255"), UNSCALED,
    ),
    "pixels in a convolution": (
        image_classifier(conv(8, "relu"), layer("Flatten"), x=PIXELS[..., None]),
        ("pixels", "problem", "from 0 to 255"),
        UNSCALED,
    ),
    "prices in an LSTM": (
        program(layer("LSTM", n_weights=99, activation="tanh"), dense(1), loss="mse", x=100 + RNG.random((400, 9, 1)),
                y=heights()),
        ("unscaled_inputs", "problem", "feature 0 (0-based)"),
        UNSCALED,
    ),
    "validation that is not scaled": (
        classifier(x_val=5 + 10 * features(100), y_val=labels(100)),
        ("validation_scaled_differently", "problem", "all 20 features"),
        Change("standardize", "training only", "training and validation alike"),
    ),
    "one value in all features": (
        classifier(np.ones((400, 20))), ("constant_inputs", "problem", "all 20 features"),
        Change("features", "constant", None),
    ),
    "a feature with one value": (
        classifier(with_column(1.0)), ("constant_inputs", "hint", "feature 3 (0-based)"),
        Change("features", "constant", None),
    ),
    "NaN in the targets": (
        regressor(np.where(np.arange(400) < 4, np.nan, heights())), ("not_finite_targets", "problem", "1.00%"),
        Change("targets", "not finite", "finite"),
    ),
    "prices as targets": (
        regressor(200_000 + 50_000 * heights()), ("huge_targets", "problem", "2e+05"),
        Change("scale_targets", False, True),
    ),
    "large targets, which Adam can reach": (
        regressor(152 + 77 * heights()), ("huge_targets", "hint", "mean 155"), Change("scale_targets", False, True),
    ),
    "targets of about 20 and SGD": (
        regressor(22 + 9 * heights(), optimizer=SGD), ("huge_targets", "problem", "mean 22"),
        Change("scale_targets", False, True),
    ),
    "large targets of SGD": (
        regressor(152 + 77 * heights(), optimizer=SGD), ("huge_targets", "problem", "mean 155"),
        Change("scale_targets", False, True),
    ),
    "unequal classes": (
        classifier(y=(np.arange(400) % 50 == 0) * 1, metrics=["SparseCategoricalAccuracy"]),
        ("unequal_classes", "problem", "98.0%"),
        Change("class_weight", None, {0: 0.51, 1: 25.0}),
    ),
    "rather unequal classes": (
        classifier(y=(np.arange(400) % 8 == 0) * 1, metrics=["SparseCategoricalAccuracy"]),
        ("unequal_classes", "hint", "87.5%"),
        Change("class_weight", None, {0: 0.57, 1: 4.0}),
    ),
    "one class": (
        classifier(y=np.ones(400, int)), ("unequal_classes", "problem", "class 1"),
        Change("targets", "one class", None),
    ),
    "sorted labels": (
        classifier(y=np.sort(Y), fit={"shuffle": False}), ("sorted_labels", "problem", "85%"),
        Change("shuffle", False, True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_faults_of_the_data(case):
    faulty, (name, severity, words), change = FAULTS[case]
    (finding,) = diagnose_program(faulty)
    assert (finding.name, finding.severity) == (name, severity)
    assert words in finding.text
    assert finding.change == (change,)
    assert finding.suggestion
    assert finding.cause


def rest(x):
    return {"x_val": x[300:], "y_val": Y[300:]}


HEALTHY = {
    "standardised": classifier(**rest(X)),
    "a small validation set": classifier(x_val=X[:12], y_val=Y[:12]),
    "small features of Adam": classifier(X * 0.05),
    "words by tf-idf": classifier((RNG.random((400, 900)) < 0.1) / 90**0.5),
    "0..1": classifier(RNG.random((400, 20))),
    "0..16": classifier(RNG.integers(0, 17, (400, 20))),
    "borders that are always 0": image_classifier(layer("Flatten"), x=PIXELS / 255 * (np.arange(28) > 3)),
    "a column that is always 0": classifier(with_column(0.0)),
    "tokens": program(
        layer("Embedding", n_weights=99), layer("LSTM", n_weights=99, activation="tanh"), dense(3, "softmax"), x=TOKENS,
        y=Y,
    ),
    "pixels that are scaled inside": image_classifier(layer("Rescaling", scale=1 / 255), layer("Flatten")),
    "pixels that are scaled after augmentation": image_classifier(
        layer("RandomFlip"), layer("Rescaling", scale=1 / 255), layer("Flatten")
    ),
    "pixels and BatchNormalization first": image_classifier(layer("BatchNormalization"), layer("Flatten")),
    "pixels and BatchNormalization behind a convolution": image_classifier(
        conv(8), layer("BatchNormalization", n_weights=32), layer("ReLU"), layer("Flatten"), x=PIXELS[..., None]
    ),
    "a layer of the user's first": image_classifier(layer("Lambda"), layer("Flatten")),
    "a pretrained model first": image_classifier(
        layer("Functional", n_weights=999, trainable=False), layer("GlobalAveragePooling2D"), x=PIXELS[..., None]
    ),
    "augmented training data": classifier(0.7 * X, **rest(X)),
    "time series that drifts": program(
        dense(8, "relu"), dense(1), loss="mse", x=X, y=heights(), x_val=X[:100] + 1.5, y_val=heights(100)
    ),
    "rare events": classifier(
        (RNG.random((400, 20)) < 0.01) * 1.0, x_val=(RNG.random((100, 20)) < 0.01) * 1.0, y_val=labels(100)
    ),
    "targets of about 20": regressor(22 + 9 * heights()),
    "targets of about 20 and a small rate": regressor(
        22 + 9 * heights(), optimizer={"name": "SGD", "learning_rate": 0.001}
    ),
    "large targets of a linear model": program(
        dense(1), loss="mse", x=X, y=152 + 77 * heights(), optimizer={"name": "SGD", "learning_rate": 0.1}
    ),
    "relative error": regressor(200_000 + 50_000 * heights(), loss="MeanAbsolutePercentageError"),
    "three classes of a fifth and more": classifier(y=np.minimum(labels(k=5), 2)),
    "unequal classes with AUC": classifier(y=(np.arange(400) % 50 == 0) * 1, metrics=["AUC", "Precision"]),
    "unequal classes with weights": classifier(
        y=(np.arange(400) % 50 == 0) * 1, metrics=["SparseCategoricalAccuracy"], fit={"class_weight": True}
    ),
    "batches of an unequal class": classifier(y=(np.arange(400) % 7 == 0) * 1, metrics=["AUC"], batch=8),
    "sorted rows in one batch": program(
        dense(32, "relu"), dense(3, "softmax"), loss="CategoricalCrossentropy", x=X[:60], y=np.eye(3)[np.sort(Y[:60])],
        batch=60, fit={"epochs": 2000},
    ),
    "no statistics": program(dense(32, "relu"), dense(3, "softmax")),
}  # fmt: skip


@pytest.mark.parametrize("case", HEALTHY)
def test_nothing_is_said_of_healthy_data(case):
    assert diagnose_program(HEALTHY[case]) == []


def test_validation_that_is_not_finite():
    x_val = with_column(np.where(np.arange(400) < 4, np.nan, X[:, 3]))[:100]
    finding = inputs.not_finite_inputs(classifier(x_val=x_val, y_val=Y[:100]))
    assert finding.where == {"feature": [3], "data": "validation"}


def test_targets_that_a_loss_of_the_users_may_leave_out():
    missing = np.where(np.arange(400) < 4, np.nan, heights())
    for masked in (regressor(missing, is_own_step=True), regressor(missing, loss="masked_mse")):
        assert targets.not_finite_targets(masked).severity == "hint"


def test_a_step_of_the_users_may_scale():
    assert inputs.unscaled_inputs(classifier(100 * X, is_own_step=True)).severity == "hint"
    assert inputs.pixels(image_classifier(layer("Flatten"), is_own_step=True)).severity == "hint"


def test_the_other_features_are_counted():
    finding = inputs.unscaled_inputs(classifier(X + 100 * (np.arange(20) < 8)))
    assert len(finding.where["feature"]) == 5
    assert finding.evidence["features_unscaled"] == 8


def test_connections_that_are_unknown():
    faulty = classifier(100 * X)
    unknown = tuple(each._replace(inputs=()) for each in faulty.layers)
    assert inputs.unscaled_inputs(faulty) is not None
    assert inputs.unscaled_inputs(faulty._replace(layers=unknown)) is None


def test_a_mask_of_ones_is_a_hint():
    masked = classifier(np.ones((400, 20)))
    with_mask = masked.training._replace(inputs=(*masked.training.inputs, *data(X).inputs))
    assert inputs.constant_inputs(masked._replace(training=with_mask)).severity == "hint"


def test_several_inputs_are_judged_together():
    one = classifier(100 * X)
    embedded = layer("Embedding", name="tokens", n_weights=9)
    both = one._replace(
        layers=(embedded, *one.layers), training=one.training._replace(inputs=(*data(TOKENS).inputs, *data(X).inputs))
    )
    assert inputs.unscaled_inputs(both) is None


def test_few_samples_say_nothing_of_the_scale():
    few = data(100 * X[:6], Y[:6])
    assert inputs.unscaled_inputs(classifier()._replace(training=few)) is None
    assert inputs.constant_inputs(classifier()._replace(training=data(np.ones((6, 20)), Y[:6]))) is None


@pytest.mark.parametrize(
    ("inputs", "change"),
    [
        (np.arange(400).reshape(40, 10) % 50, None),
        (np.arange(400).reshape(40, 10) % 50 / 50, "standardize"),
        (np.arange(400).reshape(40, 10) % 80, "units"),
        (np.arange(400).reshape(40, 10) % 50 - 1, "units"),
    ],
    ids=["indices", "fractions", "too large", "negative"],
)
def test_inputs_of_an_embedding_are_indices_of_its_rows(inputs, change):
    embedding = layer("Embedding", n_weights=400, input_dim=50, output_dim=8)
    described = program(embedding, layer("Flatten"), dense(3, "softmax"), x=inputs, y=np.arange(40) % 3)
    found = [each for each in diagnose_program(described) if each.name == "embedded_numbers"]
    assert [each.change[0].parameter for each in found] == ([] if change is None else [change])
