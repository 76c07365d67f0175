"""Healthy programs with schedules, and with callbacks that steer them."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs

Trained = tuple[Any, dict[str, float]]
PROGRAMS = Programs()
healthy = PROGRAMS.healthy


def _pictures() -> data.Split:
    split = data.digits()
    return split._replace(x=split.x.reshape(-1, 8, 8, 1) / 16, x_test=split.x_test.reshape(-1, 8, 8, 1) / 16)


@healthy
def digits_stopped_early(callbacks: list[Any]) -> Trained:
    """Many epochs, ended by ``EarlyStopping``."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping("val_loss", patience=4, restore_best_weights=True)
    model.fit(
        split.x / 16, split.y, epochs=100, batch_size=16, validation_split=0.2, callbacks=[*callbacks, stop], verbose=0
    )
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@healthy
def pictures_lower_the_rate_on_plateaus(callbacks: list[Any]) -> Trained:
    """``ReduceLROnPlateau`` of the validation loss."""
    split = _pictures()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, (3, 3), activation="relu", padding="same"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(24, (3, 3), activation="relu", padding="same"),
            layers.Flatten(),
            layers.Dropout(0.25),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(), optimizer=keras.optimizers.Adam(0.003), metrics=["accuracy"]
    )
    reduce = keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.5)
    validation = (split.x_test[:300], split.y_test[:300])
    model.fit(split.x, split.y, 32, 14, validation_data=validation, callbacks=[reduce, *callbacks], verbose=0)
    return model, scores.classes(model, split.x_test[300:], split.y_test[300:])


@healthy
def cosine_over_all_steps(callbacks: list[Any]) -> Trained:
    """``CosineDecay`` to zero at the end of the training."""
    split = data.digits()
    rate = keras.optimizers.schedules.CosineDecay(0.1, 20 * 34)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(rate, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x / 16, split.y, epochs=20, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@healthy
def warm_up_then_cosine(callbacks: list[Any]) -> Trained:
    """A warm-up of an epoch or two."""
    split = data.standardized(data.friedman())
    offset, scale = float(split.y.mean()), float(split.y.std())
    rate = keras.optimizers.schedules.CosineDecay(0.0, 900, warmup_target=0.01, warmup_steps=60)
    model = keras.Sequential([layers.Dense(32, "gelu"), layers.Dense(32, "gelu"), layers.Dense(1)])
    model.compile(keras.optimizers.AdamW(rate), "mse")
    y = (split.y - offset) / scale
    model.fit(split.x, y, epochs=35, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=scale, offset=offset)


@healthy
def rate_lowered_by_a_function(callbacks: list[Any]) -> Trained:
    """``LearningRateScheduler``: after ten epochs a tenth."""
    split = _pictures()
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"), layers.Flatten()])
    model.add(layers.Dense(10, "softmax"))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch: 0.01 if epoch < 10 else 0.001)
    model.fit(split.x, split.y, 64, 15, validation_split=0.1, callbacks=[scheduler, *callbacks], verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def exponential_decay_slowly(callbacks: list[Any]) -> Trained:
    """``ExponentialDecay`` by a half each 200 steps."""
    split = data.spirals()
    rate = keras.optimizers.schedules.ExponentialDecay(0.02, 300, 0.7)
    model = keras.Sequential([keras.Input((2,)), layers.Dense(32, "tanh"), layers.Dense(32, "tanh")])
    model.add(layers.Dense(3, "softmax"))
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=70, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


CASES = PROGRAMS.cases
