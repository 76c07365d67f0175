"""Every search gets its description and its pictures, whatever its parameters are and however it is scored."""

from __future__ import annotations

import collections
import csv
import datetime as dt
import io

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mlflow_hp.analysis.search_results import from_cv_results
from mlflow_hp.analysis.search_space import value_text
from tests.helpers.searches import children, grid, pictures, record, text

pytestmark = pytest.mark.usefixtures("store")


class Takes(ClassifierMixin, BaseEstimator):
    """Takes anything, and predicts the class `b`."""

    def __init__(self, a=None, b=0):
        self.a = a
        self.b = b

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        return np.full(len(x), self.b)


class Odd:
    """Is neither compared, nor counted, nor named, nor pickled."""

    def __init__(self):
        self.it = lambda: None

    __hash__ = None

    def _refuse(self, *_):
        raise RuntimeError("an odd one")

    __eq__ = __len__ = __bool__ = __repr__ = __str__ = _refuse


LONG = np.arange(5000.0)
OTHER = LONG.copy()
OTHER[2500] = 0.0
VALUES = {
    "arrays of several sizes": [np.ones(3), np.ones((2, 2)), np.zeros(0)],
    "arrays that differ where their text does not": [LONG, OTHER],
    "lists": [[1, 2], [1], []],
    "dicts of arrays": [{"x": np.ones(2)}, {"x": np.ones(3)}, None],
    "tables": [pd.DataFrame({"u": [1, 2]}), pd.DataFrame({"u": [1]}), pd.Series([1, 2])],
    "not numbers": [np.nan, 1.0, np.inf, -np.inf, None],
    "pandas' nothing": [pd.NA, pd.NaT, 1],
    "functions": [np.log1p, max, lambda x: x, lambda x: 2 * x],
    "estimators": [SVC(), SVC(C=2), StandardScaler(), "passthrough", SVC],
    "one of each type": [1, "1", 2.5, True, (1,), b"x", 1 + 2j, {1, 2}, frozenset([3]), range(3), ..., slice(1)],
    "texts": ["", "a|b", "`x`", "x" * 5000, "\n", "ü", "$\\frac{", "$", "%s", "{}"],
    "dates": [np.datetime64("2020-01-01"), dt.date(2020, 1, 1), np.timedelta64(1, "D"), pd.Timestamp("2021")],
    "odd": [Odd(), Odd()],
    "beyond floats": [10**400, 1, -(10**400), 5e-324, 1e300],
    "collections": [collections.Counter("aab"), collections.OrderedDict(a=1), collections.deque([1])],
}


@pytest.mark.sampled(8)
@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.filterwarnings("ignore:Glyph", "ignore:Tight layout not applied")
def test_values_of_any_kind(store, kind):
    values = VALUES[kind]
    search = GridSearchCV(Takes(), {"a": values, "b": [0, 1]}, cv=2)
    run_id = record(search, report=True)
    data = store.get_run(run_id).data
    assert "mlflow_hp.recording_error" not in data.tags
    assert data.tags["mlflow.note.content"].startswith(f"**Result**: The best of {2 * len(values)} candidates is ")
    assert {"scores.png", "scores_by_fold.png", "parallel_coordinates.png"} <= pictures(store, run_id)
    found = from_cv_results(search.cv_results_)
    assert found.parameters == ("a", "b")
    assert len(found.parameter("a").levels) == len(values)
    assert len(children(store, run_id)) == 2 * len(values)
    rows = list(csv.DictReader(io.StringIO(text(store.get_run(run_id), "cv_results.csv"))))
    assert len(rows) == 2 * len(values)


def accuracy(estimator, x, y):
    return accuracy_score(y, estimator.predict(x))


def several(estimator, x, y):
    return {"a": accuracy(estimator, x, y), "b": 1.0}


SCORINGS = [
    ({"scoring": accuracy}, "score"),
    ({"scoring": accuracy, "refit": "accuracy"}, "score"),
    ({"scoring": make_scorer(accuracy_score), "refit": "whatever"}, "score"),
    ({"scoring": "accuracy", "refit": "accuracy"}, "score"),
    ({"refit": "accuracy"}, "score"),
    ({"refit": lambda results: 1}, "score"),
    ({"scoring": {"accuracy": "accuracy"}, "refit": "accuracy"}, "accuracy"),
    ({"scoring": {"accuracy": "accuracy"}, "refit": lambda results: 0}, "accuracy"),
    ({"scoring": {"score": "accuracy"}, "refit": False}, "score"),
    ({"scoring": ["accuracy"], "refit": "accuracy"}, "accuracy"),
    ({"scoring": ("accuracy", "f1_macro"), "refit": "f1_macro"}, "f1_macro"),
    ({"scoring": {"a b/c": "f1_macro", "x_test_y": "accuracy"}, "refit": "x_test_y"}, "x_test_y"),
    ({"scoring": several, "refit": "a"}, "a"),
    ({"scoring": several, "refit": False}, "a"),
]


DRAWN = list({scorer: settings for settings, scorer in SCORINGS}.values())
"""One for each name of a score, which is all that pictures show of a scoring."""


@pytest.mark.sampled(7)
@pytest.mark.parametrize(("settings", "scorer"), SCORINGS)
def test_scorings_of_any_kind(request, store, settings, scorer):
    if settings not in DRAWN:
        request.getfixturevalue("blank_pictures")
    search = grid(**settings)
    run_id = record(search, report=True)
    tags = store.get_run(run_id).data.tags
    assert "mlflow_hp.recording_error" not in tags
    best = search.cv_results_[f"mean_test_{scorer}"].max()
    words = "" if scorer == "score" else f"{scorer} "
    assert f"({words}{best:.3f}" in tags["mlflow.note.content"].replace("\\", "")
    assert {"scores.png", "importance.png", "parallel_coordinates.png"} <= pictures(store, run_id)


def test_a_text_that_can_not_be_had_is_the_type():
    assert value_text(Odd()) == "<Odd>"
    assert value_text(10**5000) == "<int>"
