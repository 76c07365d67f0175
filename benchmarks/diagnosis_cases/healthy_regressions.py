"""Healthy programs of numbers, and unusual ones: losses and steps of the user's own."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs

Trained = tuple[Any, dict[str, float]]
PROGRAMS = Programs()
healthy = PROGRAMS.healthy


@healthy
def straight_line(callbacks: list[Any]) -> Trained:
    """One unit, one feature."""
    x = np.linspace(-1, 1, 200)[:, None]
    y = 3 * x - 1 + np.random.default_rng(0).normal(0, 0.1, x.shape)
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, y, epochs=30, batch_size=20, callbacks=callbacks, verbose=0)
    return model, scores.errors(model.predict(x, verbose=0), 3 * x - 1)


@healthy
def linear_regression_of_raw_targets(callbacks: list[Any]) -> Trained:
    """Targets of hundreds, and a rate for them."""
    split = data.standardized(data.linear())
    model = keras.Sequential([keras.Input((8,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.02), "mse", metrics=["mae"])
    model.fit(split.x, split.y, epochs=25, batch_size=16, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@healthy
def diabetes_in_its_units(callbacks: list[Any]) -> Trained:
    """Raw targets of 25 to 346, trained for long enough, stopped early."""
    split = data.standardized(data.raw_diabetes())
    model = keras.Sequential([layers.Dense(16, "relu", kernel_regularizer="l2"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse", metrics=["mae"])
    stop = keras.callbacks.EarlyStopping(patience=8, restore_best_weights=True)
    model.fit(split.x, split.y, 16, 80, validation_split=0.2, callbacks=[stop, *callbacks], verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@healthy
def counts_by_poisson(callbacks: list[Any]) -> Trained:
    """Counts, with an exponential at the end and the loss for it."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(1000, 4)).astype("float32")
    rate = np.exp(0.5 + 0.5 * x[:, 0] - 0.4 * np.abs(x[:, 1]))
    y = rng.poisson(rate).astype("float32")
    model = keras.Sequential([layers.Dense(16, "tanh"), layers.Dense(1, "exponential")])
    model.compile(keras.optimizers.Adam(0.01), "poisson", metrics=["mae"])
    model.fit(x[:700], y[:700], epochs=20, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, x[700:], rate[700:])


@healthy
def positive_targets_with_softplus(callbacks: list[Any]) -> Trained:
    """Softplus for targets that are never negative."""
    split = data.standardized(data.friedman(2, noise=10.0))
    model = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(1, "softplus")])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(split.x, split.y / 500, 32, 40, validation_split=0.15, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=500)


@healthy
def shares_with_a_sigmoid(callbacks: list[Any]) -> Trained:
    """Targets of 0 to 1, a sigmoid, and the squared error."""
    split = data.standardized(data.friedman(3, noise=0.02))
    low, high = float(split.y.min()), float(split.y.max())
    model = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    model.fit(split.x, (split.y - low) / (high - low), 32, 60, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=high - low, offset=low)


@healthy
def two_targets_at_once(callbacks: list[Any]) -> Trained:
    """A regression of two numbers."""
    split = data.standardized(data.friedman())
    y, y_test = (np.stack([each / 5, np.cos(each / 5)], 1) for each in (split.y, split.y_test))
    inputs = keras.Input((10,))
    x = layers.Dense(48, "relu")(inputs)
    x = layers.Dense(48, "relu")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    model.compile(keras.optimizers.Adam(0.005), "mse")
    model.fit(
        split.x, y, epochs=60, batch_size=32, validation_data=(split.x_test, y_test), callbacks=callbacks, verbose=0
    )
    return model, scores.regression(model, split.x_test, y_test)


@healthy
def quantile_of_the_users_own(callbacks: list[Any]) -> Trained:
    """The median by a loss of the user's."""
    split = data.standardized(data.friedman())
    offset, scale = float(split.y.mean()), float(split.y.std())

    def pinball(y: Any, prediction: Any) -> Any:
        error = y - prediction
        return ops.mean(ops.maximum(0.5 * error, -0.5 * error), axis=-1)

    model = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.005), pinball)
    model.fit(split.x, (split.y - offset)[:, None] / scale, 32, 40, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=scale, offset=offset)


@healthy
def rewards_to_be_raised(callbacks: list[Any]) -> Trained:
    """A loss that is negative: a likelihood with its own spread."""
    split = data.standardized(data.linear(600, 5, 2.0))
    y, y_test = split.y / split.y.std(), split.y_test / split.y.std()

    def likelihood(y: Any, outputs: Any) -> Any:
        mean, log_spread = outputs[:, :1], ops.clip(outputs[:, 1:], -4, 4)
        return ops.mean(log_spread + 0.5 * ops.square((y - mean) / ops.exp(log_spread)), axis=-1)

    inputs = keras.Input((5,))
    model = keras.Model(inputs, layers.Dense(2)(layers.Dense(24, "tanh")(inputs)))
    model.compile(keras.optimizers.Adam(0.01), likelihood)
    model.fit(split.x, y[:, None], epochs=60, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.errors(model.predict(split.x_test, verbose=0)[:, 0], y_test)


class Contrastive(keras.Model):
    """A model with a step of its own: it predicts, and its weights are kept small."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = layers.Dense(32, "relu")
        self.end = layers.Dense(1)
        self.tracker = keras.metrics.Mean(name="loss")

    def call(self, inputs: Any) -> Any:
        return self.end(self.hidden(inputs))

    def train_step(self, batch: Any) -> Any:
        import tensorflow as tf

        x, y = batch
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(self(x, training=True)[:, 0] - y))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


@healthy
def step_of_the_users_own(callbacks: list[Any]) -> Trained:
    """``train_step`` written by the user."""
    split = data.standardized(data.friedman())
    offset, scale = float(split.y.mean()), float(split.y.std())
    model = Contrastive()
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    y = ((split.y - offset) / scale).astype("float32")
    model.fit(split.x.astype("float32"), y, epochs=30, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=scale, offset=offset)


@healthy
def network_of_a_class(callbacks: list[Any]) -> Trained:
    """A subclassed model with the step of Keras."""

    class Network(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = [layers.Dense(48, activation="relu") for _ in range(2)]
            self.drop = layers.Dropout(0.1)
            self.classify = layers.Dense(10, activation="softmax")

        def call(self, inputs: Any, training: bool = False) -> Any:
            for layer in self.hidden:
                inputs = layer(inputs)
            return self.classify(self.drop(inputs, training=training))

    split = data.digits()
    model = Network()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x / 16, split.y, epochs=20, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@healthy
def support_vectors_by_hinge(callbacks: list[Any]) -> Trained:
    """Labels of -1 and 1, tanh and hinge."""
    split = data.standardized(data.table("breast_cancer"))
    model = keras.Sequential([layers.Dense(16, "relu"), layers.Dense(1, "tanh")])
    model.compile(keras.optimizers.Adam(0.003), "hinge")
    model.fit(split.x, 2.0 * split.y - 1, epochs=25, batch_size=16, callbacks=callbacks, verbose=0)
    outputs = model.predict(split.x_test, verbose=0).ravel()
    return model, {"score": float(((outputs > 0) == split.y_test).mean()), "loss": float(np.mean(outputs))}


@healthy
def squared_error_of_a_probability(callbacks: list[Any]) -> Trained:
    """Brier's score: a sigmoid with the squared error."""
    split = data.moons()
    model = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(16, "relu"), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=25, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def focal_loss_of_a_rare_class(callbacks: list[Any]) -> Trained:
    """A loss for unequal classes."""
    split = data.standardized(data.unequal(0.15))
    model = keras.Sequential([layers.Dense(24, "relu"), layers.Dense(1, "sigmoid")])
    loss = keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True, alpha=0.8)
    model.compile(keras.optimizers.Adam(0.005), loss, metrics=[keras.metrics.AUC(name="auc")])
    model.fit(split.x, split.y, epochs=30, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test, balanced=True)


@healthy
def transfer_of_a_trained_base(callbacks: list[Any]) -> Trained:
    """A base that was trained on other digits is frozen, and only the end learns."""
    split = data.digits()
    is_small = split.y < 5
    base = keras.Sequential([keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(32, "relu")], name="base")
    first = keras.Sequential([base, layers.Dense(5, "softmax")])
    first.compile("adam", "sparse_categorical_crossentropy")
    first.fit(split.x[is_small] / 16, split.y[is_small], epochs=12, verbose=0)
    base.trainable = False
    model = keras.Sequential([base, layers.Dense(5, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x[~is_small] / 16, split.y[~is_small] - 5, epochs=20, callbacks=callbacks, verbose=0)
    rows = split.y_test >= 5
    return model, scores.classes(model, split.x_test[rows] / 16, split.y_test[rows] - 5)


@healthy
def selu_with_its_initialiser(callbacks: list[Any]) -> Trained:
    """SELU, LeCun's initialiser, alpha dropout."""
    split = data.standardized(data.clusters())
    model = keras.Sequential([keras.Input((20,))])
    for _ in range(3):
        model.add(layers.Dense(48, "selu", kernel_initializer="lecun_normal"))
    model.add(layers.Dense(4, "softmax"))
    model.compile(
        keras.optimizers.SGD(0.03, momentum=0.9, nesterov=True), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(split.x, split.y, epochs=15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def full_batches_of_a_small_table(callbacks: list[Any]) -> Trained:
    """All of iris in a batch, for as many epochs as that needs."""
    split = data.standardized(data.table("iris"))
    model = keras.Sequential([layers.Dense(12, "tanh"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=150, batch_size=90, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def leaky_units_and_layer_normalisation(callbacks: list[Any]) -> Trained:
    """Leaky ReLU layers behind layer normalisation."""
    split = data.standardized(data.friedman())
    offset, scale = float(split.y.mean()), float(split.y.std())
    x = inputs = keras.Input((10,))
    for units in (48, 24):
        x = layers.LeakyReLU(negative_slope=0.1)(layers.LayerNormalization()(layers.Dense(units)(x)))
    model = keras.Model(inputs, layers.Dense(1)(x))
    model.compile(keras.optimizers.Adam(0.005), "mse", metrics=["mae"])
    y, valid = (split.y - offset) / scale, (split.y_test[:150] - offset) / scale
    model.fit(split.x, y, 32, 30, validation_data=(split.x_test[:150], valid), callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test[150:], split.y_test[150:], scale=scale, offset=offset)


@healthy
def long_past_its_end(callbacks: list[Any]) -> Trained:
    """A table that is learned in 20 epochs, trained for 150."""
    split = data.standardized(data.table("breast_cancer"))
    model = keras.Sequential([layers.Dense(8, "relu", kernel_regularizer=keras.regularizers.L2(0.01))])
    model.add(layers.Dense(1, "sigmoid", kernel_regularizer=keras.regularizers.L2(0.01)))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 100, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


CASES = PROGRAMS.cases
