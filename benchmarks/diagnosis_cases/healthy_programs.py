"""Healthy programs, as different people write them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.preprocessing import MinMaxScaler

from benchmarks.diagnosis_cases import data, scores
from benchmarks.diagnosis_cases.case import Programs

Trained = tuple[Any, dict[str, float]]
PROGRAMS = Programs()
healthy = PROGRAMS.healthy


def _pictures() -> data.Split:
    split = data.digits()
    return split._replace(x=split.x.reshape(-1, 8, 8, 1) / 16, x_test=split.x_test.reshape(-1, 8, 8, 1) / 16)


@healthy
def digits_by_logits(callbacks: list[Any]) -> Trained:
    """Logits, and a loss that knows it."""
    split = data.digits()
    model = keras.Sequential([layers.Rescaling(1 / 16), layers.Dense(50, "gelu"), layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("nadam", loss, metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=15, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test, logits=True)


@healthy
def moons_by_one_logit(callbacks: list[Any]) -> Trained:
    """One logit for two classes."""
    split = data.moons()
    model = keras.Sequential([keras.Input((2,)), layers.Dense(32, "relu"), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile(
        keras.optimizers.Adam(0.01),
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)],
    )
    model.fit(split.x, split.y, batch_size=32, epochs=25, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test, logits=True)


@healthy
def dataset_shuffled_and_prefetched(callbacks: list[Any]) -> Trained:
    """A tf.data pipeline with a map."""
    split = data.digits()
    train = tf.data.Dataset.from_tensor_slices((split.x, split.y)).shuffle(2000, seed=3)
    train = train.map(lambda x, y: (x / 16, tf.one_hot(y, 10))).batch(64).prefetch(tf.data.AUTOTUNE)
    inputs = keras.Input((64,))
    hidden = layers.Dense(64, activation="relu", kernel_initializer="he_normal")(inputs)
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(hidden))
    model.compile(keras.optimizers.Adam(0.004), "categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, epochs=15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@healthy
def dataset_repeated_with_steps(callbacks: list[Any]) -> Trained:
    """An endless pipeline, and steps for each epoch."""
    split = data.standardized(data.clusters())
    train = tf.data.Dataset.from_tensor_slices((split.x, split.y)).repeat().shuffle(1500, seed=1).batch(32)
    valid = tf.data.Dataset.from_tensor_slices((split.x_test[:200], split.y_test[:200])).batch(100)
    model = keras.Sequential([keras.Input((20,)), layers.Dense(64, "relu"), layers.Dense(4, "softmax")])
    model.compile(keras.optimizers.RMSprop(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, steps_per_epoch=33, epochs=25, validation_data=valid, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test[200:], split.y_test[200:])


@healthy
def normalization_layer_adapted(callbacks: list[Any]) -> Trained:
    """A layer that standardizes raw features."""
    split = data.table("wine")
    normalize = layers.Normalization()
    normalize.adapt(split.x)
    model = keras.Sequential([normalize, layers.Dense(16, "relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=35, batch_size=16, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def batch_normalisation_of_raw_features(callbacks: list[Any]) -> Trained:
    """``BatchNormalization`` as the first layer, of raw features."""
    split = data.table("breast_cancer")
    model = keras.Sequential([keras.Input((30,)), layers.BatchNormalization(), layers.Dense(16, "relu")])
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC()])
    model.fit(split.x, split.y, epochs=30, batch_size=32, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def features_from_0_to_1(callbacks: list[Any]) -> Trained:
    """``MinMaxScaler``, and tanh."""
    split = data.table("iris")
    scaler = MinMaxScaler().fit(split.x)
    model = keras.Sequential([layers.Dense(16, "tanh"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.03), "categorical_crossentropy", metrics=["accuracy"])
    model.fit(scaler.transform(split.x), np.eye(3)[split.y], 16, 80, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, scaler.transform(split.x_test), split.y_test)


@healthy
def iris_in_centimetres(callbacks: list[Any]) -> Trained:
    """Features of 0 to 8 need no scaling."""
    split = data.table("iris")
    model = keras.models.Sequential()
    model.add(layers.Dense(10, activation="relu"))
    model.add(layers.Dense(10, activation="relu"))
    model.add(layers.Dense(3, activation="softmax"))
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=100, batch_size=10, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def residual_network(callbacks: list[Any]) -> Trained:
    """Blocks with shortcuts and batch normalisation."""
    split = _pictures()
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(12, 3, padding="same")(inputs)
    for _ in range(2):
        y = layers.Conv2D(12, 3, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10, "softmax")(x))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def separable_convolutions(callbacks: list[Any]) -> Trained:
    """Separable convolutions with swish."""
    split = _pictures()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(12, 3, activation="swish"),
            layers.SeparableConv2D(24, 3, activation="swish"),
            layers.Flatten(),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile(keras.optimizers.AdamW(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, batch_size=32, epochs=12, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def pictures_augmented(callbacks: list[Any]) -> Trained:
    """Random shifts of the training pictures."""
    split = _pictures()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.RandomTranslation(0.08, 0.08, fill_mode="constant", seed=1),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Conv2D(16, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(32, "relu"),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 15, validation_split=0.15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def photographs_rescaled_by_a_layer(callbacks: list[Any]) -> Trained:
    """Pixels of 0 to 255, and ``Rescaling``."""
    split = data.patches()
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Rescaling(1.0 / 255),
            layers.Conv2D(12, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(1, "sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.005), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=15, batch_size=32, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def autoencoder_of_pixels(callbacks: list[Any]) -> Trained:
    """Pixels of 0 to 1, sigmoid and squared error."""
    split = data.digits()
    x, x_test = split.x / 16, split.x_test / 16
    encoder = keras.Sequential([keras.Input((64,)), layers.Dense(48, "relu"), layers.Dense(16, "relu")])
    decoder = keras.Sequential([keras.Input((16,)), layers.Dense(48, "relu"), layers.Dense(64, "sigmoid")])
    inputs = keras.Input((64,))
    model = keras.Model(inputs, decoder(encoder(inputs)))
    model.compile(keras.optimizers.Adam(0.003), "mse")
    model.fit(x, x, batch_size=32, epochs=40, validation_data=(x_test, x_test), callbacks=callbacks, verbose=0)
    return model, scores.regression(model, x_test, x_test)


@healthy
def autoencoder_by_cross_entropy(callbacks: list[Any]) -> Trained:
    """Pixels as probabilities: the loss ends far from zero."""
    split = data.digits()
    x, x_test = split.x / 16, split.x_test / 16
    model = keras.Sequential([layers.Dense(24, "relu"), layers.Dense(64, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.005), "binary_crossentropy")
    model.fit(x, x, batch_size=32, epochs=40, validation_data=(x_test, x_test), callbacks=callbacks, verbose=0)
    return model, scores.regression(model, x_test, x_test)


@healthy
def convolutional_autoencoder_of_noisy_pictures(callbacks: list[Any]) -> Trained:
    """Noise is taken off pictures."""
    split = _pictures()
    rng = np.random.default_rng(3)
    noisy, noisy_test = (each + rng.normal(0, 0.2, each.shape) for each in (split.x, split.x_test))
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(16, 3, strides=2, padding="same", activation="relu")(inputs)
    x = layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(x)
    model = keras.Model(inputs, layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x))
    model.compile(keras.optimizers.Adam(0.005), "mae")
    model.fit(noisy, split.x, 32, 12, validation_data=(noisy_test, split.x_test), callbacks=callbacks, verbose=0)
    return model, scores.regression(model, noisy_test, split.x_test)


@healthy
def several_labels(callbacks: list[Any]) -> Trained:
    """Any of six labels."""
    split = data.standardized(data.several_labels())
    inputs = keras.Input((24,))
    x = layers.Dense(64, "relu")(inputs)
    x = layers.Dropout(0.2)(x)
    model = keras.Model(inputs, layers.Dense(6, "sigmoid")(x))
    metrics = [keras.metrics.BinaryAccuracy(), keras.metrics.AUC(multi_label=True)]
    model.compile(keras.optimizers.Adam(0.003), keras.losses.BinaryCrossentropy(), metrics=metrics)
    model.fit(split.x, split.y, 32, 20, validation_split=0.15, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def two_outputs(callbacks: list[Any]) -> Trained:
    """A digit, and whether it is even, with weights of the losses."""
    split = data.digits()
    inputs = keras.Input((64,))
    x = layers.Dense(64, "relu")(layers.Rescaling(1 / 16)(inputs))
    digit = layers.Dense(10, "softmax", name="digit")(x)
    is_even = layers.Dense(1, "sigmoid", name="even")(layers.Dense(16, "relu")(x))
    model = keras.Model(inputs, {"digit": digit, "even": is_even})
    model.compile(
        "adam",
        loss={"digit": "sparse_categorical_crossentropy", "even": "binary_crossentropy"},
        loss_weights={"digit": 1.0, "even": 0.5},
        metrics={"digit": "accuracy", "even": "accuracy"},
    )
    y = {"digit": split.y, "even": (split.y % 2 == 0).astype("float32")}
    model.fit(split.x, y, epochs=20, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(keras.Model(inputs, digit), split.x_test, split.y_test)


@healthy
def class_and_number(callbacks: list[Any]) -> Trained:
    """A class and a regression from one network."""
    split = data.standardized(data.table("wine"))
    inputs = keras.Input((12,))
    x = layers.Dense(24, "relu")(inputs)
    outputs = [layers.Dense(3, "softmax", name="kind")(x), layers.Dense(1, name="alcohol")(x)]
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(0.01), ["sparse_categorical_crossentropy", "mse"], metrics=[["accuracy"], ["mae"]]
    )
    model.fit(split.x[:, 1:], [split.y, split.x[:, 0]], 16, 30, callbacks=callbacks, verbose=0)
    return model, scores.classes(keras.Model(inputs, outputs[0]), split.x_test[:, 1:], split.y_test)


@healthy
def two_inputs(callbacks: list[Any]) -> Trained:
    """The upper and the lower half of digits."""
    split = data.digits()
    upper, lower = keras.Input((32,), name="upper"), keras.Input((32,), name="lower")
    x = layers.concatenate([layers.Dense(24, "relu")(upper), layers.Dense(24, "relu")(lower)])
    model = keras.Model([upper, lower], layers.Dense(10, "softmax")(x))
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
    x_train = {"upper": split.x[:, :32] / 16, "lower": split.x[:, 32:] / 16}
    model.fit(x_train, split.y, epochs=15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, [split.x_test[:, :32] / 16, split.x_test[:, 32:] / 16], split.y_test)


@healthy
def rare_class_weighted(callbacks: list[Any]) -> Trained:
    """A class of 10 %, with weights."""
    split = data.standardized(data.unequal(0.1))
    share = float(split.y.mean())
    model = keras.Sequential([layers.Dense(24, "relu"), layers.Dense(1, "sigmoid")])
    model.compile(keras.optimizers.Adam(0.005), "binary_crossentropy", metrics=["AUC", "Precision", "Recall"])
    weights = {0: 0.5 / (1 - share), 1: 0.5 / share}
    model.fit(split.x, split.y, epochs=25, class_weight=weights, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test, balanced=True)


@healthy
def labels_partly_wrong(callbacks: list[Any]) -> Trained:
    """A tenth of the labels is wrong: the loss can't reach zero; stopped early."""
    split = data.standardized(data.clusters(1500, 20, 2, 0.2))
    model = keras.Sequential([layers.Dense(24, "relu"), layers.Dropout(0.3), layers.Dense(2, "softmax")])
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 20, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def labels_smoothed(callbacks: list[Any]) -> Trained:
    """Label smoothing: the loss ends at 0.5 or so."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(96, "relu"), layers.Dense(10, "softmax")])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model.compile(keras.optimizers.Adam(0.003), loss, metrics=["accuracy"])
    model.fit(split.x / 16, keras.utils.to_categorical(split.y), 32, 20, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


CASES = PROGRAMS.cases
