"""The sharpness: the largest eigenvalue of the Hessian of the loss on a batch, without any effect on the training."""

from __future__ import annotations

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp
from mlflow_hp.errors import RecordingWarning, UserError
from tests.helpers.fits import LABELS, X, Y, bare, network, record, regression, same_weights

pytestmark = pytest.mark.usefixtures("store", "blank_pictures")


def recorder(every=3, **settings):
    return mlflow_hp.TrainingRecorder(report=False, sharpness_every=every, **settings)


def hessian_of(model, x, y):
    """Hessian of the loss by all weights, from the formula of the model in NumPy's order of the weights."""
    weights = [tf.constant(weight) for weight in model.get_weights()]
    flat = tf.concat([tf.reshape(weight, [-1]) for weight in weights], 0)
    with tf.GradientTape() as outer:
        outer.watch(flat)
        with tf.GradientTape() as inner:
            inner.watch(flat)
            parts = tf.split(flat, [int(tf.size(weight)) for weight in weights])
            parts = [tf.reshape(part, weight.shape) for part, weight in zip(parts, weights, strict=True)]
            activation = x
            for kernel, bias in zip(parts[:-2:2], parts[1:-2:2], strict=True):
                activation = tf.tanh(activation @ kernel + bias)
            loss = tf.reduce_mean(tf.square((activation @ parts[-2] + parts[-1])[:, 0] - y))
        gradient = inner.gradient(loss, flat)
    return outer.jacobian(gradient, flat).numpy()


def test_within_two_percent_of_the_exact_eigenvalue():
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(units, "tanh") for units in (40, 44)]
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(1)])
    assert model.count_params() > 2000
    model.compile(keras.optimizers.SGD(0.05), "mse")
    exact = []

    class Exact(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            exact.append(np.linalg.eigvalsh(hessian_of(model, X, Y).astype(float))[-1])

    fitted = record(model, recorder=recorder(1), callbacks=[Exact()], batch_size=37, epochs=3, shuffle=False)
    np.testing.assert_allclose(fitted.history.steps["sharpness"], exact, rtol=0.02)
    points = mlflow.MlflowClient().get_metric_history(fitted.run_id, "sharpness")
    assert [point.step for point in points] == [0, 1, 2]


def test_the_largest_eigenvalue_where_another_is_more_negative():
    def saddle(_, predicted):  # eigenvalues 2 mean(x^2) and -6 mean(x^2)
        return keras.ops.square(predicted[:, :1]) - 3 * keras.ops.square(predicted[:, 1:])

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.01), saddle)
    fitted = record(model, X[:, :1], np.zeros((37, 2)), recorder(1), batch_size=37)
    np.testing.assert_allclose(fitted.history.steps["sharpness"], 2 * np.mean(X[:, 0] ** 2), rtol=0.02)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("compiled", [{"steps_per_execution": 3}, {"jit_compile": True}])
def test_training_is_the_same(compiled):
    fitted = record(network(**compiled), y=LABELS, recorder=recorder())
    assert same_weights(fitted.model, bare(network(**compiled), y=LABELS))
    sharpness = fitted.history.steps["sharpness"]
    assert np.flatnonzero(np.isfinite(sharpness)).tolist() == [0, 3, 6, 9]
    assert (sharpness[[0, 3, 6, 9]] > 0).all()
    plain = record(network(**compiled), y=LABELS)
    assert "sharpness" not in plain.history.steps
    for name, column in plain.history.steps.items():
        if name not in ("time", "gradient_cosine"):
            assert column.tolist() == fitted.history.steps[name].tolist(), name


def test_each_fit_begins_with_a_sharpness():
    own, model = recorder(4), regression()
    for _ in range(2):
        fitted = record(model, recorder=own, epochs=1)
        assert np.isfinite(fitted.history.steps["sharpness"]).tolist() == [True, False, False, False, True]


def test_weights_of_samples_and_penalties_are_in_the_loss():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False, kernel_regularizer="l2")])
    model.compile("sgd", "mse")
    weights = np.linspace(0, 2, 37).astype("float32")
    steps = record(model, recorder=recorder(1), sample_weight=weights, batch_size=37, shuffle=False).history.steps
    hessian = 2 * (X.T * weights) @ X / 37 + 2 * 0.01 * np.eye(3)
    np.testing.assert_allclose(steps["sharpness"], np.linalg.eigvalsh(hessian)[-1], rtol=0.02)


class Counting(keras.Model):
    """Counts its calls in a variable of TensorFlow's, which Keras does not know."""

    def __init__(self):
        super().__init__()
        self.calls, self.out = tf.Variable(0, trainable=False), keras.layers.Dense(1)

    def call(self, x):
        self.calls.assign_add(1)
        return self.out(x)


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


def own_step():
    return OwnStep([keras.Input((3,)), keras.layers.Dense(1)])


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("make", "compiled", "reason"),
    [
        (Counting, {}, "changes a state"),
        (own_step, {}, "train_step"),
        (lambda: keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), {"run_eagerly": True}, "host"),
    ],
)
def test_without_a_sharpness_the_rest_is_recorded(make, compiled, reason):
    def model():
        keras.utils.set_random_seed(7)
        made = make()
        made.compile("adam", "mse", **compiled)
        return made

    with pytest.warns(RecordingWarning) as warned:
        fitted = record(model(), recorder=recorder())
    (message,) = [str(each.message) for each in warned if "the sharpness is not recorded" in str(each.message)]
    assert reason in message
    assert "sharpness" not in fitted.history.steps
    assert fitted.history.n_steps == 10
    assert same_weights(fitted.model, bare(model()))
    if make is Counting:
        assert int(fitted.model.calls) == int(bare(model()).calls)


@pytest.mark.parametrize("every", [0, -1, 2.5, True, "3"])
def test_a_wrong_interval(every):
    with pytest.raises(UserError, match="sharpness_every="):
        mlflow_hp.TrainingRecorder(sharpness_every=every)
    with pytest.raises(UserError, match="sharpness_every="):
        mlflow_hp.autolog(sharpness_every=every)
