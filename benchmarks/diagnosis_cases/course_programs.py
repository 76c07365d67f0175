"""Healthy programs as students of a course hand them in."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs

Trained = tuple[Any, dict[str, float]]
PROGRAMS = Programs(are_new=True)
healthy = PROGRAMS.healthy


@healthy
def wine_with_dropout_and_batch_normalisation(callbacks: list[Any]) -> Trained:
    """Everything of the lecture at once."""
    split = data.standardized(data.table("wine"))
    model = keras.Sequential([keras.Input((13,))])
    for units in (32, 16):
        model.add(layers.Dense(units))
        model.add(layers.BatchNormalization(momentum=0.9))
        model.add(layers.Activation("relu"))
        model.add(layers.Dropout(0.2))
    model.add(layers.Dense(3, activation="softmax"))
    model.compile(keras.optimizers.Adam(0.005), "categorical_crossentropy", metrics=["accuracy"])
    labels = keras.utils.to_categorical(split.y, 3)
    model.fit(split.x, labels, epochs=30, batch_size=16, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def prices_of_houses_by_huber(callbacks: list[Any]) -> Trained:
    """A loss that forgives outliers."""
    split = data.standardized(data.houses())
    inputs = keras.Input((4,), name="house")
    x = layers.Dense(32, activation="swish")(inputs)
    x = layers.Dense(32, activation="swish")(x)
    model = keras.Model(inputs, layers.Dense(1, name="price")(x))
    model.compile(keras.optimizers.Nadam(0.003), keras.losses.Huber(delta=1.0), metrics=["mae"])
    model.fit(split.x, split.y, epochs=20, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@healthy
def opinions_by_convolutions_over_words(callbacks: list[Any]) -> Trained:
    """Convolutions and the largest of each map."""
    split = data.reviews()
    model = keras.Sequential([layers.Embedding(200, 8), layers.Conv1D(16, 3, activation="relu")])
    model.add(layers.GlobalMaxPooling1D())
    model.add(layers.Dropout(0.3))
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile(keras.optimizers.Adam(0.005), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=6, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def grades_by_the_thresholds_they_pass(callbacks: list[Any]) -> Trained:
    """Four ordered grades are three questions: better than the first, the second, the third."""
    split = data.standardized(data.friedman())
    thresholds = np.quantile(split.y, [0.25, 0.5, 0.75])
    passed, passed_test = (np.asarray(y[:, None] > thresholds, "float32") for y in (split.y, split.y_test))
    model = keras.Sequential([keras.Input((10,)), layers.Dense(48, activation="relu")])
    model.add(layers.Dense(3, activation="sigmoid"))
    model.compile("rmsprop", "binary_crossentropy", metrics=["binary_accuracy"])
    model.fit(split.x, passed, epochs=25, batch_size=16, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, passed_test)


@healthy
def digits_by_the_mean_of_each_map(callbacks: list[Any]) -> Trained:
    """A map for each class, its mean, and softmax: no dense layer."""
    split = data.digits()
    train = tf.data.Dataset.from_tensor_slices((split.x.reshape(-1, 8, 8, 1) / 16, split.y)).cache()
    train = train.shuffle(1100, seed=3).batch(32).prefetch(tf.data.AUTOTUNE)
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu", padding="same")])
    model.add(layers.Conv2D(32, 3, activation="relu"))
    model.add(layers.Conv2D(10, 3))
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Softmax())
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, epochs=15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test.reshape(-1, 8, 8, 1) / 16, split.y_test)


@healthy
def series_by_lstm_and_rmsprop(callbacks: list[Any]) -> Trained:
    """The mean absolute error, a little dropout and clipped gradients."""
    split = data.next_values()
    model = keras.Sequential([keras.Input((20, 1)), layers.LSTM(24, dropout=0.05), layers.Dense(1)])
    model.compile(keras.optimizers.RMSprop(0.003, clipnorm=1.0), loss="mae", metrics=["mse"])
    model.fit(split.x, split.y, epochs=20, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@healthy
def circles_by_tanh_and_a_cyclical_rate(callbacks: list[Any]) -> Trained:
    """The rate goes down and up again, on purpose."""
    split = data.circles()

    def rate(epoch: int) -> float:
        return 0.05 + 0.045 * math.cos(2 * math.pi * epoch / 10)

    model = keras.Sequential([keras.Input((2,)), layers.Dense(24, activation="tanh")])
    model.add(layers.Dense(24, activation="tanh"))
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "binary_crossentropy", metrics=["accuracy"])
    cycle = keras.callbacks.LearningRateScheduler(rate)
    model.fit(split.x, split.y, 16, 30, validation_split=0.1, callbacks=[*callbacks, cycle], verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def ratings_by_factors_of_users_and_films(callbacks: list[Any]) -> Trained:
    """Products of embeddings: no activation anywhere."""
    rng = np.random.default_rng(31)
    users, films = rng.integers(0, 50, 2500), rng.integers(0, 40, 2500)
    tastes, kinds, liked = rng.normal(0, 0.6, (50, 2)), rng.normal(0, 0.6, (40, 2)), rng.normal(0, 0.6, 40)
    ratings = (tastes[users] * kinds[films]).sum(1) + liked[films] + rng.normal(0, 0.1, 2500)
    split = data.split(np.stack([users, films], 1).astype("int32"), ratings.astype("float32"))

    class Factors(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.users = layers.Embedding(50, 4)
            self.films = layers.Embedding(40, 4)
            self.bias = layers.Embedding(40, 1)

        def call(self, x: Any) -> Any:
            user, film = x[:, 0], x[:, 1]
            return ops.sum(self.users(user) * self.films(film), -1, keepdims=True) + self.bias(film)

    model = Factors()
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    model.fit(split.x, split.y, epochs=20, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@healthy
def experts_behind_a_softmax_gate(callbacks: list[Any]) -> Trained:
    """A softmax in the middle that is meant: shares of four experts."""
    split = data.standardized(data.clusters())
    inputs = keras.Input((20,))
    gate = layers.Dense(4, activation="softmax", name="gate")(inputs)
    experts = [layers.Dense(32, activation="relu")(inputs) for _ in range(4)]
    shares = layers.Reshape((4, 1))(gate)
    mixed = layers.Multiply()([layers.Reshape((1, 32))(experts[0]), shares[:, :1]])
    for number in range(1, 4):
        part = layers.Multiply()([layers.Reshape((1, 32))(experts[number]), shares[:, number : number + 1]])
        mixed = layers.add([mixed, part])
    outputs = layers.Dense(4)(layers.Flatten()(mixed))
    model = keras.Model(inputs, outputs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss, metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=15, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test, logits=True)


class _Batches(keras.utils.PyDataset):
    """Batches of a table."""

    def __init__(self, x: Any, y: Any, size: int) -> None:
        super().__init__()
        self.x, self.y, self.size = x, y, size
        self.order = np.random.default_rng(32).permutation(len(y))

    def __len__(self) -> int:
        return math.ceil(len(self.y) / self.size)

    def __getitem__(self, index: int) -> Any:
        rows = self.order[index * self.size : (index + 1) * self.size]
        return self.x[rows], self.y[rows]


@healthy
def tumours_in_batches_of_a_class(callbacks: list[Any]) -> Trained:
    """The exercise on data that does not fit into memory, with data that does."""
    split = data.standardized(data.table("breast_cancer"))
    model = keras.Sequential([keras.Input((30,)), layers.Dense(16, "relu", kernel_regularizer="l2")])
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy", "auc"])
    model.fit(_Batches(split.x, split.y, 16), epochs=15, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def steps_tagged_in_both_directions(callbacks: list[Any]) -> Trained:
    """A tag for each step."""
    split = data.tagged_steps()
    model = keras.Sequential([keras.Input((20, 1))])
    model.add(layers.Bidirectional(layers.GRU(12, return_sequences=True)))
    model.add(layers.TimeDistributed(layers.Dense(1, activation="sigmoid")))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["binary_accuracy"])
    model.fit(split.x, split.y, epochs=10, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def wide_and_deep_regression(callbacks: list[Any]) -> Trained:
    """The features go to the last layer, too."""
    split = data.standardized(data.friedman())
    inputs = keras.Input((10,))
    deep = layers.Dense(48, activation="relu", kernel_initializer="he_normal")(inputs)
    deep = layers.Dense(24, activation="relu", kernel_initializer="he_normal")(deep)
    model = keras.Model(inputs, layers.Dense(1)(layers.concatenate([inputs, deep])))
    model.compile(keras.optimizers.Adam(0.003), "mse", metrics=["mae", keras.metrics.R2Score()])
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=6, restore_best_weights=True)
    x, y = split.x[:-150], split.y[:-150, None]
    validation = (split.x[-150:], split.y[-150:, None])
    model.fit(x, y, 16, 30, validation_data=validation, callbacks=[*callbacks, stop], verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


CASES = PROGRAMS.cases
