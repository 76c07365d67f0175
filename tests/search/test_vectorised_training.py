"""Members of a vectorised training are trained as Keras trains each alone."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from scikeras.utils.random_state import tensorflow_random_state
from sklearn.datasets import load_digits

from mlflow_hp.search.vectorised import (
    NotVectorisableError,
    assign_weights,
    keras_order,
    member_of,
    outputs,
    read_network,
    train,
)

X, Y = load_digits(return_X_y=True)
X, Y = (X[:300] / 16).astype("float32"), Y[:300]
N = 150
L = keras.layers


def mlp(
    *middle, optimizer="sgd", last=None, loss="sparse_categorical_crossentropy", metrics=("accuracy",), shape=(64,)
):
    model = keras.Sequential([keras.Input(shape), *middle, last or L.Dense(10, "softmax")])
    model.compile(optimizer, loss, metrics=list(metrics))
    return model


class BatchLosses(keras.callbacks.Callback):
    """Each batch's own loss, from Keras' running mean."""

    def __init__(self, sizes):
        super().__init__()
        self.sizes, self.losses = sizes, []

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.sum = self.n = 0
        n = self.sizes[batch]
        self.losses.append((logs["loss"] * (self.n + n) - self.sum) / n)
        self.sum, self.n = logs["loss"] * (self.n + n), self.n + n


def trained_by_keras(build, x, y, seed=3, epochs=2, batch_size=32, **named):
    """Losses, history and weights of a seeded training."""
    sizes = [min(batch_size, N - start) for start in range(0, N, batch_size)]
    with tensorflow_random_state(seed):
        model = build()
    callback = BatchLosses(sizes)
    with tensorflow_random_state(seed):
        history = model.fit(
            x[:N], y[:N], epochs=epochs, batch_size=batch_size, verbose=0, callbacks=[callback], **named
        ).history
    return np.array(callback.losses), history, model


def seeded_member(build, x, y, seed=3, epochs=2, batch_size=32, **named):
    with tensorflow_random_state(seed):
        model = build()
    with tensorflow_random_state(seed):
        order = keras_order(N)[None]
    network = read_network(model, x, y)
    return network, member_of(model, network, np.arange(N), batch_size=batch_size, epochs=epochs, order=order, **named)


def sgd():
    return mlp(L.Dense(16, "relu"), optimizer=keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True))


def dropout_adam():
    return mlp(
        L.Dense(16, "relu"), L.Dropout(0.3), L.Dense(8), L.LeakyReLU(), L.Dropout(0.1),
        optimizer=keras.optimizers.Adam(0.01),
    )  # fmt: skip


def decayed():
    return mlp(L.Dense(16, "tanh"), L.BatchNormalization(), optimizer=keras.optimizers.AdamW(0.01, weight_decay=0.1))


def penalised():
    regularizer = keras.regularizers.L1L2(1e-3, 1e-2)
    return mlp(
        L.Rescaling(0.5), L.Dense(16, "gelu", kernel_regularizer=regularizer, use_bias=False),
        optimizer=keras.optimizers.RMSprop(0.002, momentum=0.5),
        last=L.Dense(10), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseTopKCategoricalAccuracy(3)],
    )  # fmt: skip


def convolution():
    return mlp(
        L.Reshape((8, 8, 1)), L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.LayerNormalization()
    )


def one_output():
    frozen = L.Dense(16, "relu")
    frozen.trainable = False
    return mlp(frozen, last=L.Dense(1, "sigmoid"), loss="binary_crossentropy")


@pytest.mark.sampled(3)
@pytest.mark.parametrize("build", [sgd, dropout_adam, decayed, penalised, convolution, one_output])
def test_losses_epochs_and_weights_are_those_of_keras(build):
    y = (Y % 2) if build is one_output else Y
    losses, history, model = trained_by_keras(build, X, y, validation_data=(X[N:], y[N:]))
    network, member = seeded_member(build, X, y, validation_rows=np.arange(N, 300))
    trained = train(network, [member, member], X, y)[1]
    np.testing.assert_allclose(trained.losses, losses, rtol=1e-4)
    assert trained.epochs.keys() == history.keys()
    for name, values in history.items():
        np.testing.assert_allclose(trained.epochs[name], values, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(
        outputs(network, trained.weights, X[N:]), model.predict(X[N:], verbose=0), rtol=2e-3, atol=1e-5
    )


def test_members_of_other_sizes_rates_and_epochs_train_as_if_alone():
    network, member = seeded_member(dropout_adam, X, Y)
    others = [
        member._replace(settings={**member.settings, "learning_rate": 1e-3}, epochs=1),
        member._replace(rows=np.arange(40, 131), order=None),
        member._replace(batch_size=50, epochs=3),
        member._replace(settings={**member.settings, "rate/1": 0.0}),
        member._replace(settings={**member.settings, "seed/1": (7, 2**31)}),
    ]
    together = train(network, [member, *others], X, Y)
    for each, alone in zip(together, [train(network, [other], X, Y)[0] for other in [member, *others]], strict=True):
        np.testing.assert_allclose(each.losses, alone.losses, rtol=1e-4)
    assert [len(each.losses) for each in together] == [10, 5, 6, 9, 10, 10]
    assert [len(each.epochs["loss"]) for each in together] == [2, 1, 2, 3, 2, 2]


def test_groups_that_fit_into_memory_change_nothing(monkeypatch):
    network, member = seeded_member(sgd, X, Y)
    members = [
        member._replace(settings={**member.settings, "learning_rate": rate}, epochs=epochs)
        for rate, epochs in ((0.01, 2), (0.1, 1), (0.05, 2))
    ]
    together = train(network, members, X, Y)
    monkeypatch.setattr("mlflow_hp.search.vectorised.training.MAX_BYTES", 1)
    ended = []
    apart = train(network, members, X, Y, on_trained=lambda index, _: ended.append(index))
    assert sorted(ended) == [0, 1, 2]
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.losses, other.losses, rtol=1e-5)


def test_a_member_that_diverges_stays_alone_with_it():
    network, member = seeded_member(sgd, X, Y)
    huge = member._replace(settings={**member.settings, "learning_rate": 1e30})
    (diverged, trained), (alone,) = train(network, [huge, member], X, Y), train(network, [member], X, Y)
    assert not np.isfinite(diverged.losses).all()
    np.testing.assert_allclose(trained.losses, alone.losses, rtol=1e-5)


def test_weights_are_given_back_to_the_model():
    network, member = seeded_member(decayed, X, Y)
    (trained,) = train(network, [member], X, Y)
    model = decayed()
    assign_weights(model, trained.weights)
    np.testing.assert_allclose(model.predict(X, verbose=0), outputs(network, trained.weights, X), rtol=1e-4, atol=1e-6)


class Own(keras.Model):
    def call(self, x):
        return x


def branched():
    inputs = keras.Input((64,))
    model = keras.Model(inputs, L.Dense(10)(L.Concatenate()([inputs, L.Dense(4)(inputs)])))
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (branched, "no chain"),
        (lambda: mlp(L.Reshape((8, 8)), L.LSTM(4)), "the layer LSTM has no rule"),
        (lambda: mlp(L.GaussianNoise(0.1)), "the layer GaussianNoise has no rule"),
        (lambda: mlp(L.Dense(4, kernel_constraint="max_norm")), "constraint MaxNorm"),
        (lambda: mlp(L.Dense(4, activity_regularizer="l2")), "activity_regularizer"),
        (lambda: mlp(L.Dense(4, kernel_regularizer="orthogonal_regularizer")), "OrthogonalRegularizer"),
        (lambda: mlp(L.Dense(4, dtype="mixed_float16")), "float16"),
        (lambda: mlp(optimizer=keras.optimizers.SGD(0.1, clipnorm=1.0)), "clipnorm=1.0"),
        (lambda: mlp(optimizer=keras.optimizers.Adagrad()), "Adagrad"),
        (
            lambda: mlp(optimizer=keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.9))),
            "schedule",
        ),
        (lambda: mlp(loss=lambda y_true, y_pred: y_pred), "not Keras' own"),
        (lambda: mlp(loss=keras.losses.SparseCategoricalCrossentropy(reduction="sum")), "reduction='sum'"),
        (lambda: mlp(metrics=["AUC"]), "the metric AUC"),
        (lambda: mlp(shape=(63,)), r"rows of shape \(64,\)"),
    ],
)
def test_what_has_no_rule_is_refused_with_its_name(build, problem):
    model = build()
    with pytest.raises(Exception, match=problem) as caught:
        member_of(model, read_network(model, X, Y), np.arange(N), batch_size=32, epochs=1)
    assert isinstance(caught.value, NotVectorisableError)
