"""Faults in hyperparameters of the network: activations, loss, layers, initialisers, regularisation."""

from __future__ import annotations

from benchmarks.diagnosis_cases.case import faulty
from benchmarks.diagnosis_cases.keyword_tasks import (
    digits,
    opinions,
    pictures,
    plane,
    signals,
    surface,
    tabular,
    topics,
    tumours,
)

_LAST, _HIDDEN, _LOSS = "last activation", "hidden activation", "loss"

LAST_ACTIVATIONS = [
    faulty(_LAST, "digits ReLU at the end", digits, "last_activation", {"last_activation": "relu"}),
    faulty(_LAST, "digits linear at the end", digits, "last_activation from_logits", {"last_activation": "linear"}),
    faulty(_LAST, "digits tanh at the end", digits, "last_activation", {"last_activation": "tanh"}, hidden=32),
    faulty(_LAST, "pictures linear at the end", pictures, "last_activation from_logits", {"last_activation": "linear"}),
    faulty(_LAST, "tumours softmax of one unit", tumours, "last_activation last_units", {"last_activation": "softmax"}),
    faulty(_LAST, "tumours ReLU at the end", tumours, "last_activation", {"last_activation": "relu"}),
    faulty(_LAST, "tumours tanh at the end", tumours, "last_activation", {"last_activation": "tanh"}),
    faulty(
        _LAST, "opinions softmax of one unit", opinions, "last_activation last_units", {"last_activation": "softmax"}
    ),
    faulty(
        _LAST,
        "diabetes sigmoid on raw targets",
        surface,
        "last_activation scale_targets",
        {"last_activation": "sigmoid"},
        name="diabetes",
        scale_targets=False,
        epochs=60,
        learning_rate=0.02,
    ),
    faulty(
        _LAST, "friedman ReLU on centred targets", surface, "last_activation scale_targets", {"last_activation": "relu"}
    ),
    faulty(_LAST, "friedman sigmoid on centred targets", surface, "last_activation", {"last_activation": "sigmoid"}),
    faulty(
        _LAST, "linear tanh on centred targets", surface, "last_activation", {"last_activation": "tanh"}, name="linear"
    ),
    faulty(
        _LAST, "friedman softmax of one unit", surface, "last_activation", {"last_activation": "softmax"}, hidden=24
    ),
    faulty(_LAST, "signals linear at the end", signals, "last_activation from_logits", {"last_activation": "linear"}),
    faulty(_LAST, "topics softmax for any of six", topics, "last_activation", {"last_activation": "softmax"}),
    faulty(_LAST, "topics ReLU at the end", topics, "last_activation", {"last_activation": "relu"}),
    faulty(_LAST, "wine ReLU at the end", tabular, "last_activation", {"last_activation": "relu"}),
]

HIDDEN_ACTIVATIONS = [
    faulty(_HIDDEN, "moons linear hidden", plane, "activation", {"activation": "linear"}),
    faulty(_HIDDEN, "circles linear hidden", plane, "activation", {"activation": "linear"}, name="circles"),
    faulty(_HIDDEN, "spirals linear hidden", plane, "activation", {"activation": "linear"}, name="spirals", hidden=32),
    faulty(_HIDDEN, "friedman linear hidden", surface, "activation", {"activation": "linear"}),
    faulty(
        _HIDDEN,
        "friedman 2 linear hidden",
        surface,
        "activation",
        {"activation": "linear"},
        name="friedman 2",
        n_hidden=3,
    ),
    faulty(
        _HIDDEN, "clusters linear hidden", tabular, "activation", {"activation": "linear"}, name="clusters", hidden=48
    ),
    faulty(
        _HIDDEN, "digits eight sigmoid layers", digits, "activation", {"activation": "sigmoid"}, n_hidden=8, epochs=15
    ),
    faulty(_HIDDEN, "digits softmax hidden", digits, "activation", {"activation": "softmax"}),
    faulty(_HIDDEN, "pictures sigmoid hidden", pictures, "activation", {"activation": "sigmoid"}, epochs=4),
    faulty(_HIDDEN, "pictures softmax hidden", pictures, "activation", {"activation": "softmax"}),
    faulty(
        _HIDDEN, "friedman six sigmoid layers", surface, "activation", {"activation": "sigmoid"}, n_hidden=6, epochs=20
    ),
    faulty(_HIDDEN, "wine six sigmoid layers", tabular, "activation", {"activation": "sigmoid"}, n_hidden=6, epochs=25),
]

LOSSES = [
    faulty(
        _LOSS,
        "digits squared error of one-hot by SGD",
        digits,
        "loss",
        {"loss": "mse"},
        one_hot=True,
        loss="categorical_crossentropy",
        optimizer="sgd",
        learning_rate=0.1,
        epochs=12,
    ),
    faulty(
        _LOSS,
        "digits absolute error of one-hot",
        digits,
        "loss",
        {"loss": "mae"},
        one_hot=True,
        loss="categorical_crossentropy",
        hidden=32,
    ),
    faulty(
        _LOSS, "tumours categorical cross-entropy of one unit", tumours, "loss", {"loss": "categorical_crossentropy"}
    ),
    faulty(
        _LOSS, "friedman binary cross-entropy", surface, "loss", {"loss": "binary_crossentropy"}, scale_targets=False
    ),
    faulty(
        _LOSS,
        "diabetes categorical cross-entropy",
        surface,
        "loss",
        {"loss": "categorical_crossentropy"},
        name="diabetes",
    ),
    faulty(_LOSS, "linear cosine similarity", surface, "loss", {"loss": "cosine_similarity"}, name="linear"),
    faulty(_LOSS, "linear hinge", surface, "loss", {"loss": "hinge"}, name="linear", hidden=16),
    faulty(_LOSS, "friedman percentage error of centred targets", surface, "loss", {"loss": "mape"}),
    faulty(_LOSS, "topics categorical cross-entropy", topics, "loss", {"loss": "categorical_crossentropy"}),
    faulty(_LOSS, "friedman Poisson of centred targets", surface, "loss", {"loss": "poisson"}, hidden=24),
    faulty(_LOSS, "wine mean absolute error", tabular, "loss", {"loss": "mae"}, epochs=10, learning_rate=0.003),
]

LAYERS = [
    faulty("layers", "circles no hidden layer", plane, "layers units activation", {"n_hidden": 0}, name="circles"),
    faulty("layers", "wine one hidden unit", tabular, "units layers", {"hidden": 1}),
    faulty(
        "layers",
        "friedman 2 no hidden layer",
        surface,
        "layers units activation",
        {"n_hidden": 0},
        name="friedman 2",
    ),
    faulty("layers", "digits two hidden units", digits, "units layers", {"hidden": 2}),
    faulty("layers", "pictures one filter two units", pictures, "units layers", {"filters": 1, "units": 2}),
    faulty(
        "layers",
        "spirals no hidden layer",
        plane,
        "layers units activation",
        {"n_hidden": 0},
        name="spirals",
        hidden=32,
    ),
    faulty("layers", "moons one hidden unit", plane, "units layers", {"hidden": 1}),
    faulty("layers", "friedman no hidden layer", surface, "layers units activation", {"n_hidden": 0}),
    faulty("layers", "friedman one hidden unit", surface, "units layers", {"hidden": 1}),
    faulty(
        "layers", "digits thirty layers", digits, "layers batch_normalization", {"n_hidden": 30}, epochs=10, hidden=32
    ),
    faulty("layers", "clusters three hidden units", tabular, "units layers", {"hidden": 3}, name="clusters", hidden=48),
    faulty("layers", "signals one unit", signals, "units layers", {"units": 1}),
]

INITIALISERS = [
    faulty("initialiser", "digits zeros", digits, "kernel_initializer", {"initializer": "zeros"}),
    faulty("initialiser", "digits ones", digits, "kernel_initializer", {"initializer": "ones"}),
    faulty("initialiser", "pictures zeros", pictures, "kernel_initializer", {"kernel_initializer": "zeros"}),
    faulty("initialiser", "friedman zeros", surface, "kernel_initializer", {"initializer": "zeros"}),
    faulty(
        "initialiser", "spirals ones", plane, "kernel_initializer", {"initializer": "ones"}, name="spirals", hidden=32
    ),
    faulty(
        "initialiser",
        "clusters zeros",
        tabular,
        "kernel_initializer",
        {"initializer": "zeros"},
        name="clusters",
        hidden=48,
    ),
]

REGULARISATION = [
    faulty("regularisation", "digits dropout 0.9", digits, "rate", {"dropout": 0.9}, hidden=48),
    faulty("regularisation", "pictures dropout 0.95", pictures, "rate", {"dropout": 0.95}),
    faulty("regularisation", "friedman dropout 0.8", surface, "rate", {"dropout": 0.8}),
    faulty("regularisation", "clusters dropout 0.9", tabular, "rate", {"dropout": 0.9}, name="clusters", hidden=48),
    faulty("regularisation", "digits L2 of 1", digits, "regularizer", {"l2": 1.0}),
    faulty("regularisation", "friedman L2 of 1", surface, "regularizer", {"l2": 1.0}),
    faulty("regularisation", "clusters L2 of 0.5", tabular, "regularizer", {"l2": 0.5}, name="clusters", hidden=48),
    faulty("regularisation", "signals dropout 0.9", signals, "rate", {"dropout": 0.9}),
]

CASES = [*LAST_ACTIVATIONS, *HIDDEN_ACTIVATIONS, *LOSSES, *LAYERS, *INITIALISERS, *REGULARISATION]
