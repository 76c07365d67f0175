"""Keywords of a function that trains: names, values, and what does not fit."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest

from mlflow_hp.analysis.diagnosis import Change
from mlflow_hp.errors import UserError
from mlflow_hp.improvement import SYNONYMS
from mlflow_hp.improvement.keywords import UnfitError, fitted_value, keyword_values
from mlflow_hp.improvement.vocabulary import keyword_of


@pytest.mark.parametrize(("parameter", "names"), SYNONYMS.items())
def test_each_synonym_is_found(parameter, names):
    for name in names:
        assert keyword_of(parameter, ["seed", name]) == name
        assert keyword_of(parameter, [f"model__{name.upper()}"]) == f"model__{name.upper()}"
    assert keyword_of(parameter, ["seed", "path"]) is None


def test_a_name_means_one_parameter_only():
    names = [name for several in SYNONYMS.values() for name in several]
    assert len(names) == len(set(names))


def test_of_several_names_the_plainer_one_counts():
    assert keyword_of("learning_rate", ["alpha", "lr"]) == "lr"
    assert keyword_of("activation", ["activation", "hidden_activation"]) == "hidden_activation"


def test_values_are_those_of_the_start_and_the_defaults():
    def train(lr, batch=32, *, seed=0):
        pass

    assert keyword_values(train, {"lr": 0.1, "batch": 8}) == {"lr": 0.1, "batch": 8, "seed": 0}
    assert keyword_values(lambda **anything: None, {"lr": 0.1}) == {"lr": 0.1}
    assert keyword_values(functools.partial(train, lr=0.5), {}) == {"lr": 0.5, "batch": 32, "seed": 0}


@pytest.mark.parametrize(
    ("train", "start", "message"),
    [
        ("train", {}, "train='train' is a str"),
        (lambda lr: None, [0.1], "start=.* is a list"),
        (lambda lr: None, {"lr": 0.1, "rate": 1}, "'rate', which <lambda> does not take; it takes lr"),
        (lambda lr, epochs: None, {"lr": 0.1}, "start lacks 'epochs'"),
    ],
)
def test_what_cannot_be_called_is_refused(train, start, message):
    with pytest.raises(UserError, match=message):
        keyword_values(train, start)


@pytest.mark.parametrize(
    ("change", "current", "value"),
    [
        (Change("learning_rate", 1, 0.1), 1, 0.1),
        (Change("batch_size", 256, 31.6), 256, 32),
        (Change("units", None, 16), (2, 8), (16, 16)),
        (Change("units", 2, 16), [2, 8], [16, 8]),
        (Change("standardize", False, True), False, True),
        (Change("standardize", False, True), 0, 1),
        (Change("clipnorm", None, 1.0), None, 1.0),
        (Change("optimizer", "SGD", "Adam"), "sgd", "adam"),
        (Change("optimizer", "SGD", "Adam"), "SGD", "Adam"),
        (Change("activation", "sigmoid", "relu", "dense"), "sigmoid", "relu"),
        (Change("activation", "sigmoid", "relu", "dense"), max, "relu"),
    ],
)
def test_a_value_takes_the_form_of_the_old_one(change, current, value):
    result = fitted_value(change, current)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("change", "current"),
    [
        (Change("targets", "integers", None), "integers"),
        (Change("learning_rate", 0.1, 0.01), "fast"),
        (Change("units", 2, 16), "2-8"),
        (Change("standardize", False, True), "no"),
        (Change("kernel_initializer", "zeros", {"name": "HeNormal"}), "zeros"),
        (Change("rate", 0.9, "less"), 0.9),
    ],
)
def test_a_value_that_does_not_fit_is_left_out(change, current):
    with pytest.raises(UnfitError):
        fitted_value(change, current)


def test_the_documentation_lists_all_names():
    text = (Path(__file__).parents[2] / "docs" / "improve.md").read_text(encoding="utf-8")
    for parameter, names in SYNONYMS.items():
        assert f"| `{parameter}` | {', '.join(f'`{name}`' for name in names)} |" in text
