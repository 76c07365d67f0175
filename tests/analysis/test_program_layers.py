"""The network: layers, units and initial weights that keep it from learning, and healthy networks of all kinds."""

from __future__ import annotations

import pytest

from mlflow_hp.analysis.diagnosis import Change
from mlflow_hp.analysis.diagnosis.program import diagnose_program, initializers, layers
from tests.helpers.programs_described import (
    RNG,
    conv,
    dense,
    features,
    heights,
    labels,
    layer,
    program,
)

X, Y = features(), labels()
TEN = labels(k=10)
DROPOUT = layer("Dropout", rate=0.3)
NORMALIZATION = layer("BatchNormalization", n_weights=128)._replace(output_shape=(64,))
ZEROS, ONES, CONSTANT = ({"name": name} for name in ("Zeros", "Ones", "Constant"))


def classifier(*hidden, units=3, y=Y, **fields):
    return program(*hidden, dense(units, "softmax"), x=X, y=y, **fields)


FAULTS = {
    "no activation": (
        classifier(dense(64), DROPOUT, dense(32)),
        ("no_nonlinearity", "problem", 'Dense(64, activation="relu")'),
        [Change("activation", "linear", "relu", "dense"), Change("activation", "linear", "relu", "dense_1")],
    ),
    "no activation of one hidden layer": (
        classifier(dense(64)),
        ("no_nonlinearity", "problem", 'Dense(64, activation="relu")'),
        [Change("activation", "linear", "relu", "dense")],
    ),
    "no activation of convolutions": (
        program(conv(8), layer("AveragePooling2D"), conv(8), layer("Flatten"), dense(3, "softmax"),
                x=RNG.random((400, 8, 8, 1)), y=Y),
        ("no_nonlinearity", "problem", 'Conv2D(8, 3, activation="relu")'),
        [Change("activation", "linear", "relu", "conv2d"), Change("activation", "linear", "relu", "conv2d_1")],
    ),
    "one layer of several without activation": (
        classifier(dense(64, "relu"), dense(64), dense(32, "relu")),
        ("linear_pair", "hint", 'Dense(64, activation="relu")'),
        [Change("activation", "linear", "relu", "dense_1")],
    ),
    "softmax twice": (
        program(dense(64, "relu"), dense(3, "softmax"), layer("Softmax", axis=-1), x=X, y=Y),
        ("activation_twice", "problem", "without softmax"),
        [Change("last_activation", "softmax", "linear", "dense_1")],
    ),
    "ReLU and sigmoid": (
        classifier(dense(64, "relu"), layer("Activation", activation="sigmoid")),
        ("activation_twice", "hint", "Dense(64) in front of activation"),
        [Change("activation", "relu", "linear", "dense")],
    ),
    "softmax inside": (
        classifier(dense(64, "softmax"), DROPOUT),
        ("hidden_softmax", "problem", 'Dense(64, activation="relu")'),
        [Change("activation", "softmax", "relu", "dense")],
    ),
    "many sigmoids": (
        classifier(*[dense(64, "sigmoid")] * 5),
        ("saturating_stack", "problem", "in all of them"),
        [Change("activation", "sigmoid", "relu", "dense" + (f"_{n}" if n else "")) for n in range(5)],
    ),
    "ten tanh": (
        classifier(*[dense(64, "tanh")] * 10),
        ("saturating_stack", "hint", "in all of them"),
        [Change("activation", "tanh", "relu", "dense" + (f"_{n}" if n else "")) for n in range(10)],
    ),
    "two units for ten classes": (
        classifier(dense(64, "relu"), dense(2, "relu"), units=10, y=TEN),
        ("few_units", "problem", 'Dense(32, activation="relu")'),
        [Change("units", 2, 32, "dense_1")],
    ),
    "dropout at the output": (
        program(dense(64, "relu"), dense(3, "softmax"), layer("Dropout", rate=0.5), x=X, y=Y),
        ("dropout_at_output", "problem", "without dropout"),
        [Change("layers", "Dropout", None, "dropout")],
    ),
    "most is dropped": (
        classifier(dense(64, "relu"), layer("Dropout", rate=0.9)),
        ("much_dropout", "problem", "Dropout(0.3)"),
        [Change("rate", 0.9, 0.3, "dropout")],
    ),
    "much is dropped": (
        classifier(dense(64, "relu"), layer("Dropout", rate=0.7)),
        ("much_dropout", "hint", "Dropout(0.3)"),
        [Change("rate", 0.7, 0.3, "dropout")],
    ),
    "batches of one": (
        classifier(dense(64, "relu"), NORMALIZATION, batch=1),
        ("normalization_of_one", "problem", "batch_size=32"),
        [Change("batch_size", 1, 32)],
    ),
    "all is frozen": (
        program(dense(64, "relu", trainable=False), dense(3, "softmax", trainable=False), x=X, y=Y),
        ("everything_frozen", "problem", "model.get_layer('dense_1').trainable = True"),
        [Change("trainable", False, True, "dense_1")],
    ),
    "zeros": (
        classifier(dense(64, "relu", kernel_initializer=ZEROS)),
        ("constant_weights", "problem", 'kernel_initializer="he_normal"'),
        [Change("kernel_initializer", "Zeros", "he_normal", "dense")],
    ),
    "ones": (
        classifier(dense(64, "tanh", kernel_initializer=ONES), dense(64, "tanh")),
        ("constant_weights", "problem", 'kernel_initializer="glorot_uniform"'),
        [Change("kernel_initializer", "Ones", "glorot_uniform", "dense")],
    ),
    "wide random weights": (
        classifier(dense(64, "relu", kernel_initializer={"name": "RandomNormal", "stddev": 5.0})),
        ("size_of_weights", "problem", 'kernel_initializer="he_normal"'),
        [Change("kernel_initializer", "RandomNormal", "he_normal", "dense")],
    ),
    "tiny random weights": (
        classifier(dense(64, "relu", kernel_initializer={"name": "RandomUniform", "minval": -1e-4, "maxval": 1e-4})),
        ("size_of_weights", "hint", 'kernel_initializer="he_normal"'),
        [Change("kernel_initializer", "RandomUniform", "he_normal", "dense")],
    ),
    "a strong penalty": (
        classifier(dense(64, "relu", kernel_regularizer={"name": "L2", "l2": 1.0})),
        ("strong_regularizer", "problem", "kernel_regularizer=keras.regularizers.L2(1e-4)"),
        [Change("regularizer", 1.0, 1e-4, "dense")],
    ),
    "a strong penalty on outputs": (
        classifier(dense(64, "relu", activity_regularizer={"name": "L1", "l1": 0.05})),
        ("strong_regularizer", "problem", "activity_regularizer=keras.regularizers.L1(1e-4)"),
        [Change("regularizer", 0.05, 1e-4, "dense")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_faults_of_the_network(case):
    faulty, (name, severity, code), change = FAULTS[case]
    (finding,) = diagnose_program(faulty)
    assert (finding.name, finding.severity) == (name, severity)
    assert code in finding.suggestion
    assert list(finding.change) == change
    assert finding.where["layer"] == change[0].layer or change[0].layer is None


HEALTHY = {
    "no hidden layer": classifier(),
    "a linear regression with zeros": program(dense(1, kernel_initializer=ZEROS), loss="mse", x=X, y=heights()),
    "activations in layers": classifier(dense(64), layer("ReLU"), dense(64), NORMALIZATION, layer("LeakyReLU")),
    "narrow code without activation": classifier(dense(64, "relu"), dense(8), dense(64, "relu")),
    "linear autoencoder": program(dense(4), dense(20), loss="mse", x=X, y=X),
    "LSTM": program(
        layer("Embedding", n_weights=99), layer("LSTM", activation="tanh", n_weights=99), dense(3, "softmax"),
        x=RNG.integers(0, 500, (400, 9)), y=Y,
    )._replace(training=None),
    "GRUs": program(
        *[layer("GRU", activation="tanh", n_weights=99)] * 12, dense(1), loss="mse", x=RNG.normal(size=(400, 9, 2)),
        y=heights(),
    ),
    "convolutions with normalisation": program(
        conv(8), layer("BatchNormalization", n_weights=32), layer("Activation", activation="relu"), conv(8),
        layer("BatchNormalization", n_weights=32), layer("Activation", activation="relu"),
        layer("GlobalAveragePooling2D"), dense(3, "softmax"), x=RNG.random((400, 8, 8, 1)), y=Y,
    ),
    "three sigmoids with normalisation": classifier(*[dense(64, "sigmoid"), NORMALIZATION] * 4),
    "two sigmoids": classifier(dense(64, "sigmoid"), dense(64, "sigmoid")),
    "a frozen base": program(
        layer("Functional", n_weights=9999, trainable=False), layer("GlobalAveragePooling2D"), dense(3, "softmax"),
        x=RNG.random((400, 8, 8, 3)), y=Y,
    ),
    "dropout in front of the output": classifier(dense(64, "relu"), layer("Dropout", rate=0.5)),
    "dropout that does nothing": program(
        dense(64, "relu"), dense(3, "softmax"), layer("Dropout", rate=0.0), x=X, y=Y
    ),
    "zeros at the output": program(dense(64, "relu"), dense(3, "softmax", kernel_initializer=ZEROS), x=X, y=Y),
    "frozen constants": classifier(dense(64, "relu", kernel_initializer=CONSTANT, trainable=False), dense(64, "relu")),
    "one constant unit": program(
        dense(1, "relu", kernel_initializer=ONES), dense(1), loss="mse", x=X, y=heights()
    ),
    "default random weights": classifier(dense(64, "relu", kernel_initializer={"name": "RandomNormal"})),
    "a penalty": classifier(dense(64, "relu", kernel_regularizer={"name": "L2", "l2": 0.01})),
    "few classes behind few units": classifier(dense(4, "relu")),
    "an autoencoder's code": program(dense(64, "relu"), dense(2), dense(64, "relu"), dense(20), loss="mse", x=X, y=X),
    "frozen normalisation in batches of one": classifier(
        dense(64, "relu"), NORMALIZATION._replace(trainable=False), batch=1
    ),
    "no layers known": classifier(dense(64))._replace(layers=()),
    "a layer of the user's": classifier(dense(64), layer("Gate")),
}  # fmt: skip


@pytest.mark.parametrize("case", HEALTHY)
def test_nothing_is_said_of_healthy_networks(case):
    assert diagnose_program(HEALTHY[case]) == []


def test_the_size_of_a_regression_s_loss_is_unknown():
    penalised = dense(64, "relu", kernel_regularizer={"name": "L2", "l2": 0.2})
    assert initializers.strong_regularizer(classifier(penalised)).severity == "problem"
    assert initializers.strong_regularizer(program(penalised, dense(1), loss="mse")).severity == "hint"


def test_two_numbers_can_tell_classes_apart():
    assert layers.few_units(classifier(dense(64, "relu"), dense(2), units=10, y=TEN)).severity == "hint"


def test_wide_inputs_make_large_sums():
    flat = program(dense(8, "relu", kernel_initializer={"name": "RandomNormal"}), dense(1), x=RNG.random((20, 30_000)))
    assert initializers.size_of_weights(flat).severity == "hint"


def test_residual_branches_may_begin_with_zeros():
    branch = (
        dense(64, "relu", name="stem"),
        dense(64, "relu", name="branch", kernel_initializer=ZEROS),
        layer("Add", name="sum", inputs=("stem", "branch")),
    )
    residual = classifier(*branch)
    assert initializers.constant_weights(residual) is None
    normalised = layer("BatchNormalization", name="scaled", inputs=("branch",), n_weights=128)
    with_normalisation = classifier(*branch[:2], normalised, branch[2]._replace(inputs=("stem", "scaled")))
    assert initializers.constant_weights(with_normalisation) is None
    alone = classifier(branch[0], branch[1])
    assert initializers.constant_weights(alone) is not None


def test_normalisation_behind_convolutions_in_batches_of_one_is_a_hint():
    per_place = layer("BatchNormalization", n_weights=32)._replace(output_shape=(8, 8, 8))
    described = program(
        conv(8, "relu"),
        per_place,
        layer("Flatten"),
        dense(3, "softmax"),
        x=RNG.random((40, 8, 8, 1)),
        y=Y[:40],
        batch=1,
    )
    assert layers.normalization_of_one(described).severity == "hint"


def test_batches_of_one_by_the_data_alone():
    described = classifier(dense(64, "relu"), NORMALIZATION, batch=1, fit={"batch_size": None})
    assert layers.normalization_of_one(described).evidence == {"samples_per_batch": 1.0}


def test_operations_may_be_activations():
    by_function = classifier(dense(64), dense(32)._replace(inputs=("relu",)))
    assert layers.no_nonlinearity(by_function) is None
    assert layers.linear_pair(by_function) is None


def test_dropout_inside_a_nested_model_is_not_at_the_output():
    nested = (
        dense(64, "relu", name="inner"),
        layer("Dropout", name="inner_dropout", inputs=("inner",), rate=0.5),
        layer("Functional", name="base", inputs=("none",)),
        dense(3, "softmax", name="head")._replace(inputs=("base",)),
    )
    assert layers.dropout_at_output(program(*nested, x=X, y=Y)) is None


@pytest.mark.parametrize(
    ("axis", "shape", "is_fault"),
    [(-1, (8, 1), True), (-1, (8, 16), False), ([1], (1, 16), True), ([1, 2], (1, 16), False), (-1, None, False)],
)
def test_a_normalisation_over_one_value(axis, shape, is_fault):
    normalises = layer("LayerNormalization", axis=axis)._replace(output_shape=shape)
    described = classifier(dense(64, "relu"), normalises)
    found = layers.normalization_over_one(described)
    assert (found is not None) == is_fault
