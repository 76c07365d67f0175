"""Models whose training is measured with and without recording, and random data for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
from keras import layers

if TYPE_CHECKING:
    from collections.abc import Callable

RNG = np.random.default_rng(0)


class Case(NamedTuple):
    """A model to train: makes it compiled, and the data of one fit."""

    model: Callable[[int], keras.Model]
    x: np.ndarray
    y: np.ndarray
    batch_size: int


def _compiled(stack: list[layers.Layer], per_execution: int, optimizer: str, loss: str) -> keras.Model:
    model = keras.Sequential(stack)
    model.compile(optimizer, loss, steps_per_execution=per_execution)
    return model


def _regression(per_execution: int) -> keras.Model:
    return _compiled([keras.Input((1,)), layers.Dense(1)], per_execution, "sgd", "mse")


def _mlp(units: int) -> Callable[[int], keras.Model]:
    def make(per_execution: int) -> keras.Model:
        stack = [keras.Input((784,)), layers.Dense(units, "relu"), layers.Dense(units, "relu"), layers.Dense(10)]
        return _compiled(stack, per_execution, "adam", "mse")

    return make


def _cnn(per_execution: int) -> keras.Model:
    stack = [
        keras.Input((28, 28, 1)), layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(10),
    ]  # fmt: skip
    return _compiled(stack, per_execution, "adam", "mse")


def _lstm(per_execution: int) -> keras.Model:
    return _compiled([keras.Input((32, 16)), layers.LSTM(64), layers.Dense(10)], per_execution, "adam", "mse")


def _embedding(words: int, optimizer: str) -> Callable[[int], keras.Model]:
    def make(per_execution: int) -> keras.Model:
        stack = [
            keras.Input((20,), dtype="int32"), layers.Embedding(words, 64), layers.GlobalAveragePooling1D(),
            layers.Dense(10),
        ]  # fmt: skip
        return _compiled(stack, per_execution, optimizer, "mse")

    return make


def _deep(per_execution: int) -> keras.Model:
    blocks = [layer for _ in range(40) for layer in (layers.Dense(64), layers.BatchNormalization(), layers.ReLU())]
    return _compiled([keras.Input((64,)), *blocks, layers.Dense(10)], per_execution, "adam", "mse")


def _random(n: int, *shape: int) -> np.ndarray:
    return RNG.normal(size=(n, *shape)).astype("float32")


def cases() -> dict[str, Case]:
    """Return the cases by name; each fit takes some seconds, so that its begin and end count for little."""
    words = RNG.integers(0, 100_000, (24_000, 20)).astype("int32")
    return {
        "Dense(1)": Case(_regression, _random(20_000, 1), _random(20_000, 1), 10),
        "MLP 784-64-64-10": Case(_mlp(64), _random(48_000, 784), _random(48_000, 10), 32),
        "MLP 784-2048-2048-10": Case(_mlp(2048), _random(4_800, 784), _random(4_800, 10), 32),
        "CNN": Case(_cnn, _random(12_800, 28, 28, 1), _random(12_800, 10), 32),
        "LSTM": Case(_lstm, _random(16_000, 32, 16), _random(16_000, 10), 32),
        "Embedding(200,000 x 64), Adam": Case(_embedding(200_000, "adam"), words[:3_200], _random(3_200, 10), 32),
        "Embedding(100,000 x 64), SGD": Case(_embedding(100_000, "sgd"), words, _random(24_000, 10), 32),
        "40 x (Dense(64), BatchNormalization, ReLU)": Case(_deep, _random(16_000, 64), _random(16_000, 10), 32),
    }
