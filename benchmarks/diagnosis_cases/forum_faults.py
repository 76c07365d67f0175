"""Faulty programs as people ask about them: ends of networks, losses, what is done to the data, and metrics."""

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


@faulty("last activation", "last_activation last_units activation")
def tumours_by_softmax_of_one_unit(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Accuracy is the share of a class in each epoch: softmax of one unit is 1."""
    split = data.standardized(data.table("breast_cancer"))
    model = keras.models.Sequential()
    model.add(layers.Dense(16, activation="relu", kernel_initializer="uniform", input_dim=30))
    model.add(layers.Dense(8, activation="relu"))
    model.add(layers.Dense(1, activation="softmax" if is_faulty else "sigmoid"))
    model.compile(loss="binary_crossentropy", optimizer="adam", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=20, batch_size=16, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("last activation", "last_activation activation")
def forecast_ends_in_relu(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The forecast is never below zero, but the series is."""
    split = data.next_values()
    model = keras.Sequential([keras.Input((20, 1)), layers.LSTM(16)])
    model.add(layers.Dense(1, activation="relu" if is_faulty else "linear"))
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mean_squared_error")
    model.fit(split.x, split.y, epochs=12, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("last activation", "last_activation activation")
def tags_by_softmax(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Several tags may be true, but their shares sum to one."""
    split = data.standardized(data.several_labels())
    inputs = keras.Input(shape=(24,))
    x = layers.Dense(48, activation="relu")(inputs)
    x = layers.Dropout(0.1)(x)
    outputs = layers.Dense(6, activation="softmax" if is_faulty else "sigmoid")(x)
    model = keras.Model(inputs, outputs)
    model.compile("adam", "binary_crossentropy", metrics=["binary_accuracy"])
    model.fit(split.x, split.y, 32, 20, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("last activation", "last_activation activation from_logits")
def languages_end_in_relu(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The activation of the last layer is that of all others."""
    split = data.languages()
    act = "relu"
    model = keras.Sequential([layers.Embedding(12, 8), layers.GRU(24), layers.Dense(16, activation=act)])
    model.add(layers.Dense(4, activation=act if is_faulty else "softmax"))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["acc"])
    model.fit(split.x, split.y, epochs=10, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("last activation", "last_activation activation from_logits loss")
def pictures_without_a_softmax(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A subclassed model returns what its last layer returns, and the loss is given by name."""
    split = data.digits()

    class Classifier(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = layers.Conv2D(12, 3, activation="relu")
            self.end = layers.Dense(10)

        def call(self, x: Any) -> Any:
            x = self.end(ops.reshape(self.convolution(x), (-1, 12 * 36)))
            return x if is_faulty else ops.softmax(x)

    model = Classifier()
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x.reshape(-1, 8, 8, 1) / 16, split.y, epochs=8, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test.reshape(-1, 8, 8, 1) / 16, split.y_test, logits=is_faulty)


@faulty("last activation", "last_activation activation")
def autoencoder_ends_in_softmax(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Pixels are not shares of one."""
    split = data.digits()
    picture = keras.Input(shape=(64,))
    code = layers.Dense(24, activation="relu")(picture)
    decoded = layers.Dense(64, activation="softmax" if is_faulty else "sigmoid")(code)
    model = keras.Model(picture, decoded)
    model.compile(optimizer="adam", loss="mse")
    x, x_test = split.x / 16, split.x_test / 16
    model.fit(x, x, epochs=25, batch_size=32, validation_data=(x_test, x_test), callbacks=callbacks, verbose=0)
    return model, scores.regression(model, x_test, x_test)


@faulty("loss", "loss")
def digits_by_mean_squared_error(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A course's network for numbers, given classes."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(30, "sigmoid"), layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(0.3), "mse" if is_faulty else "categorical_crossentropy", metrics=["accuracy"])
    labels = keras.utils.to_categorical(split.y, 10)
    model.fit(split.x / 16, labels, epochs=15, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@faulty("loss", "loss")
def names_of_digits_by_mean_absolute_error(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Names of digits turned into one-hot rows, and a loss of distances."""
    split = data.digits()
    words = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    names, numbers = np.unique(words[split.y], return_inverse=True)
    test = np.searchsorted(names, words[split.y_test])
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dense(len(names), "softmax")])
    loss = "mean_absolute_error" if is_faulty else "categorical_crossentropy"
    model.compile(keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    model.fit(split.x / 16, np.eye(len(names))[numbers], 32, 20, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, test)


@faulty("loss", "loss last_units last_activation")
def moons_by_categorical_cross_entropy(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The loss is of several classes, the network has one unit."""
    split = data.moons()
    model = keras.Sequential([keras.Input((2,)), layers.Dense(16, "relu"), layers.Dense(16, "relu")])
    model.add(layers.Dense(1, activation="sigmoid"))
    loss = "categorical_crossentropy" if is_faulty else "binary_crossentropy"
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(split.x, split.y.reshape(-1, 1), 16, 15, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("loss", "loss")
def forecast_by_binary_cross_entropy(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A loss left over from the classifier that was copied."""
    split = data.next_values()
    windows = tf.data.Dataset.from_tensor_slices((split.x, split.y)).shuffle(700, seed=1).batch(32)
    model = keras.Sequential([keras.Input((20, 1)), layers.Conv1D(8, 3, activation="relu"), layers.Flatten()])
    model.add(layers.Dense(1))
    model.compile("adam", "binary_crossentropy" if is_faulty else "mse")
    model.fit(windows, epochs=20, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("loss", "loss")
def percentages_of_numbers_near_zero(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Errors in percent of a series that crosses zero."""
    split = data.next_values()
    model = keras.Sequential([keras.Input((20, 1)), layers.GRU(16), layers.Dense(1)])
    loss = keras.losses.MeanAbsolutePercentageError() if is_faulty else keras.losses.MeanAbsoluteError()
    model.compile(keras.optimizers.Adam(0.005), loss, metrics=["mse"])
    model.fit(split.x, split.y, 32, 12, validation_split=0.15, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("loss", "loss")
def loss_of_the_users_own_without_a_square(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The mean of differences: it falls for ever."""
    split = data.standardized(data.friedman())

    def my_loss(y_true: Any, y_pred: Any) -> Any:
        difference = y_true - y_pred
        return ops.mean(difference if is_faulty else ops.square(difference), axis=-1)

    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), loss=my_loss, metrics=["mae"])
    model.fit(split.x, split.y, epochs=20, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("loss", "loss_weights")
def weights_of_losses_that_silence_one(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Two ends, one of them with a weight of a thousandth."""
    split = data.digits()
    inputs = keras.Input((64,))
    x = layers.Dense(48, activation="relu")(inputs)
    ends = {"digit": layers.Dense(10, "softmax", name="digit")(x), "odd": layers.Dense(1, "sigmoid", name="odd")(x)}
    model = keras.Model(inputs, ends)
    losses = {"digit": "sparse_categorical_crossentropy", "odd": "binary_crossentropy"}
    weights = {"digit": 0.001 if is_faulty else 1.0, "odd": 1.0}
    model.compile(keras.optimizers.SGD(0.1), losses, weights, metrics={"digit": "accuracy", "odd": "accuracy"})
    model.fit(split.x / 16, {"digit": split.y, "odd": split.y % 2}, 32, 20, callbacks=callbacks, verbose=0)
    return model, scores.classes(keras.Model(inputs, ends["digit"]), split.x_test / 16, split.y_test)


@faulty("preprocessing", "standardize features")
def wine_raw_by_sgd(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Proline is a thousand, and the loss does not move."""
    split = data.table("wine")
    split = split if is_faulty else data.standardized(split)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(10, "relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, batch_size=8, epochs=30, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("preprocessing", "features standardize")
def rows_normalised_instead_of_columns(callbacks: list[Any], is_faulty: bool) -> Trained:
    """`keras.utils.normalize` is taken for a scaler."""
    split = data.table("breast_cancer")
    if is_faulty:
        split = split._replace(x=keras.utils.normalize(split.x), x_test=keras.utils.normalize(split.x_test))
    else:
        split = data.standardized(split)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=20, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("preprocessing", "standardize features batch_normalization")
def angles_of_raw_measurements(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Resistances of a hundred and frequencies of a thousand, for an angle."""
    split = data.friedman(3, noise=0.05)
    split = split if is_faulty else data.standardized(split)
    inputs = keras.Input(shape=(4,), name="circuit")
    x = layers.Dense(32, activation="tanh")(inputs)
    x = layers.Dense(32, activation="tanh")(x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(split.x, split.y, epochs=40, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("preprocessing", "features standardize")
def words_scaled_before_the_embedding(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Numbers of words are divided by their number, as pixels are."""
    split = data.reviews()
    words = 200 if is_faulty else 1
    model = keras.Sequential([layers.Embedding(200, 16), layers.GlobalAveragePooling1D(), layers.Dense(16, "relu")])
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(keras.optimizers.Adam(0.005), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x / words, split.y, 32, 10, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test / words, split.y_test)


@faulty("preprocessing", "features standardize")
def range_scaled_with_an_outlier(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A wrong reading is the largest of each column, and all else is scaled to nearly nothing."""
    split = data.clusters(classes=3)
    rows = split.x.copy()
    rows[7] = 5000.0 if is_faulty else rows.max(0)
    low, high = rows.min(0), rows.max(0)
    model = keras.Sequential([keras.Input((20,)), layers.Dense(32, "relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit((rows - low) / (high - low), split.y, epochs=40, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, (split.x_test - low) / (high - low), split.y_test)


@faulty("metrics", "metrics", "told")
def price_lstm_with_accuracy(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The accuracy of a forecast is asked for, and is zero."""
    split = data.next_values()
    model = keras.Sequential([keras.Input((20, 1)), layers.LSTM(12, return_sequences=True), layers.LSTM(12)])
    model.add(layers.Dense(units=1))
    model.compile(keras.optimizers.Adam(0.01), "mean_squared_error", metrics=["accuracy" if is_faulty else "mae"])
    model.fit(split.x, split.y, epochs=8, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("metrics", "metrics", "told")
def equality_of_probabilities(callbacks: list[Any], is_faulty: bool) -> Trained:
    """`Accuracy` counts outputs that equal the labels: a probability hardly does."""
    split = data.standardized(data.table("wine"))
    model = keras.Sequential([keras.Input((13,)), layers.Dense(16, "relu"), layers.Dense(3, "softmax")])
    metric = keras.metrics.Accuracy() if is_faulty else keras.metrics.CategoricalAccuracy()
    model.compile("adam", "categorical_crossentropy", metrics=[metric])
    model.fit(split.x, np.eye(3)[split.y], 8, 25, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("metrics", "metrics threshold", "told")
def logits_above_a_half(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The loss knows that it gets logits, the metric does not."""
    split = data.circles()
    model = keras.Sequential([keras.Input((2,)), layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(1)])
    metric = keras.metrics.BinaryAccuracy(threshold=0.5 if is_faulty else 0.0)
    model.compile(keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True), metrics=[metric])
    model.fit(split.x, split.y, epochs=15, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test, logits=True)


@faulty("metrics", "metrics", "told")
def largest_of_one_unit(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Accuracy is 100 % from the first epoch on: one unit is always the largest."""
    split = data.reviews()
    inputs = keras.Input((20,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(200, 12)(inputs))
    model = keras.Model(inputs, layers.Dense(1, "sigmoid")(x))
    metric = keras.metrics.CategoricalAccuracy() if is_faulty else keras.metrics.BinaryAccuracy()
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=[metric])
    model.fit(split.x, split.y.reshape(-1, 1), epochs=10, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


CASES = PROGRAMS.cases
