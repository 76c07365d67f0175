"""Small models and data, and a fit that is recorded beside one that is not."""

from __future__ import annotations

import threading
from typing import Any, NamedTuple

import keras
import mlflow
import numpy as np

import mlflow_hp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(37, 3)).astype("float32")
Y = (X @ np.array([1.0, -2.0, 0.5], "float32") + 0.1 * RNG.normal(size=37)).astype("float32")
LABELS = (Y > 0).astype("int32")


class Fitted(NamedTuple):
    """A recorded fit: the model, its run's id, what Keras returned, and the recorder."""

    model: Any
    run_id: str
    keras_history: Any
    recorder: Any

    @property
    def history(self) -> mlflow_hp.TrainingHistory:
        return mlflow_hp.load_history(self.run_id)


def regression(optimizer: Any = None, **compiled: Any) -> keras.Model:
    """Dense(1) on three inputs: four weights."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="out")])
    compiled.setdefault("loss", "mse")
    model.compile(optimizer or keras.optimizers.RMSprop(0.05), **compiled)
    return model


def network(inputs: bool = True, dropout: float = 0.3, **compiled: Any) -> keras.Model:
    """A classifier with dropout and batch normalisation, built or (inputs=False) not."""
    keras.utils.set_random_seed(7)
    layers = [
        keras.layers.Dense(16, "relu", name="hidden"),
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dropout(dropout),
        keras.layers.Dense(2, "softmax", name="out"),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers] if inputs else layers)
    compiled = {
        "optimizer": "adam",
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    } | compiled
    model.compile(**compiled)
    return model


def record(model: Any, x: Any = X, y: Any = Y, recorder: Any = None, wait: bool = True, **fit: Any) -> Fitted:
    """Fit `model` in a run of its own with a recorder; on a loaded machine MLflow may be a while behind it."""
    recorder = recorder or mlflow_hp.TrainingRecorder(report=False)
    callbacks = [*fit.pop("callbacks_before", []), recorder, *fit.pop("callbacks", [])]
    fit = {"batch_size": 8, "epochs": 2, "verbose": 0} | fit
    with mlflow.start_run() as run:
        keras_history = model.fit(x, y, callbacks=callbacks, **fit)
    if wait:
        wait_for_the_rest()
    return Fitted(model, run.info.run_id, keras_history, recorder)


def wait_for_the_rest() -> None:
    """Wait until MLflow has what it was still taking when fits ended."""
    for thread in threading.enumerate():
        if thread.name == "mlflow_hp-rest":
            thread.join()


def bare(model: Any, x: Any = X, y: Any = Y, **fit: Any) -> Any:
    """Fit `model` as `record` does, without a recorder."""
    fit = {"batch_size": 8, "epochs": 2, "verbose": 0} | fit
    if model.built and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)  # as the first step would: Keras traces that step once then
    model.fit(x, y, **fit)
    return model


def same_weights(one: Any, other: Any) -> bool:
    """Whether all weights are equal, bit for bit."""
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(a.tobytes() == b.tobytes() for a, b in pairs)


def metric_steps(store: mlflow.MlflowClient, run_id: str, name: str) -> list[int]:
    """Steps of the points of a metric."""
    return [m.step for m in store.get_metric_history(run_id, name)]
