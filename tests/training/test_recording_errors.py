"""Errors of the recording, and a store that is slow: they are told, and the training goes on."""

from __future__ import annotations

import threading
import time

import keras
import mlflow
import pytest

from tests.helpers.fits import bare, metric_steps, record, regression, same_weights

pytestmark = pytest.mark.usefixtures("store")


def breaks(monkeypatch, where):
    def broken(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(where, broken)


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("mlflow_hp.training.session.FitRecording", "recording ended early.*disk full"),
        ("mlflow_hp.delivery.fit_history.HistoryWriter.append", "the history on disk is not complete.*disk full"),
        ("mlflow_hp.delivery.fit_history.HistoryWriter.append_epoch", "the history on disk is not complete.*disk full"),
        ("mlflow_hp.training.capture.graph_reader.GraphReader.make_room", "recording ended early.*disk full"),
        ("mlflow_hp.training.capture.graph_reader.GraphReader.begin_epoch", "recording ended early.*disk full"),
        (
            "mlflow.MlflowClient.log_artifacts",
            "MLflow lacks the history; `mlflow-hp recover`.*disk full",
        ),
        ("mlflow_hp.tracking.runs.set_tags", "MLflow lacks the tags of its end.*disk full"),
    ],
)
def test_an_error_of_the_recording_is_told_and_training_goes_on(monkeypatch, store, where, said):
    model = regression()
    breaks(monkeypatch, where)
    monkeypatch.setattr("mlflow_hp.delivery.metric_sender.ATTEMPTS", 2)  # there is a second between one and the next
    with pytest.warns(RuntimeWarning, match=said):
        fitted = record(model)
    monkeypatch.undo()
    assert same_weights(model, bare(regression()))
    assert model.train_function is not None
    assert "mlflow_hp" not in model.train_function.__module__
    assert store.get_run(fitted.run_id).info.status == "FINISHED"


def test_a_broken_history_is_named_in_the_runs_tags(monkeypatch, store):
    breaks(monkeypatch, "mlflow_hp.delivery.fit_history.HistoryWriter.append_epoch")
    with pytest.warns(RuntimeWarning, match="disk full"):
        run = store.get_run(record(regression()).run_id)
    assert "disk full" in run.data.tags["mlflow_hp.recording_error"]
    assert run.data.metrics["loss"] > 0


def test_the_training_loop_does_not_wait_for_the_store(monkeypatch, store):
    real, asked, answers = mlflow.MlflowClient.log_batch, threading.Event(), threading.Event()

    def hangs(self, run_id, metrics=(), **more):
        if metrics:
            asked.set()
            answers.wait()
        return real(self, run_id, metrics, **more)

    def at_end_of_epoch(epoch, logs):
        if epoch == 1:  # the metrics of an epoch go when its callbacks are through
            asked.wait()
        if epoch == 9:
            answers.set()

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", hangs)
    monkeypatch.setattr("mlflow_hp.delivery.metric_sender.OLDEST_SECONDS", 0.01)
    fitted = record(regression(), callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=at_end_of_epoch)], epochs=10)
    assert metric_steps(store, fitted.run_id, "batch/loss") == list(range(50))


def test_a_long_flush_is_told(monkeypatch, caplog):
    def slow(self, run_id, metrics=(), **more):
        time.sleep(1.1 if metrics else 0)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", slow)
    caplog.set_level("INFO", "mlflow_hp.training")
    record(regression())
    assert "writing the last metrics to MLflow took" in caplog.text
