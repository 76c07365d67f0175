"""Fits and programs that are left by an exception, a signal or the end of their run: every step is recorded."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import textwrap
from pathlib import Path

import keras
import mlflow
import pytest

import mlflow_hp
from mlflow_hp.tracking import runs
from tests.helpers.fits import X, Y, bare, metric_steps, regression
from tests.helpers.forked_python import python

pytestmark = pytest.mark.usefixtures("store")


class Raises(keras.callbacks.Callback):
    """Ends a fit as its user's code might."""

    def __init__(self, error, epoch=1):
        super().__init__()
        self.error, self.epoch = error, epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise self.error


@pytest.mark.sampled(2)
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


@pytest.mark.sampled(2)
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


@pytest.mark.thorough
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


@pytest.mark.sampled(6)
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
