"""Loops of short fits in a run of the user's: one report, at the end, and nothing left behind."""

from __future__ import annotations

import keras
import mlflow
import pytest

import mlflow_hp
from mlflow_hp.training import fit_end
from mlflow_hp.training.recovery import recordings
from tests.helpers.fits import X, Y, regression

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def reports(monkeypatch):
    """Steps of the fits of which a report is made."""
    made = []

    class Report:
        def __init__(self, run_id, history, folder=None):
            made.append((history.meta["fit"], history.n_steps))

        def upload(self, _):
            """Do nothing."""

        def close(self):
            """Do nothing."""

    monkeypatch.setattr("mlflow_hp.training.report.TrainingReport", Report)
    return made


def fits(number, **settings):
    model = regression()
    for _ in range(number):
        model.fit(X, Y, batch_size=8, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(**settings)])


def test_one_report_at_the_end_of_the_run(monkeypatch, reports):
    monkeypatch.setattr(fit_end, "SHORT_SECONDS", 1000)
    with mlflow.start_run() as run:
        fits(3)
        assert reports == []
        assert len([each for each in recordings() if each.run_id == run.info.run_id and not each.is_done]) == 1
    assert reports == [(2, 5)]
    assert not [each for each in recordings() if each.run_id == run.info.run_id and not each.is_done]


def test_a_long_fit_has_its_report_at_once(monkeypatch, reports):
    with mlflow.start_run():
        monkeypatch.setattr(fit_end, "SHORT_SECONDS", 1000)
        fits(1)
        monkeypatch.setattr(fit_end, "SHORT_SECONDS", 0)
        fits(1)
        assert reports == [(1, 5)]
    assert reports == [(1, 5)]


def test_without_a_report(monkeypatch, reports):
    monkeypatch.setattr(fit_end, "SHORT_SECONDS", 1000)
    with mlflow.start_run() as run:
        fits(2, report=False)
    assert reports == []
    assert not [each for each in recordings() if each.run_id == run.info.run_id and not each.is_done]


def test_a_report_that_fails_is_left_to_a_recovery(monkeypatch):
    monkeypatch.setattr(fit_end, "SHORT_SECONDS", 1000)
    with monkeypatch.context() as patch, mlflow.start_run() as run:
        fits(1)
        patch.setattr("mlflow_hp.training.report.TrainingReport", lambda *_: 1 / 0)
        with pytest.warns(RuntimeWarning, match="there is no report.*division by zero"):
            mlflow.end_run()
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
    with mlflow.start_run():
        fits(1, report=False)
    paths = [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)]
    assert "diagnosis.json" in paths


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_short_fit_that_was_interrupted_has_its_report_when_the_run_ends(monkeypatch, reports, error):
    monkeypatch.setattr(fit_end, "SHORT_SECONDS", 1000)

    def fail(batch, logs):
        if batch == 2:
            raise error

    recorder = mlflow_hp.TrainingRecorder()
    with mlflow.start_run() as run:
        with pytest.raises(error) as kept:
            callbacks = [recorder, keras.callbacks.LambdaCallback(on_train_batch_end=fail)]
            regression().fit(X, Y, batch_size=8, verbose=0, callbacks=callbacks)
        assert reports == []
    assert reports == [(0, 3)]
    assert kept.value
    assert not [each for each in recordings() if each.run_id == run.info.run_id and not each.is_done]
