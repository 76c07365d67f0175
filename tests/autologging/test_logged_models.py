"""Models and data sets that `autolog` logs."""

from __future__ import annotations

import random

import keras
import mlflow
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from mlflow_hp.errors import RecordingWarning
from mlflow_hp.tracking.datasets import describe
from tests.helpers.autologged import fit
from tests.helpers.fits import LABELS, X, Y, same_weights

pytestmark = pytest.mark.usefixtures("store")


def test_data_sets(autolog, new_runs):
    fit(validation_split=0.25)
    GridSearchCV(LogisticRegression(), {"C": [0.1]}, cv=2).fit(X, y=LABELS)
    autolog(report=False, progress=False, log_datasets=False)
    fit()
    GridSearchCV(LogisticRegression(), {"C": [0.1]}, cv=2).fit(X, LABELS)
    digests = [
        {used.dataset.digest for used in run.inputs.dataset_inputs}
        for run in new_runs()
        if run.data.tags["mlflow_hp.kind"] != "candidate"
    ]
    parts = {describe(X[:27], Y[:27]).digest, describe(X[27:], Y[27:]).digest}
    assert digests == [parts, {describe(X, LABELS).digest}, set(), set()]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_models(autolog, new_runs, monkeypatch):
    autolog(report=False, progress=False, log_models=True)
    state = random.getstate()
    model = fit()
    assert random.getstate() == state
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, LABELS)
    GridSearchCV(LogisticRegression(), {"C": [0.1]}, cv=2, refit=False).fit(X, LABELS)
    training, parent, no_refit = [run for run in new_runs() if run.data.tags["mlflow_hp.kind"] != "candidate"]
    loaded = mlflow.keras.load_model(logged_model(training))
    assert same_weights(loaded, model)
    assert (mlflow.sklearn.load_model(logged_model(parent)).coef_ == search.best_estimator_.coef_).all()
    assert not no_refit.outputs.model_outputs


class Unsaveable(keras.layers.Layer):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, inputs):
        return self.scale() * inputs


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_that_cannot_be_logged(autolog, new_runs):
    autolog(report=False, log_models=True)
    model = keras.Sequential([keras.Input((3,)), Unsaveable(lambda: 2.0), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.warns(RecordingWarning, match="lacks the trained model"):
        fit(model)
    (run,) = new_runs()
    assert (run.info.status, "trained model" in run.data.tags["mlflow_hp.recording_error"]) == ("FINISHED", True)


def logged_model(run):
    (output,) = run.outputs.model_outputs
    return f"models:/{output.model_id}"
