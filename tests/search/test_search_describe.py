"""What candidates and searches are called."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import loguniform, randint
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

from mlflow_hp.search.naming import candidate_name, param_values, search_params, space_of, varying
from mlflow_hp.tracking.tags import score_metric


@pytest.mark.parametrize(
    ("params", "names", "expected"),
    [
        ({"learning_rate": 0.01, "momentum": 0.9}, ["learning_rate", "momentum"], "learning_rate=0.01 momentum=0.9"),
        ({"C": 1, "tol": 0.1}, ["C"], "C=1"),
        ({"model__units": 8, "optimizer__rate": 0.5}, ["model__units", "optimizer__rate"], "units=8 rate=0.5"),
        ({"a__x": 1, "b__x": 2, "c": 3}, ["a__x", "b__x", "c"], "a__x=1 b__x=2 c=3"),
        ({"a__x": 1}, ["a__x", "x"], "a__x=1"),
        ({"C": 1}, [], "C=1"),
        ({}, [], "defaults"),
        ({"f": np.tanh, "text": "x" * 50}, ["f", "text"], f"f=tanh text={'x' * 39}…"),
        ({"rate": np.float64(1) / 3}, ["rate"], "rate=0.3333"),
    ],
)
def test_candidate_name(params, names, expected):
    assert candidate_name(params, names) == expected


def test_what_varies():
    assert varying([{"a": [1], "b": [1, 2], "c": loguniform(1, 2)}]) == ["b", "c"]
    assert varying([{"a": [1]}, {"b": [1]}]) == ["a", "b"]
    assert varying([]) == []


def test_params_keep_every_digit():
    values = {"a[0]": np.float64(1) / 3, "b": None, "c": np.int64(3), "d": Ridge(), "e": "x" * 7000, "f": len}
    expected = {"a[0]": repr(1 / 3), "b": "None", "c": "3", "d": "Ridge()", "e": "x" * 7000, "f": "len"}
    assert param_values(values) == expected


def test_search_params():
    grid = search_params(GridSearchCV(Ridge(), [{"alpha": [1, 2]}, {"tol": (0.1,)}], scoring="r2"))
    assert grid.items() >= {"space_0/alpha": "[1, 2]", "space_1/tol": "[0.1]", "scoring": "r2"}.items()
    space = {"alpha": loguniform(0.1, 10), "max_iter": randint(1, high=9)}
    search = RandomizedSearchCV(Ridge(), space, n_iter=4, random_state=1)
    assert space_of(search) == [space]
    expected = {"space/alpha": "loguniform(0.1, 10)", "space/max_iter": "randint(1, high=9)", "n_iter": "4"}
    assert search_params(search).items() >= expected.items()


@pytest.mark.parametrize(
    ("scorer", "kind", "expected"),
    [
        ("score", "", "score"),
        ("score", "train", "train_score"),
        ("score", "mean", "mean_score"),
        ("score", "rank", "rank"),
        ("f1", "", "test_f1"),
        ("f1", "train", "train_f1"),
        ("f1", "std", "std_test_f1"),
        ("a(b)", "rank", "rank_test_a(b)"),
    ],
)
def test_score_metric(scorer, kind, expected):
    assert score_metric(scorer, kind) == expected
