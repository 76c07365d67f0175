"""Trainings without an active run: each has one of its own, with the status of its end."""

from __future__ import annotations

import signal
import threading

import keras
import mlflow
import pytest

import mlflow_hp
from mlflow_hp.errors import RecordingWarning
from tests.helpers.autologged import fit, parent_of
from tests.helpers.fits import bare, regression, same_weights

pytestmark = pytest.mark.usefixtures("store")


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("error", "status"), [(RuntimeError, "FAILED"), (KeyboardInterrupt, "KILLED")])
@pytest.mark.parametrize("way", ["autolog", "recorder"])
def test_an_error_of_the_users_ends_the_run(request, new_runs, error, status, way):
    def fail(epoch, logs):
        raise error("mine")

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=fail)]
    if way == "autolog":
        request.getfixturevalue("autolog")
        with pytest.raises(error, match="mine"):
            fit(callbacks=callbacks)
    else:
        with pytest.raises(error, match="mine"), pytest.warns(RecordingWarning, match="no MLflow run is active"):
            fit(callbacks=[mlflow_hp.TrainingRecorder(report=False), *callbacks])
    (run,) = new_runs()
    assert run.info.status == status if way == "autolog" else run.info.status in ("FAILED", "KILLED")
    assert mlflow_hp.load_history(run.info.run_id).n_steps == 5
    assert mlflow.active_run() is None


def test_a_training_in_a_callback_of_another_is_nested(autolog, new_runs):
    inner = regression()
    fit(callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: fit(inner, epochs=1))])
    outer, *below = new_runs()
    assert {parent_of(run) for run in below} == {outer.info.run_id}
    assert outer.data.tags["mlflow_hp.steps"] == "10"
    assert {run.info.status for run in new_runs()} == {"FINISHED"}


def test_after_an_interruption_signals_are_the_users_again(autolog, new_runs, recwarn):
    before = signal.getsignal(signal.SIGTERM)

    def stop(epoch, logs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=stop)])
    assert signal.getsignal(signal.SIGTERM) is before
    assert not [each for each in recwarn if issubclass(each.category, RecordingWarning)]
    (run,) = new_runs()
    assert run.info.status == "KILLED"


def test_without_a_run_and_without_autolog(new_runs):
    with pytest.warns(RecordingWarning, match=r"of its own.*mlflow.start_run.*run_id="):
        model = fit(callbacks=[mlflow_hp.TrainingRecorder(report=False)])
    assert same_weights(model, bare(regression()))
    (run,) = new_runs()
    assert run.info.status == "FINISHED"
    assert mlflow.active_run() is None


@pytest.mark.filterwarnings("ignore:mlflow_hp. no MLflow run is active:RuntimeWarning")
def test_in_another_thread_it_is_nested_in_the_run_of_the_main_thread(new_runs):
    with mlflow.start_run() as active:
        thread = threading.Thread(target=lambda: fit(callbacks=[mlflow_hp.TrainingRecorder(report=False)]))
        thread.start()
        thread.join()
    (own,) = [run for run in new_runs() if run.info.run_id != active.info.run_id]
    assert parent_of(own) == active.info.run_id
    assert own.info.status == "FINISHED"
