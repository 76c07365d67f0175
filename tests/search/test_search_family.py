"""A search inside of something else is recorded, through whatever copies of it are made; other searches are not."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings

import numpy as np
import pytest
import sklearn
from scipy.stats import loguniform
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_iris
from sklearn.ensemble import BaggingClassifier, StackingClassifier
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, get_scorer, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
)
from sklearn.model_selection._search import BaseSearchCV
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlflow_hp
from tests.helpers.searches import children

pytestmark = pytest.mark.usefixtures("store")
X, Y = load_iris(return_X_y=True)
GROUPS, WEIGHTS = np.arange(len(X)) % 7, np.linspace(0.5, 1.5, len(X))
LINEAR = LogisticRegression(max_iter=500, tol=0.1)


def grid(**settings):
    return GridSearchCV(LINEAR, **{"param_grid": {"C": [0.1, 1.0]}, "cv": 2, **settings})


def n_fits(store, search, do):
    """How many fits of the search are recorded while `do` runs; a warning is an error."""
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        do()
    assert "__sklearn_clone__" not in vars(BaseSearchCV)
    runs = children(store, recording.run_id)
    assert "mlflow_hp.recording_error" not in store.get_run(recording.run_id).data.tags
    return len({run.data.tags.get("mlflow_hp.fit", "0") for run in runs})


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


@pytest.mark.usefixtures("routing")
def test_metadata_that_are_routed_through_an_outer_and_an_inner_validation(store):
    estimator = LogisticRegression(max_iter=500, tol=0.1).set_fit_request(sample_weight=True)
    estimator.set_score_request(sample_weight=True)
    scorer = get_scorer("accuracy").set_score_request(sample_weight=True)
    search = GridSearchCV(estimator, {"C": [0.1, 1.0]}, cv=GroupKFold(3), scoring=scorer)
    pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), search)
    params = {"groups": GROUPS, "sample_weight": WEIGHTS}
    for whole in (search, pipeline):
        found = []

        def do(whole=whole, found=found):
            found.append(cross_validate(whole, X, Y, params=params, cv=GroupKFold(2), return_estimator=True))

        assert n_fits(store, search, do) == 2
        bare = cross_validate(whole, X, Y, params=params, cv=GroupKFold(2), scoring=None)
        np.testing.assert_array_equal(found[0]["test_score"], bare["test_score"])


class Wrapper(BaseEstimator):
    """A meta-estimator as users write them: it clones, sets, fits."""

    def __init__(self, inner=None, c=0.5):
        self.inner = inner
        self.c = c

    def fit(self, x, y):
        self.inner_ = clone(self.inner).set_params(param_grid={"C": [self.c]}, estimator__tol=0.2)
        self.inner_.fit(x, y)
        return self

    def predict(self, x):
        return self.inner_.predict(x)


@pytest.mark.thorough
def test_meta_estimators_that_clone_and_set(store):
    inner = grid()
    assert n_fits(store, inner, lambda: cross_val_score(inner, X, Y, cv=2)) == 2
    assert n_fits(store, inner, lambda: cross_val_predict(make_pipeline(StandardScaler(), inner), X, Y, cv=3)) == 3
    assert n_fits(store, inner, lambda: Wrapper(inner).fit(X, Y)) == 1
    assert n_fits(store, inner, lambda: cross_val_score(Wrapper(inner), X, Y, cv=2, scoring="accuracy")) == 2
    assert n_fits(store, inner, lambda: BaggingClassifier(inner, n_estimators=3, random_state=0).fit(X, Y)) == 3
    stack = StackingClassifier([("one", inner)], LINEAR, cv=2)
    assert n_fits(store, inner, lambda: stack.fit(X, Y)) == 3
    both = np.stack([X[:, 0], X[:, 1]], axis=1)
    ridge = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=2)
    assert n_fits(store, ridge, lambda: MultiOutputRegressor(ridge).fit(X, both)) == 2


@pytest.mark.thorough
def test_a_search_in_a_search(store):
    inner = RandomizedSearchCV(LINEAR, {"C": loguniform(0.01, 1)}, n_iter=2, cv=2, random_state=0)
    outer = GridSearchCV(inner, {"estimator__fit_intercept": [True, False]}, cv=2)
    assert n_fits(store, inner, lambda: outer.fit(X, Y)) == 5
    same = GridSearchCV(grid(), {"estimator__fit_intercept": [True, False]}, cv=2)
    assert n_fits(store, same, lambda: same.fit(X, Y)) == 1
    assert n_fits(store, same.estimator, lambda: same.fit(X, Y)) == 5


COPIES = {
    "itself": lambda search: search,
    "clone": clone,
    "clone of a clone": lambda search: clone(clone(search)),
    "clone that was changed": lambda search: clone(search).set_params(cv=3, estimator__C=3),
    "clone of a changed clone": lambda search: clone(clone(search).set_params(param_grid={"C": [2.0]})),
    "clone in a list": lambda search: clone([search, LINEAR], safe=False)[0],
    "clone in a pipeline": lambda search: clone(make_pipeline(StandardScaler(), search))[-1],
    "clone in another thread": lambda search: in_a_thread(clone, search),
    "copy": copy.copy,
    "deep copy": copy.deepcopy,
    "clone of a deep copy": lambda search: clone(copy.deepcopy(search)),
}


def in_a_thread(do, *arguments):
    found = []
    thread = threading.Thread(target=lambda: found.append(do(*arguments)))
    thread.start()
    thread.join()
    return found[0]


def local_scorer(power):
    return make_scorer(lambda y, p: accuracy_score(y, p) ** power)


SCORINGS = {"name": "accuracy", "lambda": lambda e, x, y: e.score(x, y), "local": local_scorer(2)}
"""Copies have a name and a function itself, but a scorer of their own."""


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("scoring", "way"),
    [
        *(("local", way) for way in COPIES),
        *((("name", "lambda")[place % 2], way) for place, way in enumerate(COPIES)),
    ],
)
def test_copies(store, scoring, way):
    search = grid(scoring=SCORINGS[scoring], cv=2, refit=False)
    assert n_fits(store, search, lambda: COPIES[way](search).fit(X, Y)) == 1


def test_a_pickled_copy(store):
    search = grid()
    assert n_fits(store, search, lambda: pickle.loads(pickle.dumps(search)).fit(X, Y)) == 1  # noqa: S301


def test_a_copy_of_before_and_a_copy_after(store):
    search = grid(scoring="accuracy")
    before = clone(search)
    assert n_fits(store, search, lambda: before.fit(X, Y)) == 1
    again = clone(search)
    with pytest.warns(RuntimeWarning, match="no fit of the search was seen"), \
            mlflow_hp.record_search(search, progress=False, report=False):  # fmt: skip
        pass
    assert vars(again).keys() == vars(search).keys()
    assert pickle.dumps(again) == pickle.dumps(search)


def test_somebody_elses_searches_are_left_alone(store):
    ours = grid()
    others = [
        grid(param_grid={"C": [0.1, 2.0]}), grid(cv=3), GridSearchCV(Ridge(), {"alpha": [1.0]}, cv=2),
        RandomizedSearchCV(LINEAR, {"C": [0.1, 1.0]}, n_iter=2, cv=2), HalvingGridSearchCV(LINEAR, {"C": [0.1, 1.0]}),
        grid(scoring=lambda e, x, y: 1.0),
    ]  # fmt: skip

    def do():
        for other in others:
            clone(other).fit(X, Y)
            cross_val_score(other, X, Y, cv=2)
        ours.fit(X, Y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert n_fits(store, ours, do) == 1


class Guarded(GridSearchCV):
    """A search with a way of cloning of its own."""

    def __sklearn_clone__(self):
        return type(self)(self.estimator, self.param_grid, cv=self.cv)


def test_a_search_that_clones_itself_in_a_way_of_its_own(store):
    search = Guarded(LINEAR, {"C": [0.1, 1.0]}, cv=2)
    assert n_fits(store, search, lambda: cross_val_score(search, X, Y, cv=2)) == 2


def test_two_recordings_at_once_and_an_error(store):
    one, other = grid(), grid(param_grid={"C": [3.0]})
    with pytest.raises(ZeroDivisionError), mlflow_hp.record_search(one, progress=False, report=False) as first:
        with mlflow_hp.record_search(other, progress=False, report=False) as second:
            cross_val_score(other, X, Y, cv=2)
        assert "__sklearn_clone__" in vars(BaseSearchCV)
        cross_val_score(one, X, Y, cv=2)
        raise ZeroDivisionError
    assert "__sklearn_clone__" not in vars(BaseSearchCV)
    assert first.run_id == second.run_id or len(children(store, first.run_id)) >= 4
