"""`autolog`, and trainings without an active run: each in the right run, none left open, nothing changed."""

from __future__ import annotations

import random
import signal
import subprocess
import threading

import keras
import mlflow
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score

import mlflow_hp
from mlflow_hp._notice import warn
from mlflow_hp.autologging import model_runs
from mlflow_hp.errors import RecordingWarning, UserError
from mlflow_hp.tracking.datasets import describe
from mlflow_hp.training.recovery import recordings, recover_quietly
from tests.helpers.fits import LABELS, X, Y, bare, regression, same_weights
from tests.helpers.forked_python import python
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.usefixtures("store")


@pytest.fixture
def autolog():
    """Autologging that ends with the test."""
    mlflow_hp.autolog(report=False, progress=False)
    yield mlflow_hp.autolog
    mlflow_hp.autolog(disable=True)


@pytest.fixture
def new_runs(store):
    """Gives the runs that the test has made, the first one first."""
    before = {run.info.run_id for run in everything(store)}

    def find():
        return [run for run in everything(store) if run.info.run_id not in before]

    return find


def everything(store):
    experiment = store.get_experiment_by_name("tests")
    return store.search_runs([experiment.experiment_id], order_by=["attributes.start_time"], max_results=10_000)


def fit(model=None, **named):
    model = model or regression()
    model.fit(X, Y, **({"batch_size": 8, "epochs": 2, "verbose": 0} | named))
    return model


def parent_of(run):
    return run.data.tags.get("mlflow.parentRunId")


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


def test_seeded_trainings_have_runs_of_different_names(autolog, new_runs):
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


def test_data_sets(autolog, new_runs):
    fit(validation_split=0.25)
    GridSearchCV(LogisticRegression(), {"C": [0.1]}, cv=2).fit(X, y=LABELS)
    autolog(report=False, progress=False, log_datasets=False)
    fit()
    GridSearchCV(LogisticRegression(), {"C": [0.1]}, cv=2).fit(X, LABELS)
    digests = [
        {used.dataset.digest for used in run.inputs.dataset_inputs}
        for run in new_runs()
        if run.data.tags["mlflow_hp.kind"] != "candidate"
    ]
    parts = {describe(X[:27], Y[:27]).digest, describe(X[27:], Y[27:]).digest}
    assert digests == [parts, {describe(X, LABELS).digest}, set(), set()]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_models(autolog, new_runs, monkeypatch):
    autolog(report=False, progress=False, log_models=True)
    state = random.getstate()
    model = fit()
    assert random.getstate() == state
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, LABELS)
    GridSearchCV(LogisticRegression(), {"C": [0.1]}, cv=2, refit=False).fit(X, LABELS)
    training, parent, no_refit = [run for run in new_runs() if run.data.tags["mlflow_hp.kind"] != "candidate"]
    loaded = mlflow.keras.load_model(logged_model(training))
    assert same_weights(loaded, model)
    assert (mlflow.sklearn.load_model(logged_model(parent)).coef_ == search.best_estimator_.coef_).all()
    assert not no_refit.outputs.model_outputs


class Unsaveable(keras.layers.Layer):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, inputs):
        return self.scale() * inputs


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_model_that_cannot_be_logged(autolog, new_runs):
    autolog(report=False, log_models=True)
    model = keras.Sequential([keras.Input((3,)), Unsaveable(lambda: 2.0), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.warns(RecordingWarning, match="lacks the trained model"):
        fit(model)
    (run,) = new_runs()
    assert (run.info.status, "trained model" in run.data.tags["mlflow_hp.recording_error"]) == ("FINISHED", True)


def logged_model(run):
    (output,) = run.outputs.model_outputs
    return f"models:/{output.model_id}"


class FakeReport:
    def upload(self, cadence: str = ""):
        """Do nothing."""

    def close(self):
        """Do nothing."""


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


def test_a_search_of_scikit_learn(autolog, new_runs):
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3)
    search.fit(X, LABELS)
    bare_search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3)
    autolog(disable=True)
    assert search.best_score_ == bare_search.fit(X, LABELS).best_score_
    parent, *children = new_runs()
    assert parent.data.tags["mlflow_hp.kind"] == "search"
    assert [parent_of(run) for run in children] == [parent.info.run_id] * 2
    assert {run.info.status for run in new_runs()} == {"FINISHED"}


def test_a_search_that_is_recorded_already(autolog, new_runs):
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2)
    with mlflow_hp.record_search(search, report=False, progress=False):
        cross_val_score(search, X, LABELS, cv=2)
    assert sum(run.data.tags["mlflow_hp.kind"] == "search" for run in new_runs()) == 1


class OfKeras(ClassifierMixin, BaseEstimator):
    """Fits a Keras model, in the worker where it runs."""

    def __init__(self, units=1, recorded=False):
        self.units = units
        self.recorded = recorded

    def fit(self, x, y):
        self.classes_ = np.unique(y)
        model = regression()
        callbacks = [mlflow_hp.TrainingRecorder(report=False)] if self.recorded else []
        model.fit(x, y, epochs=self.units, verbose=0, callbacks=callbacks)
        return self

    def predict(self, x):
        return np.full(len(x), self.classes_[0])


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_trainings_in_a_search_belong_to_it(autolog, new_runs, n_jobs):
    import joblib

    with joblib.parallel_config("threading"):
        GridSearchCV(OfKeras(), {"units": [1, 2]}, cv=2, n_jobs=n_jobs).fit(X, LABELS)
    assert sorted(run.data.tags["mlflow_hp.kind"] for run in new_runs()) == ["candidate", "candidate", "search"]


@pytest.mark.filterwarnings("ignore:mlflow_hp. no MLflow run is active:RuntimeWarning")
def test_a_recorder_in_a_worker_of_a_search_is_nested_in_it(new_runs):
    import joblib

    search = GridSearchCV(OfKeras(recorded=True), {"units": [1, 2]}, cv=2, n_jobs=2, refit=False)
    with (
        joblib.parallel_config("threading"),
        mlflow_hp.record_search(search, report=False, progress=False) as recording,
    ):
        search.fit(X, LABELS)
    trainings = [run for run in new_runs() if run.data.tags["mlflow_hp.kind"] == "training"]
    assert len(trainings) == 4
    assert {parent_of(run) for run in trainings} == {recording.run_id}
    assert {run.info.status for run in new_runs()} == {"FINISHED"}


def test_trials_of_optuna_have_runs_of_their_own(autolog, new_runs):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)

    def objective(trial):
        rate = trial.suggest_float("rate", 0.01, 0.1)
        return fit(regression(keras.optimizers.SGD(rate)), epochs=1).evaluate(X, Y, verbose=0)

    with mlflow.start_run() as study:
        optuna.create_study().optimize(objective, n_trials=3)
    outer, *trials = new_runs()
    assert outer.info.run_id == study.info.run_id
    assert [parent_of(run) for run in trials] == [study.info.run_id] * 3
    assert {run.info.status for run in new_runs()} == {"FINISHED"}
    optuna.create_study().optimize(objective, n_trials=1)
    assert parent_of(new_runs()[-1]) is None


@pytest.mark.parametrize("is_first", [True, False])
def test_next_to_mlflows_own_autologging(new_runs, store, is_first):
    def ours():
        mlflow_hp.autolog(report=False)

    def theirs():
        mlflow.keras.autolog(log_models=False, log_datasets=False, silent=True)

    try:
        [turn_on() for turn_on in ((ours, theirs) if is_first else (theirs, ours))]
        fit()
        with mlflow.start_run():
            regression().fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[keras.callbacks.Callback()])
    finally:
        mlflow_hp.autolog(disable=True)
        mlflow.keras.autolog(disable=True)
    assert mlflow.active_run() is None
    both = new_runs()
    assert [run.info.status for run in both] == ["FINISHED"] * 2
    for run in both:
        assert mlflow_hp.load_history(run.info.run_id).n_steps == 10
        assert [point.step for point in store.get_metric_history(run.info.run_id, "loss")] == [0, 1]
        assert "mlflow_hp.recording_error" not in run.data.tags


@pytest.mark.parametrize("again", [False, True])
def test_mlflows_autologging_is_turned_off_behind_ours(new_runs, again):
    mlflow.keras.autolog(log_models=False, silent=True)
    try:
        mlflow_hp.autolog(report=False)
        if again:
            mlflow.keras.autolog(log_models=False, log_datasets=False, silent=True)
        mlflow.keras.autolog(disable=True)
        fit()
    finally:
        mlflow_hp.autolog(disable=True)
        mlflow.keras.autolog(disable=True)
    assert [run.data.tags["mlflow_hp.steps"] for run in new_runs()] == ["10"]
    assert not hasattr(keras.Model.fit, "_mlflow_hp_layer")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_mlflows_candidates_are_told_of(autolog, new_runs, monkeypatch):
    monkeypatch.setattr("mlflow_hp._compat.private_name.issued_warnings", set())
    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        with pytest.warns(RecordingWarning, match="max_tuning_runs=0"):
            GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, LABELS)
    finally:
        mlflow.sklearn.autolog(disable=True)
    assert sum(run.data.tags.get("mlflow_hp.kind") == "candidate" for run in new_runs()) == 2


def test_a_search_whose_fit_mlflow_has_patched_before(new_runs):
    original = vars(GridSearchCV).get("fit")
    mlflow.sklearn.autolog(max_tuning_runs=0, log_models=False, log_datasets=False, silent=True)
    try:
        mlflow_hp.autolog(report=False, progress=False)
        GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2).fit(X, LABELS)
    finally:
        mlflow_hp.autolog(disable=True)
        mlflow.sklearn.autolog(disable=True)
    assert vars(GridSearchCV).get("fit") is original
    kinds = [run.data.tags.get("mlflow_hp.kind") for run in new_runs()]
    assert sorted(kinds) == ["candidate", "candidate", "search"]


def test_trainings_around_searches(autolog, new_runs):
    original = keras.Model.fit
    for _ in range(2):
        fit(epochs=1)
        GridSearchCV(OfKeras(), {"units": [1]}, cv=2, refit=False).fit(X, LABELS)
    search = GridSearchCV(OfKeras(), {"units": [1]}, cv=2, refit=False)
    with mlflow_hp.record_search(search, report=False, progress=False):
        mlflow_hp.autolog(disable=True)
        mlflow_hp.autolog(report=False, progress=False)
        search.fit(X, LABELS)
    fit(epochs=1)
    kinds = [run.data.tags["mlflow_hp.kind"] for run in new_runs()]
    assert (kinds.count("training"), kinds.count("search")) == (3, 3)
    mlflow_hp.autolog(disable=True)
    assert keras.Model.fit is not original
    assert not hasattr(keras.Model.fit, "_mlflow_hp_layer")


def test_a_run_that_cannot_be_continued_is_followed_by_a_new_one(autolog, new_runs, store):
    model = fit(epochs=1)
    (first,) = new_runs()
    store.delete_run(first.info.run_id)
    fit(model, epochs=1)
    fit(model, epochs=1)
    (second,) = [run for run in new_runs() if run.info.run_id != first.info.run_id]
    assert second.data.tags["mlflow_hp.fits"] == "2"


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
