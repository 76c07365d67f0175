"""The ends of recorded runs: from snapshots, histories and logged models, with what is missing or does not fit."""

from __future__ import annotations

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.errors import UserError
from mlflow_hp.training.capture.step_layout import tensors_of
from tests.helpers.fits import LABELS, X, Y, network, record, regression

pytestmark = pytest.mark.usefixtures("store", "blank_pictures")


def recorded(model, y=LABELS, **settings):
    return record(model, y=y, recorder=mlflow_hp.TrainingRecorder(report=False, **settings), batch_size=37)


def weights_of(model):
    return {t.name: np.array(v) for t, v in zip(tensors_of(model), model.weights, strict=True) if t.trainable}


def evaluated(model, weights):
    """Loss with these weights, with the statistics of batch normalisation of all rows."""
    other = keras.models.clone_model(model)
    other.compile(loss="sparse_categorical_crossentropy")
    for layer in other.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    for tensor, variable in zip(tensors_of(model), other.weights, strict=True):
        if tensor.trainable:
            variable.assign(weights[tensor.name])
    other(X, training=True)
    return other.evaluate(X, LABELS, verbose=0, return_dict=True)["loss"]


def test_ends_are_read_from_snapshots_histories_and_logged_models():
    fitted = [recorded(network(), snapshot_megabytes=1), recorded(network(), weights="all")]
    logged = network()
    with mlflow.start_run(run_name="logged") as run:
        logged.fit(X, LABELS, epochs=3, verbose=0)
        mlflow.keras.log_model(logged, name="model", pip_requirements=[])
    ends = [(fitted[0].model, fitted[0].run_id), (fitted[1].model, fitted[1].run_id), (logged, run.info.run_id)]
    for (first, one), (second, other), sources in (
        (ends[0], ends[1], ("snapshots", "history")),
        (ends[1], ends[2], ("history", "logged model")),
    ):
        between = mlflow_hp.barrier(one, other, None if other == run.info.run_id else first, X, LABELS, curve_steps=0)
        assert between.sources == sources
        assert between.line[0] == pytest.approx(evaluated(first, weights_of(first)), rel=1e-3)
        assert between.line[-1] == pytest.approx(evaluated(second, weights_of(second)), rel=1e-3)
    assert between.titles[1] == "logged"


@pytest.mark.sampled(2)
@pytest.mark.parametrize("flavor", ["keras", "tensorflow"])
def test_a_logged_model_is_read_in_either_flavor_of_mlflow(flavor):
    model = regression()
    with mlflow.start_run() as run:
        getattr(mlflow, flavor).log_model(model, name="model", pip_requirements=[])
    snapshots = record(regression(), y=Y, recorder=mlflow_hp.TrainingRecorder(report=False, snapshot_megabytes=1))
    between = mlflow_hp.barrier(run.info.run_id, snapshots.run_id, None, X, Y, curve_steps=0)
    assert between.sources == ("logged model", "snapshots")
    assert between.line[0] == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)


def test_the_model_that_an_experiment_saved_is_read(tmp_path):
    model = regression()
    model.save(tmp_path / "model.keras")
    with mlflow.start_run() as run:
        mlflow.log_artifact(tmp_path / "model.keras", "saved")
    between = mlflow_hp.barrier(run.info.run_id, run.info.run_id, None, X, Y, curve_steps=0)
    assert between.line[0] == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-5)
    (tmp_path / "model.keras").write_bytes(b"no model")
    with mlflow.start_run() as run:
        mlflow.log_artifact(tmp_path / "model.keras", "saved")
    with pytest.raises(UserError, match="cannot be loaded"):
        mlflow_hp.barrier(run.info.run_id, run.info.run_id, None, X, Y, curve_steps=0)


@pytest.mark.thorough
def test_the_last_fit_of_a_run_is_its_end_and_layers_may_have_other_numbers():
    def model():
        built = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "relu"), keras.layers.Dense(1)])
        built.compile("adam", "mse")
        return built

    first, second = model(), model()
    assert first.layers[0].name != second.layers[0].name
    one = recorded(first, Y, snapshot_megabytes=1)
    with mlflow.start_run() as run:
        for _ in range(2):
            recorder = mlflow_hp.TrainingRecorder(report=False, snapshot_megabytes=1)
            second.fit(X, Y, verbose=0, callbacks=[recorder])
    between = mlflow_hp.barrier(one.run_id, run.info.run_id, second, X, Y, curve_steps=0, progress=False)
    assert between.line[0] == pytest.approx(first.evaluate(X, Y, verbose=0), rel=1e-5)
    assert between.line[-1] == pytest.approx(second.evaluate(X, Y, verbose=0), rel=1e-5)
    assert list(between.aligned_weights) == [t.name for t in tensors_of(first)]


def test_it_is_logged_as_numbers_and_as_a_file(store):
    runs = [recorded(regression(), Y, snapshot_megabytes=1) for _ in range(2)]
    between = mlflow_hp.barrier(runs[0].run_id, runs[1].run_id, runs[0].model, X, Y, curve_steps=5, progress=False)
    with mlflow.start_run() as run:
        mlflow.log_metrics(between.metrics())
        mlflow.log_dict(between.to_dict(), "barrier.json")
    assert store.get_run(run.info.run_id).data.metrics == {"barrier/line": 0.0, "barrier/curve": between.curve_barrier}
    read = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/barrier.json")
    assert read["losses"]["line"] == between.line.tolist()
    assert read["runs"] == list(between.titles)
    assert len(set(between.titles)) == 2


@pytest.mark.thorough
def test_it_is_logged_to_both_runs_on_request(store, monkeypatch):
    runs = [recorded(regression(), Y, snapshot_megabytes=1) for _ in range(2)]
    ids, model = [run.run_id for run in runs], runs[0].model
    between = mlflow_hp.barrier(*ids, model, X, Y, curve_steps=0, progress=False)
    assert not store.list_artifacts(ids[0], "barriers")
    between = mlflow_hp.barrier(*ids, model, X, Y, curve_steps=0, progress=False, log=True)
    for run_id, other in (ids, ids[::-1]):
        uri = store.get_run(run_id).info.artifact_uri
        assert mlflow.artifacts.load_dict(f"{uri}/barriers/{other}.json") == between.to_dict() | {"run_ids": ids}
    log_dict = mlflow.MlflowClient.log_dict

    def refusing(client, run_id, *arguments):
        if run_id == ids[1]:
            raise PermissionError("of a colleague")
        log_dict(client, run_id, *arguments)

    monkeypatch.setattr(mlflow.MlflowClient, "log_dict", refusing)
    with pytest.warns(mlflow_hp.RecordingWarning, match="could not be logged to run .* of a colleague"):
        assert mlflow_hp.barrier(*ids, model, X, Y, curve_steps=0, progress=False, log=True).line_barrier == 0.0


def test_what_belongs_to_no_run_or_to_one_only_is_not_logged():
    run = recorded(regression(), Y, snapshot_megabytes=1)
    with pytest.raises(UserError, match="needs the ids of two runs"):
        mlflow_hp.barrier(run.run_id, run.recorder.snapshots, run.model, X, Y, log=True)
    with pytest.raises(UserError, match="are both"):
        mlflow_hp.barrier(run.run_id, run.run_id, run.model, X, Y, log=True)


@pytest.mark.thorough
def test_what_a_run_lacks_is_said():
    without = recorded(network())
    other = recorded(network(), snapshot_megabytes=1)
    with pytest.raises(UserError, match=r"holds no weights: .*snapshot_megabytes=64.*log_models=True"):
        mlflow_hp.barrier(other.run_id, without.run_id, network(), X, LABELS)
    with pytest.raises(UserError, match=r"0123.*check the id"):
        mlflow_hp.barrier("0123", other.run_id, network(), X, LABELS)
    with pytest.raises(UserError, match="neither run has a logged model"):
        mlflow_hp.barrier(other.run_id, other.run_id, None, X, LABELS)


@pytest.mark.thorough
def test_other_layers_of_the_same_shapes_are_another_architecture():
    def model(activation):
        layers = [keras.layers.Dense(4, activation, name="hidden"), keras.layers.Dense(1, name="out")]
        built = keras.Sequential([keras.Input((3,)), *layers])
        built.compile("adam", "mse")
        return built

    one, other = (recorded(model(activation), Y, snapshot_megabytes=1) for activation in ("relu", "tanh"))
    with pytest.raises(UserError, match="layer 1: Dense relu and Dense tanh"):
        mlflow_hp.barrier(one.run_id, other.run_id, one.model, X, Y)
    with pytest.raises(UserError, match="the model differ in their layers"):
        mlflow_hp.barrier(one.run_id, one.run_id, other.model, X, Y)


@pytest.mark.thorough
def test_weights_that_are_not_trained_have_to_be_those_of_the_model():
    def model():
        keras.utils.set_random_seed(1)
        hidden = keras.layers.Dense(4, "relu", name="hidden", trainable=False)
        built = keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(1, name="out")])
        built.compile("adam", "mse")
        return built

    runs = [recorded(model(), Y, weights="all") for _ in range(2)]
    other = model()
    between = mlflow_hp.barrier(runs[0].run_id, runs[1].run_id, other, X, Y, curve_steps=0, progress=False)
    assert between.line[0] == pytest.approx(runs[0].model.evaluate(X, Y, verbose=0), rel=1e-5)
    other.get_layer("hidden").kernel.assign(np.ones((3, 4)))
    with pytest.raises(UserError, match="'hidden/kernel', which are not trained"):
        mlflow_hp.barrier(runs[0].run_id, runs[1].run_id, other, X, Y, curve_steps=0)
