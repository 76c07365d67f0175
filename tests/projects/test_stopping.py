"""How an experiment is stopped."""

from __future__ import annotations

import signal
import sys
import threading

import mlflow
import pytest

from projects import stopping


def test_both_signals_interrupt_and_the_handlers_are_put_back():
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with stopping.listening():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(stopping.Stopped):
            signal.raise_signal(signal.SIGTERM)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


class Interrupted:
    """Whose destruction is when Ctrl-C comes."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_that_python_drops_is_sent_again():
    before = sys.unraisablehook
    found = [Interrupted()]
    with stopping.listening(), pytest.raises(KeyboardInterrupt):
        found.clear()
        threading.Event().wait()
    assert sys.unraisablehook is before


def test_a_signal_that_comes_while_another_one_is_sent_again_loses_neither(monkeypatch):
    class Timer(threading.Timer):
        def start(self):
            signal.raise_signal(signal.SIGTERM)
            super().start()

    monkeypatch.setattr(threading, "Timer", Timer)
    found = [Interrupted()]
    with stopping.listening(), pytest.raises(KeyboardInterrupt):
        found.clear()
        threading.Event().wait()


@pytest.mark.parametrize("status", ["FAILED", "FINISHED"])
def test_a_run_that_gets_another_status_after_its_end_is_killed_again(store, status):
    run_id = store.create_run(store.get_experiment_by_name("tests").experiment_id).info.run_id
    store.set_terminated(run_id, "KILLED")
    assert not stopping.watch(run_id, seconds=0.2, pause=0.05)
    assert store.get_run(run_id).info.status == "KILLED"
    store.set_terminated(run_id, status)
    assert stopping.watch(run_id, seconds=3600)
    assert mlflow.get_run(run_id).info.status == "KILLED"


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_run_that_is_to_be_deleted_is(store, status):
    run_id = store.create_run(store.get_experiment_by_name("tests").experiment_id).info.run_id
    store.set_terminated(run_id, status)
    assert stopping.watch(run_id, "delete", seconds=0.1, pause=0.05) == (status == "FAILED")
    assert store.get_run(run_id).info.lifecycle_stage == "deleted"
