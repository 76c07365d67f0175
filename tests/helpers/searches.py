"""Small searches, recorded, and what they found and what their runs hold."""

from __future__ import annotations

import mlflow
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler

import mlflow_hp

LOKY = "ignore:A worker stopped while some jobs were given to the executor"
"""Told in a thread of loky's, where it would be an error that leaves the search waiting for ever."""

X, Y = load_iris(return_X_y=True)
X = StandardScaler().fit_transform(X)
LINEAR = LogisticRegression(max_iter=500, tol=0.1)
GRID = {"C": [0.01, 1.0], "fit_intercept": [True, False]}


class Picky(ClassifierMixin, BaseEstimator):
    """Predicts the commonest class; refuses some strengths."""

    def __init__(self, strength=0):
        self.strength = strength

    def fit(self, x, y):
        if self.strength < 0:
            raise RuntimeError(f"no strength {self.strength}")
        self.classes_, counts = np.unique(y, return_counts=True)
        self.best_ = self.classes_[(counts.argmax() + self.strength) % len(self.classes_)]
        return self

    def predict(self, x):
        return np.full(len(x), self.best_)


def grid(**settings):
    return GridSearchCV(LINEAR, **{"param_grid": GRID, "cv": 3, **settings})


def record(search, x=X, y=Y, **settings):
    """Fit `search` recorded; the parent run's id."""
    with mlflow_hp.record_search(search, progress=False, **{"report": False, **settings}) as recording:
        search.fit(x, y)
    return recording.run_id


def found(search):
    """What a fitted search found, less times, as plain values."""
    results = {k: v for k, v in search.cv_results_.items() if not k.endswith("_time")}
    other = {name: getattr(search, name, None) for name in ("best_index_", "best_score_", "best_params_", "n_splits_")}
    predictions = search.predict(X).tolist() if search.refit else None
    plain = {k: np.ma.asarray(v).filled(-1.0).tolist() if k.startswith("param_") else v for k, v in results.items()}
    return {**{k: np.asarray(v).tolist() for k, v in plain.items()}, **other, "predictions": predictions}


def children(store, run_id):
    """The runs below a run, in the order of the combinations."""
    experiment = store.get_run(run_id).info.experiment_id
    runs = store.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    place = {name: f"mlflow_hp.{name}" for name in ("fit", "candidate", "fold")}
    return sorted(runs, key=lambda run: [int(run.data.tags.get(tag, 0)) for tag in place.values()])


def points(store, run, name):
    """Step -> value of a metric."""
    return {point.step: point.value for point in store.get_metric_history(run.info.run_id, name)}


def nothing_runs(store, run_id):
    """Whether a run has ended, and all below it."""
    return store.get_run(run_id).info.status != "RUNNING" and all(
        nothing_runs(store, run.info.run_id) for run in children(store, run_id)
    )


def text(run, path):
    return mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{path}")


def pictures(store, run_id, folder="plots"):
    return {file.path.removeprefix(f"{folder}/") for file in store.list_artifacts(run_id, folder) if not file.is_dir}
