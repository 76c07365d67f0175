"""A random search by KerasTuner."""

import tempfile

import keras
import keras_tuner
import numpy as np

keras.utils.set_random_seed(8)
rng = np.random.default_rng(8)
x, y = rng.normal(size=(60, 4)).astype("float32"), rng.normal(size=(60, 1)).astype("float32")
MODELS = []


def build_model(hp):
    keras.utils.set_random_seed(8)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(hp.Choice("units", [4, 8]), activation="relu"), keras.layers.Dense(1)]
    )
    model.compile(optimizer=keras.optimizers.Adam(hp.Float("lr", 1e-4, 1e-2, sampling="log")), loss="mse")
    MODELS.append(model)
    return model


with tempfile.TemporaryDirectory() as folder:
    tuner = keras_tuner.RandomSearch(build_model, objective="val_loss", max_trials=2, seed=8, directory=folder)
    tuner.search(x, y, epochs=2, validation_data=(x, y), verbose=0)
