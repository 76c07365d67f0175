"""Loops that are not ``fit``: every step that is reported, with learning rates and weights, and nothing changed."""

from __future__ import annotations

import itertools

import keras
import mlflow
import numpy as np
import pytest
import tensorflow as tf

import mlflow_hp
from mlflow_hp.errors import RecordingWarning, UserError
from tests.helpers.fits import LABELS, X, Y, regression, same_weights

pytestmark = pytest.mark.usefixtures("store", "blank_pictures")


def batches():
    return [(X[i : i + 8], Y[i : i + 8]) for i in range(0, len(X), 8)]


def train_on_batches(model, note=lambda **_: None, end=lambda **_: None):
    """Two epochs by ``train_on_batch``."""
    for _ in range(2):
        for x, y in batches():
            model.reset_metrics()
            note(loss=model.train_on_batch(x, y), samples=len(x))
        end(val_loss=model.evaluate(X, Y, verbose=0))
    return model


def test_train_on_batch(store):
    rate = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9)
    model = regression(keras.optimizers.SGD(rate))
    with mlflow.start_run() as run, mlflow_hp.record_steps(model) as steps:
        train_on_batches(model, steps.record, steps.end_epoch)
    assert same_weights(model, train_on_batches(regression(keras.optimizers.SGD(rate))))
    history = mlflow_hp.load_history(run.info.run_id)
    assert history.steps["step"].tolist() == list(range(10))
    assert history.steps["epoch"].tolist() == [0] * 5 + [1] * 5
    assert history.steps["batch"].tolist() == [*range(5)] * 2
    assert history.steps["samples"].tolist() == [8, 8, 8, 8, 5] * 2
    np.testing.assert_allclose(history.steps["learning_rate"], 0.1 * 0.9 ** np.arange(10), rtol=1e-6)
    kernel, bias = (history.weights(f"out/{name}") for name in ("kernel", "bias"))
    for step, (x, y) in enumerate([*batches(), *batches()]):
        expected = np.mean((x @ kernel[step][:, 0] + bias[step] - y) ** 2)
        assert history.steps["batch_loss"][step] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(kernel[-1], model.get_weights()[0])
    assert len(history.epochs["val_loss"]) == 2
    data = store.get_run(run.info.run_id).data
    assert data.params["optimizer"] == "SGD"
    assert {"batch/loss", "batch/learning_rate", "val_loss"} <= data.metrics.keys()
    assert "mlflow_hp.recording_error" not in data.tags


def test_a_loop_with_a_tape_and_two_optimizers():
    """A model that is not compiled, and not built before its first step."""
    model = keras.Sequential([keras.layers.Dense(4, "relu"), keras.layers.Dense(2)])
    optimizers = {"kernels": keras.optimizers.Adam(0.01), "biases": keras.optimizers.SGD(0.1)}
    cost = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with mlflow.start_run() as run, mlflow_hp.record_steps(model, optimizers, report=False) as steps:
        for x, y in itertools.islice(zip(np.split(X[:32], 4), np.split(LABELS[:32], 4), strict=True), 4):
            with tf.GradientTape() as tape:
                loss = cost(y, model(x))
            gradients = dict(zip(("k0", "b0", "k1", "b1"), tape.gradient(loss, model.trainable_weights), strict=True))
            w = model.trainable_weights
            optimizers["kernels"].apply([gradients["k0"], gradients["k1"]], [w[0], w[2]])
            optimizers["biases"].apply([gradients["b0"], gradients["b1"]], [w[1], w[3]])
            steps.record(loss=loss, gap=tf.constant([1.5]), samples=8)
    history = mlflow_hp.load_history(run.info.run_id)
    assert history.n_steps == 4
    assert set(history.steps["batch_gap"]) == {1.5}
    assert set(history.steps["learning_rate/biases"]) == {np.float32(0.1)}
    assert "learning_rate" not in history.steps
    assert mlflow.get_run(run.info.run_id).data.params["kernels"] == "Adam"
    np.testing.assert_allclose(history.statistics(history.tensors[0].name)["norm"][-1], np.linalg.norm(w[0]), rtol=1e-6)


@pytest.mark.filterwarnings("ignore:mlflow_hp. no MLflow run is active:RuntimeWarning")
@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")]
)
def test_without_an_active_run_it_has_one_of_its_own(store, error, status):
    model = regression()

    def loop():
        with mlflow_hp.record_steps(model, report=False) as steps:
            steps.record(loss=model.train_on_batch(X, Y))
            if error is not None:
                raise error("mine")
        return steps

    if error is None:
        steps = loop()
        assert steps.history.n_steps == 1
    else:
        with pytest.raises(error, match="mine"):
            loop()
    run = mlflow.last_active_run()
    assert run.info.status == status
    assert mlflow_hp.load_history(run.info.run_id).n_steps == 1
    assert mlflow.active_run() is None


def test_values_that_are_no_numbers_are_left_out_and_told_once():
    model = regression()
    with mlflow.start_run(), mlflow_hp.record_steps(model, report=False) as steps:
        losses = [float(model.train_on_batch(X, Y)) for _ in range(3)]
        with pytest.warns(RecordingWarning, match="vector is not recorded") as told:
            [steps.record(loss=loss, vector=[1.0, 2.0]) for loss in losses]
        with pytest.warns(RecordingWarning, match="name is not recorded"):
            steps.record(loss=np.float64(1.0), name="text")
    assert len([each for each in told if issubclass(each.category, RecordingWarning)]) == 1
    assert steps.history.n_steps == 4
    assert {name for name in steps.history.steps if name.startswith("batch_")} == {"batch_loss"}


def test_a_value_that_comes_later_is_told(monkeypatch):
    def time_passes():
        monkeypatch.setattr("mlflow_hp.training.capture.host_reader.PASS_ON_SECONDS", 0.0)

    model = regression()
    with mlflow.start_run(), mlflow_hp.record_steps(model, report=False) as steps:
        steps.record(loss=1.0)
        time_passes()
        steps.record(loss=0.75)
        with pytest.warns(RecordingWarning, match="accuracy is not recorded.*first steps"):
            steps.record(loss=0.5, accuracy=0.5)
    assert steps.history.steps["batch_loss"].tolist() == [1.0, 0.75, 0.5]


def test_a_block_that_records_nothing():
    recorded = mlflow_hp.record_steps(regression(), report=False)
    told = pytest.warns(RecordingWarning, match=r"recorded nothing.*steps\.record")
    with told, mlflow.start_run() as run, recorded as steps:
        pass
    assert steps.history is None
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"model": "a model"}, "not a Keras model"),
        ({"optimizer": object()}, "without a learning rate"),
        ({"optimizer": {"a": keras.optimizers.SGD(), "b": 3}}, "'b' is a int without a learning rate"),
        ({"weights": "some"}, "weights='some'"),
        ({"run_id": "nowhere"}, "not in the tracking store"),
    ],
)
def test_bad_settings(arguments, text):
    recorded = mlflow_hp.record_steps(**{"model": regression(), **arguments})
    with mlflow.start_run(), pytest.raises(UserError, match=text), recorded:
        raise AssertionError("the block has begun")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("where", ["FitRecording.describe", "FitRecording.add", "FitSession.end_epoch", "numbers_of"])
def test_an_error_of_ours_does_not_end_the_loop(monkeypatch, where):
    def broken(*_, **__):
        raise KeyError("it is ours")

    if where == "numbers_of":
        monkeypatch.setattr("mlflow_hp.training.capture.host_reader.HostReader.read_step", broken)
    else:
        monkeypatch.setattr(f"mlflow_hp.training.session.{where}", broken)
    model = regression()
    recorded = mlflow_hp.record_steps(model, report=False)
    with pytest.warns(RecordingWarning, match="it is ours"), mlflow.start_run(), recorded as steps:
        train_on_batches(model, steps.record, steps.end_epoch)
    monkeypatch.undo()
    assert same_weights(model, train_on_batches(regression()))


def test_two_loops_continue_a_run():
    model = regression()
    with mlflow.start_run() as run:
        for _ in range(2):
            with mlflow_hp.record_steps(model, report=False) as steps:
                steps.record(loss=model.train_on_batch(X, Y))
        model.fit(X, Y, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(report=False)])
    steps = [mlflow_hp.load_history(run.info.run_id, fit=fit).steps["step"].tolist() for fit in range(3)]
    assert steps == [[0], [1], [2, 3]]
