"""Healthy programs of series and texts."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs

Trained = tuple[Any, dict[str, float]]
PROGRAMS = Programs()
healthy = PROGRAMS.healthy


@healthy
def forecast_by_lstm(callbacks: list[Any]) -> Trained:
    """The next value of a series."""
    split = data.next_values()
    model = keras.Sequential([keras.Input((20, 1)), layers.LSTM(24), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    model.fit(split.x, split.y, epochs=15, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@healthy
def forecast_by_convolutions(callbacks: list[Any]) -> Trained:
    """A causal convolution over a series, by Huber's loss."""
    split = data.next_values()
    model = keras.Sequential(
        [
            keras.Input((20, 1)),
            layers.Conv1D(16, 5, padding="causal", activation="relu"),
            layers.Flatten(),
            layers.Dense(16, "relu"),
            layers.Dense(1),
        ]
    )
    model.compile("adam", keras.losses.Huber())
    model.fit(split.x, split.y, epochs=30, batch_size=32, validation_split=0.15, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@healthy
def bidirectional_recurrence(callbacks: list[Any]) -> Trained:
    """Two directions of a wave."""
    split = data.waves()
    model = keras.Sequential([keras.Input((24, 1)), layers.Bidirectional(layers.GRU(12)), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 15, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def waves_by_convolutions(callbacks: list[Any]) -> Trained:
    """Convolutions over time."""
    split = data.waves()
    inputs = keras.Input((24, 1))
    x = layers.Conv1D(16, 5, activation="relu")(inputs)
    x = layers.MaxPooling1D(2)(x)
    x = layers.Conv1D(24, 3, activation="relu")(x)
    x = layers.GlobalMaxPooling1D()(x)
    model = keras.Model(inputs, layers.Dense(3, "softmax")(x))
    model.compile("rmsprop", "categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, np.eye(3)[split.y], 16, 25, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def languages_by_gru(callbacks: list[Any]) -> Trained:
    """Tokens of four languages."""
    split = data.languages()
    model = keras.Sequential([layers.Embedding(12, 8), layers.GRU(24), layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 10, validation_split=0.15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def opinions_by_lstm(callbacks: list[Any]) -> Trained:
    """Padded texts with a mask, stopped early."""
    split = data.reviews()
    model = keras.Sequential()
    model.add(layers.Embedding(200, 16, mask_zero=True))
    model.add(layers.LSTM(16, dropout=0.2))
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile(optimizer="rmsprop", loss="binary_crossentropy", metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    model.fit(split.x, split.y, 32, 12, validation_split=0.2, callbacks=[*callbacks, stop], verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def attention_over_tokens(callbacks: list[Any]) -> Trained:
    """A block of attention with layer normalisation."""
    split = data.reviews()
    tokens = keras.Input((20,), dtype="int32")
    x = layers.Embedding(200, 16)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(tokens, layers.Dense(1, "sigmoid")(x))
    model.compile(keras.optimizers.Adam(0.003), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 4, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


CASES = PROGRAMS.cases
