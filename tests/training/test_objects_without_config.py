"""Schedules, optimizers, layers, losses and penalties of the user's that have no configuration, as in tutorials."""

from __future__ import annotations

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp

X = np.random.default_rng(0).normal(size=(64, 5)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("float32")


class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Of the well-known tutorial on transformers: without ``get_config``."""

    def __init__(self, d_model, warmup_steps=4000):
        self.d_model, self.warmup_steps, self._own = float(d_model), warmup_steps, [1, 2]

    def __call__(self, step):
        step = keras.ops.cast(step, "float32") + 1
        return self.d_model**-0.5 * keras.ops.minimum(step**-0.5, step * self.warmup_steps**-1.5)


class Own(keras.optimizers.SGD):
    """An optimizer whose configuration fails."""

    def get_config(self):
        raise TypeError("not today")


class Scaled(keras.layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return self.factor * x

    def get_config(self):
        raise NotImplementedError


class Squares(keras.losses.Loss):
    def call(self, y, predicted):
        return keras.ops.mean((y - predicted) ** 2, axis=-1)

    def get_config(self):
        raise NotImplementedError


class Penalty(keras.regularizers.Regularizer):
    def __call__(self, weights):
        return 1e-3 * keras.ops.sum(weights**2)


def compiled(optimizer=None, loss="binary_crossentropy", middle=None):
    middle = middle or keras.layers.Dense(4, "relu")
    model = keras.Sequential([keras.Input((5,)), middle, keras.layers.Dense(1, "sigmoid")])
    model.compile(optimizer or "sgd", loss, metrics=["accuracy"])
    return model


PROGRAMS = {
    "a schedule": lambda: compiled(keras.optimizers.Adam(WarmUp(64), beta_2=0.98)),
    "an optimizer": lambda: compiled(Own(0.05, momentum=0.9)),
    "an optimizer with a schedule": lambda: compiled(Own(WarmUp(64))),
    "a layer": lambda: compiled(middle=Scaled(2.0)),
    "a loss": lambda: compiled(loss=Squares()),
    "a penalty": lambda: compiled(middle=keras.layers.Dense(4, "relu", kernel_regularizer=Penalty())),
}


def fitted(name, callbacks=()):
    keras.utils.set_random_seed(1)
    model = PROGRAMS[name]()
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[*callbacks])
    return model


@pytest.mark.sampled(6)
@pytest.mark.parametrize("name", PROGRAMS)
def test_it_is_recorded_all_the_same(store, name):
    recorder = mlflow_hp.TrainingRecorder(report=False)
    with mlflow.start_run() as run:
        model = fitted(name, [recorder])
    for one, other in zip(model.get_weights(), fitted(name).get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert recorder.history.n_steps == 4
    assert recorder.history.program.layers
    assert "mlflow_hp.recording_error" not in store.get_run(run.info.run_id).data.tags
    assert isinstance(mlflow_hp.diagnose(run.info.run_id), list)


def test_what_is_known_of_them(store):
    recorder = mlflow_hp.TrainingRecorder(report=False)
    with mlflow.start_run() as run:
        fitted("a schedule", [recorder])
    params = store.get_run(run.info.run_id).data.params
    assert (params["optimizer"], params["learning_rate"], params["beta_2"]) == ("Adam", "WarmUp", "0.98")
    assert (params["learning_rate.d_model"], params["learning_rate.warmup_steps"]) == ("64.0", "4000")
    with mlflow.start_run() as run:
        fitted("an optimizer", [recorder])
    params = store.get_run(run.info.run_id).data.params
    assert (params["optimizer"], params["learning_rate"], params["momentum"]) == ("Own", "0.05", "0.9")
