"""Searches that go on where an earlier one ended: nothing is computed twice, and they find what they would have."""

from __future__ import annotations

import warnings

import mlflow
import numpy as np
import pytest
from scipy.stats import loguniform
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    HalvingRandomSearchCV,
    KFold,
    RandomizedSearchCV,
    cross_val_score,
)

import mlflow_hp
from mlflow_hp.errors import UserError
from tests.helpers.counted_fits import Stops, interrupted
from tests.helpers.searches import LOKY, X, Y, children, found, points, record

pytestmark = [pytest.mark.usefixtures("store", "new_experiment"), pytest.mark.filterwarnings(LOKY)]


HALVING = {"factor": 2, "min_resources": 30, "random_state": 0, "cv": 3}
SEARCHES = {
    "grid": lambda e: GridSearchCV(e, {"C": [0.01, 0.1, 1.0, 10.0]}, cv=3, return_train_score=True),
    "several scorers": lambda e: GridSearchCV(
        e, {"C": [0.1, 1.0]}, cv=4, scoring=["accuracy", "neg_log_loss"], refit="accuracy"
    ),
    "random": lambda e: RandomizedSearchCV(e, {"C": loguniform(1e-3, 1e2)}, n_iter=4, cv=3, random_state=3),
    "adaptive": lambda e: mlflow_hp.AdaptiveSearchCV(e, {"C": loguniform(1e-3, 1e2)}, n_iter=4, cv=3, random_state=3),
    "halving": lambda e: HalvingGridSearchCV(e, {"C": [0.01, 0.1, 1.0, 10.0]}, **HALVING),
    "halving random": lambda e: HalvingRandomSearchCV(e, {"C": loguniform(1e-3, 1e2)}, n_candidates=4, **HALVING),
    "seeded shuffling": lambda e: GridSearchCV(e, {"C": [0.1, 1.0]}, cv=KFold(4, shuffle=True, random_state=0)),
}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", SEARCHES)
def test_an_interrupted_search_goes_on(store, fits, name):
    search = SEARCHES[name](Stops(folder=fits.folder))
    bare = clone(search).set_params(estimator__folder=fits.folder).fit(X, Y)
    n = fits.n
    fits.stop_at(n + 6)
    run_id = interrupted(search)
    assert store.get_run(run_id).info.status == "KILLED"
    before = {run.info.run_id: run for run in children(store, run_id)}
    again = clone(search)
    assert record(again, resume=True) == run_id
    assert fits.n == n + 7 + (n - 6)
    assert found(again) == found(bare)
    runs, results = children(store, run_id), again.cv_results_
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == len(results["params"])
    assert set(before) <= {run.info.run_id for run in runs}
    metric = "score" if "mean_test_score" in results else "test_accuracy"
    column = "score" if metric == "score" else "accuracy"
    for index, run in enumerate(runs):
        scores = {i: results[f"split{i}_test_{column}"][index] for i in range(again.n_splits_)}
        assert points(store, run, metric) == scores
        assert len(store.get_metric_history(run.info.run_id, metric)) == len(scores)
        assert run.data.metrics[f"mean_{metric}"] == pytest.approx(results[f"mean_test_{column}"][index], rel=1e-14)
        if run.info.run_id in before and before[run.info.run_id].info.status == "FINISHED":
            assert run.info.end_time == before[run.info.run_id].info.end_time
    parent = store.get_run(run_id)
    assert parent.info.status == "FINISHED"
    tags = {k.removeprefix("mlflow_hp."): v for k, v in parent.data.tags.items()}
    assert tags["folds_taken_over"] == "6"
    assert [tags[k] for k in ("running", "done", "failed")] == ["0", str(len(runs)), "0"]
    assert tags["best_run_id"] == runs[again.best_index_].info.run_id
    assert tags.keys().isdisjoint({"error", "were_running", "recording_error"})


def test_times_of_folds_taken_over_are_those_of_then(store, fits):
    search = SEARCHES["grid"](Stops(folder=fits.folder))
    fits.stop_at(6)
    runs = children(store, interrupted(search))
    then = [np.mean(list(points(store, run, "fit_seconds").values())) for run in runs[:2]]
    again = clone(search)
    record(again, resume=True)
    assert again.cv_results_["mean_fit_time"][:2] == pytest.approx(then, rel=1e-12)


def test_a_finished_search_computes_nothing_again_but_the_refit(store, fits):
    search = SEARCHES["grid"](Stops(folder=fits.folder))
    run_id = record(search)
    assert fits.n == 13
    mlflow.set_experiment("tests")
    with pytest.raises(UserError, match="active experiment ID"):
        record(clone(search), resume=run_id)
    mlflow.set_experiment(experiment_id=store.get_run(run_id).info.experiment_id)
    again = clone(search)
    assert record(again, resume=run_id) == run_id
    assert fits.n == 14
    assert found(again) == found(search)
    assert record(clone(search), resume=True) != run_id  # nothing is unfinished: a new one begins
    assert fits.n == 27


def test_failed_folds_are_computed_again(store, fits):
    search = SEARCHES["grid"](Stops(folder=fits.folder, how="fail"))
    fits.stop_at(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's own
        run_id = record(search)
    statuses = [run.info.status for run in children(store, run_id)]
    assert statuses == ["FINISHED", "FAILED", "FINISHED", "FINISHED"]
    n = fits.n
    again = clone(search)
    record(again, resume=run_id)
    assert fits.n == n + 2  # one fold, and the refit
    assert {run.info.status for run in children(store, run_id)} == {"FINISHED"}
    assert found(again) == found(clone(search).fit(X, Y))


def test_interrupted_twice_and_inside_an_active_run(store, fits):
    search = SEARCHES["grid"](Stops(folder=fits.folder))
    fits.stop_at(2)
    run_id = interrupted(search)
    fits.stop_at(5)
    assert interrupted(clone(search), resume=True) == run_id
    runs = children(store, run_id)
    assert [run.info.status for run in runs] == ["FINISHED", "KILLED"]
    with mlflow.start_run() as mine:
        again = clone(search)
        assert record(again, resume=True) == run_id
        assert mlflow.active_run().info.run_id == mine.info.run_id
    assert fits.n == 2 + 13
    assert len(children(store, run_id)) == 4
    assert not children(store, mine.info.run_id)


def test_inside_cross_val_score(store, fits):
    search = GridSearchCV(Stops(folder=fits.folder), {"C": [0.1, 1.0]}, cv=2)
    fits.stop_at(7)
    with pytest.raises(KeyboardInterrupt), mlflow_hp.record_search(search, progress=False, report=False) as recording:
        cross_val_score(search, X, Y, cv=2)
    again = clone(search)
    with mlflow_hp.record_search(again, progress=False, report=False, resume=True) as resumed:
        scores = cross_val_score(again, X, Y, cv=2)
    assert resumed.run_id == recording.run_id
    assert fits.n == 8 + 2 + 2  # of each fit the refit, and of the second the two folds that were missing
    assert len(children(store, resumed.run_id)) == 4
    assert scores.tolist() == cross_val_score(clone(search), X, Y, cv=2).tolist()


def test_folds_with_runs_of_their_own(store, fits):
    search = GridSearchCV(Stops(folder=fits.folder), {"C": [0.1]}, cv=3)
    fits.stop_at(1)
    run_id = interrupted(search, per_fold_runs=True)
    record(clone(search), resume=True, per_fold_runs=True)
    (run,) = children(store, run_id)
    folds = sorted((f.data.tags["mlflow_hp.fold"], f.info.status) for f in children(store, run.info.run_id))
    assert folds == [("0", "FINISHED"), ("1", "FINISHED"), ("1", "KILLED"), ("2", "FINISHED")]
