"""Signals whose errors TensorFlow's or Python's own code would drop: they end the training all the same."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import mlflow
import pytest
import tensorflow as tf

import mlflow_hp
from mlflow_hp.delivery import held, raise_on_signals, signals
from tests.helpers.fits import X, Y, regression
from tests.helpers.waiting import wait_for

SIGNALS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: lambda: SystemExit(143)}


class Destroyed:
    """Sends a signal when it is destroyed, whose error Python drops."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)


def in_tensorflow(function):
    """The same function, as if it were TensorFlow's."""
    return types.FunctionType(
        function.__code__, {**function.__globals__, "__name__": "tensorflow.python.framework.ops"}
    )


def send(number):
    signal.raise_signal(number)
    return "sent"


def wait():
    threading.Event().wait()


def no_signal_is_sent_again():
    return not any(isinstance(thread, threading.Timer) for thread in threading.enumerate())


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_an_error_waits_until_tensorflows_code_has_ended(number, error):
    went_on = None
    with raise_on_signals(SIGNALS), pytest.raises(error):
        went_on = in_tensorflow(send)(number)
        wait()
    assert went_on == "sent"


def test_code_of_tensorflow_that_does_not_end_is_interrupted(monkeypatch):
    monkeypatch.setattr(signals, "RETRY_SECONDS", 0.001)
    with raise_on_signals(SIGNALS), pytest.raises(KeyboardInterrupt):
        in_tensorflow(send)(signal.SIGINT)
        in_tensorflow(wait)()


def test_the_error_comes_at_once_elsewhere_and_the_handlers_are_put_back():
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers], sys.unraisablehook
    with raise_on_signals(SIGNALS):
        for number, error in ((signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)):
            with pytest.raises(error):
                send(number)
    assert ([signal.getsignal(number) for number in numbers], sys.unraisablehook) == before


def test_an_error_that_waits_comes_at_the_end_of_the_block_at_the_latest():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left, raise_on_signals(SIGNALS):
        in_tensorflow(send)(signal.SIGTERM)
    assert left.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    with raise_on_signals(SIGNALS):
        signals.raise_waiting()


def test_an_error_that_waits_comes_after_what_holds_signals():
    done = []
    with raise_on_signals(SIGNALS), pytest.raises(KeyboardInterrupt):
        in_tensorflow(send)(signal.SIGINT)
        with held():
            wait_for(no_signal_is_sent_again)
            done.append(1)
        done.append(2)
    assert done == [1]


def test_a_block_that_ends_in_another_thread():
    """As a fit does whose run another thread ends."""
    before = [signal.getsignal(number) for number in SIGNALS]
    block = contextlib.ExitStack()
    block.enter_context(raise_on_signals(SIGNALS))
    try:
        with ThreadPoolExecutor() as pool:
            pool.submit(block.close).result()
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    finally:
        for number, handler in zip(SIGNALS, before, strict=True):
            signal.signal(number, handler)


def test_two_signals_together_raise_one_error():
    with raise_on_signals(SIGNALS):
        with pytest.raises(KeyboardInterrupt):
            in_tensorflow(lambda: [signal.raise_signal(n) for n in SIGNALS])()
            wait()
        wait_for(no_signal_is_sent_again)


def test_other_errors_that_python_drops_are_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr("sys.unraisablehook", told.append)

    class Failing:
        def __del__(self):
            raise OSError("away")

    with raise_on_signals(SIGNALS):
        found = [Failing()]
        found.clear()
    assert [str(each.exc_value) for each in told] == ["away"]


@pytest.mark.parametrize("number", SIGNALS)
def test_an_error_that_python_drops_is_raised_again(number):
    found = [Destroyed(number)]
    with raise_on_signals(SIGNALS), pytest.raises((KeyboardInterrupt, SystemExit)):
        found.clear()
        wait()


class Lost(keras.callbacks.Callback):
    """Sends a signal at a step, and loses its error as TensorFlow's code in C does."""

    def __init__(self, at):
        super().__init__()
        self.at, self.seen = at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.at:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                wait()
            except SystemExit:
                pass


@pytest.mark.sampled(3)
@pytest.mark.parametrize("at", [1, 4, 5])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_lost_error_ends_the_training_at_the_next_step(store, at, jit_compile):
    model = regression()
    model.compile(optimizer="sgd", loss="mse", jit_compile=jit_compile)
    with mlflow.start_run() as run, pytest.raises(SystemExit):
        model.fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(), Lost(at)])
    assert mlflow_hp.load_history(run.info.run_id).n_steps == at
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of a file that an error at some moment leaves open
        gc.collect()


@pytest.mark.thorough
def test_an_error_that_ended_one_fit_does_not_end_the_next(store):
    class Sent(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            signal.raise_signal(signal.SIGTERM)

    model = regression()
    with raise_on_signals(SIGNALS):
        with mlflow.start_run(), pytest.raises(SystemExit):
            model.fit(X, Y, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(), Sent()])
        with mlflow.start_run():
            recorder = mlflow_hp.TrainingRecorder()
            model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[recorder])
    assert recorder.history.n_steps == 10


def test_signals_at_any_moment_end_a_fit_of_a_data_set(store):
    """A real one, whose iterators are TensorFlow's."""
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    for delay in (0.2, 0.5, 0.9):
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGTERM))
        begin = keras.callbacks.LambdaCallback(on_train_begin=lambda logs, timer=timer: timer.start())
        with mlflow.start_run(), pytest.raises(SystemExit):
            regression().fit(
                data, shuffle=False, epochs=100_000, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(), begin]
            )


def test_a_lost_error_ends_a_loop_of_the_users_own_at_the_next_step(store):
    model, n_done = regression(), 0
    with mlflow.start_run() as run, pytest.raises(SystemExit), mlflow_hp.record_steps(model) as steps:
        for number in range(20):
            steps.record(loss=model.train_on_batch(X, Y))
            n_done += 1
            if number == 2:
                with contextlib.suppress(SystemExit):  # as code in C does
                    send(signal.SIGTERM)
    assert n_done == 3
    assert mlflow_hp.load_history(run.info.run_id).n_steps == 4
