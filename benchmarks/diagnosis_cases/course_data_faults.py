"""Faulty programs as students of a course hand them in: losses, data, layers, settings."""

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


# Loss


@faulty("loss", "loss")
def strength_by_cosine_similarity(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The cosine of two numbers is their sign."""
    split = data.standardized(data.friedman(1, 1000))
    mean, deviation = split.y.mean(), split.y.std()
    model = keras.Sequential([keras.Input((10,)), layers.Dense(48, activation="relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.005), loss="cosine_similarity" if is_faulty else "mse", metrics=["mse"])
    targets = (split.y - mean) / deviation
    model.fit(split.x, targets, epochs=20, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=deviation, offset=mean)


@faulty("loss", "loss last_activation activation")
def standardised_sales_by_poisson(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Sales are counts, but standardised ones are not, and the outputs may be negative."""
    rng = np.random.default_rng(23)
    x = rng.normal(size=(1000, 5)).astype("float32")
    sales = rng.poisson(np.exp(2.5 + 0.4 * x[:, 0] - 0.3 * x[:, 1] + 0.3 * x[:, 2] * x[:, 3]))
    split = data.split(x, ((sales - sales.mean()) / sales.std()).astype("float32"))
    inputs = keras.Input((5,))
    hidden = layers.Dense(32, activation="relu")(inputs)
    hidden = layers.Dense(16, activation="relu")(hidden)
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile(optimizer="adam", loss="poisson" if is_faulty else "mse")
    model.fit(split.x, split.y, epochs=25, batch_size=16, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("loss", "loss")
def likelihood_of_tags_without_a_minus(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The lecture raises the likelihood; `fit` lowers the loss."""
    split = data.standardized(data.several_labels())
    sign = 1.0 if is_faulty else -1.0

    def likelihood(y_true: Any, y_pred: Any) -> Any:
        shares = ops.clip(y_pred, 1e-6, 1 - 1e-6)
        return sign * ops.mean(y_true * ops.log(shares) + (1 - y_true) * ops.log(1 - shares), axis=-1)

    model = keras.Sequential([keras.Input((24,)), layers.Dense(32, activation="relu")])
    model.add(layers.Dense(6, activation="sigmoid"))
    model.compile(optimizer="adam", loss=likelihood, metrics=["binary_accuracy"])
    model.fit(split.x, split.y, epochs=20, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("loss", "loss ignore_class")
def first_class_ignored_as_background(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The loss comes from an exercise on segmentation, where class 0 was nothing."""
    split = data.standardized(data.table("wine"))
    model = keras.Sequential([keras.Input((13,)), layers.Dense(16, activation="relu"), layers.Dense(3, "softmax")])
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=0 if is_faulty else None)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss, metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=15, batch_size=16, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


# Preprocessing


@faulty("preprocessing", "standardize")
def years_and_incomes_as_they_are(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Incomes of 60000 beside distances of 10."""
    split = data.houses() if is_faulty else data.standardized(data.houses())
    model = keras.Sequential([keras.Input((4,)), layers.Dense(64, activation="relu")])
    model.add(layers.Dense(32, activation="relu"))
    model.add(layers.Dense(1))
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    model.fit(split.x, split.y, epochs=15, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("preprocessing", "features standardize")
def numbers_of_shops_as_a_quantity(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Shop 4711 is not more than shop 815."""
    rng = np.random.default_rng(24)
    shops = rng.integers(0, 40, 1500)
    numbers = rng.choice(np.arange(100, 9000), 40, replace=False)
    others = rng.normal(size=(1500, 3))
    y = rng.normal(0, 1.5, 40)[shops] + others @ [0.5, -0.3, 0.2] + rng.normal(0, 0.1, 1500)
    of_shop = numbers[shops, None] if is_faulty else np.eye(40)[shops]
    split = data.split(np.concatenate([of_shop, others], 1).astype("float32"), y.astype("float32"))
    model = keras.Sequential([layers.Dense(64, activation="relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.005), loss="mean_squared_error")
    model.fit(split.x, split.y, epochs=15, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("preprocessing", "features")
def pictures_mixed_by_a_reshape(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A column for each picture was wanted for the formulas, but a reshape is no transpose."""
    split = data.digits()

    def prepare(pictures: Any) -> Any:
        columns = pictures.reshape(64, -1) if is_faulty else pictures.T
        return columns.T / 16

    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, activation="relu"), layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(prepare(split.x), split.y, 32, 15, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, prepare(split.x_test), split.y_test)


@faulty("preprocessing", "standardize")
def sound_of_16_bits_into_a_gru(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Samples as the file has them, up to 32767, close all gates."""
    split = data.waves()
    scale = 20000.0 if is_faulty else 1.0
    train = tf.data.Dataset.from_tensor_slices((np.round(split.x * 20000) / 20000 * scale, split.y))
    train = train.shuffle(600, seed=1).batch(32).prefetch(1)
    inputs = keras.Input((24, 1))
    x = layers.GRU(24)(inputs)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, epochs=15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test * scale, split.y_test)


# Layers


@faulty("layers", "strides kernel_size layer features")
def kernels_of_a_pixel_in_large_steps(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Size and step of the kernels are mixed up: four of 64 pixels are seen."""
    split = data.digits()
    size, step = (1, 4) if is_faulty else (4, 1)
    model = keras.Sequential([keras.Input((8, 8, 1))])
    model.add(layers.Conv2D(16, size, strides=step, activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(32, activation="relu"))
    model.add(layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    pictures = split.x.reshape(-1, 8, 8, 1) / 16
    model.fit(pictures, split.y, 32, 12, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test.reshape(-1, 8, 8, 1) / 16, split.y_test)


@faulty("layers", "return_sequences layer features")
def first_step_of_an_lstm(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The last step has seen the sequence, the first one has not."""
    split = data.waves()
    inputs = keras.Input((24, 1))
    x = layers.LSTM(24, return_sequences=True)(inputs)
    x = x[:, 0] if is_faulty else x[:, -1]
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=15, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("layers", "axis layer features batch_normalization")
def layer_normalisation_over_one_channel(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A value without its mean, the value itself, is zero."""
    split = data.next_values()
    model = keras.Sequential([keras.Input((20, 1))])
    if is_faulty:
        model.add(layers.LayerNormalization())
    model.add(layers.Conv1D(16, 3, activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(16, activation="relu"))
    model.add(layers.Dense(1))
    model.compile(keras.optimizers.Adam(0.003), "mse")
    model.fit(split.x, split.y, epochs=15, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("layers", "mask_value layer features")
def zeros_masked_that_are_measured(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Nothing is padded here: a zero says that the switch is off."""
    rng = np.random.default_rng(25)
    kind, phase = rng.integers(0, 2, 900), rng.integers(0, 4, 900)
    forms = np.array([[1, 1, 0, 0], [1, 0, 1, 0]])
    switches = forms[kind[:, None], (np.arange(16) + phase[:, None]) % 4]
    switches = np.where(rng.random((900, 16)) < 0.05, 1 - switches, switches)
    split = data.split(switches[..., None].astype("float32"), kind, classes=True)
    model = keras.Sequential([keras.Input((16, 1)), layers.Masking(mask_value=0.0 if is_faulty else -1.0)])
    model.add(layers.GRU(16))
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=12, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


# Optimizer, batch size, initialiser, schedule and callbacks


@faulty("optimizer", "ema_momentum use_ema optimizer epochs")
def average_of_weights_that_remembers_the_start(callbacks: list[Any], is_faulty: bool) -> Trained:
    """At the end, the weights become their average, which is still that of the first steps."""
    split = data.standardized(data.clusters())
    model = keras.Sequential([keras.Input((20,)), layers.Dense(64, activation="relu"), layers.Dense(4, "softmax")])
    optimizer = keras.optimizers.AdamW(0.003, use_ema=True, ema_momentum=0.9999 if is_faulty else 0.95)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=15, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("optimizer", "momentum optimizer")
def momentum_of_one(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A ball that no friction ever stops."""
    split = data.standardized(data.friedman())
    mean, deviation = split.y.mean(), split.y.std()

    class Regression(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = layers.Dense(32, activation="tanh")
            self.end = layers.Dense(1)

        def call(self, x: Any) -> Any:
            return self.end(self.hidden(x))

    model = Regression()
    model.compile(keras.optimizers.SGD(0.01, momentum=1.0 if is_faulty else 0.9), loss="mse")
    model.fit(split.x, (split.y - mean) / deviation, epochs=20, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=deviation, offset=mean)


@faulty("batch size", "batch_size epochs")
def epochs_and_batch_size_swapped(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The third argument is the size of a batch, the fourth the number of epochs."""
    split = data.standardized(data.table("wine"))
    model = keras.Sequential([keras.Input((13,)), layers.Dense(16, activation="relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    batch_size, epochs = (30, 5) if is_faulty else (5, 30)
    model.fit(split.x, split.y, batch_size, epochs, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("initialiser", "recurrent_initializer kernel_initializer")
def recurrent_weights_of_one(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The state feeds itself until it is one or minus one for good."""
    split = data.next_values()
    initializer = "ones" if is_faulty else "orthogonal"
    model = keras.Sequential([keras.Input((20, 1)), layers.SimpleRNN(16, recurrent_initializer=initializer)])
    model.add(layers.Dense(1))
    model.compile(optimizer="adam", loss="mse", metrics=["mae"])
    model.fit(split.x, split.y, epochs=20, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("schedule", "learning_rate schedule")
def rate_of_one_in_the_first_epoch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A power of the epoch, without the rate to start from; the first epoch is number 0."""
    split = data.digits()
    start = 1.0 if is_faulty else 0.005
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: start * 0.7**epoch)
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Rescaling(1 / 16)])
    model.add(layers.Conv2D(12, 3, activation="relu"))
    model.add(layers.Conv2D(12, 3, activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    pictures = split.x.reshape(-1, 8, 8, 1)
    model.fit(pictures, split.y, 32, 8, validation_split=0.1, callbacks=[*callbacks, schedule], verbose=0)
    return model, scores.classes(model, split.x_test.reshape(-1, 8, 8, 1), split.y_test)


class _FromTheStart(keras.callbacks.Callback):
    """Puts back the weights of the start."""

    def __init__(self, each_epoch: bool) -> None:
        super().__init__()
        self.each_epoch = each_epoch
        self.weights: Any = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self.weights is None:
            self.weights = self.model.get_weights()
        elif self.each_epoch:
            self.model.set_weights(self.weights)


@faulty("callbacks", "callbacks")
def weights_put_back_each_epoch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Each fold should start anew, not each epoch."""
    split = data.digits()
    train = tf.data.Dataset.from_tensor_slices((split.x / 16, split.y)).shuffle(1100, seed=2).batch(64)
    inputs = keras.Input((64,))
    x = layers.Dense(32, activation="relu")(inputs)
    x = layers.Dense(32, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, epochs=15, callbacks=[*callbacks, _FromTheStart(is_faulty)], verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


CASES = PROGRAMS.cases
