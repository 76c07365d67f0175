"""Ctrl-C that comes while something must not be lost, with real signals to this process."""

from __future__ import annotations

import signal
import threading
import time

import mlflow
import pytest
from fakes import X, Y, regression

import mlflow_hp
from mlflow_hp.delivery.signals import held
from mlflow_hp.training.recovery import recover_quietly


def test_a_signal_waits_for_the_end_of_the_block(capfd):
    done = []
    with pytest.raises(KeyboardInterrupt), held("counting"):
        signal.raise_signal(signal.SIGINT)
        done.append(1)
    assert done == [1]
    assert capfd.readouterr().err == "\nmlflow_hp: counting; Ctrl-C once more gives that up\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_one_does_not_wait():
    done = []
    with pytest.raises(KeyboardInterrupt), held():
        signal.raise_signal(signal.SIGINT)
        done.append(1)
        signal.raise_signal(signal.SIGINT)
        done.append(2)
    assert done == [1]


def test_a_block_inside_another_is_part_of_it():
    done = []
    with pytest.raises(KeyboardInterrupt), held():
        with held():
            signal.raise_signal(signal.SIGINT)
            done.append(1)
        done.append(2)
    assert done == [1, 2]


def test_sigterm_waits_where_python_handles_it_and_is_left_alone_where_not():
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


def test_other_threads_are_left_alone():
    handlers = []

    def work():
        with held():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]


def interrupted_once(monkeypatch, name, times=1):
    """`times` Ctrl-C when `name` is called for the first time."""
    module, _, attribute = name.rpartition(".")
    owner = pytest.importorskip(module) if "Graph" not in module else None
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
    "name", ["mlflow_hp.training.capture.graph_reader.GraphReader._hand_on", "mlflow_hp.tracking.runs.upload"]
)
def test_ctrl_c_while_a_fit_is_brought_to_mlflow_loses_nothing(monkeypatch, store, name):
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


def test_two_of_them_give_up_and_the_record_stays_on_disk(monkeypatch, store):
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
