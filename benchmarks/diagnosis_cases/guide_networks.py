"""Healthy programs of pictures, series and texts as in guides: convolutions, recurrence, transfer, several ends."""

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
healthy = PROGRAMS.healthy


def _pictures() -> data.Split:
    split = data.digits()
    return split._replace(x=split.x.reshape(-1, 8, 8, 1) / 16, x_test=split.x_test.reshape(-1, 8, 8, 1) / 16)


def _base(split: data.Split, classes: int = 5) -> keras.Model:
    """A base trained on the first classes, silently."""
    base = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(24, 3, activation="relu"), layers.MaxPooling2D()])
    base.add(layers.Flatten())
    base.add(layers.Dense(48, "relu"))
    head = keras.Sequential([base, layers.Dense(classes, "softmax")])
    head.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy")
    chosen = split.y < classes
    head.fit(split.x[chosen], split.y[chosen], epochs=10, verbose=0)
    return base


@healthy
def convolutional_guide(callbacks: list[Any]) -> Trained:
    """Two convolutions, pooling, dropout before the end."""
    split = _pictures()
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, "softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    labels = keras.utils.to_categorical(split.y, 10)
    model.fit(split.x, labels, 32, 20, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def base_frozen_on_purpose(callbacks: list[Any]) -> Trained:
    """A base that has learned eight digits is kept, and a new head learns all ten."""
    split = _pictures()
    base = _base(split, 8)
    base.trainable = False
    inputs = keras.Input((8, 8, 1))
    model = keras.Model(inputs, layers.Dense(10, "softmax")(base(inputs, training=False)))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 15, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def fine_tuned_at_a_small_rate(callbacks: list[Any]) -> Trained:
    """A network that knows the classes already is trained on a little, not to forget them."""
    split = _pictures()
    model = keras.Sequential([_base(split, 10), layers.Dense(10, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    model.fit(split.x, split.y, epochs=4, verbose=0)
    model.compile(keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 5, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def autoencoder_of_digits(callbacks: list[Any]) -> Trained:
    """Pixels of 0 to 1, and binary cross-entropy that cannot reach zero."""
    split = data.digits()
    picture = keras.Input((64,))
    code = layers.Dense(24, "relu")(layers.Dense(48, "relu")(picture))
    model = keras.Model(picture, layers.Dense(64, "sigmoid")(layers.Dense(48, "relu")(code)))
    model.compile("adam", "binary_crossentropy")
    x, x_test = split.x / 16, split.x_test / 16
    model.fit(x, x, 32, 25, validation_data=(x_test, x_test), callbacks=callbacks, verbose=0)
    return model, scores.regression(model, x_test, x_test)


@healthy
def noise_removed_by_convolutions(callbacks: list[Any]) -> Trained:
    """Noisy waves in, clean ones out."""
    rng = np.random.default_rng(3)
    time = np.linspace(0, 6, 32) * rng.uniform(0.5, 1.5, (900, 1)) + rng.uniform(0, 6, (900, 1))
    clean = np.sin(time)[..., None].astype("float32")
    split = data.split(clean + rng.normal(0, 0.3, clean.shape), clean)
    model = keras.Sequential([keras.Input((32, 1)), layers.Conv1D(16, 7, padding="same", activation="relu")])
    model.add(layers.Conv1D(16, 7, padding="same", activation="relu"))
    model.add(layers.Conv1D(1, 7, padding="same"))
    model.compile(keras.optimizers.Adam(0.003), "mse")
    model.fit(split.x, split.y, 32, 15, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@healthy
def sentiment_by_averaged_words(callbacks: list[Any]) -> Trained:
    """The guide's classifier of texts: logits, and a threshold to match."""
    split = data.reviews()
    texts = tf.data.Dataset.from_tensor_slices((split.x, split.y))
    rows, held = texts.skip(160).shuffle(800, seed=6).batch(32).cache().prefetch(1), texts.take(160).batch(32)
    model = keras.Sequential([layers.Embedding(200, 16), layers.Dropout(0.2), layers.GlobalAveragePooling1D()])
    model.add(layers.Dropout(0.2))
    model.add(layers.Dense(1))
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=[keras.metrics.BinaryAccuracy(threshold=0.0)])
    model.fit(rows, validation_data=held, epochs=12, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test, logits=True)


@healthy
def languages_by_a_transformer(callbacks: list[Any]) -> Trained:
    """A block with positions, attention and two dense layers, subclassed."""
    split = data.languages()

    class Transformer(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.positions = layers.Embedding(12, 16), layers.Embedding(16, 16)
            self.attention, self.norm = layers.MultiHeadAttention(2, 8), layers.LayerNormalization()
            self.convolution = layers.Conv1D(32, 2, activation="relu")
            self.end = layers.Dense(4, activation="softmax")

        def call(self, tokens: Any) -> Any:
            x = self.tokens(tokens) + self.positions(ops.arange(16))
            x = self.norm(x + self.attention(x, x))
            return self.end(ops.mean(self.convolution(x), axis=1))

    model = Transformer()
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 15, validation_split=0.15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def stacked_recurrence_of_waves(callbacks: list[Any]) -> Trained:
    """Two recurrent layers, clipped gradients, and a checkpoint's best epoch."""
    split = data.waves()
    model = keras.Sequential([keras.Input((24, 1)), layers.LSTM(16, return_sequences=True), layers.LSTM(16)])
    model.add(layers.Dense(3, "softmax"))
    optimizer = keras.optimizers.Adam(0.01, clipnorm=1.0)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=8, restore_best_weights=True)
    model.fit(split.x, split.y, 32, 25, validation_split=0.15, callbacks=[*callbacks, stop], verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def weather_forecast_by_gru(callbacks: list[Any]) -> Trained:
    """Windows of a series in the order of time, the last ones for validation."""
    split = data.next_values()
    model = keras.Sequential([keras.Input((20, 1)), layers.GRU(24, recurrent_dropout=0.1), layers.Dense(1)])
    model.compile(keras.optimizers.RMSprop(0.003), "mse", metrics=["mae"])
    model.fit(split.x, split.y, 16, 12, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@healthy
def picture_and_table(callbacks: list[Any]) -> Trained:
    """Halves of a picture through two branches, put together."""
    split = _pictures()
    halves = [keras.Input((4, 8, 1), name="upper"), keras.Input((32,), name="lower")]
    upper = layers.Flatten()(layers.Conv2D(16, 3, activation="relu")(halves[0]))
    lower = layers.Dense(32, "relu")(halves[1])
    x = layers.Dropout(0.2)(layers.concatenate([upper, lower]))
    model = keras.Model(halves, layers.Dense(10, "softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, x_test = ([each[:, :4], each[:, 4:].reshape(-1, 32)] for each in (split.x, split.x_test))
    model.fit(x, split.y, 32, 15, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, x_test, split.y_test)


@healthy
def digit_and_its_parity(callbacks: list[Any]) -> Trained:
    """Two ends with weights of their losses."""
    split = _pictures()
    inputs = keras.Input((8, 8, 1))
    x = layers.Flatten()(layers.Conv2D(24, 3, activation="relu")(inputs))
    x = layers.Dense(48, "relu")(x)
    ends = {"digit": layers.Dense(10, "softmax", name="digit")(x), "odd": layers.Dense(1, "sigmoid", name="odd")(x)}
    model = keras.Model(inputs, ends)
    losses = {"digit": "sparse_categorical_crossentropy", "odd": "binary_crossentropy"}
    metrics = {"digit": ["accuracy"], "odd": ["accuracy"]}
    model.compile("adam", losses, loss_weights={"digit": 1.0, "odd": 0.5}, metrics=metrics)
    labels = {"digit": split.y, "odd": (split.y % 2).astype("float32")}
    model.fit(split.x, labels, 32, 12, callbacks=callbacks, verbose=0)
    return model, scores.classes(keras.Model(inputs, ends["digit"]), split.x_test, split.y_test)


@healthy
def photographs_with_batch_normalisation(callbacks: list[Any]) -> Trained:
    """Pixels are scaled by a layer, convolutions without bias are normalised."""
    split = data.patches(20)
    inputs = keras.Input((20, 20, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    for filters in (16, 32):
        x = layers.Conv2D(filters, 3, use_bias=False)(x)
        x = layers.MaxPooling2D()(layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x)))
    model = keras.Model(inputs, layers.Dense(1, "sigmoid")(layers.GlobalAveragePooling2D()(x)))
    model.compile(keras.optimizers.Adam(0.005), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 15, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def pictures_by_a_generator(callbacks: list[Any]) -> Trained:
    """Batches of any pictures with a little noise, and a cosine over all steps."""
    split = _pictures()

    rng = np.random.default_rng(4)

    class Noisy(keras.utils.PyDataset):
        def __len__(self) -> int:
            return len(split.x) // 32

        def __getitem__(self, index: int) -> Any:
            rows = rng.choice(len(split.x), 32, replace=False)
            return split.x[rows] + rng.normal(0, 0.05, (32, 8, 8, 1)), split.y[rows]

    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(24, 3, activation="relu"), layers.Flatten()])
    model.add(layers.Dense(10, "softmax"))
    schedule = keras.optimizers.schedules.CosineDecay(0.005, 12 * (len(split.x) // 32))
    model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(Noisy(), epochs=12, validation_data=(split.x_test, split.y_test), callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


CASES = PROGRAMS.cases
