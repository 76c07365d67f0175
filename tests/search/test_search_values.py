"""Values that a model function reads: other ones are told apart, and the same one is known again."""

from __future__ import annotations

import array
import collections
import dataclasses
import datetime as dt
import decimal
import functools
import io
import itertools
import re
import sys
import types
from fractions import Fraction

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.neighbors import KDTree
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mlflow_hp.search.resume.objects import NoFingerprintError
from mlflow_hp.search.resume.referenced import digest

X = np.arange(12.0).reshape(6, 2)
GIVEN = None
"""What `read` reads."""


class Real(float):
    pass


class Text(str):
    __slots__ = ("note",)


class Whole(int):
    pass


class Numbers(collections.deque):
    pass


class Row(array.array):
    pass


class Part(functools.partial):
    pass


class Price(decimal.Decimal):
    pass


class Buffer(io.StringIO):
    pass


class Count(itertools.count):
    pass


class Point(collections.namedtuple("Pair", "x y")):  # noqa: PYI024, SLOT002
    pass


class Day(dt.date):
    __slots__ = ()


class Bag(set):
    pass


class Grid(np.ndarray):
    pass


class Moment(dt.datetime):
    pass


class Weighted(keras.losses.Loss):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def call(self, y_true, y_pred):
        return self.weight * (y_true - y_pred)


class Level(keras.initializers.Initializer):
    def __init__(self, level):
        self.level = level

    def __call__(self, shape, dtype=None):
        return keras.ops.full(shape, self.level, dtype)


class Scaled(keras.layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, inputs):
        return self.factor * inputs


def lookup(words):
    layer = keras.layers.StringLookup()
    layer.adapt(words)
    return layer


def of_words(words):
    keras.utils.clear_session()  # which numbers the tensors of a model
    inputs = keras.Input((1,), dtype="string")
    return keras.Model(inputs, lookup(words)(inputs))


def dense(kernel="zeros", activation=None):
    return keras.layers.Dense(1, activation, kernel_initializer=kernel)


def in_time(function):
    return keras.layers.TimeDistributed(keras.layers.Lambda(function))


def trained_by(learning_rate, loss="mse"):
    model = keras.Sequential([keras.Input((1,)), dense()])
    model.compile(keras.optimizers.SGD(learning_rate), loss)
    return model


def mapped(function):
    return keras.Sequential([keras.Input((1,)), keras.layers.Lambda(function)])


def made_dataclass(default):
    return dataclasses.make_dataclass("Made", [("width", int, dataclasses.field(default=default))])


def made_class(width):
    return types.new_class("Made", (), {}, lambda names: names.update(width=width))


def noted(kind, value, note):
    made = kind(value)
    made.note = note
    return made


def grid(note):
    made = np.zeros(3).view(Grid)
    made.note = note
    return made


def fitted(kind, factor):
    return kind().fit(factor * X, X[:, 0])


def read():
    return GIVEN


def is_seen(monkeypatch, value):
    """The digest of a function that reads a value."""
    monkeypatch.setattr(sys.modules[__name__], "GIVEN", value)
    return digest(read)


PAIRS = {
    "float": (lambda: Real(1), lambda: Real(2)),
    "str": (lambda: Text("a"), lambda: Text("b")),
    "note on a str": (lambda: noted(Text, "a", 1), lambda: noted(Text, "a", 2)),
    "int": (lambda: Whole(1), lambda: Whole(2)),
    "note on an int": (lambda: noted(Whole, 1, 1), lambda: noted(Whole, 1, 2)),
    "deque": (lambda: Numbers([1]), lambda: Numbers([2])),
    "array": (lambda: Row("d", [1]), lambda: Row("d", [2])),
    "partial": (lambda: Part(max, 1), lambda: Part(max, 2)),
    "decimal": (lambda: Price("1.1"), lambda: Price("1.2")),
    "buffer": (lambda: Buffer("a"), lambda: Buffer("b")),
    "counter": (lambda: Count(1), lambda: Count(2)),
    "named tuple": (lambda: Point(1, 2), lambda: Point(1, 3)),
    "dates of a class with slots": (lambda: Day(2001, 1, 1), lambda: Day(2001, 1, 2)),
    "own loss": (lambda: Weighted(1.0), lambda: Weighted(2.0)),
    "own initializer": (lambda: Level(1.0), lambda: Level(2.0)),
    "own layer": (lambda: Scaled(1.0), lambda: Scaled(2.0)),
    "lookup that has learned": (lambda: lookup(["a"]), lambda: lookup(["b"])),
    "lookup in a model": (lambda: of_words(["a"]), lambda: of_words(["b"])),
    "compiled model": (lambda: trained_by(0.1), lambda: trained_by(0.2)),
    "loss of a compiled model": (lambda: trained_by(0.1, "mse"), lambda: trained_by(0.1, "mae")),
    "own loss of a compiled model": (lambda: trained_by(0.1, Weighted(1.0)), lambda: trained_by(0.1, Weighted(2.0))),
    "own initializer in a layer": (lambda: dense(kernel=Level(1.0)), lambda: dense(kernel=Level(2.0))),
    "own activation": (lambda: dense(activation=lambda x: 2 * x), lambda: dense(activation=lambda x: 3 * x)),
    "layer of a function in a layer": (lambda: in_time(lambda x: 2 * x), lambda: in_time(lambda x: 3 * x)),
    "layer of a function": (lambda: keras.layers.Lambda(lambda x: 2 * x), lambda: keras.layers.Lambda(lambda x: 3 * x)),
    "model with such a layer": (lambda: mapped(lambda x: 2 * x), lambda: mapped(lambda x: 3 * x)),
    "dataclass that a call made": (lambda: made_dataclass(1), lambda: made_dataclass(2)),
    "class that a call made": (lambda: made_class(1), lambda: made_class(2)),
    "data set of MLflow": (lambda: mlflow.data.from_numpy(X), lambda: mlflow.data.from_numpy(2 * X)),
    "note on a set": (lambda: noted(Bag, [1], 1), lambda: noted(Bag, [1], 2)),
    "note on an array": (lambda: grid(1), lambda: grid(2)),
    "datetime": (lambda: Moment(2001, 1, 1), lambda: Moment(2002, 1, 1)),
    "Timestamp": (lambda: pd.Timestamp("2001-01-01"), lambda: pd.Timestamp("2002-01-01")),
    "Timedelta": (lambda: pd.Timedelta("1D"), lambda: pd.Timedelta("2D")),
    "Period": (lambda: pd.Period("2001-01"), lambda: pd.Period("2001-02")),
    "Fraction": (lambda: Fraction(1, 3), lambda: Fraction(2, 3)),
    "regex": (lambda: re.compile("x+"), lambda: re.compile("x*")),
    "masked": (lambda: np.ma.array([1, 2], mask=[0, 1]), lambda: np.ma.array([1, 2], mask=[1, 0])),
    "KDTree": (lambda: KDTree(X), lambda: KDTree(2 * X)),
    "fitted scaler": (lambda: fitted(StandardScaler, 1), lambda: fitted(StandardScaler, 2)),
    "fitted regression": (lambda: fitted(LinearRegression, 1), lambda: fitted(LinearRegression, 2)),
    "method of a fitted": (lambda: fitted(StandardScaler, 1).transform, lambda: fitted(StandardScaler, 2).transform),
    "long list": (lambda: list(range(1000)), lambda: [*range(999), 0]),
}


@pytest.mark.parametrize("name", PAIRS)
def test_other_values_are_told_apart_and_the_same_is_known_again(monkeypatch, name):
    one, other = PAIRS[name]
    first = is_seen(monkeypatch, one())
    assert is_seen(monkeypatch, one()) == first
    assert is_seen(monkeypatch, other()) != first


class Widths(keras.Model):
    def __init__(self):
        super().__init__()
        self.last = dense()

    def call(self, inputs):
        return self.last(inputs)

    def get_config(self):
        return {}


def test_what_keras_notes_of_a_use_does_not_count(monkeypatch):
    for model in (trained_by(0.1), Widths()):
        model(X[:, :1])
        model.compile("sgd", "mse")
        before = is_seen(monkeypatch, model)
        model.predict(X[:, :1], verbose=0)
        assert is_seen(monkeypatch, model) == before


def test_a_line_before_a_function_of_a_layer_does_not_count(monkeypatch):
    layers = [keras.layers.Lambda(eval("\n" * lines + "lambda x: 2 * x")) for lines in (0, 1)]  # noqa: S307
    assert is_seen(monkeypatch, layers[0]) == is_seen(monkeypatch, layers[1])


@functools.singledispatch
def doubled(value):
    return value


@doubled.register
def doubled_text(value: str):
    return 2 * value


def test_the_cache_of_a_function_for_each_type_does_not_count_and_its_functions_do(monkeypatch):
    before = is_seen(monkeypatch, doubled)
    doubled(1.0), doubled("a")
    assert is_seen(monkeypatch, doubled) == before
    doubled.register(bytes, lambda value: 3 * value)
    assert is_seen(monkeypatch, doubled) != before


def test_an_archive_of_arrays(monkeypatch, tmp_path):
    seen = []
    for number, value in enumerate([1, 1, 2]):
        np.savez(tmp_path / f"{number}.npz", a=np.full(3, value))
        with np.load(tmp_path / f"{number}.npz") as archive:
            seen.append(is_seen(monkeypatch, archive))
    assert seen[0] == seen[1] != seen[2]


def frozen(estimator):
    return pytest.importorskip("sklearn.frozen", reason="scikit-learn has it since 1.6").FrozenEstimator(estimator)


@pytest.mark.parametrize(
    "made",
    [
        lambda scaler: Pipeline([("s", frozen(scaler)), ("m", Ridge())]),
        lambda scaler: Pipeline([("s", FunctionTransformer(scaler.transform)), ("m", Ridge())]),
        lambda scaler: frozen(Pipeline([("s", scaler), ("m", Ridge())])),
    ],
    ids=["frozen", "its method", "frozen pipeline"],
)
def test_what_a_clone_keeps_of_a_fit_counts(made):
    one, same, other = (made(fitted(StandardScaler, factor)) for factor in (1, 1, 2))
    assert digest(one) == digest(same) == digest(clone(one))
    assert digest(one) != digest(other)


def test_what_a_clone_does_not_keep_does_not_count():
    assert digest(fitted(Ridge, 1)) == digest(Ridge()) != digest(Ridge(alpha=2))


def from_python(factor):
    return np.frompyfunc(lambda x: factor * x, 1, 1)


def test_a_function_of_numpys_kind_is_known_where_it_is_numpys(monkeypatch):
    assert is_seen(monkeypatch, np.exp) != is_seen(monkeypatch, np.log)
    with pytest.raises(NoFingerprintError, match=r"GIVEN: the function that .* was made from is not visible"):
        is_seen(monkeypatch, from_python(2))


def test_what_raises_when_it_is_looked_at_is_named(monkeypatch):
    class Shy(BaseEstimator):
        def get_params(self, deep=True):
            raise ZeroDivisionError("no")

        @property
        def __dict__(self):
            raise ZeroDivisionError("no")

    with pytest.raises(NoFingerprintError, match="GIVEN: a Shy cannot be fingerprinted"):
        is_seen(monkeypatch, Shy())


def compiled(text):
    space = {}
    exec(compile(text, "x.txt", "exec"), space)  # noqa: S102
    return space["g"]


def test_functions_that_a_program_compiles_for_itself():
    one = "def f(): return 1\ndef g(): return f()"
    assert digest(compiled(one)) == digest(compiled(one)) != digest(compiled(one.replace("1", "2")))
    both = [compiled(one), compiled(one.replace("1", "3"))]
    assert digest(both) != digest([compiled(one), compiled(one)])


class TestEnvironment:
    """Variables of the environment, by the ways in which code asks for them."""

    @pytest.fixture(autouse=True)
    def clean(self, monkeypatch):
        for name in ("HP_MODE", "HP_WIDTH", "HP_DEPTH", "SSH_TTY"):
            monkeypatch.delenv(name, raising=False)

    @pytest.mark.parametrize(
        "body",
        [
            "import os\ndef f(): return os.environ.get('HP_MODE', '1')",
            "import os\ndef f(): return os.environ['HP_MODE']",
            "from os import getenv as env\ndef f(): return env('HP_MODE', '1')",
            "from os import environ as e\ndef f(): return e.get('HP_MODE')",
            "import os\nNAME = 'HP_MODE'\ndef f(): return os.environ.get(NAME)",
            "import os\ndef f(n='mode'): return os.environ.get(f'HP_{n.upper()}')",
            "import os\ndef f(): return {k.lower(): v for k, v in os.environ.items()}['hp_mode']",
        ],
    )
    def test_another_value_is_seen(self, monkeypatch, body):
        space = {}
        exec(body, space)  # noqa: S102
        unset = digest(space["f"])
        monkeypatch.setenv("SSH_TTY", "another session")
        assert digest(space["f"]) == unset
        monkeypatch.setenv("HP_MODE", "2")
        two = digest(space["f"])
        monkeypatch.setenv("HP_MODE", "3")
        assert len({unset, two, digest(space["f"])}) == 3
