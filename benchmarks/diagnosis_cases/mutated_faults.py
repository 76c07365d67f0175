"""Good programs with one thing changed, as tools that test tests of networks change them."""

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


@faulty("learning rate", "learning_rate")
def picture_network_at_a_rate_of_a_half(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Adam with 0.5 in place of 0.001."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Rescaling(1 / 16), layers.Reshape((8, 8, 1))])
    model.add(layers.Conv2D(16, 3, activation="relu"))
    model.add(layers.Flatten())
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(
        keras.optimizers.Adam(0.5 if is_faulty else 0.002), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(split.x, split.y, 32, 8, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("learning rate", "learning_rate")
def digits_at_a_rate_of_a_ten_thousandth(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Gradient descent that hardly moves."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.SGD(1e-4 if is_faulty else 0.1), "categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x / 16, np.eye(10)[split.y], 32, 20, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@faulty("learning rate", "learning_rate epochs scale_targets targets")
def regression_at_a_rate_of_a_hundred_thousandth(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Adam with 1e-5, a rate for fine-tuning, from scratch."""
    split = data.standardized(data.friedman())
    rows = tf.data.Dataset.from_tensor_slices((split.x, split.y)).shuffle(1000, seed=2).batch(32).prefetch(1)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(48, "relu"), layers.Dense(24, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-5 if is_faulty else 0.005), "mse", metrics=["mae"])
    model.fit(rows, epochs=20, validation_data=(split.x_test, split.y_test), callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("learning rate", "learning_rate")
def moons_at_a_rate_of_twenty(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The exponent's sign is lost."""
    split = data.moons()
    model = keras.Sequential([keras.Input((2,)), layers.Dense(24, "tanh"), layers.Dense(24, "tanh")])
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(keras.optimizers.SGD(20.0 if is_faulty else 0.2), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 16, 25, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("learning rate", "learning_rate momentum clipnorm scale_targets targets")
def momentum_at_a_rate_of_one_fifth(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A regression that leaves all numbers."""
    split = data.standardized(data.friedman())
    inputs = keras.Input((10,))
    x = layers.Dense(32, activation="relu")(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(32, activation="relu")(x)))
    model.compile(keras.optimizers.SGD(0.2 if is_faulty else 0.001, momentum=0.9), loss="mse")
    model.fit(split.x, split.y, 32, 20, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("learning rate", "learning_rate epochs")
def attention_at_a_rate_of_a_millionth(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Two zeros too many."""
    split = data.reviews()
    tokens = keras.Input((20,), dtype="int32")
    x = layers.Embedding(200, 16)(tokens)
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x)))
    model = keras.Model(tokens, layers.Dense(1, "sigmoid")(x))
    rate = 1e-6 if is_faulty else 0.003
    model.compile(keras.optimizers.AdamW(rate), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 6, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("epochs", "epochs")
def pictures_for_one_epoch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Epochs decreased to one."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Rescaling(1 / 16), layers.Reshape((8, 8, 1))])
    model.add(layers.Conv2D(12, 3, activation="relu"))
    model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=1 if is_faulty else 15, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("epochs", "epochs")
def regression_for_four_epochs(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Still on its way down."""
    split = data.standardized(data.friedman())
    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile("rmsprop", "mse", metrics=["mae"])
    epochs = 4 if is_faulty else 40
    model.fit(split.x, split.y, 32, epochs, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("epochs", "epochs learning_rate")
def waves_for_three_epochs(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A recurrent network that has hardly begun."""
    split = data.waves()
    model = keras.Sequential([keras.Input((24, 1)), layers.LSTM(20), layers.Dense(3, "softmax")])
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    labels = keras.utils.to_categorical(split.y)
    model.fit(split.x, labels, 16, 3 if is_faulty else 25, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("epochs", "epochs learning_rate")
def texts_for_two_epochs(callbacks: list[Any], is_faulty: bool) -> Trained:
    """No validation data: the training loss alone is still falling."""
    split = data.reviews()
    model = keras.Sequential([layers.Embedding(200, 8), layers.GlobalAveragePooling1D(), layers.Dense(8, "relu")])
    model.add(layers.Dense(1, "sigmoid"))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, batch_size=16, epochs=2 if is_faulty else 15, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("epochs", "epochs steps_per_epoch")
def dataset_of_two_steps_an_epoch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """An endless dataset, of which an epoch takes two batches."""
    split = data.digits()
    rows = tf.data.Dataset.from_tensor_slices((split.x / 16, split.y)).shuffle(1100, seed=3).repeat().batch(32)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(48, "relu"), layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    steps = 2 if is_faulty else 33
    model.fit(rows, epochs=15, steps_per_epoch=steps, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@faulty("epochs", "epochs patience callbacks monitor start_from_epoch")
def stops_at_the_first_worse_epoch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Patience of zero on a noisy validation accuracy that begins flat."""
    split = data.circles()
    model = keras.Sequential([keras.Input((2,)), layers.Dense(16, "relu"), layers.Dense(16, "relu")])
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(keras.optimizers.Adam(0.002), "binary_crossentropy", metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping(monitor="val_accuracy", patience=0 if is_faulty else 15)
    model.fit(split.x, split.y, 32, 40, validation_split=0.1, callbacks=[*callbacks, stop], verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("epochs", "epochs regularizer rate units callbacks layers")
def noisy_classes_far_too_long(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Epochs increased: the noise is learned, too."""
    split = data.standardized(data.clusters(n=900, noise=0.3, classes=3))
    model = keras.Sequential([keras.Input((20,)), layers.Dense(128, "relu"), layers.Dense(128, "relu")])
    model.add(layers.Dense(3, "softmax"))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 40 if is_faulty else 5, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("hidden activation", "activation")
def activations_of_a_spiral_removed(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Both hidden layers are linear."""
    split = data.spirals()
    activation = None if is_faulty else "relu"
    model = keras.Sequential([keras.Input((2,)), layers.Dense(48, activation), layers.Dense(48, activation)])
    model.add(layers.Dense(3, "softmax"))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 25, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("hidden activation", "activation layers batch_normalization kernel_initializer")
def convolutions_by_sigmoid(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Sigmoid in place of ReLU in three convolutions."""
    split = data.digits()
    activation = "sigmoid" if is_faulty else "relu"
    inputs = x = keras.Input((8, 8, 1))
    for filters in (8, 16, 16):
        x = layers.Conv2D(filters, 3, padding="same", activation=activation)(x)
    model = keras.Model(inputs, layers.Dense(10, "softmax")(layers.GlobalMaxPooling2D()(x)))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x.reshape(-1, 8, 8, 1) / 16, split.y, 32, 10, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test.reshape(-1, 8, 8, 1) / 16, split.y_test)


@faulty("hidden activation", "activation")
def lstm_by_softmax(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The activation of a classifier in its recurrent layer."""
    split = data.waves()
    model = keras.Sequential([keras.Input((24, 1)), layers.LSTM(16, activation="softmax" if is_faulty else "tanh")])
    model.add(layers.Dense(3, "softmax"))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 12, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("optimizer", "optimizer learning_rate")
def languages_by_adagrad(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Adagrad as it is by default in place of RMSprop."""
    split = data.languages()
    model = keras.Sequential([layers.Embedding(12, 8), layers.GRU(16), layers.Dense(4, "softmax")])
    model.compile("adagrad" if is_faulty else "rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 16, 12, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("optimizer", "optimizer learning_rate momentum")
def texts_by_gradient_descent(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Plain gradient descent as it is by default, for an embedding."""
    split = data.reviews()
    inputs = keras.Input((20,), dtype="int32")
    x = layers.Bidirectional(layers.LSTM(8))(layers.Embedding(200, 12)(inputs))
    model = keras.Model(inputs, layers.Dense(1, "sigmoid")(x))
    model.compile("sgd" if is_faulty else keras.optimizers.Adam(0.005), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 8, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("optimizer", "optimizer learning_rate")
def regression_by_ftrl(callbacks: list[Any], is_faulty: bool) -> Trained:
    """An optimizer chosen from the list because its name is new."""
    split = data.standardized(data.friedman())
    model = keras.Sequential([keras.Input((10,)), layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(1)])
    model.compile("ftrl" if is_faulty else keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    model.fit(split.x, split.y, 16, 25, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("batch size", "batch_size epochs learning_rate")
def digits_in_one_batch(callbacks: list[Any], is_faulty: bool) -> Trained:
    """All samples in a batch: an epoch is one step."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dense(10, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    size = 2048 if is_faulty else 32
    model.fit(split.x / 16, split.y, size, 15, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@faulty("batch size", "batch_size epochs learning_rate")
def dataset_of_large_batches(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Batches of 512 of a few hundred windows."""
    split = data.next_values()
    windows = tf.data.Dataset.from_tensor_slices((split.x, split.y)).shuffle(700, seed=4)
    model = keras.Sequential([keras.Input((20, 1)), layers.GRU(16), layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(windows.batch(512 if is_faulty else 16), epochs=12, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("schedule", "schedule learning_rate")
def cosine_of_thirty_steps(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The cosine is at zero in the second epoch."""
    split = data.standardized(data.friedman())
    steps_per_epoch = -(-len(split.x) // 32)
    schedule = keras.optimizers.schedules.CosineDecay(0.03, 30 if is_faulty else 30 * steps_per_epoch)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(48, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(schedule), "mse", metrics=["mae"])
    model.fit(split.x, split.y, 32, 30, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("schedule", "schedule learning_rate")
def halved_every_ten_steps(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Decay steps decreased."""
    split = data.digits()
    schedule = keras.optimizers.schedules.ExponentialDecay(0.005, 10 if is_faulty else 400, 0.5, staircase=True)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x / 16, split.y, 32, 15, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@faulty("schedule", "schedule learning_rate callbacks")
def decay_of_a_decayed_rate(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The function takes the current rate for the first one, so that factors multiply."""
    split = data.standardized(data.clusters(classes=3))
    model = keras.Sequential([keras.Input((20,)), layers.Dense(48, "relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.1, momentum=0.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    decay = keras.callbacks.LearningRateScheduler(
        lambda epoch, rate: float((rate if is_faulty else 0.1) * np.exp(-0.8 * epoch if is_faulty else -0.05 * epoch))
    )
    model.fit(split.x, split.y, 64, 20, validation_split=0.2, callbacks=[*callbacks, decay], verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("regularisation", "rate layers")
def dropout_rate_of_nine_tenths(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The share to keep was meant."""
    split = data.digits()
    rate = 0.9 if is_faulty else 0.1
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dropout(rate)])
    model.add(layers.Dense(32, "relu"))
    model.add(layers.Dropout(rate))
    model.add(layers.Dense(10, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x / 16, split.y, 32, 15, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@faulty("regularisation", "regularizer")
def l2_of_one_half(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The penalty is all that is learned."""
    split = data.standardized(data.table("wine"))
    penalty = keras.regularizers.L2(0.5 if is_faulty else 0.001)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(16, "relu", kernel_regularizer=penalty)])
    model.add(layers.Dense(3, "softmax", kernel_regularizer=penalty))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 8, 25, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("regularisation", "stddev rate layers")
def noise_larger_than_the_features(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Gaussian noise of a deviation of 1 on features of 0 to 1."""
    split = data.friedman()
    model = keras.Sequential([keras.Input((10,)), layers.GaussianNoise(1.0 if is_faulty else 0.01)])
    model.add(layers.Dense(48, "relu"))
    model.add(layers.Dense(1))
    model.compile(keras.optimizers.Adam(0.02), "mse", metrics=["mae"])
    model.fit(split.x, split.y, 32, 40, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


CASES = PROGRAMS.cases
