"""Programs with faults at their end: last activations and losses."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs

Trained = tuple[Any, dict[str, float]]
PROGRAMS = Programs()
faulty = PROGRAMS.faulty


@faulty("last activation", "from_logits last_activation activation")
def softmax_and_from_logits(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Softmax twice: in the network, where Keras does not see it, and in the loss."""
    split = data.digits()
    inputs = keras.Input((64,))
    hidden = layers.Dense(64, activation="relu")(inputs)
    model = keras.Model(inputs, ops.clip(ops.softmax(layers.Dense(10)(hidden)), 1e-7, 1.0))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=is_faulty)
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss=loss, metrics=["accuracy"])
    model.fit(split.x / 16, split.y, epochs=12, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@faulty("last activation", "from_logits last_activation activation", "told")
def picture_logits_twice_one_hot(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Softmax twice, with one-hot labels: Keras warns, and leaves one out."""
    split = data.digits()
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, activation="relu")(inputs)
    x = layers.Flatten()(x)
    model = keras.Model(inputs, layers.Dense(10, "softmax")(x))
    model.compile(
        keras.optimizers.RMSprop(0.001),
        keras.losses.CategoricalCrossentropy(from_logits=is_faulty),
        metrics=[keras.metrics.CategoricalAccuracy()],
    )
    x_train = split.x.reshape(-1, 8, 8, 1) / 16
    model.fit(x_train, keras.utils.to_categorical(split.y), 64, 8, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test.reshape(-1, 8, 8, 1) / 16, split.y_test)


@faulty("last activation", "from_logits last_activation loss")
def clusters_without_an_end(callbacks: list[Any], is_faulty: bool) -> Trained:
    """No softmax, and a loss that expects probabilities."""
    split = data.standardized(data.clusters(classes=3))
    model = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(3)])
    loss = keras.losses.CategoricalCrossentropy(from_logits=not is_faulty)
    model.compile("adam", loss, metrics=["accuracy"])
    labels = np.eye(3)[split.y]
    model.fit(split.x, labels, epochs=15, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test, logits=True)


@faulty("last activation", "from_logits last_activation loss", "told")
def moons_without_sigmoid(callbacks: list[Any], is_faulty: bool) -> Trained:
    """One linear unit, and binary cross-entropy by name, which clips it: at times it learns all the same."""
    split = data.moons()
    model = keras.Sequential([keras.Input((2,)), layers.Dense(24, "relu"), layers.Dense(24, "relu")])
    model.add(layers.Dense(1) if is_faulty else layers.Dense(1, "sigmoid"))
    model.compile(keras.optimizers.Adam(0.005), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, batch_size=16, epochs=12, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@faulty("last activation", "last_activation activation layers")
def softmax_layer_after_softmax(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The activation is in the layer and in one of its own."""
    split = data.digits()
    model = keras.Sequential([layers.Input((64,)), layers.Rescaling(1 / 16), layers.Dense(48, "tanh")])
    model.add(layers.Dense(10, "softmax"))
    if is_faulty:
        model.add(layers.Activation("softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=15, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("last activation", "last_activation activation layers")
def relu_before_the_softmax_layer(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Logits are cut by ReLU."""
    split = data.digits()
    inputs = layers.Input((64,))
    hidden = layers.Dense(16, activation="relu")(inputs / 16)
    logits = layers.Dense(10, activation="relu" if is_faulty else None)(hidden)
    model = keras.Model(inputs, layers.Softmax()(logits))
    model.compile(keras.optimizers.SGD(0.2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=15, validation_split=0.15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("last activation", "last_activation scale_targets standardize")
def autoencoder_sigmoid_for_centred_data(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Outputs from 0 to 1 for data of mean 0."""
    split = data.standardized(data.table("breast_cancer"))
    encoder = keras.Sequential([keras.Input((30,)), layers.Dense(24, "relu"), layers.Dense(8)], name="encoder")
    end = "sigmoid" if is_faulty else None
    decoder = keras.Sequential([keras.Input((8,)), layers.Dense(24, "relu"), layers.Dense(30, end)], name="decoder")
    model = keras.Sequential([encoder, decoder])
    model.compile(keras.optimizers.Adam(0.005), "mse")
    model.fit(
        split.x, split.x, epochs=25, validation_data=(split.x_test[:100], split.x_test[:100]), callbacks=callbacks,
        verbose=0,
    )  # fmt: skip
    return model, scores.regression(model, split.x_test[100:], split.x_test[100:])


@faulty("last activation", "last_activation")
def autoencoder_relu_for_centred_data(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Outputs of at least 0 for data of mean 0."""
    split = data.standardized(data.clusters())
    inputs = keras.Input((20,), name="table")
    code = layers.Dense(14, "elu", name="code")(inputs)
    outputs = layers.Dense(20, "relu" if is_faulty else "linear", name="again")(code)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Nadam(0.01), loss="mean_squared_error", metrics=["mae"])
    model.fit(split.x, split.x, batch_size=64, epochs=30, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.x_test)


@faulty("last activation", "last_activation scale_targets standardize loss")
def autoencoder_of_raw_pixels_with_sigmoid(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Outputs from 0 to 1 for pixels from 0 to 16."""
    split = data.digits()
    scale = 1.0 if is_faulty else 16.0
    model = keras.Sequential([layers.Dense(32, "relu"), layers.Dense(64, "sigmoid")])
    model.compile(optimizer=keras.optimizers.Adam(0.003), loss="mse")
    model.fit(split.x / scale, split.x / scale, epochs=20, batch_size=64, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test / scale, split.x_test, scale=scale)


@faulty("last activation", "last_activation last_units")
def second_output_softmax_of_one_unit(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Two outputs; the one of one unit has a softmax."""
    split = data.digits()
    inputs = keras.Input((64,))
    x = layers.Dense(48, "relu")(inputs / 16)
    digit = layers.Dense(10, "softmax", name="digit")(x)
    large = layers.Dense(1, "softmax" if is_faulty else "sigmoid", name="large")(x)
    model = keras.Model(inputs, {"digit": digit, "large": large})
    model.compile("adam", {"digit": "sparse_categorical_crossentropy", "large": "binary_crossentropy"})
    model.fit(split.x, {"digit": split.y, "large": split.y >= 5}, epochs=12, callbacks=callbacks, verbose=0)
    return model, scores.binary(keras.Model(inputs, large), split.x_test, split.y_test >= 5)


@faulty("last activation", "last_activation scale_targets")
def forecast_through_a_sigmoid(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A series from -1.5 to 1.5, and an output from 0 to 1."""
    split = data.next_values()
    end = layers.Dense(1, "sigmoid" if is_faulty else None)
    model = keras.Sequential([layers.Input((20, 1)), layers.LSTM(16), end])
    model.compile("rmsprop", "mse", metrics=["mae"])
    model.fit(split.x, split.y, epochs=8, batch_size=32, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@faulty("last activation", "last_activation scale_targets targets")
def counts_through_tanh(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Targets from 0 to 7, and an output from -1 to 1."""
    split = data.standardized(data.friedman())
    model = keras.Sequential()
    model.add(layers.Dense(30, activation="relu"))
    model.add(layers.Dense(30, activation="relu"))
    model.add(layers.Dense(1, activation="tanh" if is_faulty else "linear"))
    model.compile(loss="mean_absolute_error", optimizer=keras.optimizers.Adam(0.01))
    model.fit(split.x, split.y / 4, epochs=30, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=4)


@faulty("last activation", "last_activation")
def token_classes_by_tanh(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A cross-entropy of outputs from -1 to 1."""
    split = data.languages()
    model = keras.Sequential([layers.Embedding(12, 8), layers.GRU(16)])
    model.add(layers.Dense(4, "tanh" if is_faulty else "softmax"))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 10, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


def _rounded(model: Any, x: Any, y: Any, scale: float = 1.0) -> dict[str, float]:
    outputs = np.nan_to_num(model.predict(x, verbose=0).ravel() * scale)
    return {"score": float((np.rint(outputs) == y).mean()), "loss": float(((outputs - y) ** 2).mean())}


@faulty("loss", "loss last_units last_activation")
def class_numbers_as_a_regression(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Ten classes by one linear unit and the squared error."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, "relu")])
    if is_faulty:
        model.add(layers.Dense(1))
        model.compile("adam", "mse", metrics=["accuracy"])
    else:
        model.add(layers.Dense(10, "softmax"))
        model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x / 16, split.y, epochs=20, validation_split=0.2, callbacks=callbacks, verbose=0)
    score = _rounded if is_faulty else scores.classes
    return model, score(model, split.x_test / 16, split.y_test)


@faulty("loss", "loss last_units last_activation")
def iris_classes_by_one_sigmoid(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Three classes by one sigmoid unit: binary for many."""
    split = data.standardized(data.table("iris"))
    model = keras.Sequential([layers.Dense(12, "relu"), layers.Dense(8, "relu")])
    model.add(layers.Dense(1, "sigmoid") if is_faulty else layers.Dense(3, "softmax"))
    loss = "binary_crossentropy" if is_faulty else "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(split.x, split.y, batch_size=8, epochs=40, callbacks=callbacks, verbose=0)
    score = _rounded if is_faulty else scores.classes
    return model, score(model, split.x_test, split.y_test)


@faulty("loss", "loss last_units last_activation")
def wine_classes_by_one_sigmoid(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Three classes by one sigmoid unit and the squared error."""
    split = data.standardized(data.table("wine"))
    inputs = keras.Input((13,))
    x = layers.Dense(16, "selu")(inputs)
    model = keras.Model(inputs, layers.Dense(1, "sigmoid")(x) if is_faulty else layers.Dense(3, "softmax")(x))
    loss = "mse" if is_faulty else keras.losses.SparseCategoricalCrossentropy()
    model.compile("rmsprop", loss, metrics=["accuracy"])
    model.fit(split.x, split.y, 8, 40, callbacks=callbacks, verbose=0)
    score = _rounded if is_faulty else scores.classes
    return model, score(model, split.x_test, split.y_test)


@faulty("loss", "loss")
def regression_by_sparse_cross_entropy(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A cross-entropy for continuous targets: binary, on scaled ones."""
    split = data.standardized(data.linear(400, 5))
    offset, scale = split.y.mean(), split.y.std()
    model = keras.Sequential([layers.Dense(16, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), loss="binary_crossentropy" if is_faulty else "mse", metrics=["mae"])
    y = (split.y - offset) / scale
    model.fit(split.x, y, epochs=25, batch_size=16, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test, scale=scale, offset=offset)


@faulty("loss", "loss last_activation")
def picture_labels_by_kl_of_class_numbers(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Numbers of classes are compared with each probability."""
    split = data.digits()
    model = keras.Sequential(
        [layers.Reshape((8, 8, 1)), layers.Rescaling(1 / 16), layers.Conv2D(8, 3, activation="relu"), layers.Flatten()]
    )
    model.add(layers.Dense(10, "softmax"))
    model.compile("adam", "mae" if is_faulty else "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y[:, None], epochs=10, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("loss", "loss")
def squared_error_of_a_column_of_classes(callbacks: list[Any], is_faulty: bool) -> Trained:
    """A column of class numbers against ten probabilities."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(10, "softmax")])
    model.compile("adam", loss="mse" if is_faulty else "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x / 16, split.y.reshape(-1, 1), epochs=12, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@faulty("loss", "loss")
def waves_by_squared_error(callbacks: list[Any], is_faulty: bool) -> Trained:
    """The same for waves, by a recurrent network."""
    split = data.waves()
    model = keras.Sequential([keras.Input((24, 1)), layers.GRU(16), layers.Dense(3, "softmax")])
    loss = keras.losses.MeanSquaredError() if is_faulty else keras.losses.SparseCategoricalCrossentropy()
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    model.fit(split.x, split.y[:, None], 32, 10, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@faulty("loss", "loss last_activation")
def labels_any_of_six_by_categorical_loss(callbacks: list[Any], is_faulty: bool) -> Trained:
    """Several labels at once, and a loss for exclusive ones."""
    split = data.standardized(data.several_labels())
    model = keras.Sequential([keras.Input((24,)), layers.Dense(32, "relu")])
    model.add(layers.Dense(6, "softmax" if is_faulty else "sigmoid"))
    loss = keras.losses.CategoricalCrossentropy() if is_faulty else keras.losses.BinaryCrossentropy()
    model.compile(keras.optimizers.Adam(0.005), loss, metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=15, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


CASES = PROGRAMS.cases
