"""Ctrl-C and SIGTERM while data is written, with real signals to this process."""

from __future__ import annotations

import gc
import importlib
import signal
import threading
import time

import mlflow
import pytest

import mlflow_hp
from mlflow_hp.delivery.signals import held
from mlflow_hp.training.recovery import recover_quietly
from tests.helpers.fits import X, Y, regression


@pytest.fixture(autouse=True)
def no_garbage_is_collected():
    """An exception that a signal raises in a callback of the garbage collection (Hypothesis has one) is lost."""
    gc.disable()
    yield
    gc.enable()


def test_signal_is_deferred_to_the_end_of_the_block(capfd):
    done = []
    with pytest.raises(KeyboardInterrupt), held("counting"):
        signal.raise_signal(signal.SIGINT)
        done.append(1)
    assert done == [1]
    assert capfd.readouterr().err == "\nmlflow_hp: counting; press Ctrl-C again to abort that\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_second_ctrl_c_takes_effect_at_once():
    done = []
    with pytest.raises(KeyboardInterrupt), held():
        signal.raise_signal(signal.SIGINT)
        done.append(1)
        signal.raise_signal(signal.SIGINT)
        done.append(2)
    assert done == [1]


def test_nested_blocks():
    done = []
    with pytest.raises(KeyboardInterrupt), held():
        with held():
            signal.raise_signal(signal.SIGINT)
            done.append(1)
        done.append(2)
    assert done == [1, 2]


def test_sigterm_is_deferred_only_if_python_handles_it():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
    try:
        with held():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            assert not seen
        assert seen == [signal.SIGTERM] * 2
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with held():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_no_effect_in_other_threads():
    handlers = []

    def work():
        with held():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def interrupted_once(monkeypatch, name, times=1):
    """Raise `times` Ctrl-C when `name` is called for the first time."""
    module, _, attribute = name.rpartition(".")
    owner = importlib.import_module(module) if "Graph" not in module else None
    if owner is None:
        from mlflow_hp.training.capture.graph_reader import GraphReader as owner  # noqa: N813
    real, left = getattr(owner, attribute), [times]

    def interrupt(*arguments, **named):
        while left[0]:
            left[0] -= 1
            signal.raise_signal(signal.SIGINT)
            time.sleep(1)  # the main thread, which takes it, may be waiting for this one
        return real(*arguments, **named)

    monkeypatch.setattr(owner, attribute, interrupt)


@pytest.mark.parametrize(
    "name", ["mlflow_hp.training.capture.graph_reader.GraphReader._pass_on", "mlflow_hp.tracking.runs.upload"]
)
def test_ctrl_c_while_sending_loses_nothing(monkeypatch, store, name):
    interrupted_once(monkeypatch, name)
    monkeypatch.setattr(
        "mlflow_hp.training.capture.graph_reader.FETCH_SECONDS", 60
    )  # nothing is fetched before the end
    recorder = mlflow_hp.TrainingRecorder()
    with mlflow.start_run() as run, pytest.raises(KeyboardInterrupt):
        regression().fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[recorder])
    assert mlflow_hp.load_history(run.info.run_id).n_steps == 10
    assert [p.step for p in store.get_metric_history(run.info.run_id, "batch/loss")] == list(range(10))
    assert store.list_artifacts(run.info.run_id, "plots")


def test_second_ctrl_c_while_sending_leaves_the_data_on_disk(monkeypatch, store):
    interrupted_once(monkeypatch, "mlflow_hp.tracking.runs.upload", times=2)
    recorder = mlflow_hp.TrainingRecorder()
    with (
        mlflow.start_run(),
        pytest.warns(RuntimeWarning, match="interrupted before MLflow had everything") as told,
        pytest.raises(KeyboardInterrupt),
    ):
        regression().fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[recorder])
    folder = str(told[0].message).rpartition(" brings it there from ")[2]
    assert mlflow_hp.TrainingHistory.open(f"{folder}/history").n_steps == 10
    found = []
    recover_quietly(pytest.fail, found.append)
    assert [(one.n_steps, one.n_points) for one in found] == [(10, 0)]
