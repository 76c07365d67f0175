"""Data of the cases: small sets that come with scikit-learn, and made ones. Each has a part that is not trained on."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
from sklearn import datasets
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler


class Split(NamedTuple):
    """Training data, and data to score on."""

    x: Any
    y: Any
    x_test: Any
    y_test: Any


def split(x: Any, y: Any, test: float = 0.3, classes: bool = False) -> Split:
    """Split at random, the same way each time."""
    x_train, x_test, y_train, y_test = train_test_split(
        x, y, test_size=test, random_state=3, stratify=y if classes else None
    )
    return Split(np.asarray(x_train), np.asarray(y_train), np.asarray(x_test), np.asarray(y_test))


def standardized(data: Split) -> Split:
    """Features of mean 0 and standard deviation 1, by those of the training part."""
    scaler = StandardScaler().fit(data.x)
    return data._replace(x=scaler.transform(data.x), x_test=scaler.transform(data.x_test))


@functools.cache
def digits() -> Split:
    """Pictures of 10 digits: 64 pixels of 0 to 16."""
    x, y = datasets.load_digits(return_X_y=True)
    return split(x.astype("float32"), y, 0.4, classes=True)


@functools.cache
def table(name: str) -> Split:
    """``"iris"``, ``"wine"``, ``"breast_cancer"`` or ``"diabetes"``, not scaled."""
    loaded = getattr(datasets, f"load_{name}")()
    return split(loaded.data.astype("float32"), loaded.target, 0.4, classes=name != "diabetes")


@functools.cache
def raw_diabetes() -> Split:
    """Diabetes in the units of the clinic."""
    loaded = datasets.load_diabetes(scaled=False)
    return split(loaded.data.astype("float32"), loaded.target.astype("float32"))


@functools.cache
def friedman(number: int = 1, n: int = 1200, noise: float = 0.5) -> Split:
    """A made regression that is not linear."""
    x, y = getattr(datasets, f"make_friedman{number}")(n, noise=noise, random_state=number)
    return split(x.astype("float32"), y.astype("float32"))


@functools.cache
def linear(n: int = 600, features: int = 8, noise: float = 5.0) -> Split:
    """A made linear regression with targets of some hundreds."""
    x, y = datasets.make_regression(n, features, n_informative=features, noise=noise, random_state=1)
    return split(x.astype("float32"), y.astype("float32"))


@functools.cache
def moons(n: int = 900, noise: float = 0.15) -> Split:
    """Two half moons."""
    x, y = datasets.make_moons(n, noise=noise, random_state=2)
    return split(x.astype("float32"), y, classes=True)


@functools.cache
def circles(n: int = 900, noise: float = 0.08) -> Split:
    """Two circles."""
    x, y = datasets.make_circles(n, noise=noise, factor=0.5, random_state=2)
    return split(x.astype("float32"), y, classes=True)


@functools.cache
def spirals(n: int = 1200) -> Split:
    """Three arms of a spiral."""
    rng = np.random.default_rng(5)
    arm = rng.integers(0, 3, n)
    radius = rng.random(n)
    angle = 2.1 * arm + 4 * radius + rng.normal(0, 0.15, n)
    return split(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype("float32"), arm, classes=True)


@functools.cache
def clusters(n: int = 1500, features: int = 20, classes: int = 4, noise: float = 0.0, apart: float = 1.5) -> Split:
    """Made classes of several clusters each; `noise` is the share of labels at random in the training part."""
    x, y = datasets.make_classification(
        n, features, n_informative=features // 2, n_redundant=2, n_classes=classes, class_sep=apart, random_state=4
    )
    data = split(x.astype("float32"), y, classes=True)
    rng = np.random.default_rng(6)
    noisy = np.where(rng.random(len(data.y)) < noise, rng.integers(0, classes, len(data.y)), data.y)
    return data._replace(y=noisy)


@functools.cache
def unequal(share: float = 0.05, n: int = 1600) -> Split:
    """Two made classes, one of them rare."""
    x, y = datasets.make_classification(
        n, 12, n_informative=6, weights=[1 - share], class_sep=1.0, flip_y=0, random_state=7
    )
    return split(x.astype("float32"), y, classes=True)


@functools.cache
def several_labels(n: int = 1200) -> Split:
    """Made counts of words with any of 6 labels."""
    x, y = datasets.make_multilabel_classification(n_samples=n, n_features=24, n_classes=6, n_labels=2, random_state=8)
    return split(x.astype("float32"), y.astype("float32"))


@functools.cache
def waves(n: int = 900, steps: int = 24) -> Split:
    """Noisy sine, square and sawtooth waves of any phase and period."""
    rng = np.random.default_rng(9)
    kind = rng.integers(0, 3, n)
    phase = np.arange(steps) / rng.uniform(8, 14, (n, 1)) + rng.random((n, 1))
    part = phase % 1
    forms = np.stack([np.sin(2 * np.pi * phase), np.sign(part - 0.5), 2 * part - 1])
    x = forms[kind, np.arange(n)] + rng.normal(0, 0.1, (n, steps))
    return split(x[..., None].astype("float32"), kind, classes=True)


@functools.cache
def next_values(n: int = 900, steps: int = 20) -> Split:
    """Windows of a sum of two sines with noise, and the value after each."""
    rng = np.random.default_rng(10)
    time = np.arange(n + steps)
    series = np.sin(0.3 * time) + 0.5 * np.sin(0.11 * time) + rng.normal(0, 0.05, n + steps)
    x = np.stack([series[i : i + steps] for i in range(n)])[..., None].astype("float32")
    return split(x, series[steps:].astype("float32"))


@functools.cache
def reviews(n: int = 1200, length: int = 20, words: int = 200) -> Split:
    """Token sequences: words 1 to 30 speak for a review, 31 to 60 against it, the rest say nothing; 0 is padding."""
    rng = np.random.default_rng(11)
    good = rng.integers(0, 2, n)
    tokens = rng.integers(61, words, (n, length))
    telling = rng.random((n, length)) < 0.3
    is_like_label = rng.random((n, length)) < 0.8
    sides = np.where(is_like_label, good[:, None], 1 - good[:, None])
    spoken = np.where(sides == 1, rng.integers(1, 31, (n, length)), rng.integers(31, 61, (n, length)))
    tokens = np.where(telling, spoken, tokens)
    ends = rng.integers(length // 2, length + 1, n)
    return split(np.where(np.arange(length) < ends[:, None], tokens, 0).astype("int32"), good, classes=True)


@functools.cache
def languages(n: int = 900, length: int = 16, tokens: int = 12) -> Split:
    """Token sequences of 4 Markov chains."""
    rng = np.random.default_rng(12)
    chains = rng.dirichlet(np.full(tokens, 0.25), (4, tokens))
    language = rng.integers(0, 4, n)
    x = np.empty((n, length), "int32")
    x[:, 0] = rng.integers(0, tokens, n)
    for row in range(n):
        for step in range(1, length):
            x[row, step] = rng.choice(tokens, p=chains[language[row], x[row, step - 1]])
    return split(x, language, classes=True)


@functools.cache
def patches(size: int = 12, n: int = 900) -> Split:
    """Coloured patches of two photographs, pixels of 0 to 255, a little noisy."""
    rng = np.random.default_rng(13)
    photographs = datasets.load_sample_images().images
    kind = rng.integers(0, 2, n)
    x = np.empty((n, size, size, 3), "float32")
    for row in range(n):
        photograph = photographs[kind[row]]
        top, left = (rng.integers(0, extent - size) for extent in photograph.shape[:2])
        x[row] = photograph[top : top + size, left : left + size].mean(-1, keepdims=True)
    return split(np.clip(x + rng.normal(0, 8, x.shape), 0, 255).astype("float32"), kind, classes=True)


@functools.cache
def houses(n: int = 1200) -> Split:
    """Made houses: square feet, year, income of the neighbours and kilometres to the centre; standardised prices."""
    rng = np.random.default_rng(14)
    feet, years = rng.lognormal(7.5, 0.3, n), rng.uniform(1920, 2020, n)
    income, distance = rng.normal(60000, 15000, n), rng.uniform(0, 30, n)
    price = feet / 600 + (years - 1970) / 25 + income / 12000 - 0.004 * distance**2 + rng.normal(0, 0.3, n)
    x = np.stack([feet, years, income, distance], 1)
    return split(x.astype("float32"), ((price - price.mean()) / price.std()).astype("float32"))


@functools.cache
def tagged_steps(n: int = 800, steps: int = 20) -> Split:
    """Noise, and at each step whether it and most of the value before sum to more than zero."""
    rng = np.random.default_rng(15)
    x = rng.normal(size=(n, steps + 1, 1)).astype("float32")
    return split(x[:, 1:], (x[:, 1:] + 0.7 * x[:, :-1] > 0).astype("float32"))
