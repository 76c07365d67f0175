"""Descriptions of small programs: chains of layers, statistics of arrays, and whole programs of these."""

from __future__ import annotations

import numpy as np

from mlflow_hp.analysis.diagnosis.program.graph import ACTIVATION_LAYERS
from mlflow_hp.history.program import ArrayStatistics, Callback, DataStatistics, Layer, Output, Program

ADAM = {"name": "Adam", "learning_rate": 0.001}
SGD = {"name": "SGD", "learning_rate": 0.01}
GLOROT = {"name": "GlorotUniform"}
RNG = np.random.default_rng(0)


def dense(units, activation="linear", trainable=True, name="", **config):
    config = {"units": units, "use_bias": True, "kernel_initializer": GLOROT, **config}
    return Layer(name, "Dense", activation=activation, config=config, n_weights=1, trainable=trainable)


def conv(filters, activation="linear", trainable=True, **config):
    config = {"filters": filters, "kernel_size": [3, 3], "kernel_initializer": GLOROT, **config}
    return Layer("", "Conv2D", activation=activation, config=config, n_weights=9 * filters, trainable=trainable)


def layer(kind, name="", n_weights=0, activation="", inputs=(), trainable=True, **config):
    return Layer(name, kind, inputs, activation, config, n_weights=n_weights, trainable=trainable)


def chain(*layers, width=20):
    """Connect layers one after the other, with Keras' names and numbers of weights, but those that have inputs."""
    counts, connected = {}, []
    for each in layers:
        base = each.kind.lower()
        number = counts[base] = counts.get(base, -1) + 1
        name = each.name or (f"{base}_{number}" if number else base)
        inputs = each.inputs or ((connected[-1].name,) if connected else ())
        n_weights = each.n_weights
        if each.kind == "Dense":
            n_weights = (width + 1) * each.config["units"]
            width = each.config["units"]
        connected.append(each._replace(name=name, inputs=inputs, n_weights=n_weights))
    return tuple(connected)


def statistics(values, batch=32, name=""):
    """What is gathered of an array over an epoch in batches of so many samples."""
    values = np.asarray(values)
    flat = values.reshape(-1, values.shape[-1] if values.ndim > 1 and values.shape[-1] <= 4096 else 1).astype(float)
    finite = np.where(np.isfinite(flat), flat, np.nan)
    is_column = values.ndim == 1 or values.shape[1:] == (1,)
    good = flat[np.isfinite(flat)]
    is_integer = bool((good == np.round(good)).all())
    is_binary = bool(np.isin(good, (0, 1)).all())
    is_one_hot = values.ndim == 2 and not is_column and is_binary and bool((values.sum(axis=1) == 1).all())
    labels = values.reshape(-1) if is_column else values.argmax(axis=1) if is_one_hot else None
    counts = shares = None
    if labels is not None and is_integer and labels.min() >= -1 and labels.max() < 1024:
        counts = {int(k): int(n) for k, n in zip(*np.unique(labels, return_counts=True), strict=True)}
        parts = [labels[i : i + batch] for i in range(0, len(labels), batch)]
        shares = float(np.mean([len(set(part.tolist())) == 1 for part in parts if len(part) >= 8] or [0]))
    return ArrayStatistics(
        name,
        values.shape[1:],
        str(values.dtype),
        len(values),
        -(-len(values) // batch),
        *(tuple(f(finite, axis=0).tolist()) for f in (np.nanmean, np.nanstd, np.nanmin, np.nanmax)),
        not_finite=tuple((~np.isfinite(flat)).mean(axis=0).tolist()),
        is_integer=is_integer,
        counts=counts,
        is_one_hot=is_one_hot,
        is_binary=is_binary,
        one_class_batches=shares,
    )


def data(x=None, y=None, batch=32):
    inputs = () if x is None else (statistics(x, batch),)
    return DataStatistics(inputs, () if y is None else (statistics(y, batch),))


def program(
    *layers,
    loss="SparseCategoricalCrossentropy",
    x=None,
    y=None,
    x_val=None,
    y_val=None,
    metrics=(),
    optimizer=ADAM,
    fit=None,
    callbacks=(),
    batch=32,
    loss_config=None,
    **fields,
):
    """Program of a chain of layers with one output; its statistics are those of the arrays."""
    width = 20 if x is None else int(np.prod(np.shape(x)[1:]) or 1)
    layers = chain(*layers, width=width)
    last = next((each for each in reversed(layers) if each.n_weights and each.kind != "BatchNormalization"), None)
    if last is None:
        raise ValueError("a program has a layer with weights")
    activation = last.activation
    for each in layers[layers.index(last) + 1 :]:
        activation = ACTIVATION_LAYERS.get(each.kind) or each.activation or activation
    units = last.config.get("units", last.config.get("filters"))
    shape = (units,) if last.kind == "Dense" else (8, 8, units)
    output = Output("output", last.name, activation, shape, loss, loss_config or {}, tuple(metrics))
    n_samples = None if x is None else len(x)
    steps = None if n_samples is None else -(-n_samples // batch)
    fit = {"epochs": 50, "steps": steps, "batch_size": batch, "shuffle": True} | (fit or {})
    described = Program(
        layers,
        (output,),
        optimizer,
        fit,
        tuple(Callback(kind, config) for kind, config in callbacks),
        training=None if x is None and y is None else data(x, y, batch),
        validation=None if x_val is None and y_val is None else data(x_val, y_val, batch),
    )
    return described._replace(**fields)


def features(n=400, k=20):
    """Standardised features."""
    return np.random.default_rng(1).normal(size=(n, k))


def labels(n=400, k=3):
    """Labels 0 to k - 1 in random order."""
    return np.random.default_rng(2).permutation(np.arange(n) % k)


def one_hot(n=400, k=3):
    return np.eye(k)[labels(n, k)]


def several_labels(n=400, k=5):
    """0/1 columns of which any number may be 1."""
    return (np.random.default_rng(3).random((n, k)) < 0.4).astype(int)


def heights(n=400):
    """Standardised targets of a regression."""
    return np.random.default_rng(4).normal(size=n)


def network(units, activation, **fields):
    """Program of a network with one hidden layer on standardised features."""
    return program(dense(32, "relu"), dense(units, activation), x=features(), **fields)
