"""Tables of the scores of many small networks: every combination of a tutorial's grid, on every fold.

All networks of one batch size are trained at once, by batched matrix products: stacked weights, and learning rate,
momentum and initialiser of each.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import StratifiedKFold

from projects.grids import TUTORIALS

DATA = {"digits": load_digits, "breast_cancer": load_breast_cancer, "wine": load_wine}
HIDDEN, N_SAMPLES = 32, 400
DEFAULTS = {"learning_rate": 0.1, "momentum": 0.0, "epochs": 10, "batch_size": 32, "initializer": "glorot_uniform"}


class Table(NamedTuple):
    """Accuracy of each combination on each fold, with the grid and the name of the data."""

    grid: str
    data: str
    scores: np.ndarray


def combinations(grid: str) -> list[dict[str, Any]]:
    """Combinations of a tutorial's grid, with the defaults of what it does not vary, in scikit-learn's order."""
    from sklearn.model_selection import ParameterGrid

    return [DEFAULTS | params for params in ParameterGrid(TUTORIALS["grid"][grid])]


def table(grid: str, data: str, n_splits: int, seed: int) -> Table:
    """Train the combinations of a grid on every fold of a sample of the data."""
    rng = np.random.default_rng(seed)
    x, y = DATA[data](return_X_y=True)
    rows = rng.permutation(len(x))[:N_SAMPLES]
    x, y = x[rows], y[rows]
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    folds = list(StratifiedKFold(n_splits).split(x, y))
    params = combinations(grid)
    scores = np.zeros((len(params), n_splits))
    for batch_size in sorted({each["batch_size"] for each in params}):
        members = [i for i, each in enumerate(params) if each["batch_size"] == batch_size]
        apart = sorted({_key(params[i]) for i in members})
        trained = _train(x, y, folds, apart, batch_size, sorted({params[i]["epochs"] for i in members}), rng)
        for i in members:
            scores[i] = trained[params[i]["epochs"]][apart.index(_key(params[i]))]
    return Table(grid, data, scores)


def _key(params: dict[str, Any]) -> tuple[float, float, str]:
    return params["learning_rate"], params["momentum"], params["initializer"]


def _train(
    x: np.ndarray, y: np.ndarray, folds: list[Any], members: list[Any], batch_size: int, epochs: list[int], rng: Any
) -> dict[int, np.ndarray]:
    """Train networks of one hidden layer; accuracy of shape (n_members, n_splits) after each number of epochs."""
    n_classes, n_train = int(y.max()) + 1, min(len(train) for train, _ in folds)
    own = [(m, f) for m in range(len(members)) for f in range(len(folds))]
    rate = np.array([members[m][0] for m, _ in own], np.float32)[:, None, None]
    momentum = np.array([members[m][1] for m, _ in own], np.float32)[:, None, None]
    shapes = [(x.shape[1], HIDDEN), (HIDDEN, n_classes)]
    kernels = [np.stack([_initial(members[m][2], shape, rng) for m, _ in own]) for shape in shapes]
    weights = [*kernels, *(np.zeros((len(own), 1, shape[1]), np.float32) for shape in shapes)]
    velocity = [np.zeros_like(weight) for weight in weights]
    inputs, labels = x.astype(np.float32), np.eye(n_classes, dtype=np.float32)[y]
    accuracy = {}
    for epoch in range(max(epochs)):
        order = np.stack([rng.permutation(folds[f][0])[:n_train] for _, f in own])
        for start in range(0, n_train, batch_size):
            rows = order[:, start : start + batch_size]
            gradients = _gradients(weights, inputs[rows], labels[rows])
            for i, gradient in enumerate(gradients):
                velocity[i] = momentum * velocity[i] - rate * gradient
                weights[i] += velocity[i]
        if epoch + 1 in epochs:
            hits = [_accuracy([w[i] for w in weights], inputs, y, folds[f][1]) for i, (_, f) in enumerate(own)]
            accuracy[epoch + 1] = np.reshape(hits, (len(members), len(folds)))
    return accuracy


def _initial(name: str, shape: tuple[int, int], rng: Any) -> np.ndarray:
    """Kernel by the name of Keras' initialiser."""
    fan_in, both = shape[0], sum(shape)
    spread = {"glorot_normal": np.sqrt(2 / both), "he_normal": np.sqrt(2 / fan_in), "normal": 0.05, "zero": 0.0}
    limit = {"glorot_uniform": np.sqrt(6 / both), "he_uniform": np.sqrt(6 / fan_in), "uniform": 0.05,
             "lecun_uniform": np.sqrt(3 / fan_in)}  # fmt: skip
    drawn = rng.normal(0, spread[name], shape) if name in spread else rng.uniform(-limit[name], limit[name], shape)
    return drawn.astype(np.float32)


def _gradients(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Gradients of the mean cross-entropy."""
    kernel, head, bias, head_bias = weights
    hidden = np.maximum(x @ kernel + bias, 0)
    logits = hidden @ head + head_bias
    exponents = np.exp(logits - logits.max(axis=2, keepdims=True))
    error = (exponents / exponents.sum(axis=2, keepdims=True) - y) / x.shape[1]
    back = (error @ head.transpose(0, 2, 1)) * (hidden > 0)
    of_kernels = x.transpose(0, 2, 1) @ back, hidden.transpose(0, 2, 1) @ error
    return [*of_kernels, back.sum(axis=1, keepdims=True), error.sum(axis=1, keepdims=True)]


def _accuracy(weights: list[np.ndarray], x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> float:
    kernel, head, bias, head_bias = weights
    logits = np.maximum(x[rows] @ kernel + bias, 0) @ head + head_bias
    return float(np.mean(logits.argmax(axis=1) == y[rows]))
