"""The digest of a function's code: it changes with the user's code, and with nothing else."""

from __future__ import annotations

import functools
import importlib.util
import sys

import pytest

from mlflow_hp.improvement.user_code import user_code_digest

SOURCE = """
import functools, keras
import numpy as np
CALLS, X = [], np.arange(3)
def decorated(function):
    @functools.wraps(function)
    def inner(*words):
        return function(*words)
    return inner
@decorated
def build(units):
    return units * 2
class Base:
    rate = 0.5
    def size(self):
        return 3
class Scaler(Base):
    @property
    def half(self):
        return self.size() / 2
def train(lr):
    CALLS.append(lr)
    return build(3) + Scaler().half + (lambda x: x + 1)(lr)
class Trainer:
    def __call__(self, lr):
        return train(lr)
class Holder:
    def run(self, lr):
        return train(lr)
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def module(old="", new=""):
        assert old in SOURCE
        path = tmp_path / "users_own.py"
        path.write_text(SOURCE.replace(old, new))
        spec = importlib.util.spec_from_file_location("users_own", path)
        loaded = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "users_own", loaded)
        spec.loader.exec_module(loaded)
        return loaded

    return module


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("units * 2", "units * 4"), ("rate = 0.5", "rate = 0.25"), ("return 3", "return 5"), ("() / 2", "() / 3"),
        ("x + 1", "x + 2"), ("CALLS.append(lr)", "CALLS.append(2 * lr)"), ("inner(*words)", "inner(*words, **named)"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "get",
    [
        lambda module: module.train,
        lambda module: module.Trainer(),
        lambda module: module.Holder().run,
        lambda module: functools.partial(module.train, lr=1),
    ],
    ids=["function", "object", "method", "partial"],
)
def test_it_changes_with_code_that_is_called_in_any_way(load, get, old, new):
    assert user_code_digest(get(load())) != user_code_digest(get(load(old, new)))


def test_it_does_not_change_with_values_comments_or_a_second_import(load):
    module = load()
    before = user_code_digest(module.train)
    module.CALLS.append(3)
    assert user_code_digest(module.train) == before
    assert user_code_digest(load("def train", "# a comment\n\ndef train").train) == before
    assert user_code_digest(load("np.arange(3)", "np.arange(4)").train) == before


def test_what_cannot_be_looked_into_has_a_digest_all_the_same():
    assert len(user_code_digest(print)) == 16
