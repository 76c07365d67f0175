"""Programs with faults in how they are trained: optimizers, schedules, callbacks, batches, epochs."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs

Trained = tuple[Any, dict[str, float]]
PROGRAMS = Programs()
faulty = PROGRAMS.faulty


def _digits(callbacks: list[Any], optimizer: Any, *, hidden: int = 48, **fit: Any) -> Trained:
    """Fit a dense network to digits."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(hidden, "relu"), layers.Dense(10, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    fit = {"epochs": 12, "validation_data": (split.x_test[:240] / 16, split.y_test[:240])} | fit
    model.fit(split.x / 16, split.y, callbacks=callbacks, verbose=0, **fit)
    return model, scores.classes(model, split.x_test[240:] / 16, split.y_test[240:])


def _friedman(callbacks: list[Any], optimizer: Any, *, batch_normalization: bool = False, **fit: Any) -> Trained:
    """Fit a dense network to a regression, scaled."""
    split = data.standardized(data.friedman())
    offset, scale = float(split.y.mean()), float(split.y.std())
    inputs = keras.Input((10,))
    x = inputs
    for units in (40, 20):
        x = layers.Dense(units)(x)
        if batch_normalization:
            x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile(optimizer, loss=keras.losses.MeanSquaredError(), metrics=["mae"])
    y = (split.y - offset) / scale
    model.fit(split.x, y, callbacks=callbacks, verbose=0, **({"epochs": 20} | fit))
    return model, scores.regression(model, split.x_test, split.y_test, scale=scale, offset=offset)


@faulty("learning rate", "learning_rate")
def lion_with_a_large_rate(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Each step of Lion is the rate, whatever the gradient."""
    return _digits(callbacks, keras.optimizers.Lion(0.1 if is_faulty else 0.0005))


@faulty("learning rate", "learning_rate")
def adamw_with_a_rate_of_a_millionth(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A thousandth of the default."""
    return _friedman(callbacks, keras.optimizers.AdamW(1e-6 if is_faulty else 0.005))


@faulty("learning rate", "learning_rate clipnorm")
def raw_regression_by_sgd(callbacks: list[Any], is_faulty: bool) -> Trained:
    """SGD that diverges: a linear model with a rate beyond the curvature."""
    split = data.standardized(data.linear(300, 6))
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1.2 if is_faulty else 0.02), "mse")
    model.fit(split.x, split.y, epochs=20, batch_size=16, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("learning rate", "learning_rate")
def autoencoder_with_a_small_rate(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Pictures made again, hardly begun."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(24, "relu"), layers.Dense(64, "sigmoid")])
    model.compile(keras.optimizers.Adam(1e-5 if is_faulty else 0.005), "binary_crossentropy")
    x, x_test = split.x / 16, split.x_test / 16
    model.fit(x, x, batch_size=32, epochs=15, validation_data=(x_test, x_test), callbacks=callbacks, verbose=0)
    return model, scores.regression(model, x_test, x_test)


@faulty("learning rate", "learning_rate")
def two_outputs_with_a_large_rate(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A class and a number from one network."""
    split = data.standardized(data.table("wine"))
    inputs = keras.Input((13,), name="wine")
    x = layers.Dense(24, "relu")(inputs)
    outputs = [layers.Dense(3, "softmax", name="kind")(x), layers.Dense(1, name="alcohol")(x)]
    model = keras.Model(inputs, outputs)
    losses = ["sparse_categorical_crossentropy", "mse"]
    model.compile(keras.optimizers.Adam(0.8 if is_faulty else 0.01), losses, metrics=[["accuracy"], ["mae"]])
    model.fit(split.x, [split.y, split.x[:, 0]], batch_size=16, epochs=30, callbacks=callbacks, verbose=0)
    return model, scores.classes(keras.Model(inputs, outputs[0]), split.x_test, split.y_test)


@faulty("learning rate", "learning_rate clipnorm")
def recurrent_with_a_large_rate(callbacks: list[Any], is_faulty: bool) -> Trained:
    """RMSprop at 0.3 on a series."""
    split = data.next_values()
    model = keras.Sequential([keras.Input((20, 1)), layers.GRU(12), layers.Dense(1)])
    model.compile(keras.optimizers.RMSprop(0.3 if is_faulty else 0.003), "mse")
    model.fit(split.x, split.y, epochs=8, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("learning rate", "learning_rate")
def embeddings_that_jump(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Embeddings with a rate of 2."""
    split = data.languages()
    model = keras.Sequential([layers.Embedding(12, 8), layers.Conv1D(24, 2, activation="relu")])
    model.add(layers.GlobalAveragePooling1D())
    model.add(layers.Dense(4, "softmax"))
    model.compile(keras.optimizers.Adam(2.0 if is_faulty else 0.01), "sparse_categorical_crossentropy", metrics=["acc"])
    model.fit(split.x, split.y, epochs=10, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("optimizer", "optimizer learning_rate epsilon")
def adam_with_an_epsilon_of_ten(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Epsilon swallows the second moment."""
    return _digits(callbacks, keras.optimizers.Adam(0.001, epsilon=10.0 if is_faulty else 1e-7))


@faulty("optimizer", "clipnorm")
def gradients_clipped_to_nothing(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A clip norm of 0.001 for SGD."""
    return _digits(callbacks, keras.optimizers.SGD(0.1, clipnorm=1e-3 if is_faulty else 5.0))


@faulty("optimizer", "clipnorm clipvalue")
def gradient_values_clipped_to_nothing(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A clip value of 1e-5."""
    return _friedman(callbacks, keras.optimizers.SGD(0.05, momentum=0.9, clipvalue=1e-5 if is_faulty else 1.0))


@faulty("optimizer", "clipnorm global_clipnorm")
def global_norm_clipped_to_nothing(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A global clip norm of 0.002."""
    return _friedman(callbacks, keras.optimizers.SGD(0.05, global_clipnorm=2e-3 if is_faulty else 2.0))


@faulty("optimizer", "optimizer weight_decay regularizer")
def weights_decay_as_fast_as_they_learn(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A weight decay of 20 for AdamW."""
    return _digits(callbacks, keras.optimizers.AdamW(0.003, weight_decay=20.0 if is_faulty else 0.004))


@faulty("optimizer", "momentum learning_rate")
def nesterov_of_0_999(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Momentum that remembers a thousand steps."""
    optimizer = keras.optimizers.SGD(0.05, momentum=0.999 if is_faulty else 0.9, nesterov=True)
    return _friedman(callbacks, optimizer, batch_size=16)


@faulty("optimizer", "optimizer learning_rate")
def adadelta_on_pictures(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Adadelta by its name in Keras: a rate of 0.001."""
    split = data.digits()
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(16, 3, activation="relu"), layers.Flatten()])
    model.add(layers.Dense(10, "softmax"))
    model.compile("adadelta" if is_faulty else "adam", "categorical_crossentropy", metrics=["accuracy"])
    x, x_test = (each.reshape(-1, 8, 8, 1) / 16 for each in (split.x, split.x_test))
    model.fit(x, keras.utils.to_categorical(split.y), epochs=8, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, x_test, split.y_test)


@faulty("schedule", "schedule learning_rate")
def decay_by_steps_of_one(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``ExponentialDecay`` whose steps were meant as epochs."""
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, decay_steps=1 if is_faulty else 400, decay_rate=0.8)
    return _digits(callbacks, keras.optimizers.SGD(rate, momentum=0.9))


@faulty("schedule", "schedule learning_rate")
def cosine_over_epochs_instead_of_steps(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``CosineDecay(decay_steps=20)`` for 20 epochs."""
    rate = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=20 if is_faulty else 20 * 27)
    return _friedman(callbacks, keras.optimizers.Adam(rate))


@faulty("schedule", "schedule learning_rate")
def polynomial_to_zero_at_once(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The rate is at its end after 10 steps."""
    steps = 10 if is_faulty else 300
    rate = keras.optimizers.schedules.PolynomialDecay(0.005, steps, end_learning_rate=1e-7 if is_faulty else 1e-3)
    return _digits(callbacks, keras.optimizers.Nadam(learning_rate=rate), batch_size=32, epochs=10)


@faulty("schedule", "schedule learning_rate")
def constants_by_epochs_instead_of_steps(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``PiecewiseConstantDecay([5, 10], ...)`` that was to be of epochs."""
    boundaries = [5, 10] if is_faulty else [5 * 34, 10 * 34]
    rate = keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, [0.1, 0.01, 1e-4])
    return _digits(callbacks, keras.optimizers.SGD(rate), epochs=12)


@faulty("schedule", "schedule learning_rate")
def warm_up_that_never_ends(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A warm-up of a million steps."""
    steps = 1_000_000 if is_faulty else 40
    rate = keras.optimizers.schedules.CosineDecay(0.0, 2000, warmup_target=0.005, warmup_steps=steps)
    return _friedman(callbacks, keras.optimizers.Adam(rate), batch_size=32)


@faulty("schedule", "schedule learning_rate callbacks")
def tenth_of_the_rate_each_epoch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``LearningRateScheduler`` with a factor of 0.1."""
    factor = 0.1 if is_faulty else 0.97
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate * factor)
    return _digits([scheduler, *callbacks], keras.optimizers.SGD(0.05), epochs=15)


@faulty("schedule", "schedule learning_rate callbacks")
def rate_that_doubles_each_epoch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A rate that grows until the training diverges."""
    factor = 2.0 if is_faulty else 0.9
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: float(rate * factor))
    return _friedman([*callbacks, scheduler], keras.optimizers.SGD(0.02, momentum=0.9), epochs=15)


@faulty("schedule", "schedule learning_rate")
def inverse_time_far_too_fast(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``InverseTimeDecay`` with a rate of 100 for each step."""
    decay = 100.0 if is_faulty else 0.002
    rate = keras.optimizers.schedules.InverseTimeDecay(0.05, decay_steps=1, decay_rate=decay)
    return _digits(callbacks, keras.optimizers.SGD(rate, momentum=0.9))


@faulty("callbacks", "mode monitor")
def stops_when_accuracy_rises(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``EarlyStopping`` of an accuracy with ``mode="min"``."""
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=3, mode="min" if is_faulty else "max")
    return _digits([*callbacks, stop], keras.optimizers.Adam(5e-4), epochs=20)


@faulty("callbacks", "mode monitor")
def keeps_the_weights_of_the_largest_loss(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``EarlyStopping`` of a loss with ``mode="max"``, and the best weights restored."""
    stop = keras.callbacks.EarlyStopping(
        monitor="val_loss", mode="max" if is_faulty else "min", patience=4, restore_best_weights=True
    )
    return _digits([stop, *callbacks], "rmsprop", epochs=20)


@faulty("callbacks", "mode monitor learning_rate")
def lowers_the_rate_while_the_loss_falls(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``ReduceLROnPlateau`` with ``mode="max"`` of a loss."""
    reduce = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.1, patience=1, mode="max" if is_faulty else "min")
    return _friedman([*callbacks, reduce], keras.optimizers.Adam(0.003), validation_split=0.2, epochs=15)


@faulty("callbacks", "monitor", "told")
def stops_by_a_metric_that_is_not_there(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``val_acc`` where Keras calls it ``val_accuracy``: never stops."""
    stop = keras.callbacks.EarlyStopping(monitor="val_acc" if is_faulty else "val_accuracy", mode="max", patience=5)
    return _digits([*callbacks, stop], keras.optimizers.Adam(0.003), epochs=15)


@faulty("callbacks", "monitor", "told")
def stops_by_a_validation_that_is_not_there(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``val_loss`` without validation data."""
    stop = keras.callbacks.EarlyStopping("val_loss" if is_faulty else "loss", patience=3)
    return _friedman([*callbacks, stop], keras.optimizers.Adam(0.01), epochs=20)


@faulty("callbacks", "min_delta patience epochs monitor")
def stops_unless_the_loss_falls_by_a_half(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``EarlyStopping`` with a `min_delta` of the size of the loss, and no patience."""
    delta, patience = (0.8, 1) if is_faulty else (0.0, 5)
    stop = keras.callbacks.EarlyStopping("val_loss", min_delta=delta, patience=patience)
    return _digits([*callbacks, stop], keras.optimizers.Adam(5e-4), epochs=20)


@faulty("callbacks", "mode monitor", "told")
def checkpoints_of_the_worst_epoch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``ModelCheckpoint`` of an accuracy with ``mode="min"``."""
    best = keras.callbacks.ModelCheckpoint(
        "best.weights.h5", "val_accuracy", save_best_only=True, save_weights_only=True,
        mode="min" if is_faulty else "max",
    )  # fmt: skip
    return _digits([best, *callbacks], keras.optimizers.Adam(0.002), epochs=15)


@faulty("batch size", "batch_size batch_normalization")
def batch_normalisation_of_single_samples(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A batch of one has no variance."""
    epochs = 2 if is_faulty else 15
    optimizer = keras.optimizers.Adam(0.003)
    return _friedman(callbacks, optimizer, batch_normalization=True, batch_size=1 if is_faulty else 32, epochs=epochs)


@faulty("batch size", "batch_size batch_normalization")
def batch_normalisation_of_single_pictures(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The same after a dense layer of a picture network."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32), layers.BatchNormalization(), layers.ReLU()])
    model.add(layers.Dense(10, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    size, epochs = (1, 2) if is_faulty else (16, 12)
    model.fit(split.x / 16, split.y, batch_size=size, epochs=epochs, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@faulty("batch size", "batch_size")
def dataset_in_one_batch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``dataset.batch(len(x))``: a step for each epoch."""
    split = data.languages()
    dataset = tf.data.Dataset.from_tensor_slices((split.x, split.y)).shuffle(1000)
    model = keras.Sequential([layers.Embedding(12, 8), layers.GRU(16), layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(dataset.batch(len(split.x) if is_faulty else 32), epochs=14, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("batch size", "batch_size learning_rate momentum")
def batches_of_two_with_momentum(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Steps of two samples each, as large as those of many."""
    epochs, size = (3, 2) if is_faulty else (20, 32)
    return _friedman(callbacks, keras.optimizers.SGD(0.03, momentum=0.95), batch_size=size, epochs=epochs)


@faulty("epochs", "epochs")
def lstm_for_an_epoch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """One epoch of an LSTM."""
    split = data.languages()
    model = keras.Sequential([layers.Embedding(12, 8), layers.LSTM(16), layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 16, 1 if is_faulty else 12, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("epochs", "epochs")
def autoencoder_for_two_epochs(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Two epochs of an autoencoder."""
    split = data.standardized(data.table("breast_cancer"))
    model = keras.Sequential([keras.Input((30,)), layers.Dense(12, "relu"), layers.Dense(30)])
    model.compile(keras.optimizers.Adam(0.003), "mse")
    model.fit(split.x, split.x, 16, 2 if is_faulty else 40, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.x_test)


@faulty("epochs", "epochs")
def two_outputs_for_an_epoch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """One epoch of two outputs."""
    split = data.digits()
    inputs = keras.Input((64,))
    x = layers.Dense(32, "relu")(layers.Rescaling(1 / 16)(inputs))
    digit, is_even = layers.Dense(10, "softmax", name="digit")(x), layers.Dense(1, "sigmoid", name="even")(x)
    model = keras.Model(inputs, [digit, is_even])
    model.compile("adam", ["sparse_categorical_crossentropy", "binary_crossentropy"])
    y = [split.y, (split.y % 2 == 0).astype("float32")]
    model.fit(split.x, y, epochs=1 if is_faulty else 15, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.classes(keras.Model(inputs, digit), split.x_test, split.y_test)


@faulty("epochs", "epochs steps_per_epoch")
def epochs_of_three_steps(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``steps_per_epoch=3`` for five epochs."""
    split = data.digits()
    dataset = tf.data.Dataset.from_tensor_slices((split.x / 16, np.eye(10)[split.y])).shuffle(1100).repeat().batch(32)
    model = keras.Sequential([layers.Dense(48, "relu"), layers.Dense(10, "softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    steps, epochs = (3, 5) if is_faulty else (34, 15)
    model.fit(dataset, epochs=epochs, steps_per_epoch=steps, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


CASES = PROGRAMS.cases
