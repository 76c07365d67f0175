"""Fits of given networks to the data of the benchmark, and their scores.

The programs call them by their names of before, which are in the keys of recordings.
"""

from __future__ import annotations

from typing import Any

import keras

from benchmarks.diagnosis_cases import data, scores

Trained = tuple[Any, dict[str, float]]
"""A trained model, and its scores."""


def digits(callbacks: list[Any], model: Any, optimizer: Any = "adam", **fit: Any) -> Trained:
    """Fit a model of 64 pixels to digits."""
    split = data.digits()
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x / 16, split.y, callbacks=callbacks, verbose=0, **({"epochs": 12, "validation_split": 0.1} | fit))
    return model, scores.classes(model, split.x_test / 16, split.y_test)


def friedman(callbacks: list[Any], model: Any, optimizer: Any = None, **fit: Any) -> Trained:
    """Fit a model of 10 features to a regression."""
    split = data.standardized(data.friedman())
    offset, scale = float(split.y.mean()), float(split.y.std())
    model.compile(optimizer or keras.optimizers.Adam(0.005), "mse", metrics=["mae"])
    y = (split.y - offset) / scale
    model.fit(split.x, y, callbacks=callbacks, verbose=0, **({"epochs": 20} | fit))
    return model, scores.regression(model, split.x_test, split.y_test, scale=scale, offset=offset)


def classes(callbacks: list[Any], model: Any, split: data.Split, optimizer: Any, **fit: Any) -> Trained:
    """Fit a classifier of whole numbers."""
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, callbacks=callbacks, verbose=0, **fit)
    return model, scores.classes(model, split.x_test, split.y_test)
