"""Endless data with steps_per_epoch: a recorded fit draws no batch that the fit would not draw by itself."""

from __future__ import annotations

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp
from tests.helpers.fits import regression, same_weights


class Endless:
    """Endless batches of eight samples, which are counted as they are drawn."""

    def __init__(self):
        self.n_drawn = 0
        spec = (tf.TensorSpec((8, 3)), tf.TensorSpec((8,)))
        self.data = tf.data.Dataset.from_generator(self._batches, output_signature=spec)
        options = tf.data.Options()
        options.autotune.enabled = False
        self.data = self.data.with_options(options)

    def _batches(self):
        rng = np.random.default_rng(0)
        while True:
            self.n_drawn += 1
            x = rng.normal(size=(8, 3)).astype("float32")
            yield x, x.sum(axis=1)


def n_drawn(callbacks, validates, is_built=True, **compiled):
    """Batches drawn for training and for validation by a fit of three epochs of eight steps, and its model."""
    training, validation = Endless(), Endless()
    model = regression(**compiled)
    if not is_built:
        keras.utils.set_random_seed(7)
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile("sgd", "mse", **compiled)
    validated = {"validation_data": validation.data, "validation_steps": 3} if validates else {}
    model.fit(training.data, steps_per_epoch=8, epochs=3, shuffle=False, verbose=0, callbacks=callbacks, **validated)
    return training.n_drawn, validation.n_drawn, model


@pytest.mark.sampled(9)
@pytest.mark.parametrize("validates", [False, True])
@pytest.mark.parametrize(
    "compiled",
    [{}, {"steps_per_execution": 4}, {"run_eagerly": True}, {"is_built": False}],
    ids=["one", "four", "eager", "unbuilt"],
)
def test_not_one_batch_more_is_drawn(store, validates, compiled):
    recorder = mlflow_hp.TrainingRecorder(report=False)
    with mlflow.start_run():
        *recorded, model = n_drawn([recorder, keras.callbacks.EarlyStopping("loss", patience=9)], validates, **compiled)
    *bare, other = n_drawn([], validates, **compiled)
    assert recorded == bare
    assert same_weights(model, other)
    assert recorder.history.n_steps == 24
