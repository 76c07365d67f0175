"""A store that accepts everything slowly: the fit ends, and the rest is sent in a thread."""

from __future__ import annotations

import subprocess
import textwrap
import threading
import time
import warnings
from pathlib import Path

import mlflow
import pytest

import mlflow_hp
from mlflow_hp.delivery import batches, patience, time_share
from mlflow_hp.training import recovery
from tests.helpers.fits import record, regression, wait_for_the_rest
from tests.helpers.forked_python import python

LOG_BATCH = mlflow.MlflowClient.log_batch

pytestmark = pytest.mark.usefixtures("impatient")


def slow(monkeypatch):
    """Have the store take 0.1 s for each call."""

    def log_batch(self, *arguments, **named):
        time.sleep(0.1)
        return LOG_BATCH(self, *arguments, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)


def rest():
    return [thread for thread in threading.enumerate() if thread.name == "mlflow_hp-rest"]


def test_slow_store_does_not_delay_the_program(store, monkeypatch, caplog):
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(time_share, "FIRST_SECONDS", 60.0)
    monkeypatch.setattr(batches, "ITEMS_PER_CALL", 10)
    slow(monkeypatch)
    run_ids, histories = [], []
    for _ in range(2):
        fitted = record(regression(), epochs=4, wait=False)
        assert "is still being sent to MLflow" in caplog.text
        caplog.clear()
        run_ids.append(fitted.run_id)
        histories.append(fitted.recorder.history)
    assert rest()
    assert list(recovery.left_behind()) == []  # it is held
    wait_for_the_rest()
    for run_id, history in zip(run_ids, histories, strict=True):
        assert [p.step for p in store.get_metric_history(run_id, "batch/loss")] == list(range(20))
        assert history.steps["batch_loss"].shape == (20,)
        assert mlflow_hp.load_history(run_id).n_steps == 20
        assert store.get_run(run_id).data.tags["mlflow_hp.steps"] == "20"
    assert list(recovery.left_behind()) == []


def test_store_that_hangs_after_the_fit_is_left_to_recovery(store, monkeypatch):
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(time_share, "FIRST_SECONDS", 60.0)
    monkeypatch.setattr(batches, "ITEMS_PER_CALL", 10)
    calls, goes_on = [], threading.Event()

    def log_batch(self, *arguments, **named):
        calls.append(1)
        time.sleep(0.1)
        if len(calls) > 15:
            goes_on.wait()
        return LOG_BATCH(self, *arguments, **named)

    with monkeypatch.context() as patched, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        patched.setattr(mlflow.MlflowClient, "log_batch", log_batch)
        fitted = record(regression(), epochs=4)
        goes_on.set()
    assert any("mlflow-hp recover" in str(one.message) for one in told)
    (left,) = recovery.left_behind()
    recovery.recover(left)
    assert sorted({p.step for p in store.get_metric_history(fitted.run_id, "batch/loss")}) == list(range(20))


@pytest.mark.thorough
def test_program_waits_for_the_rest(store, tracking_uri, tmp_path):
    program = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        import mlflow
        from tests.helpers.fits import record, regression
        from mlflow_hp.delivery import batches, patience, time_share
        mlflow.set_tracking_uri(sys.argv[1])
        mlflow.set_experiment("tests")
        patience.PATIENCE_SECONDS, time_share.FIRST_SECONDS, batches.ITEMS_PER_CALL = 1.0, 60.0, 10
        log_batch = mlflow.MlflowClient.log_batch
        def slow(self, *arguments, **named):
            time.sleep(0.1)
            return log_batch(self, *arguments, **named)
        mlflow.MlflowClient.log_batch = slow
        print(record(regression(), epochs=4).run_id)
    """
    words = [python(), "-c", textwrap.dedent(program), tracking_uri]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "which waits for it before it ends" in done.stderr
    run_id = done.stdout.split()[-1]
    assert [p.step for p in store.get_metric_history(run_id, "batch/loss")] == list(range(20))
    assert mlflow_hp.load_history(run_id).n_steps == 20
    assert list(recovery.left_behind()) == []
