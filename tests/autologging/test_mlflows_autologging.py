"""`autolog` next to MLflow's own autologging: both record each run, and nothing is left patched."""

from __future__ import annotations

import keras
import mlflow
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

import mlflow_hp
from mlflow_hp.errors import RecordingWarning
from tests.helpers.autologged import fit
from tests.helpers.fits import LABELS, X, Y, regression

pytestmark = pytest.mark.usefixtures("store")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("is_first", [True, False])
def test_next_to_mlflows_own_autologging(new_runs, store, is_first):
    def ours():
        mlflow_hp.autolog(report=False)

    def theirs():
        mlflow.keras.autolog(log_models=False, log_datasets=False, silent=True)

    try:
        [turn_on() for turn_on in ((ours, theirs) if is_first else (theirs, ours))]
        fit()
        with mlflow.start_run():
            regression().fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[keras.callbacks.Callback()])
    finally:
        mlflow_hp.autolog(disable=True)
        mlflow.keras.autolog(disable=True)
    assert mlflow.active_run() is None
    both = new_runs()
    assert [run.info.status for run in both] == ["FINISHED"] * 2
    for run in both:
        assert mlflow_hp.load_history(run.info.run_id).n_steps == 10
        assert [point.step for point in store.get_metric_history(run.info.run_id, "loss")] == [0, 1]
        assert "mlflow_hp.recording_error" not in run.data.tags


@pytest.mark.parametrize("again", [False, True])
def test_mlflows_autologging_is_turned_off_behind_ours(new_runs, again):
    mlflow.keras.autolog(log_models=False, silent=True)
    try:
        mlflow_hp.autolog(report=False)
        if again:
            mlflow.keras.autolog(log_models=False, log_datasets=False, silent=True)
        mlflow.keras.autolog(disable=True)
        fit()
    finally:
        mlflow_hp.autolog(disable=True)
        mlflow.keras.autolog(disable=True)
    assert [run.data.tags["mlflow_hp.steps"] for run in new_runs()] == ["10"]
    assert not hasattr(keras.Model.fit, "_mlflow_hp_layer")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mlflows_candidates_are_told_of(autolog, new_runs, monkeypatch):
    monkeypatch.setattr("mlflow_hp._compat.private_name.issued_warnings", set())
    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        with pytest.warns(RecordingWarning, match="max_tuning_runs=0"):
            GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, LABELS)
    finally:
        mlflow.sklearn.autolog(disable=True)
    assert sum(run.data.tags.get("mlflow_hp.kind") == "candidate" for run in new_runs()) == 2


def test_a_search_whose_fit_mlflow_has_patched_before(new_runs):
    original = vars(GridSearchCV).get("fit")
    mlflow.sklearn.autolog(max_tuning_runs=0, log_models=False, log_datasets=False, silent=True)
    try:
        mlflow_hp.autolog(report=False, progress=False)
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, LABELS)
    finally:
        mlflow_hp.autolog(disable=True)
        mlflow.sklearn.autolog(disable=True)
    assert vars(GridSearchCV).get("fit") is original
    kinds = [run.data.tags.get("mlflow_hp.kind") for run in new_runs()]
    assert sorted(kinds) == ["candidate", "candidate", "search"]
