"""Dead and saturated units, in models whose weights are set so that it is known which are."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from mlflow_hp.training.dead_units import dead_shares, saturated_shares

X = np.random.default_rng(1).uniform(-1, 1, (50, 2)).astype("float32")
DEAD_BIAS = np.array([0, -9, 0, -9, -9], "float32")
"""Of five units on inputs from -1 to 1 with weights of 1: three of them never put out more than 0."""


def kill(layer):
    kernel, bias = layer.get_weights()
    layer.set_weights([np.ones_like(kernel), np.resize(DEAD_BIAS, bias.shape)])


def test_dense_and_relu_layers_of_a_sequential_model():
    layers = [
        keras.layers.Dense(5, "relu", name="first"),
        keras.layers.Dense(5, name="linear"),
        keras.layers.ReLU(name="second"),
        keras.layers.Dense(4, "tanh", name="third"),
    ]
    model = keras.Sequential([keras.Input((2,)), *layers])
    kill(layers[0])
    layers[1].set_weights([np.zeros((5, 5)), np.array([1, 1, 1, 1, -1])])
    assert dead_shares(model, X) == {"first": pytest.approx(0.6), "second": pytest.approx(0.2)}


def test_a_convolutions_units_are_its_channels():
    inputs = keras.Input((6, 6, 1))
    convolution = keras.layers.Conv2D(5, 3, activation="relu", name="convolution")
    hidden = keras.layers.Dense(5, name="hidden")(keras.layers.Flatten()(convolution(inputs)))
    outputs = keras.layers.Dense(1, name="out")(keras.layers.Activation("relu", name="activation")(hidden))
    model = keras.Model(inputs, outputs)
    kill(convolution)
    model.get_layer("hidden").set_weights([np.zeros((80, 5)), np.array([1, -1, -1, 1, 1])])
    images = np.full((9, 6, 6, 1), -0.2)
    images[4, :3, :3] = 0.5  # the channels that live do so in one corner of one image
    assert dead_shares(model, images) == {"convolution": pytest.approx(0.6), "activation": pytest.approx(0.4)}


def test_one_live_sample_in_the_last_batch_is_enough():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, "relu", name="hidden")])
    model.layers[0].set_weights([np.array([[1.0, 1.0]]), np.array([0.0, -5.0])])
    x = np.full((33, 1), -1.0)
    assert dead_shares(model, x, batch_size=8) == {"hidden": 1.0}
    x[-1] = 2.0
    assert dead_shares(model, x, batch_size=8) == {"hidden": 0.5}


def test_units_that_leak_are_not_dead():
    leaky = keras.Sequential([keras.Input((2,)), keras.layers.ReLU(negative_slope=0.1, name="leaky")])
    assert dead_shares(leaky, -np.abs(X) - 0.1) == {"leaky": 0.0}


class Subclassed(keras.Model):
    """A model whose layers are called in code."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(3, "relu")
        self.out = keras.layers.Dense(1)

    def call(self, x):
        return self.out(self.hidden(x))


def test_a_model_whose_layers_are_called_in_code():
    subclassed = Subclassed()
    subclassed(X)
    subclassed.hidden.set_weights([np.ones((2, 3)), np.array([0, -9, -9])])
    (share,) = dead_shares(subclassed, X).values()
    assert share == pytest.approx(2 / 3)


def test_layers_in_layers_that_share_a_name():
    inner = [keras.Sequential([keras.layers.Dense(5, "relu", name="hidden")]) for _ in range(2)]
    model = keras.Sequential([keras.Input((2,)), *inner])
    kill(inner[0].layers[0])
    inner[1].layers[0].set_weights([np.zeros((5, 5)), np.ones(5)])
    assert dead_shares(model, X) == {"hidden": pytest.approx(0.6), "hidden_2": 0.0}


def test_saturated_units_by_sample():
    layers = [keras.layers.Dense(2, name, name=name) for name in ("sigmoid", "tanh", "relu")]
    x = keras.Input((1,), name="x")
    model = keras.Model({"x": x}, [layer(x) for layer in layers])
    for layer in layers:
        layer.set_weights([np.array([[9.0, -9.0]]), np.zeros(2)])
    shares = saturated_shares(model, {"x": np.array([[0.0], [1.0], [-1.0], [0.1]])}, batch_size=3)
    assert shares == {"sigmoid": 0.5, "tanh": 0.5}
    recurrent = keras.Sequential([keras.Input((3, 2)), keras.layers.LSTM(4)])
    assert saturated_shares(recurrent, np.zeros((2, 3, 2))) == {}


def test_models_that_can_not_tell():
    assert dead_shares(Subclassed(), X) == {}
    assert dead_shares(keras.Sequential([keras.layers.Dense(3, "relu")]), X) == {}
    assert dead_shares(keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, "tanh")]), X) == {}


def test_the_model_is_left_as_it_was():
    layers = [keras.layers.Dense(5, "relu"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.5)]
    model = keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    before, config = [np.array(each) for each in model.variables], model.get_config()
    dead_shares(model, X)
    assert model.get_config() == config
    assert "call" not in vars(layers[0])
    for one, other in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, other)
