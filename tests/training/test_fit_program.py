"""The description of what was trained: model, losses, callbacks, and the data of the first epoch."""

from __future__ import annotations

import json

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp
from mlflow_hp.history.program import DataStatistics, Layer, Program, from_json, read_program, to_json, write_program
from mlflow_hp.training.capture.data_statistics import DataReader
from mlflow_hp.training.program_description import describe_program

layers = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(3, 2, (60, 4)).astype("float32")
LABELS = RNG.integers(0, 3, 60)


def described(model, **named):
    return describe_program(model, {"name": "SGD"}, {"epochs": 2}, **named)


def classifier(**compiled):
    model = keras.Sequential(
        [keras.Input((4,)), layers.Rescaling(0.5), layers.Dense(5, "relu"), layers.Dense(3), layers.Softmax()]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], **compiled)
    return model


@pytest.fixture(autouse=True)
def _in_a_store(store):
    """Record into a store of the test's own."""


def recorded(model, x, y=None, **named):
    recorder = mlflow_hp.TrainingRecorder(report=False, log_datasets=False)
    with mlflow.start_run() as run:
        model.fit(x, y, epochs=2, verbose=0, callbacks=[recorder], **named)
    return mlflow_hp.load_history(run.info.run_id).program


def test_a_sequential_model_is_described_layer_by_layer():
    program = described(classifier())
    assert [(each.kind, each.activation, each.inputs) for each in program.layers] == [
        ("Rescaling", "", ()),
        ("Dense", "relu", (program.layers[0].name,)),
        ("Dense", "linear", (program.layers[1].name,)),
        ("Softmax", "softmax", (program.layers[2].name,)),
    ]
    (output,) = program.outputs
    assert (output.layer, output.activation, output.shape) == (program.layers[2].name, "softmax", (3,))
    assert (output.loss, output.loss_config, output.metrics) == (
        "SparseCategoricalCrossentropy", {"from_logits": False}, ("accuracy",),
    )  # fmt: skip
    assert program.layers[1].config["kernel_initializer"]["name"] == "GlorotUniform"
    assert [each.n_weights for each in program.layers] == [0, 25, 18, 0]


def test_a_functional_model_with_layers_in_layers_and_two_outputs():
    inputs = keras.Input((4,))
    base = keras.Sequential([keras.Input((4,)), layers.Dense(5, "relu", name="inside")])
    base.trainable = False
    hidden = base(inputs)
    number = layers.Dense(1, name="number")(layers.Add()([hidden, layers.Dense(5, name="side")(hidden)]))
    chance = layers.Dense(2, activation="sigmoid", name="chance")(keras.ops.relu(hidden))
    model = keras.Model(inputs, [number, chance])
    losses = {"number": keras.losses.Huber(), "chance": keras.losses.BinaryCrossentropy(from_logits=True)}
    model.compile("sgd", losses, metrics={"chance": ["accuracy", keras.metrics.AUC()]})
    program = described(model)
    by_name = {each.name: each for each in program.layers}
    assert (by_name["inside"].trainable, by_name["side"].inputs) == (False, ("inside",))
    assert [(each.layer, each.activation, each.loss) for each in program.outputs] == [
        ("number", "linear", "Huber"), ("chance", "sigmoid", "BinaryCrossentropy"),
    ]  # fmt: skip
    assert program.outputs[1].loss_config["from_logits"] is True
    assert program.outputs[1].metrics == ("accuracy", "AUC")


class Own(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(4, activation="relu", name="hidden")
        self.head = layers.Dense(3, activation="sigmoid", name="head")

    def call(self, x):
        return self.head(self.hidden(x))


def test_a_model_whose_layers_are_called_in_code():
    model = Own()
    model.compile("sgd", "sparse_categorical_crossentropy")
    (output,) = recorded(model, X, LABELS).outputs
    assert (output.layer, output.activation, output.shape) == ("head", "sigmoid", (3,))
    assert [each.name for each in described(model).layers] == ["hidden", "head"]
    assert described(model).outputs[0].shape is None  # without a specification of its inputs


def test_a_loss_of_the_users_is_named():
    model = classifier()
    model.compile("sgd", lambda y, predicted: keras.ops.mean(keras.ops.square(y - predicted)))
    assert described(model).outputs[0].loss == "<lambda>"


def test_callbacks_are_the_users():
    early = keras.callbacks.EarlyStopping("val_accuracy", mode="min", patience=3)
    program = described(classifier(), callbacks=[keras.callbacks.History(), early, mlflow_hp.TrainingRecorder()])
    (callback,) = program.callbacks
    assert callback.kind == "EarlyStopping"
    assert {key: callback.config[key] for key in ("monitor", "mode", "patience")} == {
        "monitor": "val_accuracy", "mode": "min", "patience": 3,
    }  # fmt: skip


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", ["arrays", "dataset", "executions", "eager"])
def test_the_statistics_are_those_of_the_data(kind):
    x = X.copy()
    x[7, 2] = np.nan
    more = {"executions": {"steps_per_execution": 4}, "eager": {"run_eagerly": True}}.get(kind, {})
    model = classifier(**more)
    if kind == "dataset":
        program = recorded(model, tf.data.Dataset.from_tensor_slices((x, LABELS)).batch(10), shuffle=False)
    else:
        program = recorded(model, x, LABELS, batch_size=10)
    (inputs,), (labels,) = program.training
    assert (inputs.n_samples, inputs.n_batches) == (60, 6)
    np.testing.assert_allclose(inputs.mean, np.nanmean(x.astype(float), axis=0), rtol=1e-12)
    np.testing.assert_allclose(inputs.std, np.nanstd(x.astype(float), axis=0), rtol=1e-9)
    np.testing.assert_array_equal(inputs.min, np.nanmin(x, axis=0))
    np.testing.assert_array_equal(inputs.max, np.nanmax(x, axis=0))
    np.testing.assert_allclose(inputs.not_finite, [0, 0, 1 / 60, 0])
    assert labels.counts == dict(enumerate(np.bincount(LABELS).tolist()))
    assert (labels.is_integer, labels.is_one_hot, inputs.target_products) == (True, False, None)


def test_validation_data_and_the_arguments_of_fit():
    model = classifier()
    program = recorded(model, X, LABELS, batch_size=10, validation_split=0.25, shuffle=False)
    assert program.validation is not None
    (inputs,), (labels,) = program.validation
    np.testing.assert_allclose(inputs.mean, X[45:].astype(float).mean(axis=0), rtol=1e-12)
    assert labels.counts == {
        int(each): int(n) for each, n in zip(*np.unique(LABELS[45:], return_counts=True), strict=True)
    }
    expected = {"epochs": 2, "steps": 5, "batch_size": 10, "shuffle": False, "has_validation": True}
    assert expected.items() <= program.fit.items()
    assert program.optimizer["name"] == "SGD"


def statistics(*batches):
    reader = DataReader()
    for batch in batches:
        reader.keep(tuple(map(tf.convert_to_tensor, batch)))
    return reader.statistics()


def test_forms_of_targets():
    one_hot = np.eye(3)[LABELS]
    assert statistics((X, one_hot)).targets[0].is_one_hot
    assert statistics((X, one_hot)).targets[0].counts == dict(enumerate(np.bincount(LABELS).tolist()))
    several = statistics((X, np.clip(one_hot + one_hot[::-1], 0, 1))).targets[0]
    assert (several.is_one_hot, several.is_binary, several.counts) == (False, True, None)
    signs = statistics((X, np.where(LABELS > 0, 1, -1)[:, None])).targets[0]
    assert set(signs.counts) == {-1, 1}
    numbers = statistics((X, LABELS + 0.5)).targets[0]
    assert (numbers.is_integer, numbers.counts) == (False, None)
    assert statistics((X, LABELS * 1000)).targets[0].counts is None


def test_batches_of_one_class():
    rows = [(X[k == LABELS], LABELS[k == LABELS]) for k in range(3)]
    assert statistics(*rows).targets[0].one_class_batches == 1.0
    assert statistics(*[(X[i::3], LABELS[i::3]) for i in range(3)]).targets[0].one_class_batches == 0.0


def test_products_with_the_target():
    y = X @ np.arange(4.0) + 1
    (inputs,), _ = statistics((X[:40], y[:40]), (X[40:], y[40:]))
    np.testing.assert_allclose(inputs.target_products, (X.astype(float) * y[:, None]).mean(axis=0), rtol=1e-10)


def test_arrays_that_are_no_dense_numbers_are_left_out():
    words = tf.constant(["a", "b"])
    ragged = tf.ragged.constant([[1.0], [2.0, 3.0]])
    reader = DataReader()
    reader.keep(({"text": words, "ragged": ragged, "number": tf.ones((2, 1))}, tf.zeros(2)))
    assert [each.name for each in reader.statistics().inputs] == ["number"]


def test_shapes_that_vary_never_end_a_step():
    reader = DataReader()
    step = tf.function(
        lambda data: (reader.keep(data), tf.constant(1))[1],
        input_signature=[(tf.TensorSpec([None, None]), tf.TensorSpec([None]))],
    )
    for n_samples, length, n_targets in ((4, 5, 4), (3, 7, 2), (0, 2, 0)):
        assert int(step((tf.ones((n_samples, length)), tf.zeros(n_targets)))) == 1
    (inputs,), (targets,) = reader.statistics()
    assert (inputs.n_samples, targets.n_samples, inputs.target_products) == (7, 6, None)


def test_later_epochs_are_not_counted():
    reader = DataReader()
    reader.keep((tf.ones((4, 2)), tf.zeros(4)))
    reader.end_epoch()
    reader.keep((tf.ones((4, 2)), tf.zeros(4)))
    assert reader.statistics().inputs[0].n_samples == 4


def test_a_program_survives_json():
    program = recorded(classifier(), X, LABELS, batch_size=30)
    assert isinstance(program, Program)
    assert from_json(json.loads(json.dumps(to_json(program), allow_nan=False))) == program


def test_names_that_look_like_numbers_and_damaged_files(tmp_path):
    array = statistics((np.full((4, 2), np.nan, "float32"), np.zeros(4))).inputs
    described = Program((Layer("nan", "Dense"), Layer("inf", "Dense", ("nan",))), training=DataStatistics(array))
    write_program(tmp_path, described)
    again = read_program(tmp_path)
    assert again.layers == described.layers
    assert all(map(np.isnan, again.training.inputs[0].mean))
    for damaged in ("", "[]", "3", '{"layers": 3}', '{"training": {"inputs": [{}]}}'):
        (tmp_path / "program.json").write_text(damaged)
        assert read_program(tmp_path) is None
