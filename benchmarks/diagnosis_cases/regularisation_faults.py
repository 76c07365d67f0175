"""Programs with too much regularisation, or none where there should be."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs
from benchmarks.diagnosis_cases.network_fits import Trained
from benchmarks.diagnosis_cases.network_fits import classes as _ends
from benchmarks.diagnosis_cases.network_fits import digits as _digits
from benchmarks.diagnosis_cases.network_fits import friedman as _friedman

PROGRAMS = Programs()
faulty = PROGRAMS.faulty


@faulty("regularisation", "rate layers")
def dropout_after_the_output(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``Dropout`` of the probabilities."""
    model = keras.Sequential([keras.Input((64,)), layers.Dense(48, "relu"), layers.Dense(10, "softmax")])
    if is_faulty:
        model.add(layers.Dropout(0.5))
    return _digits(callbacks, model, keras.optimizers.SGD(0.1))


@faulty("regularisation", "rate layers")
def dropout_of_a_regressions_output(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``Dropout`` of the value itself."""
    model = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(1)])
    if is_faulty:
        model.add(layers.Dropout(0.4))
    return _friedman(callbacks, model)


@faulty("regularisation", "rate layers")
def dropout_of_most_inputs(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Nine of ten features are dropped."""
    rate = 0.85 if is_faulty else 0.02
    model = keras.Sequential([keras.Input((10,)), layers.Dropout(rate), layers.Dense(32, "relu"), layers.Dense(1)])
    return _friedman(callbacks, model, validation_split=0.2)


@faulty("regularisation", "rate")
def spatial_dropout_of_most_maps(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Whole maps of features are dropped, most of them."""
    split = data.digits()
    x = inputs = keras.Input((8, 8, 1))
    for n_maps in (8, 16):
        x = layers.Conv2D(n_maps, 3, activation="relu")(x)
        x = layers.SpatialDropout2D(0.9 if is_faulty else 0.1)(x)
    model = keras.Model(inputs, layers.Dense(10, "softmax")(layers.Flatten()(x)))
    pictures = split._replace(x=split.x.reshape(-1, 8, 8, 1) / 16, x_test=split.x_test.reshape(-1, 8, 8, 1) / 16)
    return _ends(callbacks, model, pictures, keras.optimizers.Adam(0.003), epochs=8)


@faulty("regularisation", "rate")
def recurrent_dropout_of_nearly_all(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Dropout of 0.95 behind a recurrent layer."""
    model = keras.Sequential([layers.Embedding(12, 8), layers.GRU(16), layers.Dropout(0.95 if is_faulty else 0.1)])
    model.add(layers.Dense(4, "softmax"))
    return _ends(callbacks, model, data.languages(), keras.optimizers.Adam(0.01), epochs=10)


@faulty("regularisation", "regularizer")
def l1_of_one_tenth(callbacks: list[Any], is_faulty: bool) -> Trained:
    """An L1 penalty that outweighs the loss."""
    model = keras.Sequential([keras.Input((64,))])
    for _ in range(2):
        model.add(layers.Dense(48, "relu", kernel_regularizer=keras.regularizers.L1(0.1 if is_faulty else 1e-5)))
    model.add(layers.Dense(10, "softmax"))
    return _digits(callbacks, model)


@faulty("regularisation", "regularizer")
def activities_punished(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A penalty on the outputs of a layer."""
    penalty = keras.regularizers.L2(1.0 if is_faulty else 1e-6)
    model = keras.Sequential([layers.Dense(32, "relu", activity_regularizer=penalty), layers.Dense(1)])
    return _friedman(callbacks, model)


@faulty("regularisation", "regularizer")
def l2_of_convolutions(callbacks: list[Any], is_faulty: bool) -> Trained:
    """An L2 penalty of 1 on convolutions."""
    split = data.digits()
    penalty = keras.regularizers.L2(1.0) if is_faulty else None
    model = keras.Sequential([keras.Input((8, 8, 1))])
    model.add(layers.Conv2D(12, 3, activation="relu", kernel_regularizer=penalty))
    model.add(layers.Flatten())
    model.add(layers.Dense(10, "softmax", kernel_regularizer=penalty))
    pictures = split._replace(x=split.x.reshape(-1, 8, 8, 1) / 16, x_test=split.x_test.reshape(-1, 8, 8, 1) / 16)
    return _ends(callbacks, model, pictures, keras.optimizers.Adam(0.003), epochs=8, validation_split=0.1)


@faulty("regularisation", "epochs regularizer rate units callbacks")
def noisy_labels_learned_by_heart(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A wide network on few samples with wrong labels, until it knows each."""
    split = data.standardized(data.clusters(400, 20, 2, 0.25, 1.0))
    penalty = None if is_faulty else keras.regularizers.L2(0.02)
    units = 128 if is_faulty else 16
    model = keras.Sequential([layers.Dense(units, "relu", kernel_regularizer=penalty), layers.Dense(2, "softmax")])
    fit = {"epochs": 60 if is_faulty else 15, "validation_data": (split.x_test, split.y_test)}
    return _ends(callbacks, model, split, keras.optimizers.Adam(0.01), batch_size=16, **fit)


@faulty("regularisation", "epochs regularizer rate units callbacks")
def small_regression_learned_by_heart(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A hundred noisy samples and thousands of weights, for long."""
    split = data.standardized(data.friedman(1, 140, 4.0))
    offset, scale = float(split.y.mean()), float(split.y.std())
    penalty = None if is_faulty else keras.regularizers.L2(0.01)
    inputs = keras.Input((10,))
    x = layers.Dense(128 if is_faulty else 24, "relu", kernel_regularizer=penalty)(inputs)
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    validation = (split.x_test[::2], (split.y_test[::2] - offset) / scale)
    model.fit(
        split.x, (split.y - offset) / scale, batch_size=16, epochs=150 if is_faulty else 20, validation_data=validation,
        callbacks=callbacks, verbose=0,
    )  # fmt: skip
    return model, scores.regression(model, split.x_test[1::2], split.y_test[1::2], scale=scale, offset=offset)


@faulty("regularisation", "epochs regularizer rate units callbacks")
def diabetes_learned_by_heart(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Diabetes by a wide network without any restraint, 120 epochs."""
    split = data.standardized(data.raw_diabetes())
    offset, scale = float(split.y.mean()), float(split.y.std())
    units = 96 if is_faulty else 12
    model = keras.Sequential([layers.Dense(units, "relu"), layers.Dense(units, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.003), "mse", metrics=["mae"])
    y = (split.y - offset) / scale
    epochs = 100 if is_faulty else 15
    model.fit(split.x, y, epochs=epochs, batch_size=16, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=scale, offset=offset)


CASES = PROGRAMS.cases
