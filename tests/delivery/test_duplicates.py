"""Metrics that the program logs, too, and metrics of Keras with names of recorded ones."""

from __future__ import annotations

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp
from mlflow_hp.delivery.metric_points import StepPoints, epoch_points
from mlflow_hp.delivery.metric_selection import MetricSelection
from mlflow_hp.history import Tensor
from mlflow_hp.history.step_record import Layout, Rows
from mlflow_hp.training.capture.step_layout import tensors_of
from tests.helpers.fits import X, Y, regression

pytestmark = pytest.mark.usefixtures("store")


class ByHand(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        mlflow.log_metrics(logs, step=epoch)


class OneByOne(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        for name, value in logs.items():
            mlflow.MlflowClient().log_metric(mlflow.active_run().info.run_id, name, value, step=epoch)


class Rarely(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            mlflow.log_metric("loss", logs["loss"], step=1)


def mlflows_own():
    return mlflow.keras.MlflowCallback()


def points_of(store, make, *, before, epochs=3):
    recorder, other = mlflow_hp.TrainingRecorder(report=False), make()
    callbacks = [other, recorder] if before else [recorder, other]
    with mlflow.start_run() as run:
        shown = regression(run_eagerly=True).fit(
            X, Y, batch_size=8, epochs=epochs, verbose=0, validation_data=(X, Y), callbacks=callbacks
        )
        mlflow.flush_async_logging() if hasattr(mlflow, "flush_async_logging") else None
    return run.info.run_id, shown.history


@pytest.mark.sampled(5)
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("make", [ByHand, OneByOne, Rarely, mlflows_own])
def test_each_epoch_is_logged_once(store, make, before):
    run_id, shown = points_of(store, make, before=before)
    for name in ("loss", "val_loss"):
        points = store.get_metric_history(run_id, name)
        assert sorted(point.step for point in points) == [0, 1, 2]
        assert [point.value for point in sorted(points, key=lambda p: p.step)] == pytest.approx(shown[name])


def test_with_keras_autologging(store):
    mlflow.keras.autolog(log_models=False, log_datasets=False)
    try:
        with mlflow.start_run() as run:
            recorder = mlflow_hp.TrainingRecorder(report=False)
            regression(run_eagerly=True).fit(
                X, Y, batch_size=8, epochs=2, verbose=0, validation_data=(X, Y), callbacks=[recorder]
            )
    finally:
        mlflow.keras.autolog(disable=True)
    for name in ("loss", "val_loss"):
        assert sorted(point.step for point in store.get_metric_history(run.info.run_id, name)) == [0, 1]
    params = store.get_run(run.info.run_id).data.params
    assert (params["epochs"], params["batch_size"], params["optimizer"]) == ("2", "8", "RMSprop")


def test_metric_logged_by_batches_is_left_to_the_program(store):
    run_id, _ = points_of(
        store, lambda: mlflow.keras.MlflowCallback(log_every_epoch=False, log_every_n_steps=2), before=False
    )
    assert [point.step for point in store.get_metric_history(run_id, "loss")] == [2, 4, 6, 8, 10, 12, 14]
    assert [point.step for point in store.get_metric_history(run_id, "val_loss")] == [0, 1, 2]


NAMES = [
    "batch/loss",
    "./batch/loss",
    "batch//loss",
    "epoch/batch/loss",
    "weights/out/bias",
    "epoch",
    "loss",
    "a>b",
    "a_b",
]


def test_keras_metrics_with_names_of_recorded_metrics(store):
    metrics = [keras.metrics.MeanSquaredError(name=name) for name in ("batch/loss", "batch/running_loss", "epoch")]
    recorder = mlflow_hp.TrainingRecorder(report=False)
    with mlflow.start_run() as run:
        regression(metrics=metrics, run_eagerly=True).fit(
            X, Y, batch_size=8, epochs=2, verbose=0, validation_data=(X, Y), callbacks=[recorder]
        )
    names = store.get_run(run.info.run_id).data.metrics
    assert {"epoch/batch/loss", "epoch/batch/running_loss", "epoch_2", "val_batch/loss", "val_epoch"} <= names.keys()
    steps = [point.step for point in store.get_metric_history(run.info.run_id, "batch/loss")]
    assert steps == list(range(10))


def test_metric_names_of_epochs_and_steps_are_distinct():
    points = epoch_points({"epoch": 3, **dict.fromkeys(NAMES[:5] + NAMES[6:], 1.0), "seconds": 1.0}, 0)
    names = [name for name, *_ in points]
    assert len(set(names)) == len(names) == len(NAMES) - 1
    tensors = (
        Tensor("a", (2,), "float32", True),
        Tensor("a/0", (), "float32", True),
        Tensor("a/0_2", (), "float32", True),
    )
    layout = Layout(dict.fromkeys(["batch_loss", "learning_rate", "running_loss"], ""), tensors, "values", {})
    columns = {name: np.ones(1) for name in ("step", "time", *layout.columns)}
    rows = Rows(columns, {tensor.name: np.ones((1, *tensor.shape), np.float32) for tensor in tensors})
    of_steps = [name for name, *_ in StepPoints(layout, MetricSelection()).convert(rows)]
    assert len(set(of_steps)) == len(of_steps) == 7
    assert not set(names) & set(of_steps)


def test_weights_with_the_name_of_a_step_column():
    class Counts(keras.Model):
        def __init__(self):
            super().__init__()
            self.step = keras.Variable(0.0, name="step", trainable=False)
            self.out = keras.layers.Dense(1)

        def call(self, x):
            return self.out(x) + self.step

    model = Counts()
    model(tf.constant(X))
    names = [tensor.name for tensor in tensors_of(model)]
    assert "step" not in names
    assert len(set(names)) == 3
