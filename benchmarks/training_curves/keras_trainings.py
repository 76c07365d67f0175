"""Real trainings of small networks in Keras, with the settings that those in NumPy have."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np

from benchmarks.training_curves import Curve
from benchmarks.training_curves.small_trainings import data_set, draw_settings, schedule_factor

CLASSES = {"adam": "Adam", "rmsprop": "RMSprop", "sgd": "SGD", "momentum": "SGD"}


def network(settings: dict[str, Any], n_inputs: int, n_classes: int) -> keras.Model:
    """Compiled network."""
    fault, start = settings["fault"], "glorot_uniform"
    if fault == "no initialisation":
        start = "zeros"
    stack: list[Any] = [keras.Input((n_inputs,))]
    for units in settings["units"]:
        penalty = keras.regularizers.L2(settings["decay"]) if settings["decay"] else None
        stack.append(
            keras.layers.Dense(units, settings["activation"], kernel_initializer=start, kernel_regularizer=penalty)
        )
        if settings["dropout"]:
            stack.append(keras.layers.Dropout(settings["dropout"]))
    last = "softmax" if n_classes else None
    stack.append(keras.layers.Dense(n_classes or 1, last, kernel_initializer=start))
    model = keras.Sequential(stack)
    more = {"momentum": 0.9} if settings["optimizer"] == "momentum" else {}
    optimizer = getattr(keras.optimizers, CLASSES[settings["optimizer"]])(settings["rate"], **more)
    model.compile(optimizer, "sparse_categorical_crossentropy" if n_classes else "mse")
    return model


def trained_curve(seed: int) -> Curve:
    """Train a network with settings drawn by `seed`; each sixth is broken."""
    rng, is_sound = np.random.default_rng(seed), seed % 6 > 0
    settings = draw_settings(rng, is_sound=is_sound)
    keras.utils.set_random_seed(seed)
    x, y, n_classes = data_set(settings["data"])
    y = y.copy()
    if settings["fault"] == "labels shuffled":
        rng.shuffle(y)
    noisy = rng.random(len(y)) < settings["label_noise"]
    y[noisy] = rng.permutation(y[noisy])
    order = rng.permutation(len(x))
    train, held = order[: int(0.7 * len(x))], order[int(0.7 * len(x)) :]
    rates = [
        settings["rate"] * schedule_factor(settings["schedule"], epoch / settings["epochs"])
        for epoch in range(settings["epochs"])
    ]
    callback = keras.callbacks.LearningRateScheduler(lambda epoch, _: rates[epoch])
    model = network(settings, x.shape[1], n_classes)
    start = float(model.evaluate(x[train], y[train], batch_size=512, verbose=0))
    history = model.fit(
        x[train], y[train], batch_size=settings["batch_size"], epochs=settings["epochs"], verbose=0,
        callbacks=[callback], validation_data=(x[held], y[held]) if settings["validated"] else None,
    )  # fmt: skip
    values = np.array(history.history["val_loss" if settings["validated"] else "loss"])
    name = f"Keras: {settings['fault'] or settings['data']}"
    return Curve(name, values, start, is_sound, settings["schedule"] != "constant")
