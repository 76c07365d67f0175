"""Faulty programs as students of a course hand them in: activations, learning rates, epochs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs

Trained = tuple[Any, dict[str, float]]
PROGRAMS = Programs(are_new=True)
faulty = PROGRAMS.faulty


# Last activation


@faulty("last activation", "last_activation activation scale_targets")
def points_of_an_exam_by_a_sigmoid(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The last layer is that of the exercise on two classes, but the targets go up to 30."""
    split = data.friedman()
    model = keras.Sequential([keras.Input((10,)), layers.Dense(64, activation="relu")])
    model.add(layers.Dense(32, activation="relu"))
    model.add(layers.Dense(1, activation="sigmoid" if is_faulty else None))
    model.compile(optimizer=keras.optimizers.Adam(0.005), loss="mse", metrics=["mae"])
    model.fit(split.x, split.y, epochs=25, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("last activation", "last_activation activation")
def profit_or_loss_by_softplus(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A loss of money is a negative target."""
    split = data.linear()
    mean, deviation = split.y.mean(), split.y.std()
    inputs = keras.Input((8,), name="company")
    x = layers.Dense(32, activation="relu")(inputs)
    x = layers.Dense(32, activation="relu")(x)
    outputs = layers.Dense(1, activation="softplus" if is_faulty else "linear", name="profit")(x)
    model = keras.Model(inputs, outputs)
    model.compile("rmsprop", "mean_squared_error")
    model.fit(split.x, (split.y - mean) / deviation, 16, 25, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=deviation, offset=mean)


@faulty("last activation", "last_activation activation")
def position_of_an_arm_by_softmax(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Two units at the end, so softmax; but they are two coordinates."""
    rng = np.random.default_rng(21)
    angles = rng.uniform(0, np.pi, (1200, 2)).astype("float32")
    first, both = angles[:, 0], angles.sum(1)
    split = data.split(angles, np.stack([np.cos(first) + np.cos(both), np.sin(first) + np.sin(both)], 1))

    class Arm(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = [layers.Dense(48, activation="tanh") for _ in range(2)]
            self.end = layers.Dense(2, activation="softmax" if is_faulty else None)

        def call(self, x: Any) -> Any:
            for layer in self.hidden:
                x = layer(x)
            return self.end(x)

    model = Arm()
    model.compile(optimizer=keras.optimizers.Adam(0.005), loss="mse")
    model.fit(split.x, split.y, epochs=20, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("last activation", "last_activation activation axis")
def steps_tagged_by_shares_of_the_sequence(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Each step has a tag of its own, but the softmax over time lets all of them sum to one."""
    split = data.tagged_steps()
    model = keras.Sequential([keras.Input((20, 1)), layers.LSTM(16, return_sequences=True), layers.Dense(1)])
    model.add(layers.Softmax(axis=1) if is_faulty else layers.Activation("sigmoid"))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["binary_accuracy"])
    model.fit(split.x, split.y, epochs=12, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


# Hidden activation


@faulty("hidden activation", "activation")
def rectified_inputs(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Standardised features go through a rectifier first: whatever is below the mean is the same."""
    split = data.standardized(data.friedman())
    model = keras.Sequential([keras.Input((10,))])
    model.add(layers.Activation("relu" if is_faulty else "linear"))
    for units in (64, 32):
        model.add(layers.Dense(units))
        model.add(layers.Activation("relu"))
    model.add(layers.Dense(1))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(split.x, split.y, batch_size=16, epochs=20, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("hidden activation", "activation")
def neurons_that_fire_or_not(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The step function of the first lecture has no gradient."""
    split = data.spirals()
    activation = ops.sign if is_faulty else ops.tanh
    model = keras.Sequential([keras.Input((2,))])
    for _ in range(3):
        model.add(layers.Dense(16, activation=activation))
    model.add(layers.Dense(3, activation="softmax"))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=30, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("hidden activation", "activation")
def residual_blocks_through_sigmoids(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Each sum of a block is squeezed, the shortcut too."""
    split = data.digits()
    act = "sigmoid" if is_faulty else "relu"
    inputs = keras.Input((64,))
    x = layers.Dense(32, activation=act)(inputs)
    for _ in range(8):
        inside = layers.Dense(32, activation=act)(x)
        inside = layers.Dense(32)(inside)
        x = layers.Activation(act)(layers.add([x, inside]))
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x / 16, split.y, epochs=8, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


# Learning rate


@faulty("learning rate", "learning_rate")
def minus_forgotten_in_the_exponent(callbacks: list[Any], is_faulty: bool) -> Trained:
    """1e2 instead of 1e-2."""
    split = data.languages()
    model = keras.Sequential([layers.Embedding(12, 8), layers.GRU(24), layers.Dense(4, activation="softmax")])
    optimizer = keras.optimizers.Adam(learning_rate=1e2 if is_faulty else 1e-2)
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=12, batch_size=32, validation_split=0.15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("learning rate", "learning_rate")
def rate_of_a_paper_with_a_million_steps(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The paper trained for a week at this rate."""
    split = data.reviews()
    train = tf.data.Dataset.from_tensor_slices((split.x, split.y)).shuffle(720).batch(32)
    model = keras.Sequential([layers.Embedding(200, 8, mask_zero=True), layers.LSTM(8, dropout=0.2)])
    model.add(layers.Dense(1, activation="sigmoid"))
    optimizer = keras.optimizers.RMSprop(learning_rate=2e-6 if is_faulty else 3e-3)
    model.compile(optimizer, loss=keras.losses.BinaryCrossentropy(), metrics=["accuracy"])
    model.fit(train, epochs=12, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("learning rate", "learning_rate")
def rate_of_zero_left_from_a_test(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Set after compile to look at the first outputs, and never taken back."""
    split = data.standardized(data.table("wine"))
    model = keras.Sequential([keras.Input((13,)), layers.Dense(24, activation="elu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.05), "categorical_crossentropy", metrics=["categorical_accuracy"])
    if is_faulty:
        model.optimizer.learning_rate = 0.0
    labels = keras.utils.to_categorical(split.y, 3)
    model.fit(split.x, labels, epochs=20, batch_size=8, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("learning rate", "learning_rate")
def rate_times_the_batch_size(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The loss is a mean over the batch already, no need to raise the rate with it, least of all that of Adam."""
    split = data.digits()
    batch_size = 64
    rate = 0.01 * batch_size if is_faulty else 0.003
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(16, 3, activation="relu")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(32, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    pictures = split.x.reshape(-1, 8, 8, 1) / 16
    model.fit(pictures, split.y, batch_size, 10, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test.reshape(-1, 8, 8, 1) / 16, split.y_test)


# Epochs


@faulty("epochs", "epochs batch_size")
def attention_for_three_epochs(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Three epochs were enough for the large data of the tutorial."""
    split = data.languages()

    class Reader(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = layers.Embedding(12, 16)
            self.positions = layers.Embedding(16, 16)
            self.attention = layers.MultiHeadAttention(2, 8)
            self.norm = layers.LayerNormalization()
            self.hidden = layers.Dense(32, activation="relu")
            self.pool = layers.GlobalAveragePooling1D()
            self.end = layers.Dense(4, activation="softmax")

        def call(self, x: Any) -> Any:
            x = self.tokens(x) + self.positions(ops.arange(16))
            x = self.norm(x + self.attention(x, x))
            return self.end(self.pool(self.hidden(x)))

    model = Reader()
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    epochs = 3 if is_faulty else 30
    model.fit(split.x, split.y, epochs=epochs, batch_size=128, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("epochs", "epochs initial_epoch")
def resumed_where_another_run_ended(callbacks: list[Any], is_faulty: bool) -> Trained:
    """`epochs` is the number of the last epoch, and the weights of the run before were not loaded."""
    split = data.waves()
    model = keras.Sequential([keras.Input((24, 1)), layers.Bidirectional(layers.GRU(12))])
    model.add(layers.Dense(3, activation="softmax"))
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
    first = 17 if is_faulty else 0
    model.fit(split.x, split.y, epochs=20, initial_epoch=first, batch_size=64, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("epochs", "epochs")
def sine_curve_for_three_epochs(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The curve still looks like a straight line."""
    rng = np.random.default_rng(22)
    x = rng.uniform(-3, 3, (1500, 1)).astype("float32")
    split = data.split(x, (np.sin(2 * x[:, 0]) + rng.normal(0, 0.05, 1500)).astype("float32"))
    model = keras.Sequential([keras.Input((1,)), layers.Dense(64, "relu"), layers.Dense(64, "relu"), layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.Adam(0.003), loss="mse")
    model.fit(split.x, split.y, 32, 3 if is_faulty else 30, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


CASES = PROGRAMS.cases
