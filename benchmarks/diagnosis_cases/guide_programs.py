"""Healthy programs of tables as in guides: sensible, but not all of them tidy."""

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
healthy = PROGRAMS.healthy


@healthy
def iris_as_it_comes(callbacks: list[Any]) -> Trained:
    """Centimetres need no scaling."""
    split = data.table("iris")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(16, "relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, epochs=40, batch_size=8, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def pixels_of_0_to_16_by_adam(callbacks: list[Any]) -> Trained:
    """Pixels that are not scaled, and harmless; logits."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(64, "relu"), layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=[keras.metrics.SparseCategoricalAccuracy()])
    model.fit(split.x, split.y, epochs=20, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test, logits=True)


@healthy
def five_epochs_are_enough(callbacks: list[Any]) -> Trained:
    """A beginners' training: dropout, five epochs, small batches."""
    split = data.digits()
    model = keras.Sequential([keras.Input((64,)), layers.Dense(128, "relu"), layers.Dropout(0.2)])
    model.add(layers.Dense(10, "softmax"))
    model.compile(keras.optimizers.Adam(0.003), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x / 16, split.y, batch_size=8, epochs=5, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test / 16, split.y_test)


@healthy
def best_weights_restored(callbacks: list[Any]) -> Trained:
    """A large network of few rows overfits mildly, and early stopping returns to its best."""
    split = data.standardized(data.clusters(n=900, classes=3))
    model = keras.Sequential([keras.Input((20,)), layers.Dense(128, "relu"), layers.Dense(64, "relu")])
    model.add(layers.Dense(3, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping("val_loss", patience=6, restore_best_weights=True)
    model.fit(split.x, split.y, 32, 60, validation_split=0.2, callbacks=[*callbacks, stop], verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def rare_class_with_weights(callbacks: list[Any]) -> Trained:
    """Weights of classes, recall and precision in place of accuracy."""
    split = data.standardized(data.unequal(0.1))
    counts = np.bincount(split.y)
    weights = {label: len(split.y) / (2 * count) for label, count in enumerate(counts)}
    model = keras.Sequential([keras.Input((12,)), layers.Dense(48, "relu"), layers.Dropout(0.2)])
    model.add(layers.Dense(24, "relu"))
    model.add(layers.Dense(1, "sigmoid"))
    metrics = [keras.metrics.Precision(), keras.metrics.Recall(), keras.metrics.AUC(name="auc")]
    model.compile(keras.optimizers.Adam(0.003), "binary_crossentropy", metrics=metrics)
    model.fit(
        split.x, split.y, 64, 25, validation_split=0.2, class_weight=weights, callbacks=callbacks, verbose=0
    )  # fmt: skip
    return model, scores.binary(model, split.x_test, split.y_test, balanced=True)


@healthy
def one_epoch_of_warm_up(callbacks: list[Any]) -> Trained:
    """A linear warm-up of a schedule of its own, then the inverse root."""
    split = data.standardized(data.friedman(n=2400))

    class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            step = tf.cast(step, "float32") + 1
            return 0.01 * tf.minimum(step / 53, (53 / step) ** 0.5)

    model = keras.Sequential([keras.Input((10,)), layers.Dense(64, "relu"), layers.Dense(32, "relu"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(WarmUp()), "mse", metrics=["mae"])
    model.fit(split.x, split.y, 32, 40, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@healthy
def gradient_descent_with_momentum(callbacks: list[Any]) -> Trained:
    """Nesterov's momentum, and one-hot labels."""
    split = data.standardized(data.table("wine"))
    model = keras.Sequential([keras.Input((13,)), layers.Dense(16, "tanh"), layers.Dense(3, "softmax")])
    optimizer = keras.optimizers.SGD(learning_rate=0.02, momentum=0.9, nesterov=True)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x, keras.utils.to_categorical(split.y), 16, 20, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def weights_that_decay(callbacks: list[Any]) -> Trained:
    """AdamW with some decay, GELU and layer normalisation."""
    split = data.standardized(data.table("breast_cancer"))
    inputs = keras.Input((30,))
    x = layers.LayerNormalization()(layers.Dense(24, activation="gelu")(inputs))
    model = keras.Model(inputs, layers.Dense(1, activation="sigmoid")(x))
    model.compile(keras.optimizers.AdamW(0.003, weight_decay=0.01), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 15, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def smoothed_labels_of_a_table(callbacks: list[Any]) -> Trained:
    """The loss cannot fall to zero, and need not."""
    split = data.standardized(data.clusters(classes=3))
    model = keras.Sequential([keras.Input((20,)), layers.Dense(64, "relu"), layers.Dense(64, "relu")])
    model.add(layers.Dense(3))
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile(keras.optimizers.Adam(0.002), loss, metrics=["accuracy"])
    rows = tf.data.Dataset.from_tensor_slices((split.x, np.eye(3, dtype="float32")[split.y]))
    model.fit(rows.shuffle(2000, seed=5).batch(32), epochs=15, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test, logits=True)


@healthy
def numbers_and_names(callbacks: list[Any]) -> Trained:
    """A column of names, looked up and embedded, beside columns of numbers."""
    split = data.friedman()
    shops = np.array(["north", "east", "south", "west"])
    rng = np.random.default_rng(7)
    chosen, chosen_test = rng.integers(0, 4, len(split.x)), rng.integers(0, 4, len(split.x_test))
    shift = np.array([-4.0, 0.0, 3.0, 6.0])
    y, y_test = split.y + shift[chosen], split.y_test + shift[chosen_test]
    numbers = {name: index for index, name in enumerate(sorted(shops))}
    x = {"numbers": split.x, "shop": np.array([numbers[name] for name in shops[chosen]])[:, None]}
    x_test = {"numbers": split.x_test, "shop": np.array([numbers[name] for name in shops[chosen_test]])[:, None]}
    inputs = {"numbers": keras.Input((10,), name="numbers"), "shop": keras.Input((1,), name="shop", dtype="int32")}
    shop = layers.Flatten()(layers.Embedding(4, 3)(inputs["shop"]))
    hidden = layers.Dense(48, "relu")(layers.Concatenate()([inputs["numbers"], shop]))
    model = keras.Model(inputs, layers.Dense(1)(layers.Dense(24, "relu")(hidden)))
    model.compile(keras.optimizers.Adam(0.005), "mse", metrics=["mae"])
    model.fit(x, y, 32, 40, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, x_test, y_test)


@healthy
def small_targets_as_they_are(callbacks: list[Any]) -> Trained:
    """Angles of 0 to 1.6 are not scaled."""
    split = data.standardized(data.friedman(3, noise=0.05))
    model = keras.Sequential([keras.Input((4,)), layers.Dense(32, "tanh"), layers.Dense(32, "tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.005), "mse", metrics=["mae"])
    model.fit(split.x, split.y, 32, 40, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


@healthy
def measurements_with_a_normalization_layer(callbacks: list[Any]) -> Trained:
    """The layer is adapted to the training rows, and part of the model."""
    split = data.friedman(2, noise=10)
    scaler = layers.Normalization()
    scaler.adapt(split.x)
    inverse = layers.Rescaling(float(split.y.std()), float(split.y.mean()))
    model = keras.Sequential([keras.Input((4,)), scaler, layers.Dense(48, "relu"), layers.Dense(48, "relu")])
    model.add(layers.Dense(1))
    model.compile(keras.optimizers.Adam(0.005), "mse")
    model.fit(split.x, (split.y - split.y.mean()) / split.y.std(), 32, 25, callbacks=callbacks, verbose=0)
    whole = keras.Sequential([model, inverse])
    return whole, scores.regression(whole, split.x_test, split.y_test)


@healthy
def large_batches_at_a_larger_rate(callbacks: list[Any]) -> Trained:
    """Batches of 256, and a rate to match."""
    split = data.moons(2400)
    model = keras.Sequential([keras.Input((2,)), layers.Dense(32, "relu"), layers.Dense(32, "relu")])
    model.add(layers.Dense(1, "sigmoid"))
    model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 256, 40, validation_split=0.1, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def sixty_rows_of_flowers(callbacks: list[Any]) -> Trained:
    """A small set, a small network, and no validation."""
    split = data.standardized(data.table("iris"))
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(split.x[:60], split.y[:60], 10, 30, callbacks=callbacks, verbose=0)
    return model, scores.classes(model, split.x_test, split.y_test)


@healthy
def logistic_regression(callbacks: list[Any]) -> Trained:
    """One layer is enough for this table."""
    split = data.standardized(data.table("breast_cancer"))
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, "sigmoid", kernel_regularizer="l2")])
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", metrics=["accuracy"])
    model.fit(split.x, split.y, 32, 20, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, split.x_test, split.y_test)


@healthy
def tags_of_documents(callbacks: list[Any]) -> Trained:
    """Counts of words through a logarithm; several tags each."""
    split = data.several_labels()
    model = keras.Sequential([keras.Input((24,)), layers.Dense(64, "relu"), layers.Dropout(0.3)])
    model.add(layers.Dense(6, "sigmoid"))
    model.compile("adam", "binary_crossentropy", metrics=["binary_accuracy", keras.metrics.AUC(multi_label=True)])
    model.fit(np.log1p(split.x), split.y, 32, 25, validation_split=0.2, callbacks=callbacks, verbose=0)
    return model, scores.binary(model, np.log1p(split.x_test), split.y_test)


@healthy
def rate_lowered_on_a_plateau(callbacks: list[Any]) -> Trained:
    """Batch normalisation, and a rate that is halved when validation rests."""
    split = data.friedman(n=2000)
    model = keras.Sequential([keras.Input((10,)), layers.BatchNormalization(), layers.Dense(64, "relu")])
    model.add(layers.Dense(32, "relu"))
    model.add(layers.Dense(1))
    model.compile(keras.optimizers.RMSprop(0.005), "mae", metrics=["mse"])
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.5, patience=4)
    model.fit(split.x, split.y, 64, 40, validation_split=0.2, callbacks=[*callbacks, plateau], verbose=0)
    return model, scores.regression(model, split.x_test, split.y_test)


CASES = PROGRAMS.cases
