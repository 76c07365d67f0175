"""`autolog`: trainings are recorded, each in the right run, and nothing else is changed."""

from __future__ import annotations

import random
import threading

import keras
import mlflow
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

import mlflow_hp
from mlflow_hp._notice import warn
from mlflow_hp.errors import RecordingWarning, UserError
from tests.helpers.autologged import fit
from tests.helpers.fits import LABELS, X, Y, bare, regression, same_weights

pytestmark = pytest.mark.usefixtures("store")


def test_a_training_without_a_run_has_one_of_its_own(autolog, new_runs):
    autolog(report=False, extra_tags={"team": 7})
    model = fit()
    (run,) = new_runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["team"] == "7"
    assert run.data.tags["mlflow_hp.kind"] == "training"
    assert run.data.params["optimizer"] == "RMSprop"
    assert mlflow_hp.load_history(run.info.run_id).n_steps == 10
    assert mlflow.active_run() is None
    autolog(disable=True)
    assert same_weights(model, bare(regression()))
    assert len(new_runs()) == 1


def test_seeded_trainings_have_runs_of_different_names(autolog, new_runs, monkeypatch):
    monkeypatch.setattr("mlflow_hp.tracking.run_presentation.is_random", lambda _: False)  # MLflow's names stay
    states = []
    for _ in range(2):
        keras.utils.set_random_seed(1)
        fit()
        states.append(random.getstate())
    assert states[0] == states[1]
    first, second = new_runs()
    assert first.info.run_name != second.info.run_name


def test_in_the_active_run(autolog, new_runs):
    with mlflow.start_run() as active:
        fit()
        fit()
        assert mlflow.active_run().info.run_id == active.info.run_id
    (run,) = new_runs()
    assert [mlflow_hp.load_history(run.info.run_id, fit=number).n_steps for number in (0, 1)] == [10, 10]


def test_a_refused_call_changes_nothing(autolog, new_runs):
    autolog(report=False, extra_tags={"team": "7"})
    with pytest.raises(UserError, match="weights"):
        autolog(weights="some", extra_tags={"team": "8"}, silent=True)
    with pytest.warns(RecordingWarning, match="still shown"):
        warn("still shown")
    fit(epochs=1)
    assert [run.data.tags["team"] for run in new_runs()] == ["7"]


def test_silence(new_runs, store, monkeypatch, capfd, recwarn):
    monkeypatch.setattr("mlflow_hp.training.fit_data.describe", lambda *_: 1 / 0)
    try:
        mlflow_hp.autolog(silent=True, report=False)
        fit()
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, LABELS)
        with pytest.raises(TypeError, match="epoch"):
            regression().fit(X, Y, epoch=3)
    finally:
        mlflow_hp.autolog(disable=True)
    assert not [each for each in recwarn if issubclass(each.category, RecordingWarning)]
    assert capfd.readouterr().err == ""
    (training,) = [run for run in new_runs() if run.data.tags["mlflow_hp.kind"] == "training"]
    assert "ZeroDivisionError" in training.data.tags["mlflow_hp.recording_error"]
    with pytest.warns(RecordingWarning, match="again"):
        warn("again")


@pytest.mark.sampled(2)
@pytest.mark.parametrize("given", ["list", "one", "callback list", "by position"])
def test_callbacks_of_any_form_are_kept(autolog, new_runs, given):
    seen = []
    noting = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(epoch))
    model = regression()
    if given == "by position":
        model.fit(X, Y, 8, 2, 0, [noting])
    elif given == "callback list":
        callbacks = keras.callbacks.CallbackList([noting], add_history=True, model=model, epochs=2, verbose=0, steps=5)
        fit(model, callbacks=callbacks)
        assert callbacks.callbacks.count(noting) == 1
        assert not any(isinstance(callback, mlflow_hp.TrainingRecorder) for callback in callbacks.callbacks)
    else:
        fit(model, callbacks=[noting] if given == "list" else noting)
    (run,) = new_runs()
    assert seen == [0, 1]
    assert mlflow_hp.load_history(run.info.run_id).n_steps == 10


def test_a_recorder_of_the_users_own_is_used_instead(autolog, new_runs):
    recorder = mlflow_hp.TrainingRecorder(weights="none", report=False)
    with mlflow.start_run():
        fit(callbacks=[recorder])
    (run,) = new_runs()
    assert run.data.tags["mlflow_hp.fits"] == "1"
    assert recorder.history.recorded == "none"


def test_a_server_that_is_away(autolog):
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    with pytest.warns(RecordingWarning, match="is not recorded.*does not answer"):
        model = fit()
    with pytest.warns(RecordingWarning, match="is not recorded.*does not answer"):
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, LABELS)
    autolog(disable=True)
    with pytest.warns(RecordingWarning, match="is not recorded.*does not answer"):
        fit(callbacks=[mlflow_hp.TrainingRecorder(report=False)])
    assert same_weights(model, bare(regression()))


def test_a_call_that_keras_refuses_is_refused_by_keras(autolog, new_runs):
    with pytest.raises(TypeError, match="epoch"):
        regression().fit(X, Y, epoch=3)
    assert not new_runs()


def test_settings(new_runs):
    for wrong in (
        {"weights": "some"},
        {"record": "steps"},
        {"metrics_every": 0},
        {"silent": "yes"},
        {"disable": 1},
        {"log_models": None},
        {"per_fold_runs": 2},
        {"extra_tags": ["team"]},
    ):
        with pytest.raises(UserError, match=next(iter(wrong))):
            mlflow_hp.autolog(**wrong)
    fit()
    assert not new_runs()
    original = keras.Model.fit
    threads = [threading.Thread(target=mlflow_hp.autolog, kwargs={"report": False}) for _ in range(4)]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    fit(epochs=1)
    assert len(new_runs()) == 1
    mlflow_hp.autolog(disable=True)
    mlflow_hp.autolog(disable=True)
    assert keras.Model.fit is original
