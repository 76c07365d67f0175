"""The callback: which run, what the run holds afterwards, and what an error does."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import textwrap
import threading
import time
import warnings
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import runs
from tests.helpers.fits import LABELS, X, Y, bare, network, record, regression, same_weights
from tests.helpers.forked_python import python
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.usefixtures("store")


def metric_steps(store, run_id, name):
    return [m.step for m in store.get_metric_history(run_id, name)]


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


class Raises(keras.callbacks.Callback):
    """Ends a fit as its user's code might."""

    def __init__(self, error, epoch=1):
        super().__init__()
        self.error, self.epoch = error, epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_fit_left_by_an_exception_loses_nothing(store, error):
    model = regression()
    with pytest.raises((KeyboardInterrupt, RuntimeError)), mlflow.start_run() as run:
        model.fit(
            X,
            Y,
            batch_size=8,
            epochs=3,
            verbose=0,
            callbacks=[mlflow_hp.TrainingRecorder(report=False), Raises(error)],
        )
    gc.collect()  # pytest's traceback is gone: so is the fit's frame
    bare(model)
    assert mlflow_hp.load_history(run.info.run_id).n_steps == 5
    assert metric_steps(store, run.info.run_id, "batch/loss") == list(range(5))
    assert store.get_run(run.info.run_id).info.status == "FAILED"


@pytest.mark.parametrize("per_execution", [1, 3])
def test_an_error_in_the_step_itself_loses_nothing(per_execution):
    def batches():
        for step in range(9):
            if step == 4:
                raise KeyError("the user's generator")
            yield X[:8], Y[:8]

    import tensorflow as tf

    spec = (tf.TensorSpec((8, 3)), tf.TensorSpec((8,)))
    data = tf.data.Dataset.from_generator(batches, output_signature=spec)
    model = regression(steps_per_execution=per_execution)
    with (
        pytest.raises(tf.errors.OpError, match="the user's generator"),
        mlflow.start_run() as run,
    ):
        model.fit(data, verbose=0, shuffle=False, callbacks=[mlflow_hp.TrainingRecorder(report=False)])
    assert mlflow_hp.load_history(run.info.run_id).n_steps == 4


def test_the_next_fit_after_a_broken_one_is_not_recorded_into_its_run(store):
    run = store.create_run(mlflow.get_experiment_by_name("tests").experiment_id)  # which nobody ends
    model, recorder = regression(), mlflow_hp.TrainingRecorder(run.info.run_id, report=False)
    try:
        model.fit(X, Y, batch_size=8, epochs=3, verbose=0, callbacks=[recorder, Raises(KeyboardInterrupt)])
    except KeyboardInterrupt as kept:  # as an interactive session keeps the last traceback
        with pytest.warns(RuntimeWarning, match="another fit or train_on_batch"):
            bare(model)
        kept.add_note("and no longer")
    assert metric_steps(store, run.info.run_id, "batch/loss") == list(range(5))


def test_an_end_of_the_program_inside_a_fit_loses_nothing(tracking_uri, tmp_path):
    program = f"""
        import os, sys, threading, mlflow
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.helpers.fits import *
        class Leave(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if epoch == 2:
                    sys.exit(3)
        mlflow.set_tracking_uri({tracking_uri!r}); mlflow.set_experiment("tests")
        run = mlflow.start_run(); print(run.info.run_id, flush=True)
        recorder = mlflow_hp.TrainingRecorder(report=False)
        regression().fit(X, Y, batch_size=8, epochs=9, verbose=0, callbacks=[recorder, Leave()])
    """
    done = subprocess.run([python(), "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert mlflow_hp.load_history(done.stdout.split()[0], tracking_uri).n_steps == 10


def breaks(monkeypatch, where):
    def broken(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(where, broken)


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


LEFT_AT_EXIT = """
    import os, signal, sys
    import keras, mlflow, numpy as np
    from mlflow_hp import TrainingRecorder  # before anything has to be done at exit
    mlflow.set_tracking_uri(sys.argv[1])
    mlflow.set_experiment("tests")
    x = np.ones((64, 4), "float32")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epoch == 20 and os.kill(os.getpid(), 2))
    with mlflow.start_run() as run:
        print(run.info.run_id, flush=True)
        model.fit(x, x[:, :1], epochs=60, verbose=0, callbacks=[TrainingRecorder(report=False), stop])
"""


def test_an_interrupted_program_has_every_step_at_its_exit(store, tracking_uri, tmp_path):
    words = [python(), "-c", textwrap.dedent(LEFT_AT_EXIT), tracking_uri]
    done = subprocess.run(words, capture_output=True, text=True)
    assert "KeyboardInterrupt" in done.stderr
    run_id = done.stdout.split()[0]
    history = mlflow_hp.load_history(run_id)
    assert history.n_steps >= 42
    assert metric_steps(store, run_id, "batch/loss") == list(range(history.n_steps))
    assert "mlflow_hp.recording_error" not in store.get_run(run_id).data.tags
    assert not list((tmp_path / "on-its-way").glob("*/*"))


def test_an_exception_that_somebody_keeps_keeps_nothing_from_its_run(store):
    def fail(epoch, logs):
        if epoch == 2:
            raise ValueError("of the user's")

    recorder, kept = mlflow_hp.TrainingRecorder(report=False), None
    with mlflow.start_run() as run:
        try:
            regression().fit(X, Y, batch_size=8, epochs=9, verbose=0,
                             callbacks=[recorder, keras.callbacks.LambdaCallback(on_epoch_end=fail)])  # fmt: skip
        except ValueError as error:
            kept = error
    assert kept.__traceback__ is not None
    assert metric_steps(store, run.info.run_id, "batch/loss") == list(range(15))
    assert mlflow_hp.load_history(run.info.run_id).n_steps == 15
    assert store.get_run(run.info.run_id).data.params["optimizer"] == "RMSprop"


def test_a_run_that_is_ended_during_its_training_is_recorded_to_the_end(store):
    end = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch == 2 and mlflow.end_run())
    recorder = mlflow_hp.TrainingRecorder(report=False)
    run = mlflow.start_run()
    regression().fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=[recorder, end])
    assert metric_steps(store, run.info.run_id, "batch/loss") == list(range(20))


@pytest.mark.sampled(3)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_while_the_record_is_sent_at_the_end_of_a_run_lets_it_end(store, monkeypatch, number, times):
    upload = runs.upload

    def interrupted(*arguments, **named):
        monkeypatch.setattr(runs, "upload", upload)
        for _ in range(times):
            os.kill(os.getpid(), number)
        return upload(*arguments, **named)

    model = regression()
    stops = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / 0)
    with pytest.raises((KeyboardInterrupt, SystemExit)), mlflow.start_run() as run:
        try:
            model.fit(X, Y, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(), stops])
        except ZeroDivisionError as error:
            kept = error  # and so the fit, whose record is sent when the run ends
            monkeypatch.setattr(runs, "upload", interrupted)
            raise
    assert kept is not None
    assert store.get_run(run.info.run_id).info.status == "FAILED"


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
