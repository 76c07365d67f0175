"""Searches with a time budget: what has begun ends, the rest is left to be resumed."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

import mlflow_hp
from mlflow_hp import AdaptiveSearchCV
from mlflow_hp.errors import UserError
from mlflow_hp.search import time_limit
from tests.helpers.score_table import Looked, data
from tests.helpers.searches import LOKY, children, record

HITS = [(60 + i, 62 + i, 61 + i) for i in range(8)]
X, Y, CV = data(3)


class Clock:
    """A clock that each fit advances by one second."""

    @staticmethod
    def monotonic():
        return float(len(Looked.fits))


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(time_limit, "time", Clock)
    Looked.fits = []


def grid(**settings):
    return GridSearchCV(Looked(), {"hits": HITS}, **{"cv": CV, **settings})


def test_the_rest_is_left_and_computed_by_resume(store, clock):
    search = grid()
    run_id = record(search, X, Y, time_budget="7.5s", report=True)
    assert len(Looked.fits) == 8 + 1  # the eighth had begun; and the refit
    assert search.best_index_ == 1
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False] * 2 + [True] * 6
    parent = store.get_run(run_id)
    assert parent.info.status == "KILLED"
    text = parent.data.tags["mlflow.note.content"]
    assert "Cut by the time budget of 7.5 s: 16 of 24 fits, of 6 candidates" in text
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED", "FINISHED", "KILLED"]
    assert parent.data.tags["mlflow_hp.failed"] == "0"

    Looked.fits, whole = [], grid()
    assert record(whole, X, Y, resume=True) == run_id
    assert len(Looked.fits) == 16 + 1
    plain = grid().fit(X, Y)
    assert np.array_equal(whole.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])
    assert whole.best_index_ == 7
    assert store.get_run(run_id).info.status == "FINISHED"
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED"] * 8


def test_a_budget_of_no_fit_computes_the_first_and_says_so(store, clock):
    search = grid()
    with (
        mlflow_hp.record_search(search, time_budget=0.5, progress=False, report=False) as recording,
        pytest.raises(UserError, match=r"time_budget=0\.5 s was over after 1 fit, before any candidate"),
    ):
        search.fit(X, Y)
    assert len(Looked.fits) == 1
    assert store.get_run(recording.run_id).info.status == "KILLED"
    Looked.fits = []
    assert record(grid(), X, Y, resume=True) == recording.run_id
    assert len(Looked.fits) == 23 + 1


def test_without_a_refit_the_table_is_left(store, clock, caplog):
    caplog.set_level("INFO", "mlflow_hp")
    search = grid(refit=False)
    record(search, X, Y, time_budget=1)
    assert "best_index_=0 is one of them, with nan as its score: nothing says that it is the best." in caplog.text
    assert np.isfinite(search.cv_results_["split0_test_score"]).sum() == 1


def test_a_refit_of_a_candidate_that_was_cut_is_told(store, clock, caplog):
    caplog.set_level("INFO", "mlflow_hp")
    chosen = grid(refit=lambda results: int(np.argmax(results["mean_test_score"])))  # that of an array with nan is nan
    run_id = record(chosen, X, Y, time_budget=7, report=True)
    for text in (caplog.text, store.get_run(run_id).data.tags["mlflow.note.content"]):
        assert "best_index_=2 is one of them" in text
        assert "let refit choose by numpy.nanargmax" in text
    safe = grid(refit=lambda results: int(np.nanargmax(results["mean_test_score"])))
    Looked.fits = []
    caplog.clear()
    record(safe, X, Y, time_budget=7)
    assert safe.best_index_ == 1
    assert "Cut by the time budget" in caplog.text
    assert "best_index_" not in caplog.text


def test_a_budget_that_suffices_cuts_nothing(store, clock):
    search = grid()
    run_id = record(search, X, Y, time_budget="1h")
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert store.get_run(run_id).info.status == "FINISHED"


def test_with_pruning(store, clock):
    search = grid()
    record(search, X, Y, time_budget=10, prune="tested")
    assert search.best_index_ == 7  # a fold of each of eight, then the best first
    assert len(Looked.fits) == 10 + 1


def test_an_adaptive_search_asks_for_no_more(store, clock):
    search = AdaptiveSearchCV(Looked(), {"hits": HITS}, n_iter=8, cv=CV, random_state=0)
    record(search, X, Y, time_budget=7)
    assert search.stopped_by_ == "time_budget"
    assert len(search.cv_results_["params"]) == 3
    assert np.isfinite(search.cv_results_["mean_test_score"]).sum() == 2
    assert not time_limit.is_over()  # outside of the block


@pytest.mark.filterwarnings(LOKY)
def test_in_two_processes(store):
    search = GridSearchCV(Looked(seconds=0.2), {"hits": HITS}, cv=CV, n_jobs=2, refit=False)
    run_id = record(search, X, Y, time_budget=1)
    assert np.isnan(search.cv_results_["mean_test_score"]).any()
    assert np.isfinite(search.cv_results_["split0_test_score"]).any()
    assert {run.info.status for run in children(store, run_id)} <= {"FINISHED", "KILLED"}


@pytest.mark.parametrize("budget", ["soon", 0, -1, "10 parsecs", True])
def test_a_bad_budget_is_refused(budget):
    with pytest.raises(UserError, match="is no time"), mlflow_hp.record_search(grid(), time_budget=budget):
        pass
