"""Programs whose faults are in their keywords, so that advice can be followed: one for each kind of data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers

from benchmarks.diagnosis_cases import data, scores

if TYPE_CHECKING:
    from collections.abc import Callable


def optimizer_of(name: str, learning_rate: float, momentum: float = 0.0, clipnorm: float | None = None) -> Any:
    """Optimizer by name, with its settings."""
    kind = type(keras.optimizers.get(name))
    settings: dict[str, Any] = {"momentum": momentum} if momentum else {}
    return kind(learning_rate=learning_rate, clipnorm=clipnorm, **settings)


def penalty(l2: float) -> Any:
    """L2 regulariser, or None."""
    return keras.regularizers.L2(l2) if l2 else None


def digits(
    callbacks: list[Any],
    learning_rate: float = 0.002,
    batch_size: int = 32,
    epochs: int = 20,
    optimizer: str = "adam",
    momentum: float = 0.0,
    clipnorm: float | None = None,
    initializer: str = "glorot_uniform",
    activation: str = "relu",
    last_activation: str = "softmax",
    loss: str = "sparse_categorical_crossentropy",
    dropout: float = 0.0,
    l2: float = 0.0,
    standardize: bool = True,
    hidden: int = 64,
    n_hidden: int = 2,
    shuffle: bool = True,
    one_hot: bool = False,
) -> tuple[Any, dict[str, float]]:
    """A dense network on the pixels of digits."""
    split = data.digits()
    x, x_test = (split.x / 16, split.x_test / 16) if standardize else (split.x, split.x_test)
    model = keras.Sequential([keras.Input((64,))])
    for _ in range(n_hidden):
        dense = layers.Dense(
            hidden, activation=activation, kernel_initializer=initializer, kernel_regularizer=penalty(l2)
        )
        model.add(dense)
        if dropout:
            model.add(layers.Dropout(dropout))
    model.add(layers.Dense(10, activation=last_activation, kernel_initializer=initializer))
    model.compile(optimizer=optimizer_of(optimizer, learning_rate, momentum, clipnorm), loss=loss, metrics=["accuracy"])
    y, y_test = split.y, split.y_test
    if one_hot:
        y, y_test = keras.utils.to_categorical(y), keras.utils.to_categorical(y_test)
    if not shuffle:
        order = np.argsort(split.y, kind="stable")
        x, y = x[order], y[order]
    half = len(x_test) // 2
    model.fit(
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        shuffle=shuffle,
        validation_data=(x_test[:half], y_test[:half]),
        callbacks=callbacks,
        verbose=0,
    )
    return model, scores.classes(model, x_test[half:], split.y_test[half:])


def pictures(
    callbacks: list[Any],
    learning_rate: float = 0.003,
    batch_size: int = 32,
    epochs: int = 8,
    optimizer: str = "adam",
    momentum: float = 0.0,
    kernel_initializer: str = "glorot_uniform",
    activation: str = "relu",
    last_activation: str = "softmax",
    loss: str = "sparse_categorical_crossentropy",
    dropout: float = 0.0,
    batch_normalization: bool = False,
    filters: int = 12,
    units: int = 32,
) -> tuple[Any, dict[str, float]]:
    """A convolutional network on digits, 8x8x1."""
    split = data.digits()
    inputs = keras.Input((8, 8, 1))
    x = inputs
    for n_filters in (filters, 2 * filters):
        x = layers.Conv2D(n_filters, 3, padding="same", kernel_initializer=kernel_initializer)(x)
        if batch_normalization:
            x = layers.BatchNormalization()(x)
        x = layers.Activation(activation)(x)
        x = layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    x = layers.Dense(units, activation, kernel_initializer=kernel_initializer)(x)
    x = layers.Dropout(dropout)(x)
    outputs = layers.Dense(10, last_activation)(x)
    model = keras.Model(inputs, outputs)
    model.compile(optimizer_of(optimizer, learning_rate, momentum), loss, metrics=["accuracy"])
    train, test = (each.reshape(-1, 8, 8, 1) / 16 for each in (split.x, split.x_test))
    model.fit(train, split.y, batch_size, epochs, validation_split=0.15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, test, split.y_test)


def tabular(
    callbacks: list[Any],
    name: str = "wine",
    learning_rate: float = 0.01,
    batch_size: int = 16,
    epochs: int = 30,
    optimizer: str = "adam",
    momentum: float = 0.0,
    initializer: str = "glorot_uniform",
    activation: str = "relu",
    last_activation: str = "softmax",
    loss: str = "categorical_crossentropy",
    dropout: float = 0.0,
    l2: float = 0.0,
    standardize: bool = True,
    hidden: int = 16,
    n_hidden: int = 1,
) -> tuple[Any, dict[str, float]]:
    """A small network on iris, wine or made clusters, with one-hot labels."""
    split = data.clusters() if name == "clusters" else data.table(name)
    if standardize:
        split = data.standardized(split)
    n_classes = int(split.y.max()) + 1
    model = keras.Sequential(
        [
            keras.Input((split.x.shape[1],)),
            *(
                layers.Dense(hidden, activation, kernel_initializer=initializer, kernel_regularizer=penalty(l2))
                for _ in range(n_hidden)
            ),
            layers.Dropout(dropout),
            layers.Dense(n_classes, last_activation, kernel_initializer=initializer),
        ]
    )
    model.compile(loss=loss, optimizer=optimizer_of(optimizer, learning_rate, momentum), metrics=["acc"])
    labels = keras.utils.to_categorical(split.y, n_classes)
    model.fit(split.x, labels, epochs=epochs, batch_size=batch_size, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


def tumours(
    callbacks: list[Any],
    learning_rate: float = 0.003,
    batch_size: int = 32,
    epochs: int = 20,
    optimizer: str = "adam",
    momentum: float = 0.0,
    kernel_initializer: str = "he_normal",
    activation: str = "relu",
    last_activation: str = "sigmoid",
    loss: str = "binary_crossentropy",
    dropout: float = 0.0,
    standardize: bool = True,
    hidden: int = 16,
) -> tuple[Any, dict[str, float]]:
    """Tumours, benign or not: one unit."""
    split = data.table("breast_cancer")
    if standardize:
        split = data.standardized(split)
    network = keras.models.Sequential()
    network.add(keras.Input(shape=(30,)))
    network.add(layers.Dense(hidden, activation=activation, kernel_initializer=kernel_initializer))
    network.add(layers.Dropout(dropout))
    network.add(layers.Dense(hidden // 2 or 1, activation=activation, kernel_initializer=kernel_initializer))
    network.add(layers.Dense(1, activation=last_activation))
    network.compile(optimizer_of(optimizer, learning_rate, momentum), loss=loss, metrics=["accuracy"])
    network.fit(
        split.x, split.y, batch_size=batch_size, epochs=epochs, validation_split=0.2, callbacks=callbacks, verbose=0
    )
    return network, scores.binary(network, split.x_test, split.y_test)


def surface(
    callbacks: list[Any],
    name: str = "friedman",
    learning_rate: float = 0.005,
    batch_size: int = 32,
    epochs: int = 30,
    optimizer: str = "adam",
    momentum: float = 0.0,
    clipnorm: float | None = None,
    initializer: str = "glorot_uniform",
    activation: str = "relu",
    last_activation: str = "linear",
    loss: str = "mse",
    dropout: float = 0.0,
    l2: float = 0.0,
    standardize: bool = True,
    scale_targets: bool = True,
    hidden: int = 32,
    n_hidden: int = 2,
) -> tuple[Any, dict[str, float]]:
    """Regressions: ``"friedman"``, ``"friedman 2"`` (numbers of hundreds), ``"linear"`` or ``"diabetes"``."""
    splits: dict[str, Callable[[], data.Split]] = {
        "friedman": data.friedman,
        "friedman 2": lambda: data.friedman(2, noise=10.0),
        "linear": data.linear,
        "diabetes": data.raw_diabetes,
    }
    split = splits[name]()
    if standardize:
        split = data.standardized(split)
    offset, scale = (float(split.y.mean()), float(split.y.std())) if scale_targets else (0.0, 1.0)
    x = inputs = keras.Input((split.x.shape[1],), name="features")
    for i in range(n_hidden):
        x = layers.Dense(
            hidden, activation, kernel_initializer=initializer, kernel_regularizer=penalty(l2), name=f"hidden_{i + 1}"
        )(x)
        x = layers.Dropout(dropout)(x) if dropout else x
    model = keras.Model(inputs, layers.Dense(1, last_activation, name="value")(x))
    model.compile(optimizer_of(optimizer, learning_rate, momentum, clipnorm), loss, metrics=["mae"])
    model.fit(
        split.x,
        (split.y - offset) / scale,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=(split.x_test[::2], (split.y_test[::2] - offset) / scale),
        callbacks=callbacks,
        verbose=0,
    )
    return model, scores.regression(model, split.x_test[1::2], split.y_test[1::2], scale=scale, offset=offset)


def plane(
    callbacks: list[Any],
    name: str = "moons",
    learning_rate: float = 0.01,
    batch_size: int = 32,
    epochs: int = 40,
    optimizer: str = "adam",
    momentum: float = 0.0,
    initializer: str = "glorot_uniform",
    activation: str = "tanh",
    last_activation: str = "softmax",
    loss: str = "sparse_categorical_crossentropy",
    hidden: int = 16,
    n_hidden: int = 2,
) -> tuple[Any, dict[str, float]]:
    """Points in the plane: ``"moons"``, ``"circles"`` or ``"spirals"``."""
    split = {"moons": data.moons, "circles": data.circles, "spirals": data.spirals}[name]()
    model = keras.Sequential(
        [layers.Dense(hidden, activation=activation, kernel_initializer=initializer) for _ in range(n_hidden)]
    )
    model.add(layers.Dense(int(split.y.max()) + 1, last_activation))
    model.compile(optimizer_of(optimizer, learning_rate, momentum), loss, metrics=["accuracy"])
    model.fit(split.x, split.y, batch_size, epochs, 0, callbacks, validation_data=(split.x_test, split.y_test))
    return model, scores.classes(model, split.x_test, split.y_test)


def signals(
    callbacks: list[Any],
    learning_rate: float = 0.01,
    batch_size: int = 32,
    epochs: int = 12,
    optimizer: str = "adam",
    momentum: float = 0.0,
    clipnorm: float | None = None,
    activation: str = "tanh",
    last_activation: str = "softmax",
    loss: str = "sparse_categorical_crossentropy",
    dropout: float = 0.0,
    units: int = 16,
    cell: str = "GRU",
) -> tuple[Any, dict[str, float]]:
    """Forms of waves, by a recurrent network."""
    split = data.waves()
    layer = getattr(layers, cell)
    model = keras.Sequential(
        [
            keras.Input(split.x.shape[1:]),
            layer(units, activation=activation, dropout=dropout),
            layers.Dense(3, activation=last_activation),
        ]
    )
    model.compile(optimizer_of(optimizer, learning_rate, momentum, clipnorm), loss, metrics=["accuracy"])
    model.fit(
        split.x, split.y, batch_size=batch_size, epochs=epochs, validation_split=0.1, callbacks=callbacks, verbose=0
    )
    return model, scores.classes(model, split.x_test, split.y_test)


def opinions(
    callbacks: list[Any],
    learning_rate: float = 0.01,
    batch_size: int = 32,
    epochs: int = 4,
    optimizer: str = "adam",
    last_activation: str = "sigmoid",
    loss: str = "binary_crossentropy",
    dropout: float = 0.3,
    units: int = 16,
    activation: str = "relu",
) -> tuple[Any, dict[str, float]]:
    """Opinions of short texts: embeddings, averaged."""
    split = data.reviews()
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(200, 8, mask_zero=True)(tokens)
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Dense(units, activation)(x)
    x = layers.Dropout(dropout)(x)
    model = keras.Model(tokens, layers.Dense(1, last_activation)(x))
    model.compile(optimizer_of(optimizer, learning_rate), loss, metrics=["accuracy"])
    model.fit(
        split.x, split.y, batch_size=batch_size, epochs=epochs, validation_split=0.2, callbacks=callbacks, verbose=0
    )
    return model, scores.binary(model, split.x_test, split.y_test)


def topics(
    callbacks: list[Any],
    learning_rate: float = 0.003,
    batch_size: int = 32,
    epochs: int = 15,
    optimizer: str = "adam",
    initializer: str = "glorot_uniform",
    activation: str = "relu",
    last_activation: str = "sigmoid",
    loss: str = "binary_crossentropy",
    dropout: float = 0.2,
    standardize: bool = True,
    hidden: int = 48,
) -> tuple[Any, dict[str, float]]:
    """Any of 6 labels for each text."""
    split = data.several_labels()
    if standardize:
        split = data.standardized(split)
    model = keras.Sequential(
        [
            layers.Input((24,)),
            layers.Dense(hidden, activation, kernel_initializer=initializer),
            layers.Dropout(dropout),
            layers.Dense(6, last_activation, kernel_initializer=initializer),
        ]
    )
    model.compile(optimizer_of(optimizer, learning_rate), loss, metrics=["binary_accuracy"])
    model.fit(
        split.x,
        split.y,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=(split.x_test, split.y_test),
        callbacks=callbacks,
        verbose=0,
    )
    return model, scores.binary(model, split.x_test, split.y_test)
