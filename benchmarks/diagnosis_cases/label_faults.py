"""Programs with faults in their labels and metrics."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs

Trained = tuple[Any, dict[str, float]]
PROGRAMS = Programs()
faulty = PROGRAMS.faulty


@faulty("labels", "targets loss")
def labels_1_and_2(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Classes 1 and 2 for one sigmoid unit."""
    split = data.standardized(data.table("breast_cancer"))
    y = split.y + 1 if is_faulty else split.y
    model = keras.Sequential([layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, y, epochs=15, batch_size=16, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("labels", "targets loss last_activation")
def labels_minus_1_and_1(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Classes -1 and 1 for one sigmoid unit."""
    split = data.circles()
    y = 2 * split.y - 1 if is_faulty else split.y
    model = keras.Sequential([keras.Input((2,)), layers.Dense(32, "relu"), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.02), keras.losses.BinaryCrossentropy(), metrics=["accuracy"])
    model.fit(split.x, y, epochs=25, callbacks=callbacks, validation_split=0.2, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("labels", "targets scale_targets last_activation loss")
def labels_0_and_255(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Masks of 0 and 255 for sigmoid units: which pixels are bright."""
    split = data.digits()
    top = 255.0 if is_faulty else 1.0
    mask, mask_test = ((each > 7).reshape(-1, 8, 8, 1) for each in (split.x, split.x_test))
    noise = np.random.default_rng(0).normal(0, 6, split.x.shape)
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(12, 3, padding="same", activation="relu")])
    model.add(layers.Conv2D(1, 3, padding="same", activation="sigmoid"))
    model.compile(keras.optimizers.Adam(0.005), "binary_crossentropy", metrics=["accuracy"])
    x = ((split.x + noise) / 16).reshape(-1, 8, 8, 1)
    model.fit(x, mask * top, 32, 6, callbacks=callbacks, verbose=0)
    x_test = ((split.x_test + noise[: len(split.x_test)]) / 16).reshape(-1, 8, 8, 1)
    return model, scores.binary(model, x_test, mask_test, balanced=True)


@faulty("labels", "targets scale_targets last_activation")
def labels_in_percent(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Shares of 0 to 100 for a sigmoid unit."""
    split = data.standardized(data.friedman(3, noise=0.05))
    low, high = split.y.min(), split.y.max()
    top = 100.0 if is_faulty else 1.0
    model = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(split.x, (split.y - low) / (high - low) * top, epochs=25, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=high - low, offset=low)


@faulty("labels", "targets shuffle features")
def labels_of_other_samples(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Samples are shuffled, and their labels are not."""
    split = data.digits()
    order = np.random.default_rng(1).permutation(len(split.x))
    x, y = split.x[order] / 16, split.y if is_faulty else split.y[order]
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=12, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@faulty("labels", "class_weight")
def class_weights_the_other_way(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The frequent class weighs most."""
    split = data.standardized(data.unequal(0.1))
    share = float(split.y.mean())
    weights = {0: 0.5 / share, 1: 0.5 / (1 - share)} if is_faulty else {0: 0.5 / (1 - share), 1: 0.5 / share}
    model = keras.Sequential([layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=20, class_weight=weights, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test, balanced=True)


@faulty("labels", "class_weight")
def class_weight_of_a_class_nearly_zero(callbacks: list[Any], is_faulty: bool) -> Trained:
    """One class counts for nothing."""
    split = data.standardized(data.table("wine"))
    model = keras.Sequential([layers.Dense(16, "tanh"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    weights = {0: 1.0, 1: 1e-4, 2: 1.0} if is_faulty else None
    model.fit(split.x, split.y, 16, 30, class_weight=weights, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("metrics", "class_weight metrics")
def rare_class_by_accuracy(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Accuracy of a class of 4 %: never said is 96 % right."""
    split = data.standardized(data.unequal(0.04))
    model = keras.Sequential([keras.Input((12,)), layers.Dense(8, "relu"), layers.Dense(1, "sigmoid")])
    metrics = ["accuracy"] if is_faulty else [keras.metrics.AUC(), keras.metrics.Recall()]
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=metrics)
    weights = None if is_faulty else {0: 0.52, 1: 12.5}
    model.fit(split.x, split.y, epochs=20, class_weight=weights, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test, balanced=True)


@faulty("metrics", "class_weight metrics")
def rare_class_by_accuracy_of_two_units(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The same with a softmax of two."""
    split = data.standardized(data.unequal(0.03, 2000))
    model = keras.Sequential([layers.Dense(12, "tanh"), layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.RMSprop(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    weights = None if is_faulty else {0: 0.515, 1: 16.0}
    model.fit(split.x, split.y, 32, 15, class_weight=weights, validation_split=0.2, callbacks=callbacks, verbose=0)
    rare, common = ((split.y_test == label) for label in (1, 0))
    each = [scores.classes(model, split.x_test[rows], split.y_test[rows]) for rows in (rare, common)]
    return model, {name: (each[0][name] + each[1][name]) / 2 for name in ("score", "loss")}


@faulty("metrics", "metrics", "told")
def accuracy_of_a_regression(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Accuracy says nothing about a number."""
    split = data.standardized(data.friedman())
    model = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["accuracy" if is_faulty else "mae"])
    model.fit(split.x, split.y, epochs=30, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("metrics", "metrics", "told")
def accuracy_of_a_forecast(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Accuracy of a series' next value."""
    split = data.next_values()
    model = keras.Sequential([layers.GRU(16), layers.Dense(1)])
    model.compile("adam", "mean_squared_error", metrics=["accuracy"] if is_faulty else None)
    model.fit(split.x, split.y, epochs=8, batch_size=16, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("metrics", "metrics", "told")
def accuracy_of_an_autoencoder(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Accuracy of pictures made again."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(24, "relu"), layers.Dense(64, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.005), "mse", metrics=["accuracy"] if is_faulty else ["mae"])
    model.fit(split.x / 16, split.x / 16, 32, 25, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test / 16, split.x_test / 16)


@faulty("metrics", "metrics", "told")
def binary_accuracy_of_ten_classes(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Nine of ten zeros are always right."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dense(10, "softmax")])
    metric = "binary_accuracy" if is_faulty else "categorical_accuracy"
    model.compile(keras.optimizers.Adam(0.005), "categorical_crossentropy", metrics=[metric])
    model.fit(split.x / 16, keras.utils.to_categorical(split.y), 32, 15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


CASES = PROGRAMS.cases
