"""What is read of each step: the same whatever the execution, and training the same as without us."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp
from mlflow_hp.history.step_record import distinct_names
from mlflow_hp.training import capture
from mlflow_hp.training.capture import why_host
from mlflow_hp.training.capture.step_layout import EpochCounter
from tests.helpers.fits import LABELS, RNG, X, Y, bare, network, record, regression, same_weights
from tests.helpers.forked_python import python

pytestmark = pytest.mark.usefixtures("store")

VALIDATION = X[:9], LABELS[:9]  # a last batch of one
EXECUTIONS = [(1, False), (50, False), (1, True), (1, "auto")]


@functools.cache
def bare_network(per_execution, jit, validated=True):
    """One for all tests: a fit without a recorder."""
    model = network(steps_per_execution=per_execution, jit_compile=jit)
    return bare(model, y=LABELS, validation_data=VALIDATION if validated else None)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("per_execution", "jit"), EXECUTIONS)
def test_training_is_unchanged_and_every_step_recorded(per_execution, jit):
    model = network(steps_per_execution=per_execution, jit_compile=jit)
    bare = bare_network(per_execution, model.jit_compile)
    fitted = record(model, y=LABELS, validation_data=VALIDATION)
    assert same_weights(fitted.model, bare)
    steps = fitted.history.steps
    assert fitted.history.meta["reader"] == "graph"
    assert steps["step"].tolist() == list(range(10))
    assert steps["epoch"].tolist() == [0] * 5 + [1] * 5
    assert steps["batch"].tolist() == [0, 1, 2, 3, 4] * 2
    assert steps["samples"].tolist() == [8, 8, 8, 8, 5] * 2
    assert np.all(np.diff(steps["time"]) >= 0)
    shown = fitted.keras_history.history
    assert steps["running_loss"][[4, 9]].tolist() == shown["loss"]
    assert steps["running_accuracy"][[4, 9]].tolist() == shown["accuracy"]


def test_steps_per_execution_does_not_change_what_is_recorded():
    one, many = (record(regression(metrics=["mae"], steps_per_execution=n)).history for n in (1, 50))
    for name in one.steps:
        if name != "time":
            np.testing.assert_array_equal(one.steps[name], many.steps[name], err_msg=name)
    for tensor in one.tensors:
        np.testing.assert_array_equal(one.weights(tensor.name), many.weights(tensor.name))


@pytest.mark.sampled(2)
@pytest.mark.parametrize("per_execution", [1, 50])
def test_batch_loss_is_that_of_the_batch_at_the_weights_before_the_step(per_execution):
    model = regression(steps_per_execution=per_execution)
    history = record(model, shuffle=False, epochs=1).history
    kernel, bias = history.weights("out/kernel"), history.weights("out/bias")
    for step, start in enumerate(range(0, 37, 8)):
        x, y = X[start : start + 8], Y[start : start + 8]
        expected = np.mean((x @ kernel[step][:, 0] + bias[step] - y) ** 2)
        assert history.steps["batch_loss"][step] == pytest.approx(expected, rel=2e-6)
    np.testing.assert_array_equal(kernel[-1], model.get_weights()[0])


def test_weights_follow_a_plain_numpy_loop_of_gradient_descent():
    history = record(regression(keras.optimizers.SGD(0.1)), shuffle=False, epochs=3).history
    w = history.weights("out/kernel")[0][:, 0].astype(float)
    b = float(history.weights("out/bias")[0][0])
    for step, start in enumerate([*range(0, 37, 8)] * 3, start=1):
        x, y = X[start : start + 8].astype(float), Y[start : start + 8].astype(float)
        residual = x @ w + b - y
        w, b = w - 0.2 * x.T @ residual / len(x), b - 0.2 * residual.mean()
        np.testing.assert_allclose(history.weights("out/kernel")[step][:, 0], w, atol=2e-6)
        np.testing.assert_allclose(history.weights("out/bias")[step][0], b, atol=2e-6)


def test_class_weights_count_in_the_batch_loss():
    fit = {"y": LABELS, "shuffle": False, "epochs": 1}
    plain = record(network(dropout=0, optimizer="sgd"), **fit).history.steps["batch_loss"][0]
    weighted = record(network(dropout=0, optimizer="sgd"), **fit, class_weight={0: 3.0, 1: 3.0})
    assert weighted.history.steps["batch_loss"][0] == pytest.approx(3 * plain, rel=1e-6)


@pytest.mark.thorough
@pytest.mark.sampled(2)
@pytest.mark.parametrize("per_execution", [1, 50])
def test_a_model_that_is_not_built_yet(per_execution):
    fitted = record(network(inputs=False, steps_per_execution=per_execution), y=LABELS)
    assert fitted.history.meta["reader"] == "graph"
    assert same_weights(fitted.model, bare(network(inputs=False, steps_per_execution=per_execution), y=LABELS))
    initial = network(inputs=True).get_weights()[0]
    assert fitted.history.statistics("hidden/kernel")["norm"][0] == pytest.approx(np.linalg.norm(initial), rel=1e-6)


def several_losses() -> keras.Model:
    keras.utils.set_random_seed(3)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, kernel_regularizer="l2", name="hidden")(inputs)
    outputs = {name: keras.layers.Dense(1, name=name)(hidden) for name in ("a", "b")}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss={"a": "mse", "b": "mae"}, metrics={"a": ["mae"]}, loss_weights={"a": 1.0, "b": 0.5})
    return model


def test_functional_model_with_several_losses_and_a_regularizer():
    targets = {"a": Y, "b": -Y}
    fitted = record(several_losses(), y=targets, shuffle=False)
    assert same_weights(fitted.model, bare(several_losses(), y=targets, shuffle=False))
    fresh = several_losses()
    first = fresh.evaluate(X[:8], {k: v[:8] for k, v in targets.items()}, verbose=0, return_dict=True)
    steps = fitted.history.steps
    assert steps["batch_loss"][0] == pytest.approx(first["loss"], rel=1e-5)
    assert {"running_a_loss", "running_b_loss", "running_a_mae"} <= steps.keys()


def test_gradient_accumulation_updates_every_third_step():
    def model():
        return regression(keras.optimizers.SGD(0.1, gradient_accumulation_steps=3))

    fitted = record(model())
    assert same_weights(fitted.model, bare(model()))
    moved = np.any(np.diff(fitted.history.weights("out/kernel"), axis=0) != 0, axis=(1, 2))
    assert np.flatnonzero(moved).tolist() == [2, 5, 8]


def test_learning_rate_in_force():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)
    rates = record(regression(keras.optimizers.SGD(schedule))).history.steps["learning_rate"]
    np.testing.assert_allclose(rates, 0.1 * 0.9 ** np.arange(10), rtol=1e-6)
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, _: [0.1, 0.02][epoch])
    rates = record(regression(), callbacks=[scheduler]).history.steps["learning_rate"]
    np.testing.assert_allclose(rates, [0.1] * 5 + [0.02] * 5, rtol=1e-6)
    plateau = keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    rates = record(regression(), callbacks=[plateau], epochs=3).history.steps["learning_rate"]
    np.testing.assert_allclose(rates, [0.05] * 10 + [0.025] * 5, rtol=1e-6)


def test_several_fits_with_one_callback_and_two_models_in_one_process():
    recorder = mlflow_hp.TrainingRecorder(report=False)
    model, other = regression(), network(optimizer="sgd")
    first = record(model, recorder=recorder)
    second = record(other, y=LABELS, recorder=recorder)
    third = record(model, recorder=recorder)
    assert [f.history.n_steps for f in (first, second, third)] == [10, 10, 10]
    twice = bare(bare(regression()))
    assert same_weights(model, twice)
    np.testing.assert_array_equal(first.history.weights("out/kernel")[-1], third.history.weights("out/kernel")[0])


@functools.cache
def keeping(weights):
    """A network whose fit keeps so much of its weights."""
    return record(network(), y=LABELS, recorder=mlflow_hp.TrainingRecorder(weights=weights, report=False))


@functools.cache
def every_weight():
    """The weights of a network at each of its steps."""
    history = keeping("all").history
    return {tensor.name: history.weights(tensor.name) for tensor in history.tensors}


@pytest.mark.thorough
@pytest.mark.sampled(3)
@pytest.mark.parametrize("weights", ["all", "statistics", "none"])
def test_what_is_kept_of_the_weights(weights):
    fitted = keeping(weights)
    assert same_weights(fitted.model, bare_network(1, fitted.model.jit_compile, validated=False))
    history = fitted.history
    assert [t.name for t in history.tensors][:2] == ["hidden/kernel", "hidden/bias"]
    if weights == "none":
        with pytest.raises(ValueError, match="not recorded"):
            history.statistics("hidden/kernel")
        return
    for tensor in history.tensors:
        exact = every_weight()[tensor.name].astype(float).reshape(11, -1)
        got = history.statistics(tensor.name)
        np.testing.assert_allclose(got["norm"], np.linalg.norm(exact, axis=1), rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(got["mean"], exact.mean(axis=1), rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(got["std"], exact.std(axis=1), rtol=1e-4, atol=1e-7)
        change = np.linalg.norm(np.diff(exact, axis=0), axis=1)
        moving = np.linalg.norm(exact, axis=1)[:-1] > 0
        expected = change[moving] / np.linalg.norm(exact, axis=1)[:-1][moving]
        np.testing.assert_allclose(got["update_ratio"][1:][moving], expected, rtol=1e-3, atol=1e-7)


def test_nan_and_infinite_losses_are_recorded_and_do_not_hinder():
    y = Y.copy()
    y[9] = np.nan
    fitted = record(regression(), y=y, shuffle=False, epochs=1)
    loss = fitted.history.steps["batch_loss"]
    assert np.isfinite(loss[0])
    assert np.isnan(loss[1:]).all()
    infinite = record(regression(keras.optimizers.SGD(1e30)), epochs=2).history.steps["batch_loss"]
    assert not np.isfinite(infinite[-1])


DISTRIBUTED = """
    import keras, numpy as np, pytest, tensorflow as tf
    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    import mlflow_hp
    from tests.helpers.fits import X, Y, bare, record, same_weights
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    class OwnStep(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data) | {"rows": tf.shape(data[0])[0]}

    def make(cls=keras.Sequential):
        keras.utils.set_random_seed(7)
        with strategy.scope():
            layers = [keras.layers.Dense(2), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
            model = cls([keras.Input((3,)), *layers])
            model.compile(keras.optimizers.Adam(0.01, clipnorm=0.5), "mse", metrics=["mae"])
        return model

    for cls, weights in (keras.Sequential, "all"), (keras.Sequential, "statistics"), (OwnStep, "all"):
        recorder = mlflow_hp.TrainingRecorder(weights=weights, report=False)
        fitted = record(make(cls), recorder=recorder, shuffle=False)
        history = fitted.history
        assert (history.meta["reader"], history.n_steps) == ("graph", 10)
        with strategy.scope():
            assert same_weights(fitted.model, bare(make(cls), shuffle=False))
        assert history.steps["samples"].tolist() == [8, 8, 8, 8, 5] * 2
        if cls is OwnStep:
            assert history.steps["batch_rows"].tolist() == [4, 4, 4, 4, 2] * 2  # the mean of integers, as in Keras
            continue
        if weights == "statistics":
            last = fitted.model.get_weights()[0]
            np.testing.assert_allclose(history.statistics(history.tensors[0].name)["norm"][-1], np.linalg.norm(last))
            continue
        for step in range(10):
            fitted.model.set_weights([history.weights(tensor.name)[step] for tensor in history.tensors])
            start = 8 * (step % 5)
            middle = start + [4, 4, 4, 4, 3][step % 5]
            parts = [slice(start, middle), slice(middle, start + 8)]  # of the two replicas
            losses = [np.mean((fitted.model(X[part], training=True)[:, 0] - Y[part]) ** 2) for part in parts]
            np.testing.assert_allclose(history.steps["batch_loss"][step], np.mean(losses), rtol=1e-5)
    with pytest.warns(RuntimeWarning, match="sharpness is not recorded: the model is distributed"):
        record(make(), recorder=mlflow_hp.TrainingRecorder(sharpness_every=2, report=False))
    with strategy.scope(), pytest.warns(RuntimeWarning, match="inside the scope of a distribution strategy"):
        fitted = record(make(), shuffle=False)
    assert fitted.history.steps["samples"].tolist() == [8, 8, 8, 8, 5] * 2
"""


@pytest.mark.thorough
@pytest.mark.slow
def test_a_model_on_two_devices_is_read_in_the_graph(tracking_uri, tmp_path):
    """In a process of its own: TensorFlow's distributed iterators crash one that has done much else."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": tracking_uri, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = textwrap.dedent(DISTRIBUTED)
    done = subprocess.run([python(), "-c", program], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_model_on_several_machines_is_read_from_the_host(monkeypatch):
    monkeypatch.setattr(capture, "strategy_of", lambda _: object())
    assert why_host(regression()) == "the model is distributed by object"


def test_random_ops_of_the_users_own_layers_draw_the_same_numbers():
    class Noise(keras.layers.Layer):
        def call(self, x):
            return x + tf.random.normal(tf.shape(x))

    def model():
        keras.utils.set_random_seed(5)
        result = keras.Sequential([keras.Input((3,)), Noise(), keras.layers.Dense(1)])
        result.compile("sgd", "mse")
        return result

    assert same_weights(record(model()).model, bare(model()))


def test_a_buffer_that_overflows_within_an_epoch(monkeypatch):
    monkeypatch.setattr("mlflow_hp.training.capture.step_buffers.MAX_STEPS", 7)
    x, y = RNG.normal(size=(100, 3)).astype("float32"), RNG.normal(size=100).astype("float32")
    for per_execution in (1, 3):
        history = record(regression(steps_per_execution=per_execution), x, y, batch_size=4).history
        assert history.steps["step"].tolist() == list(range(50))
        assert history.steps["batch"].tolist() == list(range(25)) * 2


def test_why_host_has_nothing_against_plain_models():
    assert why_host(regression()) is None


def test_epoch_counter():
    counter = EpochCounter(10)
    counter.begin_epoch(3, 0)
    counter.begin_epoch(4, 2)
    first = counter.count(1)
    second = counter.count(3)
    assert {k: v.tolist() for k, v in first.items()} == {"step": [10], "epoch": [3], "batch": [0]}
    assert {k: v.tolist() for k, v in second.items()} == {
        "step": [11, 12, 13],
        "epoch": [3, 4, 4],
        "batch": [1, 0, 1],
    }


def test_distinct():
    assert distinct_names(["a", "b", "a", "a_2", "a"]) == ["a", "b", "a_2", "a_2_2", "a_3"]


@pytest.mark.thorough
@pytest.mark.sampled(2)
@pytest.mark.parametrize("every", [1, 4])
def test_under_op_determinism_the_clock_is_the_hosts(store, every):
    from tensorflow.python.framework import config

    model = regression(steps_per_execution=every)
    record(model)  # with a step that reads TensorFlow's clock
    began = time.time()
    config.enable_op_determinism()
    try:
        fitted = record(model)
    finally:
        config.disable_op_determinism()
    times = fitted.history.steps["time"]
    assert fitted.history.n_steps == 10
    assert began <= times[0] <= times[-1] <= time.time()
    assert (np.diff(times) >= 0).all()


class Tracking(keras.Sequential):
    """Tells its loss tracker more than the step does."""

    def compute_loss(self, *arguments, **named):
        loss = super().compute_loss(*arguments, **named)
        self.metrics[0].update_state(3 * loss)
        return loss


@pytest.mark.sampled(2)
@pytest.mark.parametrize("every", [1, 3])
def test_a_loss_that_is_tracked_twice_is_the_mean_of_both_by_their_weights(every):
    def model():
        keras.utils.set_random_seed(7)
        made = Tracking([keras.Input((3,)), keras.layers.Dense(1, name="out")])
        made.compile("adam", "mse", steps_per_execution=every)
        return made

    fitted = record(model(), shuffle=False, epochs=1)
    assert same_weights(fitted.model, bare(model(), shuffle=False, epochs=1))
    steps = fitted.history.steps
    kernel, bias = (fitted.history.weights(f"out/{name}")[0] for name in ("kernel", "bias"))
    loss = np.mean((X[:8] @ kernel[:, 0] + bias - Y[:8]) ** 2)
    assert steps["batch_loss"][0] == pytest.approx((3 * loss + 8 * loss) / 9, rel=1e-6)
    weights = steps["samples"] + 1  # one for what it tells itself
    running = np.cumsum(weights * steps["batch_loss"]) / np.cumsum(weights)
    np.testing.assert_allclose(steps["running_loss"], running, rtol=1e-6)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("weights", ["all", "statistics"])
def test_a_weight_without_elements(weights):
    class Empty(keras.layers.Layer):
        def build(self, shape):
            self.table = self.add_weight(shape=(0, 3), name="table")

        def call(self, x):
            return x + keras.ops.sum(self.table)

    def model():
        keras.utils.set_random_seed(7)
        made = keras.Sequential([keras.Input((3,)), Empty(name="empty"), keras.layers.Dense(1, name="out")])
        made.compile("sgd", "mse")
        return made

    fitted = record(model(), recorder=mlflow_hp.TrainingRecorder(weights=weights, report=False))
    assert same_weights(fitted.model, bare(model()))
    assert fitted.history.n_steps == 10
    assert np.isfinite(fitted.history.steps["gradient_norm"]).all()
    if weights == "all":
        assert fitted.history.weights("empty/table").shape == (11, 0, 3)
        np.testing.assert_array_equal(fitted.history.weights("out/kernel")[-1], fitted.model.get_weights()[1])
