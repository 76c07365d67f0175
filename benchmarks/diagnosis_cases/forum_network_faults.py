"""Faulty programs as people ask about them: layers, hidden activations, order of data, schedules and callbacks."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs

Trained = tuple[Any, dict[str, float]]
PROGRAMS = Programs(are_new=True)
faulty = PROGRAMS.faulty


class Batches(keras.utils.PyDataset):
    """Batches in the order of the arrays, shuffled after each epoch or not; or always the first one."""

    def __init__(self, x: Any, y: Any, *, shuffles: bool, is_first_only: bool = False) -> None:
        super().__init__()
        self.x, self.y, self.shuffles, self.is_first_only = x, y, shuffles, is_first_only
        self.order = np.arange(len(x))
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.x) // 32

    def __getitem__(self, index: int) -> Any:
        chosen = self.order[(0 if self.is_first_only else index) * 32 :][:32]
        return self.x[chosen], self.y[chosen]

    def on_epoch_end(self) -> None:
        if self.shuffles:
            np.random.default_rng(1).shuffle(self.order)


def _pictures(split: data.Split) -> data.Split:
    return split._replace(x=split.x.reshape(-1, 8, 8, 1) / 16, x_test=split.x_test.reshape(-1, 8, 8, 1) / 16)


@faulty("layers", "layers units")
def circles_without_a_hidden_layer(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A straight line between two circles."""
    split = data.circles()
    model = keras.Sequential([keras.Input((2,))])
    if not is_faulty:
        model.add(layers.Dense(16, activation="relu"))
    model.add(layers.Dense(1, activation="sigmoid"))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=30, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("layers", "units layers")
def ten_classes_through_two_units(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A layer of two units before the last one."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Rescaling(1 / 16), layers.Dense(64, activation="relu")])
    model.add(layers.Dense(2 if is_faulty else 32, activation="relu"))
    model.add(layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=20, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("layers", "filters units layers")
def pictures_by_one_filter(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A number of filters that was meant as that of channels."""
    split = _pictures(data.digits())
    model = keras.Sequential([keras.Input((8, 8, 1))])
    model.add(layers.Conv2D(1 if is_faulty else 16, (3, 3), activation="relu"))
    model.add(layers.MaxPooling2D((2, 2)))
    model.add(layers.Flatten())
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, keras.utils.to_categorical(split.y), epochs=15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("layers", "units layers")
def lstm_of_one_unit(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The units are taken for the number of outputs."""
    split = data.waves()
    model = keras.Sequential([keras.Input((24, 1)), layers.LSTM(1 if is_faulty else 24), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 15, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("layers", "layers batch_normalization kernel_initializer activation")
def many_narrow_layers(callbacks: list[Any], is_faulty: bool) -> Trained:
    """More layers should make it better."""
    split = data.standardized(data.clusters(classes=3))
    model = keras.Sequential([keras.Input((20,))])
    for _ in range(24 if is_faulty else 2):
        model.add(layers.Dense(16, activation="relu"))
    model.add(layers.Dense(3, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=15, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("layers", "trainable")
def embedding_frozen_without_vectors(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Word vectors are not to be trained, but none were loaded."""
    split = data.reviews()
    inputs = keras.Input((20,), dtype="int32")
    x = layers.Embedding(200, 4, trainable=not is_faulty)(inputs)
    x = layers.Dense(8, activation="relu")(layers.GlobalAveragePooling1D()(x))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 12, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("layers", "layers")
def forecast_by_an_average_of_steps(callbacks: list[Any], is_faulty: bool) -> Trained:
    """An average over time, where the order of steps is what counts."""
    split = data.next_values()
    model = keras.Sequential([keras.Input((20, 1)), layers.Dense(16, activation="relu")])
    model.add(layers.GlobalAveragePooling1D() if is_faulty else layers.Flatten())
    model.add(layers.Dense(16, activation="relu"))
    model.add(layers.Dense(1))
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(split.x, split.y, epochs=20, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("layers", "layers pool_size")
def pooled_over_the_whole_picture(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The pool is as large as the picture."""
    split = _pictures(data.digits())
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D(8 if is_faulty else 2)(x)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.Flatten()(x)))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 15, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("layers", "layers features")
def one_branch_joined_twice(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Two inputs, but the second branch is copied and its input's name not changed."""
    split = data.standardized(data.friedman())
    first, second = keras.Input((3,), name="first"), keras.Input((7,), name="second")
    a = layers.Dense(24, activation="relu")(first)
    b = layers.Dense(24, activation="relu")(second)
    x = layers.Dense(24, activation="relu")(layers.concatenate([a, a if is_faulty else b]))
    model = keras.Model([first, second], layers.Dense(1)(x))
    model.compile(keras.optimizers.Adam(0.005), "mse", metrics=["mae"])
    x, x_test = [split.x[:, :3], split.x[:, 3:]], [split.x_test[:, :3], split.x_test[:, 3:]]
    model.fit(x, split.y, 32, 20, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, x_test, split.y_test)


@faulty("hidden activation", "activation layers")
def activation_called_and_forgotten(callbacks: list[Any], is_faulty: bool) -> Trained:
    """What the activations return is not used."""
    split = data.circles()
    inputs = keras.Input((2,))
    x = layers.Dense(32)(inputs)
    activated = layers.Activation("relu")(x)
    x = layers.Dense(16)(x if is_faulty else activated)
    activated = layers.Activation("relu")(x)
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x if is_faulty else activated))
    model.compile(keras.optimizers.Adam(0.005), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 20, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("hidden activation", "activation")
def code_of_an_autoencoder_by_softmax(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Units of a small code that sum to one."""
    split = data.standardized(data.table("breast_cancer"))
    table = keras.Input((30,))
    code = layers.Dense(5, activation="softmax" if is_faulty else None)(table)
    model = keras.Model(table, layers.Dense(30)(code))
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(split.x, split.x, epochs=40, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.x_test)


@faulty("hidden activation", "activation")
def regression_with_a_hidden_softmax(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The hidden layer has the activation of a classifier's end."""
    split = data.standardized(data.friedman())
    model = keras.Sequential()
    model.add(keras.Input((10,)))
    model.add(layers.Dense(32, activation="softmax" if is_faulty else "relu"))
    model.add(layers.Dense(1))
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse", metrics=["mae"])
    model.fit(split.x, split.y, epochs=25, validation_split=0.15, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("data", "shuffle")
def generator_sorted_by_class(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Files are read folder by folder, a folder for each class."""
    split = _pictures(data.digits())
    order = np.argsort(split.y, kind="stable")
    batches = Batches(split.x[order], split.y[order], shuffles=not is_faulty)
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"), layers.Flatten()])
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(batches, epochs=8, validation_data=(split.x_test, split.y_test), callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("data", "features targets")
def generator_of_one_batch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The generator forgets its index: all batches are the first."""
    split = data.standardized(data.friedman())
    batches = Batches(split.x, split.y, shuffles=False, is_first_only=is_faulty)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(48, "relu"), layers.Dense(24, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.005), "mse", metrics=["mae"])
    model.fit(batches, epochs=20, validation_data=(split.x_test, split.y_test), callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("data", "shuffle features targets")
def sorted_classes_cut_in_two(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The first 70 % of rows are trained on, but rows are sorted by class."""
    split = data.standardized(data.table("wine"))
    order = np.argsort(split.y, kind="stable") if is_faulty else np.random.default_rng(1).permutation(len(split.y))
    x, y = split.x[order], split.y[order]
    cut = int(0.7 * len(x))
    model = keras.Sequential([keras.Input((13,)), layers.Dense(12, "relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[:cut], y[:cut], 8, 25, validation_data=(x[cut:], y[cut:]), callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("schedule", "schedule learning_rate")
def transformer_schedule_in_a_short_training(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The warm-up of 4000 steps is from a paper, the training has a few hundred."""
    split = data.reviews()

    class Schedule(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            step = tf.cast(step, "float32") + 1
            warm_up = 4000 if is_faulty else 60
            return 512**-0.5 * tf.minimum(step**-0.5, step * warm_up**-1.5)

    tokens = keras.Input((20,), dtype="int32")
    x = layers.Embedding(200, 16)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    model = keras.Model(tokens, layers.Dense(1, "sigmoid")(layers.GlobalAveragePooling1D()(x)))
    model.compile(keras.optimizers.Adam(Schedule(), 0.9, 0.98), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 6, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("schedule", "factor patience min_delta callbacks schedule learning_rate monitor mode")
def plateau_without_patience(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The rate falls to a tenth after each epoch that is not much better than the best."""
    split = data.standardized(data.friedman())
    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.005), "mse", metrics=["mae"])
    settings = {"patience": 0, "min_delta": 10.0} if is_faulty else {"patience": 5}
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.1, **settings)
    model.fit(split.x, split.y, epochs=25, validation_split=0.2, callbacks=[*callbacks, plateau], verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("schedule", "schedule learning_rate callbacks")
def scheduler_that_forgets_the_rate(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The function multiplies by nothing: it returns a factor as the rate, 1 in the first epoch."""
    split = data.languages()
    model = keras.Sequential([layers.Embedding(12, 8), layers.GRU(24), layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])

    def decay(epoch: int) -> float:
        return 0.9**epoch if is_faulty else 0.01 * 0.9**epoch

    scheduler = keras.callbacks.LearningRateScheduler(decay)
    model.fit(split.x, split.y, 16, 10, validation_split=0.15, callbacks=[scheduler, *callbacks], verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("callbacks", "callbacks epochs monitor")
def stops_at_a_loss_easily_reached(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A course's callback that ends the training once it is good enough."""
    split = _pictures(data.digits())

    class Enough(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if logs["accuracy"] > (0.3 if is_faulty else 0.98):
                self.model.stop_training = True

    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"), layers.Flatten()])
    model.add(layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 20, callbacks=[*callbacks, Enough()], verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("callbacks", "baseline patience callbacks epochs monitor")
def stops_below_its_baseline(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The baseline is what is hoped for at the end, the patience is two epochs."""
    split = data.waves()
    model = keras.Sequential([keras.Input((24, 1)), layers.GRU(16), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping(
        "val_accuracy", patience=2 if is_faulty else 6, baseline=0.99 if is_faulty else None
    )
    model.fit(split.x, split.y, 32, 15, validation_split=0.2, callbacks=[*callbacks, stop], verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


CASES = PROGRAMS.cases
