"""Searches at whose fits something happens, a store that refuses for a while, and what has to be there in the end."""

from __future__ import annotations

import threading

import mlflow
from mlflow.exceptions import MlflowException
from sklearn.model_selection import GridSearchCV

from mlflow_hp.tracking.home import local_home
from tests.helpers.searches import Picky, children, points
from tests.helpers.waiting import wait_for

OUTAGES = "ignore:mlflow_hp. MLflow (does not accept the recorded data|accepts the recorded data again)"
"""The warnings of an outage, which come from another thread, at any moment."""
ACTS = {}
"""What is to happen when a fit of `Acts` begins: by the number of fits before it."""


class Acts(Picky):
    """Does what `ACTS` says."""

    n_fits = 0

    def fit(self, x, y):
        number, Acts.n_fits = Acts.n_fits, Acts.n_fits + 1
        ACTS.get(number, lambda: None)()
        return super().fit(x, y)


def picky(n=3):
    return GridSearchCV(Acts(), {"strength": list(range(n))}, cv=3)


def search_folders():
    return sorted(local_home().glob("*/search_*"))


def is_whole(store, run_id, search):
    """Whether MLflow has all of a search, each thing once, and this machine nothing."""
    below, results = children(store, run_id), search.cv_results_
    assert [run.info.status for run in below] == ["FINISHED"] * len(results["params"])
    for index, run in enumerate(below):
        expected = {i: results[f"split{i}_test_score"][index] for i in range(3)}
        assert points(store, run, "score") == expected
        assert len(store.get_metric_history(run.info.run_id, "score")) == 3
        assert run.data.metrics["rank"] == results["rank_test_score"][index]
        assert run.data.params == {name: str(value) for name, value in results["params"][index].items()}
    parent = store.get_run(run_id)
    assert parent.data.metrics["best_score"] == search.best_score_
    assert parent.data.tags["mlflow_hp.best_run_id"] == below[search.best_index_].info.run_id
    assert parent.data.params["search"] == "GridSearchCV"
    assert "recording_seconds" in parent.data.metrics
    assert "cv_results.csv" in [file.path for file in store.list_artifacts(run_id)]
    assert "mlflow_hp.recording_error" not in parent.data.tags
    assert not search_folders()
    return True


class Refuses:
    """Has calls of MLflow's client fail, some or all, until it is well again."""

    def __init__(self, monkeypatch, error, names=("log_batch", "create_run", "set_terminated", "log_text", "get_run")):
        self.error = error
        self.is_well = True
        self.n = 0
        for name in names:
            monkeypatch.setattr(mlflow.MlflowClient, name, self.wrap(getattr(mlflow.MlflowClient, name)))

    def wrap(self, real):
        def call(*arguments, **named):
            if not self.is_well and threading.current_thread().name.startswith("mlflow_hp"):
                self.n += 1
                raise self.error
            return real(*arguments, **named)

        return call

    def turn(self, is_well):
        self.is_well = is_well

    def until_met(self):
        before = self.n
        wait_for(lambda: self.n > before)


def error(code):
    from mlflow.protos.databricks_pb2 import ErrorCode

    return MlflowException("no", ErrorCode.Value(code))
