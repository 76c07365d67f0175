"""The spectrum of the Hessian against the exact one, in float64, and the model left as it was."""

from __future__ import annotations

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

from mlflow_hp.errors import UserError
from mlflow_hp.training import hessian_spectrum
from tests.helpers.fits import LABELS, X, Y, network


def hessian_of(model, loss, x, y):
    """Hessian of a chain of tanh layers, from its formula in float64."""
    weights = [tf.constant(weight, tf.float64) for weight in model.get_weights()]
    flat = tf.concat([tf.reshape(weight, [-1]) for weight in weights], 0)
    with tf.GradientTape() as outer:
        outer.watch(flat)
        with tf.GradientTape() as inner:
            inner.watch(flat)
            parts = tf.split(flat, [int(tf.size(weight)) for weight in weights])
            parts = [tf.reshape(part, weight.shape) for part, weight in zip(parts, weights, strict=True)]
            activation = tf.constant(x, tf.float64)
            for kernel, bias in zip(parts[:-2:2], parts[1:-2:2], strict=True):
                activation = tf.tanh(activation @ kernel + bias)
            value = loss(activation @ parts[-2] + parts[-1], y)
        gradient = inner.gradient(value, flat)
    return outer.jacobian(gradient, flat).numpy()


def squares(outputs, y):
    return tf.reduce_mean(tf.square(outputs[:, 0] - tf.constant(y, tf.float64)))


def entropy(outputs, y):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, outputs))


def perceptron(units, outputs, **compiled):
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(n, "tanh") for n in units]
    model = keras.Sequential([keras.Input((3,)), *layers, keras.layers.Dense(outputs)])
    model.compile(keras.optimizers.Adam(0.01), **compiled)
    return model


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("outputs", "y", "loss"),
    [
        (1, Y, squares),
        (2, LABELS, entropy),
    ],
)
def test_within_one_percent_of_the_exact_on_two_thousand_weights(outputs, y, loss):
    compiled = "mse" if loss is squares else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = perceptron((40, 44), outputs, loss=compiled)
    model.fit(X, y, epochs=20, verbose=0)
    assert model.count_params() > 2000
    exact = hessian_of(model, loss, X, y)
    eigenvalues = np.linalg.eigvalsh(exact)[::-1]
    spectrum = hessian_spectrum(model, X, y, progress=False)
    np.testing.assert_allclose(spectrum.eigenvalues, eigenvalues[:5], rtol=0.01)
    assert spectrum.trace == pytest.approx(np.trace(exact), rel=0.01)
    assert spectrum.trace == pytest.approx(np.trace(exact), abs=4 * spectrum.trace_error)
    assert spectrum.smoothness == pytest.approx(np.abs(eigenvalues).max(), rel=0.01)
    assert spectrum.n_weights == model.count_params()
    assert spectrum.n_products < spectrum.n_weights / 4


def test_a_small_model_is_exact_and_in_batches_the_same():
    model = perceptron((6,), 1, loss="mse")
    x, y = np.tile(X, (50, 1)), np.tile(Y, 50)  # two batches
    exact = np.linalg.eigvalsh(hessian_of(model, squares, X, Y))[::-1]
    spectrum = hessian_spectrum(model, x, y, n_eigenvalues=3, n_samples=10_000, progress=False)
    np.testing.assert_allclose(spectrum.eigenvalues, exact[:3], rtol=1e-4)
    assert (spectrum.trace, spectrum.trace_error) == (pytest.approx(exact.sum(), rel=1e-4), 0)
    assert spectrum.n_samples == 50 * 37


def test_the_smoothness_counts_the_most_negative_eigenvalue():
    def saddle(_, predicted):  # eigenvalues 2 mean(x^2) and -6 mean(x^2)
        return keras.ops.square(predicted[:, :1]) - 3 * keras.ops.square(predicted[:, 1:])

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, use_bias=False)])
    model.compile("sgd", saddle)
    x = np.array([[1.0], [2.0]])
    spectrum = hessian_spectrum(model, x, np.zeros((2, 2)), n_eigenvalues=2, progress=False)
    np.testing.assert_allclose(spectrum.eigenvalues, [5, -15])
    assert (spectrum.trace, spectrum.smoothness) == (-10, 15)


@pytest.mark.parametrize(
    "make", [network, lambda: perceptron((4,), 2, loss="sparse_categorical_crossentropy", run_eagerly=True)]
)
def test_dropout_is_off_and_the_model_stays_as_it_was(make):
    model = make()
    model.fit(X, LABELS, verbose=0)
    state = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [np.asarray(variable).tobytes() for variable in state]
    one, other = (hessian_spectrum(model, X, LABELS, progress=False) for _ in range(2))
    assert [np.asarray(variable).tobytes() for variable in state] == before
    np.testing.assert_array_equal(one.eigenvalues, other.eigenvalues)
    assert one.trace == other.trace


def test_it_is_logged_after_a_fit(store):
    model = perceptron((4,), 1, loss="mse")
    with mlflow.start_run() as run:
        model.fit(X, Y, verbose=0)
        spectrum = hessian_spectrum(model, X, Y, n_eigenvalues=2, progress=False)
        mlflow.log_metrics(spectrum.metrics())
    metrics = store.get_run(run.info.run_id).data.metrics
    assert metrics == pytest.approx(spectrum.metrics())
    assert set(metrics) > {"hessian/eigenvalue_1", "hessian/eigenvalue_2", "hessian/trace", "hessian/smoothness"}


def test_what_does_not_fit_is_said():
    model = perceptron((4,), 1, loss="mse")

    def spectrum(x=X, y=Y, **how):
        return hessian_spectrum(model, x, y, progress=False, **how)

    with pytest.raises(UserError, match="x and y have"):
        spectrum(y=Y[:4])
    with pytest.raises(UserError, match=r"n_eigenvalues=22 .* 21 trainable weights"):
        spectrum(n_eigenvalues=22)
    with pytest.raises(UserError, match="max_products=5 is too small"):
        spectrum(max_products=5)
    with pytest.raises(UserError, match="tolerance=0 "):
        spectrum(tolerance=0)
    with pytest.raises(UserError, match="not finite"):
        spectrum(x=np.full_like(X, np.nan))
    model.trainable = False
    model.compile("sgd", "mse")
    with pytest.raises(UserError, match="no trainable weights"):
        spectrum()
    with pytest.raises(UserError, match="not compiled"):
        hessian_spectrum(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), X, Y)
