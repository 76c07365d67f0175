"""Searches against another version of scikit-learn, joblib or Dask: the same results, a true record, a warning."""

from __future__ import annotations

import functools
import math
import random
import re
import warnings

import joblib
import numpy as np
import pytest
from scikeras.wrappers import KerasClassifier
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import Ridge
from sklearn.metrics import make_scorer, r2_score
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV

import mlflow_hp
from mlflow_hp import AdaptiveSearchCV
from mlflow_hp._compat import dask as of_dask
from mlflow_hp._compat import joblib as of_joblib
from mlflow_hp._compat import scikeras as of_scikeras
from mlflow_hp._compat import sklearn as of_sklearn
from mlflow_hp._compat.sklearn import search_class
from mlflow_hp.errors import RecordingWarning
from mlflow_hp.search.live import parallel_hook
from mlflow_hp.search.pruning.bounds import upper_bound
from tests.helpers.changed_names import change
from tests.helpers.keras_searches import X as DIGITS
from tests.helpers.keras_searches import Y as LABELS
from tests.helpers.keras_searches import small
from tests.helpers.searches import GRID, LINEAR, LOKY, Picky, X, Y, children, found, grid, points, record

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.filterwarnings(LOKY)]
HALVING = HalvingGridSearchCV(LINEAR, GRID, factor=2, min_resources=30, random_state=0, cv=3)


def recorded(search, text):
    """A search that warns of `text` once, and its parent run."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", RuntimeWarning)
        run_id = record(search)
    said = [str(each.message) for each in told if "mlflow_hp" in str(each.message)]
    assert len(said) == 1, said
    assert text in said[0]
    return run_id


def check(store, run_id, search, recorded_afterwards):
    """Whether the runs hold what the search found, and it found what it would have."""
    assert found(search) == found(clone(search).fit(X, Y))
    runs, results = children(store, run_id), search.cv_results_
    assert len(runs) == len(results["params"])
    for index, run in enumerate(runs):
        assert run.info.status == "FINISHED"
        assert ("mlflow_hp.recorded" in run.data.tags) == recorded_afterwards
        assert points(store, run, "score") == {
            fold: results[f"split{fold}_test_score"][index] for fold in range(search.n_splits_)
        }
        assert run.data.metrics["rank"] == results["rank_test_score"][index]
    parent = store.get_run(run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["mlflow_hp.best_run_id"] == runs[search.best_index_].info.run_id
    assert "mlflow_hp.recording_error" not in parent.data.tags


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("name", "form"),
    [
        (of_sklearn.PARALLEL, "gone"),
        (of_sklearn.PARALLEL, "something else"),
        (of_sklearn.FIT_AND_SCORE, "gone"),
        (of_sklearn.FIT_AND_SCORE, "called in another way"),
    ],
)
@pytest.mark.parametrize("search", [grid(), HALVING], ids=["grid", "halving"])
def test_searches_that_are_computed_in_another_way_are_recorded_afterwards(store, monkeypatch, name, form, search):
    search = clone(search)
    text = change(monkeypatch, name, form)
    check(store, recorded(search, text), search, recorded_afterwards=True)


def test_a_pool_that_is_a_class_but_not_of_joblib(store, monkeypatch):
    monkeypatch.setattr("sklearn.model_selection._search.Parallel", type("Parallel", (), {}))
    with parallel_hook.active(None) as reason:
        assert re.fullmatch(r"scikit-learn \S+ is not supported: .*Parallel is not a joblib.Parallel", reason)


def other_arguments(function):
    """scikit-learn's function of a fit with an argument that is called otherwise."""

    @functools.wraps(function)
    def fit(estimator, x, y, *, progress, **named):
        return function(estimator, x, y, split_progress=progress, **named)

    del fit.__wrapped__
    return fit


class OtherTasks(joblib.Parallel):
    """Computes tasks that are called with other arguments."""

    def __call__(self, tasks):
        changed = []
        for function, arguments, named in tasks:
            named["progress"] = named.pop("split_progress")
            changed.append((other_arguments(function), arguments, named))
        return super().__call__(changed)


class OtherResults(joblib.Parallel):
    """Computes tasks whose results are called otherwise until the search has them."""

    def __call__(self, tasks):
        tasks = [(other_results(function), *rest) for function, *rest in tasks]
        return [
            {name.removeprefix("other_"): value for name, value in each.items()} for each in super().__call__(tasks)
        ]


def other_results(function):
    """scikit-learn's function of a fit, whose results have other names."""

    @functools.wraps(function)
    def fit(*arguments, **named):
        return {f"other_{name}": value for name, value in function(*arguments, **named).items()}

    return fit


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("pool", "text"),
    [
        (OtherTasks, "_fit_and_score is called with other arguments: KeyError: 'candidate_progress'"),
        (OtherResults, "_fit_and_score returned an unexpected result: KeyError: 'test_scores'"),
    ],
)
@pytest.mark.parametrize("search", [grid(), HALVING], ids=["grid", "halving"])
@pytest.mark.filterwarnings("ignore:.*sklearn.utils.parallel.delayed:UserWarning")
def test_fits_that_are_not_understood_are_recorded_afterwards(store, monkeypatch, pool, text, search):
    search = clone(search)
    change(monkeypatch, of_sklearn.CALLBACKS_OF_ESTIMATOR, "gone")  # nothing has been told yet
    with monkeypatch.context() as patch:
        patch.setattr("sklearn.model_selection._search.Parallel", pool)
        run_id = recorded(search, text)
    check(store, run_id, search, recorded_afterwards=True)


def test_a_search_whose_fits_are_not_seen_is_recorded_afterwards(store, monkeypatch):
    monkeypatch.setattr("mlflow_hp.search.live.family.Family.__contains__", lambda *_: False)
    search = grid()
    check(store, recorded(search, "none of its fits was observed"), search, recorded_afterwards=True)


def test_contexts_that_do_not_tell_their_callbacks_travel(store, monkeypatch):
    pytest.importorskip("sklearn.callback")
    search = grid()
    text = change(monkeypatch, of_sklearn.CALLBACKS, "gone")
    check(store, recorded(search, text), search, recorded_afterwards=False)


def test_callbacks_of_an_estimator_that_are_kept_elsewhere(store, monkeypatch):
    search = grid()
    change(monkeypatch, of_sklearn.CALLBACKS_OF_ESTIMATOR, "gone")
    check(store, record(search), search, recorded_afterwards=False)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_a_pool_that_does_not_tell_its_backend(store, monkeypatch, n_jobs):
    search = grid(n_jobs=n_jobs)
    text = change(monkeypatch, of_joblib.BACKEND, "gone")
    check(store, recorded(search, text), search, recorded_afterwards=False)


def test_a_failed_search_stays_one_where_fits_are_not_understood(store, monkeypatch):
    search = GridSearchCV(Picky(), {"strength": [0, -1]}, cv=3, error_score="raise")
    change(monkeypatch, of_sklearn.CALLBACKS_OF_ESTIMATOR, "gone")
    monkeypatch.setattr("sklearn.model_selection._search.Parallel", OtherResults)
    warnings.filterwarnings("ignore", message=".*sklearn.utils.parallel.delayed")
    with (
        pytest.raises(RuntimeError, match="no strength -1"),
        pytest.warns(RuntimeWarning, match="returned an unexpected result"),
    ):
        record(search)


@pytest.mark.parametrize(("form", "text"), [("gone", "was not found"), ("something else", "is a function")])
def test_a_dask_that_measures_in_another_way_draws_as_it_does(monkeypatch, form, text):
    sizeof = pytest.importorskip("dask.sizeof")
    text = change(monkeypatch, of_dask.GENERATOR, form) + ("" if form == "gone" else text)
    with pytest.warns(RuntimeWarning, match=re.escape(text)), of_dask.separate_generator():
        assert sizeof.random is random
    with of_dask.separate_generator():  # without another warning
        assert sizeof.random is random


def test_the_class_of_searches():
    from sklearn.model_selection._search import BaseSearchCV

    assert search_class() is BaseSearchCV
    assert np.all([isinstance(search, search_class()) for search in (grid(), HALVING)])


def test_failures_of_a_round_end_an_adaptive_search_without_the_function(monkeypatch):
    monkeypatch.setattr(of_sklearn.FAILURES, "name", "gone")
    search = AdaptiveSearchCV(Picky(), {"strength": [-1, -2]}, cv=2, n_iter=2, random_state=0)
    with (
        pytest.warns(RuntimeWarning, match="a round of an adaptive search in which all fits fail ends it"),
        pytest.raises(ValueError, match="All the 2 fits failed"),
    ):
        search.fit(X, Y)


def test_a_vectorised_search_without_the_method_that_builds_models_builds_them_for_each_fold(monkeypatch):
    search = GridSearchCV(
        KerasClassifier(small, model__learning_rate=0.1, epochs=1, batch_size=50, verbose=0, random_state=7),
        {"model__learning_rate": [0.01, 0.1], "epochs": [1, 2]}, cv=2, refit=False,
    )  # fmt: skip
    with mlflow_hp.record_search(search, engine="vectorised", refit_top=0, report=False, progress=False):
        search.fit(DIGITS, LABELS)
    shared = clone(search)
    change(monkeypatch, of_scikeras.BUILD_KERAS_MODEL, "gone")
    with (
        pytest.warns(RecordingWarning, match="the model function is called for each fold"),
        mlflow_hp.record_search(shared, engine="vectorised", refit_top=0, report=False, progress=False),
    ):
        shared.fit(DIGITS, LABELS)
    assert found(shared) == found(search)


@pytest.mark.parametrize("name", [of_sklearn.SCORE_FUNCTION, of_sklearn.SCORE_SIGN, of_sklearn.SCORE_SETTINGS])
def test_scorers_made_of_functions_have_no_bound(name, monkeypatch):
    search = GridSearchCV(Ridge(), {}, scoring=make_scorer(r2_score))
    assert upper_bound(search)[0] == 1.0
    change(monkeypatch, name, "gone")
    with pytest.warns(RecordingWarning, match="the largest score of a scorer made by make_scorer counts as unknown"):
        assert math.isinf(upper_bound(search)[0])
