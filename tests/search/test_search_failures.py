"""Searches in which a fold, a worker, the user or the store fails: what their runs hold, and what ends."""

from __future__ import annotations

import os
import signal
import warnings
from concurrent.futures.process import BrokenProcessPool

import mlflow
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import mlflow_hp
from mlflow_hp.errors import UserError
from mlflow_hp.search.recovery import KINDS
from mlflow_hp.training import recovery
from tests.helpers.search_faults import OUTAGES
from tests.helpers.searches import LINEAR, LOKY, Picky, X, Y, children, found, grid, nothing_runs, points, record, text
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.filterwarnings(LOKY)]


def test_failed_folds(store):
    search = GridSearchCV(Picky(), {"strength": [0, -1, 1]}, cv=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's own
        run_id = record(search)
    runs = children(store, run_id)
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED", "FINISHED"]
    assert text(runs[1], "error/traceback.txt").count("RuntimeError: no strength -1") == 3
    assert np.isnan(runs[1].data.metrics["mean_score"])
    tags = store.get_run(run_id).data.tags
    assert (tags["mlflow_hp.done"], tags["mlflow_hp.failed"]) == ("2", "1")


def test_all_fail(store):
    search = GridSearchCV(Picky(), {"strength": [-1, -2]}, cv=3)
    with (
        pytest.raises(ValueError, match="All the 6 fits failed"),
        mlflow_hp.record_search(search, report=False) as recording,
    ):
        search.fit(X, Y)
    parent = store.get_run(recording.run_id)
    assert parent.info.status == "FAILED"
    assert "All the 6 fits failed" in parent.data.tags["mlflow_hp.error"]
    assert [run.info.status for run in children(store, recording.run_id)] == ["FAILED", "FAILED"]


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_an_error_that_ends_the_search(store, n_jobs):
    search = GridSearchCV(Picky(), {"strength": [0, 1, -1]}, cv=3, error_score="raise", n_jobs=n_jobs)
    with pytest.raises(RuntimeError, match="no strength"), mlflow_hp.record_search(search, report=False) as recording:
        search.fit(X, Y)
    runs = children(store, recording.run_id)
    assert runs[-1].info.status == "FAILED"
    assert "no strength -1" in text(runs[-1], "error/traceback.txt")
    assert nothing_runs(store, recording.run_id)


class Interrupted(Picky):
    def fit(self, x, y):
        if self.strength == 1:
            signal.raise_signal(signal.SIGINT)
        return super().fit(x, y)


def test_ctrl_c(store):
    search = GridSearchCV(Interrupted(), {"strength": [0, 1, 2]}, cv=3)
    with pytest.raises(KeyboardInterrupt), mlflow_hp.record_search(search, report=False) as recording:
        search.fit(X, Y)
    parent, runs = store.get_run(recording.run_id), children(store, recording.run_id)
    assert parent.info.status == "KILLED"
    assert parent.data.tags["mlflow_hp.were_running"] == "strength=1"
    assert [run.info.status for run in runs] == ["FINISHED", "KILLED"]
    assert points(store, runs[0], "score").keys() == {0, 1, 2}


def test_the_body_raises(store):
    search = grid()
    with pytest.raises(ZeroDivisionError), mlflow_hp.record_search(search, report=False) as recording:
        search.fit(X, Y)
        1 / 0  # noqa: B018
    assert store.get_run(recording.run_id).info.status == "FAILED"
    assert "mlflow_hp.best" in store.get_run(recording.run_id).data.tags
    assert {run.info.status for run in children(store, recording.run_id)} == {"FINISHED"}


def test_no_fit(store):
    with (
        pytest.warns(RuntimeWarning, match="no fit of the search was seen"),
        mlflow_hp.record_search(grid(), report=False) as r,
    ):
        pass
    assert store.get_run(r.run_id).info.status == "FINISHED"


def test_what_is_no_search():
    with pytest.raises(UserError, match="is a LogisticRegression, not a search"), mlflow_hp.record_search(LINEAR):
        pass
    assert mlflow.active_run() is None


@pytest.mark.filterwarnings(OUTAGES)
def test_a_store_that_refuses_is_told_and_the_search_goes_on(store, monkeypatch):
    search = grid()
    monkeypatch.setattr("mlflow_hp.delivery.patience.PATIENCE_SECONDS", 0.5)

    def refuse(*_, **__):
        raise OSError("the disk is full")

    with mlflow.start_run() as run, monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "create_run", refuse)
        with pytest.warns(RuntimeWarning, match=r"lacks a part .*\(OSError: the disk is full\); `mlflow-hp recover`"):
            record(search)
    assert found(search) == found(clone(search).fit(X, Y))
    assert not children(store, run.info.run_id)
    (left,) = recovery.left_behind()
    assert recovery.recover(left, kinds=KINDS).status == "FINISHED"
    assert [run.info.status for run in children(store, run.info.run_id)] == ["FINISHED"] * 4
    assert not list(recovery.recordings())


@pytest.mark.usefixtures("impatient")
def test_a_store_that_comes_back_gets_everything(store, monkeypatch):
    real, left = mlflow.MlflowClient.log_batch, [6]

    def flaky(*arguments, **named):
        left[0] -= 1
        if left[0] > 0:
            raise OSError("gone")
        return real(*arguments, **named)

    search = grid()
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        monkeypatch.setattr(mlflow.MlflowClient, "log_batch", flaky)
        search.fit(X, Y)
        wait_for(lambda: left[0] <= 0)
    for run in children(store, recording.run_id):
        assert points(store, run, "score").keys() == {0, 1, 2}
        assert run.info.status == "FINISHED"


class Deadly(Picky):
    def fit(self, x, y):
        if self.strength == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().fit(x, y)


def test_a_killed_worker(store):
    search = GridSearchCV(Deadly(), {"strength": [0, 1, 2]}, cv=3, n_jobs=2, pre_dispatch=2)
    with pytest.raises(BrokenProcessPool), mlflow_hp.record_search(search, progress=False, report=False) as recording:
        search.fit(X, Y)
    runs, tags = children(store, recording.run_id), store.get_run(recording.run_id).data.tags
    complete = {True: "FINISHED", False: "KILLED"}
    assert [run.info.status for run in runs] == [complete[len(points(store, run, "score")) == 3] for run in runs]
    assert "strength=2" in tags["mlflow_hp.were_running"]
    assert "FINISHED" in [run.info.status for run in runs]
    assert nothing_runs(store, recording.run_id)


def test_a_fit_that_fails_and_another(store):
    search = GridSearchCV(Picky(), {"strength": [-1, 0]}, cv=2, error_score="raise")
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        with pytest.raises(RuntimeError):
            search.fit(X, Y)
        search.set_params(param_grid={"strength": [0, 1]}).fit(X, Y)
    assert [run.info.status for run in children(store, recording.run_id)] == ["FAILED", "FINISHED", "FINISHED"]
    assert store.get_run(recording.run_id).info.status == "FINISHED"


def test_an_error_of_the_recording_is_told_and_the_search_goes_on(store, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a mistake of ours")

    for place in ("parent_run.search_params", "live.candidates.candidate_name", "live.candidates.score_metric"):
        search = grid()
        with monkeypatch.context() as patch:
            patch.setattr(f"mlflow_hp.search.{place}", broken)
            with pytest.warns(RuntimeWarning, match="a mistake of ours"):
                run_id = record(search)
        assert found(search) == found(clone(search).fit(X, Y))
        assert "a mistake of ours" in store.get_run(run_id).data.tags["mlflow_hp.recording_error"]
        assert nothing_runs(store, run_id)
