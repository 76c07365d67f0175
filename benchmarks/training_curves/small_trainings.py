"""Real trainings of small networks in NumPy, on data that come with scikit-learn."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split

from benchmarks.training_curves import Curve

Weights = list[np.ndarray]


@functools.cache
def data_set(name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Standardised inputs, targets, and the number of classes, 0 for a regression."""
    loaders: dict[str, Any] = {
        "digits": datasets.load_digits, "wine": datasets.load_wine, "breast_cancer": datasets.load_breast_cancer,
        "diabetes": datasets.load_diabetes, "iris": datasets.load_iris,
    }  # fmt: skip
    makers: dict[str, Any] = {
        "classes": lambda: datasets.make_classification(800, 20, n_informative=8, n_classes=4, random_state=0),
        "moons": lambda: datasets.make_moons(600, noise=0.25, random_state=0),
        "friedman": lambda: datasets.make_friedman1(600, noise=1.0, random_state=0),
        "linear": lambda: datasets.make_regression(500, 30, noise=20.0, random_state=0),
    }
    x, y = loaders[name](return_X_y=True) if name in loaders else makers[name]()
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-9)
    if name in ("diabetes", "friedman", "linear"):
        return x, (y - y.mean()) / y.std(), 0
    return x, y.astype(int), int(y.max()) + 1


DATA = ("digits", "wine", "breast_cancer", "diabetes", "iris", "classes", "moons", "friedman", "linear")
USUAL = {"sgd": 0.05, "momentum": 0.02, "adam": 0.003, "rmsprop": 0.002}
"""Rates that work for each optimizer; sound trainings draw theirs around it."""
SCHEDULES = ("constant", "constant", "constant", "cosine", "step", "exponential", "restarts", "warmup")
FAULTS = ("rate too large", "rate too large", "labels shuffled", "no initialisation", "rate far too large")


def schedule_factor(schedule: str, share: float) -> float:
    """Factor of the learning rate after a share of the epochs."""
    match schedule:
        case "cosine":
            return 0.5 + 0.5 * math.cos(math.pi * share)
        case "step":
            return 0.1 ** math.floor(3 * share)
        case "exponential":
            return math.exp(-4 * share)
        case "restarts":
            return 0.505 + 0.495 * math.cos(math.pi * (share * 4 % 1))
        case "warmup":
            return min(1.0, 10 * share + 0.02)
    return 1.0


def draw_settings(rng: np.random.Generator, *, is_sound: bool) -> dict[str, Any]:
    """Draw the settings of a training."""
    optimizer = str(rng.choice(list(USUAL)))
    settings = {
        "data": str(rng.choice(DATA)), "optimizer": optimizer, "rate": USUAL[optimizer] * 10 ** rng.uniform(-1.2, 0.5),
        "schedule": str(rng.choice(SCHEDULES)), "batch_size": int(2 ** rng.integers(3, 9)),
        "units": [int(2 ** rng.integers(2, 7)) for _ in range(rng.integers(0, 3))],
        "activation": str(rng.choice(["relu", "tanh", "sigmoid"])), "dropout": float(rng.choice([0, 0, 0.2, 0.5])),
        "decay": float(rng.choice([0, 0, 1e-4, 1e-2])), "label_noise": float(rng.choice([0, 0, 0.1, 0.3])),
        "epochs": int(np.exp(rng.uniform(np.log(12), np.log(120)))), "validated": bool(rng.random() < 0.7),
        "fault": "" if is_sound else str(rng.choice(FAULTS)),
    }  # fmt: skip
    match settings["fault"]:
        case "rate too large":
            settings |= {"rate": USUAL[optimizer] * 10 ** rng.uniform(1.5, 2.5), "schedule": "constant"}
        case "rate far too large":
            settings |= {"rate": USUAL[optimizer] * 10 ** rng.uniform(2.5, 4), "schedule": "constant"}
        case "labels shuffled":
            settings |= {"validated": True}
        case "no initialisation":
            settings |= {"units": [32, 16], "activation": "relu"}
    return settings


def _activate(kind: str, z: np.ndarray) -> np.ndarray:
    if kind == "relu":
        return np.maximum(z, 0)
    return np.tanh(z) if kind == "tanh" else 1 / (1 + np.exp(-z))


def _slope(kind: str, a: np.ndarray) -> np.ndarray:
    if kind == "relu":
        return (a > 0).astype(float)
    return 1 - a**2 if kind == "tanh" else a * (1 - a)


class SmallTraining:
    """A network with its data and optimizer, trained by `run`."""

    def __init__(self, settings: dict[str, Any], seed: int) -> None:
        self.settings, self.rng = settings, np.random.default_rng(seed)
        x, y, self.n_classes = data_set(settings["data"])
        y = y.copy()
        if settings["fault"] == "labels shuffled":
            self.rng.shuffle(y)
        noisy = self.rng.random(len(y)) < settings["label_noise"]
        y[noisy] = self.rng.permutation(y[noisy])
        target = np.eye(self.n_classes)[y] if self.n_classes else y[:, None]
        self.x, self.x_val, self.y, self.y_val = train_test_split(x, target, test_size=0.3, random_state=seed)
        sizes = [x.shape[1], *settings["units"], target.shape[1]]
        factor = 0.0 if settings["fault"] == "no initialisation" else 1.0
        self.weights: Weights = []
        for before, after in itertools.pairwise(sizes):
            self.weights += [factor * self.rng.normal(0, (2 / (before + after)) ** 0.5, (before, after))]
            self.weights += [np.zeros(after)]
        self.first = [np.zeros_like(w) for w in self.weights]
        self.second = [np.zeros_like(w) for w in self.weights]
        self.n_steps = 0

    def forward(self, x: np.ndarray, dropout: float = 0.0) -> tuple[list[np.ndarray], np.ndarray]:
        layers, kind = [x], self.settings["activation"]
        for i in range(0, len(self.weights) - 2, 2):
            hidden = _activate(kind, layers[-1] @ self.weights[i] + self.weights[i + 1])
            if dropout:
                hidden = hidden * (self.rng.random(hidden.shape) >= dropout) / (1 - dropout)
            layers.append(hidden)
        output = layers[-1] @ self.weights[-2] + self.weights[-1]
        if self.n_classes:
            output = np.exp(output - output.max(axis=1, keepdims=True))
            output /= output.sum(axis=1, keepdims=True)
        return layers, output

    def loss(self, output: np.ndarray, y: np.ndarray) -> float:
        if self.n_classes:
            return float(-np.log((output * y).sum(axis=1) + 1e-7).mean())
        return float(((output - y) ** 2).mean())

    def step(self, x: np.ndarray, y: np.ndarray, rate: float) -> float:
        layers, output = self.forward(x, self.settings["dropout"])
        error = (output - y) / len(x) * (1 if self.n_classes else 2)
        slopes: Weights = []
        for i in range(len(self.weights) - 2, -1, -2):
            below = layers[i // 2]
            slopes = [below.T @ error + self.settings["decay"] * self.weights[i], error.sum(axis=0), *slopes]
            if i:
                error = error @ self.weights[i].T * _slope(self.settings["activation"], below)
        self.update(slopes, rate)
        return self.loss(output, y)

    def update(self, slopes: Weights, rate: float) -> None:
        self.n_steps += 1
        kind = self.settings["optimizer"]
        for i, slope in enumerate(slopes):
            if kind == "sgd":
                change = slope
            elif kind == "momentum":
                change = self.first[i] = 0.9 * self.first[i] + slope
            else:
                decay = 0.999 if kind == "adam" else 0.9
                self.second[i] = decay * self.second[i] + (1 - decay) * slope**2
                self.first[i] = 0.9 * self.first[i] + 0.1 * slope
                n = self.n_steps
                change = slope / (np.sqrt(self.second[i]) + 1e-7)
                if kind == "adam":
                    change = self.first[i] / (1 - 0.9**n) / (np.sqrt(self.second[i] / (1 - 0.999**n)) + 1e-7)
            self.weights[i] = self.weights[i] - rate * change

    def run(self) -> np.ndarray:
        """Train; return the loss by epoch."""
        settings, values = self.settings, []
        for epoch in range(settings["epochs"]):
            rate = settings["rate"] * schedule_factor(settings["schedule"], epoch / settings["epochs"])
            order, losses = self.rng.permutation(len(self.x)), []
            for i in range(0, len(order), settings["batch_size"]):
                rows = order[i : i + settings["batch_size"]]
                losses.append(self.step(self.x[rows], self.y[rows], rate))
            if settings["validated"]:
                values.append(self.loss(self.forward(self.x_val)[1], self.y_val))
            else:
                values.append(float(np.mean(losses)))
        return np.array(values)


def trained_curve(seed: int) -> Curve:
    """Train a small network with settings drawn by `seed`; each sixth is broken."""
    rng, is_sound = np.random.default_rng(seed), seed % 6 > 0
    settings = draw_settings(rng, is_sound=is_sound)
    with np.errstate(all="ignore"):
        training = SmallTraining(settings, seed)
        start = training.loss(training.forward(training.x)[1], training.y)
        values = training.run()
    name = f"NumPy: {settings['fault'] or settings['data']}"
    return Curve(name, values, start, is_sound, settings["schedule"] != "constant")
