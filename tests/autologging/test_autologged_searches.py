"""Searches under `autolog`, and trainings in searches and trials: each below what it belongs to."""

from __future__ import annotations

import keras
import mlflow
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

import mlflow_hp
from tests.helpers.autologged import fit, parent_of
from tests.helpers.fits import LABELS, X, Y, regression

pytestmark = pytest.mark.usefixtures("store")


def test_a_search_of_scikit_learn(autolog, new_runs):
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3)
    search.fit(X, LABELS)
    bare_search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3)
    autolog(disable=True)
    assert search.best_score_ == bare_search.fit(X, LABELS).best_score_
    parent, *children = new_runs()
    assert parent.data.tags["mlflow_hp.kind"] == "search"
    assert [parent_of(run) for run in children] == [parent.info.run_id] * 2
    assert {run.info.status for run in new_runs()} == {"FINISHED"}


def test_a_search_that_is_recorded_already(autolog, new_runs):
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
    with mlflow_hp.record_search(search, report=False, progress=False):
        cross_val_score(search, X, LABELS, cv=2)
    assert sum(run.data.tags["mlflow_hp.kind"] == "search" for run in new_runs()) == 1


class OfKeras(ClassifierMixin, BaseEstimator):
    """Fits a Keras model, in the worker where it runs."""

    def __init__(self, units=1, recorded=False):
        self.units = units
        self.recorded = recorded

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        model = regression()
        callbacks = [mlflow_hp.TrainingRecorder(report=False)] if self.recorded else []
        model.fit(x, y, epochs=self.units, verbose=0, callbacks=callbacks)
        return self

    def predict(self, x):
        return np.full(len(x), self.classes_[0])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("n_jobs", [None, 2])
def test_trainings_in_a_search_belong_to_it(autolog, new_runs, n_jobs):
    import joblib

    with joblib.parallel_config("threading"):
        GridSearchCV(OfKeras(), {"units": [1, 2]}, cv=2, n_jobs=n_jobs).fit(X, LABELS)
    assert sorted(run.data.tags["mlflow_hp.kind"] for run in new_runs()) == ["candidate", "candidate", "search"]


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:mlflow_hp. no MLflow run is active:RuntimeWarning")
def test_a_recorder_in_a_worker_of_a_search_is_nested_in_it(new_runs):
    import joblib

    search = GridSearchCV(OfKeras(recorded=True), {"units": [1, 2]}, cv=2, n_jobs=2, refit=False)
    with (
        joblib.parallel_config("threading"),
        mlflow_hp.record_search(search, report=False, progress=False) as recording,
    ):
        search.fit(X, LABELS)
    trainings = [run for run in new_runs() if run.data.tags["mlflow_hp.kind"] == "training"]
    assert len(trainings) == 4
    assert {parent_of(run) for run in trainings} == {recording.run_id}
    assert {run.info.status for run in new_runs()} == {"FINISHED"}


def test_trials_of_optuna_have_runs_of_their_own(autolog, new_runs):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial):
        rate = trial.suggest_float("rate", 0.01, 0.1)
        return fit(regression(keras.optimizers.SGD(rate)), epochs=1).evaluate(X, Y, verbose=0)

    with mlflow.start_run() as study:
        optuna.create_study().optimize(objective, n_trials=3)
    outer, *trials = new_runs()
    assert outer.info.run_id == study.info.run_id
    assert [parent_of(run) for run in trials] == [study.info.run_id] * 3
    assert {run.info.status for run in new_runs()} == {"FINISHED"}
    optuna.create_study().optimize(objective, n_trials=1)
    assert parent_of(new_runs()[-1]) is None


@pytest.mark.thorough
def test_trainings_around_searches(autolog, new_runs):
    original = keras.Model.fit
    for _ in range(2):
        fit(epochs=1)
        GridSearchCV(OfKeras(), {"units": [1]}, cv=2, refit=False).fit(X, LABELS)
    search = GridSearchCV(OfKeras(), {"units": [1]}, cv=2, refit=False)
    with mlflow_hp.record_search(search, report=False, progress=False):
        mlflow_hp.autolog(disable=True)
        mlflow_hp.autolog(report=False, progress=False)
        search.fit(X, LABELS)
    fit(epochs=1)
    kinds = [run.data.tags["mlflow_hp.kind"] for run in new_runs()]
    assert (kinds.count("training"), kinds.count("search")) == (3, 3)
    mlflow_hp.autolog(disable=True)
    assert keras.Model.fit is not original
    assert not hasattr(keras.Model.fit, "_mlflow_hp_layer")
