"""Following a search changes nothing of what it finds: with and without, all kinds, all backends."""

from __future__ import annotations

import sys
import threading
import warnings

import joblib
import numpy as np
import pytest
import sklearn
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    RandomizedSearchCV,
    _search,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from mlflow_hp._compat.sklearn import arguments_of
from mlflow_hp.errors import UserError
from mlflow_hp.search.live import parallel_hook
from mlflow_hp.search.live.events import Started
from mlflow_hp.search.live.worker_channel import Inbox
from tests.helpers.searches import Picky, found

pytestmark = pytest.mark.filterwarnings("ignore:A worker stopped while some jobs were given to the executor")
X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)


class Notes:
    """A recorder and follower that keeps what it is told."""

    def __init__(self, *searches):
        self.searches = searches
        self.steps = False
        self.repeats = 1
        self.plans, self.folds, self.events, self.refused = [], [], [], []
        self.n_fits = self.n_computed = 0
        self.inbox = Inbox(self.events.append)

    def wants(self, search):
        return any(search is wanted for wanted in self.searches)

    def observe(self, search):
        self.n_fits += 1
        return self

    def cannot_observe(self, search, reason):
        self.refused.append(reason)

    def address(self, pool):
        return self.inbox.address(pool.kind == "processes", pool.cluster)

    def cached_result(self, call):
        return None

    def rounds(self, calls, results):
        yield calls

    def grouped(self, calls):
        return (([call], None) for call in calls)

    def selected(self, groups, results):
        return groups

    def prefers_order(self):
        return False

    def state_file(self, call):
        return None

    def ended_round(self):
        pass

    def planned(self, fit):
        self.plans.append(fit)

    def ended(self, fold):
        self.folds.append(fold)

    def computed(self):
        self.n_computed += 1


def fit(search, x=X, y=Y, follow=True, backend=None):
    """Fit a clone of `search`, followed or not; the fitted search and the notes."""
    search = clone(search)
    notes = Notes(search)
    context = joblib.parallel_config(backend=backend) if backend else joblib.parallel_config()
    with warnings.catch_warnings(), context:
        warnings.simplefilter("ignore")
        if follow:
            with parallel_hook.active(notes):
                search.fit(x, y)
        else:
            search.fit(x, y)
    notes.inbox.close()
    return search, notes


LINEAR = LogisticRegression(max_iter=500, tol=0.1)
GRID = {"C": [0.01, 0.1, 1.0, 10.0]}
HALVING = {"factor": 2, "min_resources": 30, "random_state": 0, "cv": 3}
SEARCHES = {
    "grid": GridSearchCV(LINEAR, GRID, cv=3),
    "list of grids": GridSearchCV(SVC(), [{"kernel": ["linear"]}, {"C": [1, 2], "gamma": [0.1, 1.0]}], cv=3),
    "random": RandomizedSearchCV(LINEAR, {"C": loguniform(1e-3, 1e2)}, n_iter=5, cv=3, random_state=3),
    "halving grid": HalvingGridSearchCV(LINEAR, GRID, **HALVING),
    "halving random": HalvingRandomSearchCV(LINEAR, {"C": loguniform(1e-3, 1e2)}, n_candidates=4, **HALVING),
    "several scorers": GridSearchCV(LINEAR, GRID, cv=3, scoring=["accuracy", "f1_macro"], refit="f1_macro"),
    "train scores": GridSearchCV(LINEAR, GRID, cv=3, return_train_score=True),
    "failing": GridSearchCV(Picky(), {"strength": [0, -1, 1, -2]}, cv=3, error_score=-7.5),
    "pipeline": GridSearchCV(make_pipeline(StandardScaler(), SVC()), {"svc__C": [0.1, 1.0]}, cv=3),
    "no refit": GridSearchCV(LINEAR, GRID, cv=3, refit=False),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)
@pytest.mark.parametrize("n_jobs", [1, 2], ids=["n_jobs=1", "threading"])
def test_the_search_finds_what_it_would_have_found(search, n_jobs):
    backend = "threading" if n_jobs == 2 else None
    search = clone(search).set_params(n_jobs=n_jobs)
    followed, notes = fit(search, backend=backend)
    bare, nothing = fit(search, backend=backend, follow=False)
    assert found(followed) == found(bare)
    assert not nothing.folds
    assert (notes.n_fits, notes.n_computed) == (1, 1)
    assert len(notes.folds) == len(bare.cv_results_["params"]) * bare.n_splits_


@pytest.mark.sampled(2)
@pytest.mark.parametrize("name", ["grid", "halving grid", "several scorers", "failing"])
def test_with_worker_processes(name):
    search = clone(SEARCHES[name]).set_params(n_jobs=2)
    followed, notes = fit(search, backend="loky")
    assert found(followed) == found(fit(search, backend="loky", follow=False)[0])
    assert {e.task for e in notes.events if isinstance(e, Started)} == {f.task for f in notes.folds}
    assert all(fold.n_sent == 2 and not fold.events for fold in notes.folds)


@pytest.mark.parametrize("name", ["grid", "halving grid", "several scorers", "train scores"])
def test_what_a_follower_is_told_is_what_cv_results_holds(name):
    search, notes = fit(SEARCHES[name])
    results = search.cv_results_
    plans = {plan.task: plan for plan in notes.plans}
    assert len(plans) == len(notes.folds)
    for fold in notes.folds:
        plan = plans[fold.task]
        assert plan.params == results["params"][plan.candidate]
        for scorer, score in fold.scores.items():
            assert score == results[f"split{plan.split}_test_{scorer}"][plan.candidate]
        for scorer, score in fold.train_scores.items():
            assert score == results[f"split{plan.split}_train_{scorer}"][plan.candidate]
        assert fold.ended - fold.started >= fold.fit_seconds + fold.score_seconds
        assert plan.round == results.get("iter", np.zeros(99))[plan.candidate]
    for index in range(len(results["params"])):
        times = [fold.fit_seconds for fold in notes.folds if plans[fold.task].candidate == index]
        assert np.mean(times) == pytest.approx(results["mean_fit_time"][index])
    assert max(plan.n_candidates for plan in notes.plans) == len(results["params"])


def test_a_failed_fit_brings_its_traceback():
    _, notes = fit(SEARCHES["failing"])
    plans = {plan.task: plan for plan in notes.plans}
    for fold in notes.folds:
        strength = plans[fold.task].params["strength"]
        if strength < 0:
            assert f"RuntimeError: no strength {strength}" in fold.error
            assert fold.scores == {"score": -7.5}
        else:
            assert fold.error is None


def test_other_searches_and_other_threads_are_left_alone():
    wanted, other = clone(SEARCHES["grid"]), clone(SEARCHES["grid"])
    notes = Notes(wanted)
    with parallel_hook.active(notes):
        other.fit(X, Y)
        thread = threading.Thread(target=wanted.fit, args=(X, Y))
        thread.start()
        thread.join()
    wanted.fit(X, Y)
    assert notes.n_fits == 0


def test_the_pool_of_searches_is_replaced_while_one_is_recorded():
    original = _search.Parallel
    with parallel_hook.active(Notes()) as reason:
        assert reason is None
        first = _search.Parallel
        assert first is not original
        with parallel_hook.active(Notes()):
            assert _search.Parallel is first
    assert _search.Parallel is original


def test_a_version_without_the_name_is_told(monkeypatch):
    monkeypatch.delattr(_search, "Parallel")
    with parallel_hook.active(Notes()) as reason:
        assert (
            reason == f"scikit-learn {sklearn.__version__} is not supported: {_search.__name__}.Parallel was not found"
        )


def test_a_backend_without_generators_is_told_and_used(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    search = clone(SEARCHES["grid"]).set_params(n_jobs=2)
    followed, notes = fit(search, backend="multiprocessing")
    assert "return_as" in notes.refused[0]
    assert notes.n_fits == 0
    assert found(followed) == found(fit(search, follow=False)[0])


def test_multiprocessing_with_tensorflow_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", object())
    with pytest.raises(UserError, match="'multiprocessing' forks"):
        fit(clone(SEARCHES["grid"]).set_params(n_jobs=2), backend="multiprocessing")
    one_job_does_not_fork, _ = fit(SEARCHES["grid"], backend="multiprocessing")
    assert one_job_does_not_fork.best_params_


def test_empty_callback_contexts_do_not_travel():
    def fit_and_score(estimator, parameters, split_progress, candidate_progress, caller=None, callback_ctx=None):
        pass

    def given(**more):
        named = {"parameters": None, "split_progress": (0, 1), "candidate_progress": (0, 1)}
        return arguments_of(fit_and_score, (SVC(),), {**named, **more}).by_name

    context = type("Context", (), {"_callbacks": []})()
    found = given(callback_ctx=context, caller=1)
    assert (found["callback_ctx"], found["caller"]) == (None, None)
    context._callbacks = ["a callback of the user's"]
    found = given(callback_ctx=context, caller=1)
    assert (found["callback_ctx"], found["caller"]) == (context, 1)
    assert "callback_ctx" not in given()


def test_callbacks_of_the_users_are_called_as_often():
    base = pytest.importorskip("sklearn.callback")

    class Count:
        def __init__(self):
            self.ends = 0

        def setup(self, estimator, context):
            pass

        def on_fit_task_begin(self, *arguments, **named):
            pass

        def on_fit_task_end(self, *arguments, **named):
            self.ends += 1

        def teardown(self, estimator, context):
            pass

    assert base
    ends = []
    for follow in (True, False):
        search, count = clone(SEARCHES["grid"]), Count()
        search.set_callbacks(count)
        with parallel_hook.active(Notes(search)) if follow else parallel_hook.active(Notes()):
            search.fit(X, Y)
        ends.append(count.ends)
    assert ends[0] == ends[1] > 12


def test_an_exception_ends_the_search_as_it_would():
    search = clone(SEARCHES["failing"]).set_params(error_score="raise")
    notes = Notes(search)
    with parallel_hook.active(notes), pytest.raises(RuntimeError, match="no strength -1"):
        search.fit(X, Y)
    assert [type(event).__name__ for event in notes.events] == ["Started"] * 4 + ["Raised"]
    assert "no strength -1" in notes.events[-1].traceback
    assert notes.n_computed == 1


def test_all_failed_is_told_as_it_would_be():
    search = clone(SEARCHES["failing"]).set_params(param_grid={"strength": [-1, -2]})
    with parallel_hook.active(Notes(search)), pytest.raises(ValueError, match="All the 6 fits failed"):
        search.fit(X, Y)
    search.set_params(param_grid={"strength": [-1, 1]})
    with parallel_hook.active(Notes(search)), pytest.warns(FitFailedWarning, match="3 fits failed out of a total of 6"):
        search.fit(X, Y)
