"""Programs with faults in their networks: layers, activations, initialisers."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs
from benchmarks.diagnosis_cases.network_fits import Trained
from benchmarks.diagnosis_cases.network_fits import classes as _ends
from benchmarks.diagnosis_cases.network_fits import digits as _digits
from benchmarks.diagnosis_cases.network_fits import friedman as _friedman

PROGRAMS = Programs()
faulty = PROGRAMS.faulty


@faulty("hidden activation", "activation")
def stack_without_activations(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Four dense layers that are one."""
    activation = None if is_faulty else "relu"
    inputs = keras.Input((2,))
    x = inputs
    for units in (64, 32, 16):
        x = layers.Dense(units, activation)(x)
    model = keras.Model(inputs, layers.Dense(3, "softmax")(x))
    return _ends(callbacks, model, data.spirals(), keras.optimizers.Adam(0.01), epochs=25)


@faulty("hidden activation", "activation")
def linear_layers_of_a_regression(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Activations forgotten in a regression."""
    units = [layers.Dense(48, "linear" if is_faulty else "elu") for _ in range(2)]
    return _friedman(callbacks, keras.Sequential([*units, layers.Dense(1)]), validation_split=0.2)


@faulty("hidden activation", "activation")
def linear_convolutions(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Convolutions without activations: patches of two photographs, whose edges have any sign."""
    split = data.patches()
    activation = None if is_faulty else "relu"
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(12, 3, activation=activation),
            layers.Conv2D(12, 3, strides=2, activation=activation),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, "softmax"),
        ]
    )
    return _ends(callbacks, model, split, keras.optimizers.Adam(0.01), epochs=18, batch_size=32)


@faulty("hidden activation", "activation layers batch_normalization kernel_initializer")
def twelve_sigmoid_layers(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A stack that passes no gradient."""
    model = keras.Sequential([keras.Input((64,))])
    for _ in range(12):
        model.add(layers.Dense(48, kernel_initializer="he_normal"))
        model.add(layers.Activation("sigmoid" if is_faulty else "relu"))
    model.add(layers.Dense(10, activation="softmax"))
    return _digits(callbacks, model, epochs=15)


@faulty("hidden activation", "activation layers batch_normalization kernel_initializer")
def seven_hard_sigmoid_layers(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Hard sigmoids in a regression."""
    activation = "hard_sigmoid" if is_faulty else "swish"
    model = keras.Sequential([*(layers.Dense(24, activation) for _ in range(7)), layers.Dense(1)])
    return _friedman(callbacks, model, batch_size=16)


@faulty("hidden activation", "activation learning_rate clipnorm")
def exponentials_in_the_middle(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``exponential`` as an activation of hidden layers."""
    activation = "exponential" if is_faulty else "relu"
    model = keras.Sequential([*(layers.Dense(32, activation) for _ in range(2)), layers.Dense(1)])
    return _friedman(callbacks, model, keras.optimizers.Adam(0.01))


@faulty("hidden activation", "activation")
def softmax_in_the_middle(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A softmax in each hidden layer."""
    activation = "softmax" if is_faulty else "tanh"
    model = keras.Sequential([keras.Input((64,)), *(layers.Dense(40, activation) for _ in range(2))])
    model.add(layers.Dense(10, "softmax"))
    return _digits(callbacks, model, "rmsprop", epochs=15)


@faulty("hidden activation", "activation clipnorm learning_rate layers")
def recurrent_relu(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A recurrent layer that grows at each step of a series."""
    split = data.next_values()
    layer = layers.SimpleRNN(24, activation="relu", recurrent_initializer=keras.initializers.Identity(1.6))
    layer = layer if is_faulty else layers.SimpleRNN(24)
    model = keras.Sequential([keras.Input((20, 1)), layer, layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.02), "mse")
    model.fit(split.x, split.y, epochs=8, batch_size=16, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("layers", "trainable")
def nothing_to_train(callbacks: list[Any], is_faulty: bool) -> Trained:
    """All layers are frozen, that of the output too."""
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu"), layers.Dense(10, "softmax")])
    model.layers[0].trainable = not is_faulty
    model.layers[1].trainable = not is_faulty
    return _digits(callbacks, model, keras.optimizers.Adam(0.005), epochs=10)


@faulty("layers", "trainable")
def random_layers_frozen(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The base is frozen as for transfer learning, but has learned nothing."""
    base = keras.Sequential([keras.Input((64,)), layers.Dense(16, "relu"), layers.Dense(16, "relu")], name="base")
    base.trainable = not is_faulty
    model = keras.Sequential([base, layers.Dense(10, "softmax")])
    return _digits(callbacks, model, keras.optimizers.Adam(0.003))


@faulty("layers", "trainable")
def frozen_convolutions(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A frozen base of convolutions that has not been trained."""
    split = data.digits()
    inputs = keras.Input((8, 8, 1))
    base = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(6, 3, activation="relu"),
            layers.Conv2D(6, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
        ]
    )
    base.trainable = not is_faulty
    model = keras.Model(inputs, layers.Dense(10, "softmax")(layers.Dense(24, "relu")(base(inputs))))
    pictures = split._replace(x=split.x.reshape(-1, 8, 8, 1) / 16, x_test=split.x_test.reshape(-1, 8, 8, 1) / 16)
    return _ends(callbacks, model, pictures, keras.optimizers.Adam(0.01), epochs=20, validation_split=0.1)


@faulty("layers", "units layers")
def bottleneck_of_one_unit(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Ten classes through one unit."""
    inputs = keras.Input((64,))
    x = layers.Dense(32, "relu", name="first")(inputs)
    x = layers.Dense(1 if is_faulty else 16, "relu", name="second")(x)
    model = keras.Model(inputs, layers.Dense(10, "softmax", name="digit")(x))
    return _digits(callbacks, model)


@faulty("layers", "units layers")
def autoencoder_through_one_unit(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A code of one number for a picture."""
    split = data.digits()
    model = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(1 if is_faulty else 16, name="code")])
    model.add(layers.Dense(32, "relu"))
    model.add(layers.Dense(64, "sigmoid"))
    model.compile(keras.optimizers.Adam(0.005), "mse")
    model.fit(split.x / 16, split.x / 16, epochs=20, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test / 16, split.x_test / 16)


@faulty("layers", "batch_normalization momentum epochs batch_size")
def averages_that_are_not_there_yet(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Batch normalisation whose averages need thousands of steps, and gets 25."""
    momentum = 0.999 if is_faulty else 0.9
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64), layers.BatchNormalization(momentum=momentum)])
    model.add(layers.Activation("relu"))
    model.add(layers.Dense(10, "softmax"))
    return _digits(callbacks, model, keras.optimizers.Adam(0.01), epochs=5, batch_size=64)


@faulty("layers", "layers")
def mean_of_everything_before_the_network(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A global mean of the picture as the first layer."""
    split = data.digits()
    model = keras.Sequential([keras.Input((8, 8, 1))])
    model.add(layers.GlobalAveragePooling2D() if is_faulty else layers.Flatten())
    model.add(layers.Dense(32, "relu"))
    model.add(layers.Dense(10, "softmax"))
    pictures = split._replace(x=split.x.reshape(-1, 8, 8, 1) / 16, x_test=split.x_test.reshape(-1, 8, 8, 1) / 16)
    return _ends(callbacks, model, pictures, "adam", epochs=15)


@faulty("layers", "layers activation kernel_initializer batch_normalization")
def forty_plain_layers(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Forty tanh layers without shortcuts."""
    model = keras.Sequential([keras.Input((10,))])
    for _ in range(40 if is_faulty else 3):
        model.add(layers.Dense(16, "tanh", kernel_initializer="random_normal"))
    model.add(layers.Dense(1))
    return _friedman(callbacks, model, keras.optimizers.Adam(0.01), epochs=10 if is_faulty else 30)


@faulty("initialiser", "kernel_initializer")
def all_weights_zero(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Zeros in a network with two outputs' worth of layers."""
    name = "zeros" if is_faulty else "he_uniform"
    inputs = keras.Input((2,))
    x = layers.Dense(32, "relu", kernel_initializer=name)(inputs)
    x = layers.Dense(32, "relu", kernel_initializer=name)(x)
    model = keras.Model(inputs, layers.Dense(2, "softmax", kernel_initializer=name)(x))
    return _ends(callbacks, model, data.moons(), keras.optimizers.Adam(0.01), epochs=12)


@faulty("initialiser", "kernel_initializer")
def weights_with_a_deviation_of_ten(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``RandomNormal(stddev=10)``."""
    initializer = keras.initializers.RandomNormal(stddev=10.0 if is_faulty else 0.1, seed=1)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "tanh", kernel_initializer=initializer)])
    model.add(layers.Dense(10, "softmax"))
    return _digits(callbacks, model, epochs=15)


@faulty("initialiser", "kernel_initializer")
def weights_all_a_half(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``Constant(0.5)``: all units are the same."""
    initializer = keras.initializers.Constant(0.5) if is_faulty else "glorot_normal"
    model = keras.Sequential(
        [
            layers.Dense(24, "sigmoid", kernel_initializer=initializer),
            layers.Dense(3, "softmax", kernel_initializer=initializer),
        ]
    )
    return _ends(callbacks, model, data.spirals(), keras.optimizers.Adam(0.05), epochs=30)


@faulty("initialiser", "kernel_initializer")
def weights_up_to_a_hundred(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``RandomUniform(-100, 100)`` in a regression."""
    wide = keras.initializers.RandomUniform(-100, 100, seed=2)
    initializer = wide if is_faulty else "glorot_uniform"
    model = keras.Sequential([layers.Dense(32, "relu", kernel_initializer=initializer), layers.Dense(1)])
    return _friedman(callbacks, model)


@faulty("initialiser", "kernel_initializer")
def weights_of_a_millionth(callbacks: list[Any], is_faulty: bool) -> Trained:
    """``RandomNormal(stddev=1e-6)`` in a deep network."""
    tiny = keras.initializers.RandomNormal(stddev=1e-6 if is_faulty else 0.15, seed=3)
    model = keras.Sequential([keras.Input((64,))])
    for _ in range(4):
        model.add(layers.Dense(32, "tanh", kernel_initializer=tiny))
    model.add(layers.Dense(10, "softmax", kernel_initializer=tiny))
    return _digits(callbacks, model, keras.optimizers.SGD(0.1), epochs=12)


@faulty("initialiser", "kernel_initializer bias_initializer activation")
def biases_that_kill_the_units(callbacks: list[Any], is_faulty: bool) -> Trained:
    """ReLU units with a bias of -20 never answer."""
    bias = keras.initializers.Constant(-20.0 if is_faulty else 0.0)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(48, "relu", bias_initializer=bias)])
    model.add(layers.Dense(10, "softmax"))
    return _digits(callbacks, model, epochs=10)


@faulty("initialiser", "kernel_initializer")
def convolutions_of_a_deviation_of_five(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Convolutions with weights of 5."""
    split = data.digits()
    start = keras.initializers.RandomNormal(stddev=5.0, seed=4) if is_faulty else "he_normal"
    end = keras.initializers.RandomNormal(stddev=5.0, seed=5) if is_faulty else "he_normal"
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(12, 3, activation="relu", kernel_initializer=start),
            layers.Flatten(),
            layers.Dense(32, "relu", kernel_initializer=end),
            layers.Dense(10, "softmax"),
        ]
    )
    pictures = split._replace(x=split.x.reshape(-1, 8, 8, 1) / 16, x_test=split.x_test.reshape(-1, 8, 8, 1) / 16)
    return _ends(callbacks, model, pictures, "adam", epochs=6)


CASES = PROGRAMS.cases
