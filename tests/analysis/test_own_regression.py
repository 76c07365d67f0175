"""A linear regression of anybody's is diagnosed on its exact cost surface."""

from __future__ import annotations

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.analysis import LinearRegressionSurface
from mlflow_hp.analysis.diagnosis.own_regression import regression_of

RNG = np.random.default_rng(0)
X = RNG.normal(5, 2, (90, 1)).astype("float32")
Y = (3 * X[:, 0] - 7 + RNG.normal(0, 2, 90)).astype("float32")


def trained(*, units=1, loss="mse", rate=0.01, **layer):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(units, **layer)])
    model.compile(keras.optimizers.SGD(rate), loss)
    recorder = mlflow_hp.TrainingRecorder(report=False)
    with mlflow.start_run():
        model.fit(X, Y, batch_size=20, epochs=8, verbose=0, callbacks=[recorder])
    return recorder.history


@pytest.fixture(autouse=True)
def _in_a_store(store):
    """Record into a store of the test's own."""


def test_the_surface_is_that_of_the_data():
    regression = regression_of(trained())
    exact = LinearRegressionSurface(X[:, 0], Y)
    np.testing.assert_allclose(regression.surface.minimum, exact.minimum, rtol=1e-9)
    np.testing.assert_allclose(regression.surface.hessian, exact.hessian, rtol=1e-9)
    assert regression.settings["optimizer"] == "SGD"
    assert regression.settings["learning_rate"] == 0.01
    findings = {finding.name: finding for finding in mlflow_hp.diagnose(trained())}
    assert findings["distance"].evidence["least_squares_w"] == pytest.approx(exact.minimum.w, rel=1e-9)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "changed", [{"loss": "mae"}, {"activation": "relu"}, {"kernel_regularizer": "l2"}, {"use_bias": False}]
)
def test_other_models_are_none(changed):
    assert regression_of(trained(**changed)) is None
