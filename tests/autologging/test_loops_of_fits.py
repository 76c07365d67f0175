"""Loops of fits of one model: one run, which the last fit, a while, an error or the program's end closes."""

from __future__ import annotations

import subprocess

import keras
import mlflow
import pytest

from mlflow_hp.autologging import model_runs
from mlflow_hp.training.recovery import recordings, recover_quietly
from tests.helpers.autologged import fit
from tests.helpers.fits import regression
from tests.helpers.forked_python import python
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.usefixtures("store")


def test_a_loop_of_fits_of_one_model_makes_one_run(autolog, new_runs):
    model = regression()
    for _ in range(4):
        fit(model, epochs=1)
        assert mlflow.active_run() is None
    fit(epochs=1)
    first, second = new_runs()
    assert {first.info.status, second.info.status} == {"FINISHED"}
    assert first.data.tags["mlflow_hp.steps"] == "20"
    assert second.data.tags["mlflow_hp.steps"] == "5"


def test_a_loop_of_short_fits_keeps_its_run_open(autolog, new_runs, monkeypatch):
    monkeypatch.setattr(model_runs, "SHORT_SECONDS", 1000)
    monkeypatch.setattr("mlflow_hp.training.fit_end.SHORT_SECONDS", 1000)
    autolog()
    reports = []
    monkeypatch.setattr("mlflow_hp.training.report.TrainingReport", lambda *_: reports.append(1) or FakeReport())
    model = regression()
    fit(model, epochs=1)
    assert [run.info.status for run in new_runs()] == ["FINISHED"]
    starts = []
    monkeypatch.setattr(
        mlflow, "start_run", lambda *a, _start=mlflow.start_run, **k: starts.append(1) or _start(*a, **k)
    )
    for _ in range(3):
        fit(model, epochs=1)
    assert [run.info.status for run in new_runs()] == ["RUNNING"]
    assert (len(starts), len(reports)) == (1, 1)
    autolog(disable=True)
    (run,) = new_runs()
    assert (run.info.status, run.data.tags["mlflow_hp.steps"], len(reports)) == ("FINISHED", "20", 2)
    assert not [each for each in recordings() if each.run_id == run.info.run_id and not each.is_done]


def test_an_open_run_is_ended_by_time(autolog, new_runs, monkeypatch):
    monkeypatch.setattr(model_runs, "OPEN_SECONDS", 0.05)
    monkeypatch.setattr(model_runs, "SHORT_SECONDS", 1000)
    model = regression()
    fit(model, epochs=1)
    fit(model, epochs=1)
    wait_for(lambda: [run.info.status for run in new_runs()] == ["FINISHED"])
    fit(model, epochs=1)
    wait_for(lambda: [run.info.status for run in new_runs()] == ["FINISHED"])
    assert new_runs()[0].data.tags["mlflow_hp.fits"] == "3"


def test_an_open_run_is_of_its_experiment(autolog, new_runs, store, monkeypatch):
    monkeypatch.setattr(model_runs, "SHORT_SECONDS", 1000)
    model = regression()
    fit(model, epochs=1)
    fit(model, epochs=1)
    other = mlflow.set_experiment("another one").experiment_id
    try:
        fit(model, epochs=1)
    finally:
        mlflow.set_experiment("tests")
    assert [(run.info.status, run.data.tags["mlflow_hp.fits"]) for run in new_runs()] == [("FINISHED", "2")]
    (elsewhere,) = store.search_runs([other])
    assert elsewhere.data.tags["mlflow_hp.fits"] == "1"


def test_an_error_in_a_loop_ends_its_run(autolog, new_runs, monkeypatch):
    monkeypatch.setattr(model_runs, "SHORT_SECONDS", 1000)
    model = regression()
    fit(model, epochs=1)
    fit(model, epochs=1)
    with pytest.raises(ZeroDivisionError):
        fit(model, callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / 0)])
    assert [run.info.status for run in new_runs()] == ["FAILED"]


LOOP = """
import os, sys
import keras, mlflow, mlflow_hp
from mlflow_hp.autologging import model_runs
from tests.helpers.fits import X, Y, regression

model_runs.SHORT_SECONDS = 1000
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("tests")
mlflow_hp.autolog(report=False)
model = regression()
for _ in range(3):
    model.fit(X, Y, batch_size=8, verbose=0)
print("loop has ended", flush=True)
if sys.argv[2] == "exit":
    raise SystemExit(3)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
raise RuntimeError("mine")
"""


@pytest.mark.sampled(3)
@pytest.mark.parametrize("way", ["exit", "error", "kill"])
def test_an_open_run_ends_with_the_program(new_runs, tracking_uri, way):
    done = subprocess.run([python(), "-c", LOOP, tracking_uri, way], capture_output=True, text=True)
    assert "loop has ended" in done.stdout, done.stderr
    (run,) = new_runs()
    if way == "kill":
        assert run.info.status == "RUNNING"
        recover_quietly(pytest.fail, lambda _: None)
        (run,) = new_runs()
    assert (run.info.status, run.data.tags["mlflow_hp.steps"]) == ("FINISHED", "15")


class FakeReport:
    def upload(self, cadence: str = ""):
        """Do nothing."""

    def close(self):
        """Do nothing."""


def test_a_run_that_cannot_be_continued_is_followed_by_a_new_one(autolog, new_runs, store):
    model = fit(epochs=1)
    (first,) = new_runs()
    store.delete_run(first.info.run_id)
    fit(model, epochs=1)
    fit(model, epochs=1)
    (second,) = [run for run in new_runs() if run.info.run_id != first.info.run_id]
    assert second.data.tags["mlflow_hp.fits"] == "2"
