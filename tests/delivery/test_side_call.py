"""An endpoint that fails alone holds up nothing else: data sets are sent apart from metrics, tags and artifacts."""

from __future__ import annotations

import threading
import warnings

import mlflow
import pytest

import mlflow_hp
from mlflow_hp.delivery import patience, retry
from mlflow_hp.delivery.acknowledgements import Acknowledgements
from mlflow_hp.delivery.metric_sender import MetricSender
from mlflow_hp.training import recovery
from tests.helpers.fits import record, regression

LOG_INPUTS = mlflow.MlflowClient.log_inputs

pytestmark = pytest.mark.usefixtures("impatient")


def test_data_sets_that_hang_hold_up_nothing_else(store, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 3.0)
    goes_on = threading.Event()
    with monkeypatch.context() as patched, warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        patched.setattr(mlflow.MlflowClient, "log_inputs", lambda *_, **__: goes_on.wait() and 1 / 0)
        fitted = record(regression(), epochs=4)
        goes_on.set()
    messages = [str(each.message) for each in shown if each.category is mlflow_hp.RecordingWarning]
    assert any("MLflow has everything except the data sets" in message for message in messages)
    assert len(store.get_metric_history(fitted.run_id, "batch/loss")) == 20
    assert fitted.history.n_steps == 20
    assert not store.get_run(fitted.run_id).inputs.dataset_inputs
    assert [each.run_id for each in recovery.left_behind()] == [fitted.run_id]
    recovery.recover_quietly(pytest.fail, lambda _: None)
    assert len(store.get_run(fitted.run_id).inputs.dataset_inputs) == 1
    assert len(store.get_metric_history(fitted.run_id, "batch/loss")) == 20
    assert list(recovery.left_behind()) == []


def test_data_sets_that_are_refused_are_named(store, monkeypatch):
    def refuse(*_, **__):
        raise mlflow.exceptions.RestException({"error_code": "PERMISSION_DENIED", "message": "no"})

    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_inputs", refuse)
        with pytest.warns(mlflow_hp.RecordingWarning, match="MLflow lacks the data sets"):
            fitted = record(regression(), epochs=4)
    assert fitted.history.n_steps == 20
    assert "the data sets" in store.get_run(fitted.run_id).data.tags["mlflow_hp.recording_error"]
    recovery.recover_quietly(pytest.fail, lambda _: None)
    assert len(store.get_run(fitted.run_id).inputs.dataset_inputs) == 1


def test_data_sets_that_fail_for_a_while_arrive_during_the_fit(store, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.01)
    run, failures = store.create_run("0"), [1, 1, 1]
    acknowledged, done = [], threading.Event()

    def action():
        if failures:
            failures.pop()
            raise OSError
        done.set()

    sender = MetricSender(run.info.run_id, on_acknowledged=acknowledged.append)
    sender.do_apart("the data sets", action, 0)
    sender.submit(1, lambda: [("m", 1.0, 1, 1)], 1)
    assert done.wait()
    assert sender.flush()
    assert acknowledged[-1] == 2
    assert sender.is_complete
    assert not sender.undone


def test_held_records_are_not_acknowledged():
    acknowledged = []
    records = Acknowledgements(acknowledged.append)
    records.add_items(1, 0)
    records.hold()
    records.add_items(0, 1)
    records.add_items(2, 2)
    records.note_sent(3)
    assert acknowledged == []
    assert not records.is_complete
    records.release()
    assert acknowledged == [3]
    assert records.is_complete
