"""What the recorder shows of any training at its end."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.training.report import Report
from tests.helpers.fits import LABELS, X, Y, network, record, regression


def reported(**fit):
    return record(recorder=mlflow_hp.TrainingRecorder(), **fit)


def test_pictures_findings_and_description(store):
    fitted = reported(model=network(), y=LABELS, validation_data=(X, LABELS), epochs=3)
    assert sorted(a.path for a in store.list_artifacts(fitted.run_id, "plots")) == [
        "plots/accuracy_by_epoch.png",
        "plots/gradient_norms_by_step.png",
        "plots/loss_by_batch.png",
        "plots/loss_by_epoch.png",
    ]
    run = store.get_run(fitted.run_id)
    description = run.data.tags["mlflow.note.content"]
    assert description.startswith("**accuracy ")
    assert "after 3 epochs (15 steps); 162 parameters, by Adam, learning rate 0.001" in description
    assert description.rstrip().endswith("The picture to look at first: `plots/loss_by_epoch.png`")
    told = json.loads(Path(store.download_artifacts(fitted.run_id, "diagnosis.json")).read_text())
    loss = fitted.keras_history.history["loss"]
    change = (loss[1] - loss[2]) / loss[1]
    assert told["trend"]["evidence"]["loss_change_at_end"] == pytest.approx(change)
    assert run.data.metrics["diagnosis/loss_change_at_end"] == pytest.approx(change)


def test_a_learning_rate_has_a_picture_only_if_it_changes(store):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)
    model = regression()
    model.compile(keras.optimizers.SGD(schedule), "mse")
    fitted = reported(model=model, epochs=1)
    names = {artifact.path for artifact in store.list_artifacts(fitted.run_id, "plots")}
    assert "plots/learning_rate_by_step.png" in names
    assert "plots/loss_by_epoch.png" not in names  # of one point


def test_pictures_of_gradients(store):
    x = np.random.default_rng(0).normal(size=(300, 3)).astype("float32")
    fitted = reported(model=regression(), x=x, y=x[:, :1] + 1, batch_size=10, epochs=5)
    paths = {a.path for a in store.list_artifacts(fitted.run_id, "plots")}
    assert {"plots/gradient_norms_by_step.png", "plots/noise_scale_by_step.png"} <= paths
    assert "plots/sharpness_by_step.png" not in paths


def test_nan_is_named_in_the_diagnosis(store):
    y = Y.copy()
    y[9] = np.nan
    fitted = reported(model=regression(), y=y, shuffle=False)
    run = store.get_run(fitted.run_id)
    assert "The loss is NaN at step 1" in run.data.tags["mlflow.note.content"]
    assert run.data.metrics["diagnosis/first_step_not_finite"] == 1


def test_the_users_own_description_stays(store):
    with mlflow.start_run(description="mine") as run:
        regression().fit(X, Y, verbose=0, callbacks=[mlflow_hp.TrainingRecorder()])
    assert store.get_run(run.info.run_id).data.tags["mlflow.note.content"] == "mine"


def test_a_report_that_fails_is_told_and_the_record_is_there(store, monkeypatch):
    def broken(*_):
        raise ValueError("no ink")

    monkeypatch.setattr("mlflow_hp.training.report.training_pictures", broken)
    with pytest.warns(RuntimeWarning, match="there is no report.*no ink"):
        fitted = reported(model=regression())
    assert fitted.history.n_steps == 10
    assert "no ink" in store.get_run(fitted.run_id).data.tags["mlflow_hp.recording_error"]


def test_a_report_that_breaks_off_brings_nothing(store):
    def write_half(run_id):
        with Report(run_id) as report:
            report.file("a.txt").write_text("half")
            raise ZeroDivisionError

    with mlflow.start_run() as run, pytest.raises(ZeroDivisionError):
        write_half(run.info.run_id)
    assert store.list_artifacts(run.info.run_id) == []
