"""The callback: which run, and what the run holds afterwards."""

from __future__ import annotations

import gc
import os
import threading
import warnings

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.errors import UserError
from tests.helpers.fits import LABELS, X, Y, bare, metric_steps, network, record, regression
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.usefixtures("store")


def artifacts(store, run_id, path=None):
    return sorted(a.path for a in store.list_artifacts(run_id, path))


def test_what_the_run_holds(store):
    fitted = record(regression(metrics=["mae"]), validation_data=(X, Y))
    run = store.get_run(fitted.run_id)
    assert set(run.data.metrics) == {
        "batch/loss", "batch/running_loss", "batch/running_mae", "batch/learning_rate",
        "gradients/norm", "gradients/cosine",
        "weights/out/kernel/0", "weights/out/kernel/1", "weights/out/kernel/2", "weights/out/bias",
        "loss", "mae", "val_loss", "val_mae",
        "best/epoch", "best/loss", "best/mae", "best/val_loss", "best/val_mae",
    }  # fmt: skip
    history = fitted.history
    points = store.get_metric_history(fitted.run_id, "batch/loss")
    assert [p.step for p in points] == list(range(10))
    assert [p.value for p in points] == history.steps["batch_loss"].tolist()
    assert [p.timestamp for p in points] == (history.steps["time"] * 1000).astype(int).tolist()
    kernel = [p.value for p in store.get_metric_history(fitted.run_id, "weights/out/kernel/1")]
    assert kernel == history.weights("out/kernel")[1:, 1, 0].tolist()
    shown = fitted.keras_history.history
    assert [p.value for p in store.get_metric_history(fitted.run_id, "val_loss")] == shown["val_loss"]
    assert metric_steps(store, fitted.run_id, "val_loss") == [0, 1]
    assert history.epochs["val_mae"].tolist() == shown["val_mae"]
    assert (history.epochs["seconds"] > 0).all()
    assert run.data.params.items() >= {
        "optimizer": "RMSprop", "learning_rate": "0.05", "rho": "0.9", "epochs": "2", "batch_size": "8", "loss": "mse",
    }.items()  # fmt: skip
    tags = run.data.tags
    assert tags["mlflow_hp.kind"] == "training"
    assert tags["mlflow_hp.reader"] == "graph"
    assert "keras " in tags["mlflow_hp.versions"]
    assert tags["mlflow_hp.command"]
    assert artifacts(store, fitted.run_id, "training") == [
        "training/epochs.csv", "training/history.arrows", "training/program.json",
    ]  # fmt: skip
    assert run.info.status == "FINISHED"


def test_statistics_are_metrics_where_weights_are_many(store):
    run = store.get_run(record(network(), y=LABELS, recorder=mlflow_hp.TrainingRecorder(metrics="all")).run_id)
    names = {n for n in run.data.metrics if n.startswith("weights/hidden")}
    kinds = ("norm", "mean", "std", "update_ratio")
    assert names == {f"weights/hidden/{v}/{k}" for v in ("kernel", "bias") for k in kinds}
    everything = record(network(), y=LABELS, recorder=mlflow_hp.TrainingRecorder(weights="all", metrics="all"))
    same = store.get_run(everything.run_id).data.metrics
    for name in names:
        assert same[name] == pytest.approx(run.data.metrics[name], rel=1e-4, abs=1e-7)


def test_summary_of_the_layers_is_that_of_the_history(store):
    fitted = record(network(), y=LABELS)
    names = {name for name in store.get_run(fitted.run_id).data.metrics if name.startswith("weights/")}
    assert names == {f"weights/update_ratio/{which}" for which in ("min", "median", "max")}
    kernels = [tensor.name for tensor in fitted.history.tensors if tensor.trainable]
    ratios = np.array([fitted.history.statistics(name)["update_ratio"][1:] for name in kernels])
    expected = np.ma.masked_invalid(ratios).max(axis=0)  # biases start at zero
    largest = store.get_metric_history(fitted.run_id, "weights/update_ratio/max")
    assert [point.value for point in largest] == pytest.approx(expected.tolist())
    assert store.get_run(fitted.run_id).data.tags["mlflow_hp.metric_steps"] == "every step"


def test_long_training_is_thinned_and_says_so(store):
    recorder = mlflow_hp.TrainingRecorder(max_points=40)
    fitted = record(regression(), recorder=recorder, epochs=6)
    steps = metric_steps(store, fitted.run_id, "batch/loss")
    loss = fitted.history.steps["batch_loss"]
    assert {0, 29, int(loss.argmax())} <= set(steps) < set(range(30))
    assert [p.value for p in store.get_metric_history(fitted.run_id, "batch/loss")] == loss[steps].tolist()
    tags = store.get_run(fitted.run_id).data.tags
    cadence = "every step of the first 1, then the lowest and highest of "
    assert tags["mlflow_hp.metric_steps"].startswith(cadence)
    assert f"MLflow has metrics of {cadence}" in tags["mlflow.note.content"]
    assert fitted.history.n_steps == 30


def test_an_update_ratio_without_meaning_is_no_metric(store):
    fitted = record(
        network(), y=LABELS, recorder=mlflow_hp.TrainingRecorder(metrics="all")
    )  # biases start at zero, so the first ratio divides by zero
    assert metric_steps(store, fitted.run_id, "weights/hidden/bias/update_ratio") == list(range(1, 10))
    assert np.isinf(fitted.history.statistics("hidden/bias")["update_ratio"][1])


def test_metrics_every_thins_the_metrics_not_the_artifact(store):
    fitted = record(regression(), recorder=mlflow_hp.TrainingRecorder(metrics_every=4, report=False))
    assert metric_steps(store, fitted.run_id, "batch/loss") == [0, 4, 8]
    assert fitted.history.n_steps == 10


@pytest.mark.parametrize(
    "arguments",
    [
        {"weights": "some"}, {"metrics_every": 0}, {"metrics_every": 1.5}, {"metrics": "some"}, {"max_points": 0},
        {"max_points": 1e4},
    ],
)  # fmt: skip
def test_bad_arguments(arguments):
    with pytest.raises(UserError, match=next(iter(arguments))):
        mlflow_hp.TrainingRecorder(**arguments)


def test_a_run_that_is_not_there():
    with pytest.raises(UserError, match="'nowhere' is not in the tracking store"):
        regression().fit(X, Y, verbose=0, callbacks=[mlflow_hp.TrainingRecorder("nowhere")])


def test_a_run_given_by_id_is_used_and_left_open(store):
    run = store.create_run(mlflow.get_experiment_by_name("tests").experiment_id)
    with mlflow.start_run() as active:
        regression().fit(X, Y, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(run.info.run_id, report=False)])
    assert "batch/loss" in store.get_run(run.info.run_id).data.metrics
    assert "batch/loss" not in store.get_run(active.info.run_id).data.metrics
    assert store.get_run(run.info.run_id).info.status == "RUNNING"


def test_params_that_the_run_has_stay_as_they_were_spelled(store):
    with mlflow.start_run() as run:
        mlflow.log_param("learning_rate", "5e-2")
        regression().fit(X, Y, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(report=False)])
    assert store.get_run(run.info.run_id).data.params["learning_rate"] == "5e-2"


def test_several_fits_in_one_run_count_on(store):
    model, recorder = regression(), mlflow_hp.TrainingRecorder(report=False)
    with mlflow.start_run() as run:
        for _ in range(2):
            model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[recorder])
        model.fit(
            X,
            Y,
            batch_size=8,
            epochs=6,
            initial_epoch=4,
            verbose=0,
            callbacks=[mlflow_hp.TrainingRecorder(report=False)],
        )
    run_id = run.info.run_id
    assert metric_steps(store, run_id, "batch/loss") == list(range(30))
    assert metric_steps(store, run_id, "loss") == list(range(6))
    parts = [mlflow_hp.load_history(run_id, fit=fit) for fit in range(3)]
    assert [p.steps["step"][0] for p in parts] == [0, 10, 20]
    assert [p.epochs["epoch"].tolist() for p in parts] == [[0, 1], [2, 3], [4, 5]]
    np.testing.assert_array_equal(parts[0].weights("out/kernel")[-1], parts[1].weights("out/kernel")[0])
    with pytest.raises(UserError, match="no training history at 'training/fit_3'"):
        mlflow_hp.load_history(run_id, fit=3)


def test_layer_names_that_mlflow_refuses(store):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(1, name="a>b"), keras.layers.Dense(1, name="a_b")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("sgd", "mse")
    fitted = record(model)
    names = {n for n in store.get_run(fitted.run_id).data.metrics if n.startswith("weights/")}
    assert names >= {"weights/a_b/bias", "weights/a_b/bias_2"}
    assert fitted.history.tensors[0].name == "a>b/kernel"


def test_the_model_is_left_as_it_was():
    model = regression()
    before = bare(model).train_function
    record(model)
    assert model.train_function is before
    assert "make_train_function" not in vars(model)
    assert "update_state" not in vars(model._loss_tracker)


def test_nothing_is_left_behind(tmp_path, store):
    before = threading.enumerate()
    gc.freeze()  # what other tests have left is not looked through: that takes many seconds
    record(regression())
    gc.collect()
    gc.unfreeze()
    assert not list((tmp_path / "on-its-way").rglob("history*"))
    assert not [t for t in threading.enumerate() if t.name.startswith("mlflow_hp") and t not in before]


def test_a_fit_of_no_epochs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fitted = record(regression(), epochs=0)
    assert fitted.recorder.history is None


def test_every_end_of_an_epoch_is_soon_on_the_disk_itself(monkeypatch, store):
    synced, on_disk = [], os.fsync
    monkeypatch.setattr("mlflow_hp.delivery.spool.os.fsync", lambda file: synced.append(on_disk(file)))

    def wait(epoch, logs=None):  # with the journal alone, or with the history, whose first steps may still be to come
        wait_for(lambda: len(synced) >= epoch)

    record(regression(), epochs=4, callbacks=[keras.callbacks.LambdaCallback(on_epoch_begin=wait)])
    assert len(synced) >= 4


def test_a_recorder_that_two_threads_share_records_the_first_fit(store, caplog):
    recorder = mlflow_hp.TrainingRecorder(report=False)
    began, ended = threading.Event(), threading.Event()
    waits = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: (began.set(), ended.wait()))
    models = [regression(), regression()]
    thread = threading.Thread(
        target=lambda: models[0].fit(X, Y, epochs=2, verbose=0, callbacks=[recorder, waits]), name="first"
    )
    with mlflow.start_run() as run:
        recorder.run_id = run.info.run_id
        thread.start()
        began.wait()
        with pytest.warns(RuntimeWarning, match="a fit is not recorded, as its recorder records one in another thread"):
            models[1].fit(X, Y, epochs=3, verbose=0, callbacks=[recorder])
        ended.set()
        thread.join()
    assert recorder.history.n_epochs == 2
    assert len(metric_steps(store, run.info.run_id, "batch/loss")) == recorder.history.n_steps
