"""Searches over Keras models: every fold's curves by epoch, live, in this process and from others."""

from __future__ import annotations

import threading
import warnings

import joblib
import keras
import numpy as np
import pytest
from scikeras.wrappers import KerasClassifier
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlflow_hp
from mlflow_hp.delivery import search_sender
from mlflow_hp.search.live.keras_epochs import record_epochs
from tests.helpers.fits import LABELS, X, Y
from tests.helpers.searches import LOKY, children, found, nothing_runs, points, record
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("store"), pytest.mark.filterwarnings(LOKY)]


def build(units=4):
    return keras.Sequential([
        keras.Input((3,)),
        keras.layers.Dense(units, "relu"),
        keras.layers.Dense(1, "sigmoid"),
    ])  # fmt: skip


def classifier(**settings):
    fixed = {"loss": "binary_crossentropy", "optimizer": "sgd", "metrics": ["accuracy"], "epochs": 3, "verbose": 0}
    return KerasClassifier(build, **{**fixed, "random_state": 0, "units": 4, **settings})


def values(store, run, name):
    return list(points(store, run, name).values())


def test_every_fold_has_its_curves(store):
    estimator = classifier(fit__validation_split=0.25)
    run_id = record(GridSearchCV(estimator, {"optimizer__learning_rate": [0.05, 0.2]}, cv=2, refit=False), X, LABELS)
    for run, rate in zip(children(store, run_id), (0.05, 0.2), strict=True):
        assert run.info.run_name == f"learning_rate={rate}"
        for fold in (0, 1):
            for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
                assert points(store, run, f"fold_{fold}/{name}").keys() == {0, 1, 2}
            assert values(store, run, f"fold_{fold}/learning_rate") == pytest.approx([rate] * 3)
        losses = [values(store, run, f"fold_{fold}/loss") for fold in (0, 1)]
        assert losses[0] != losses[1]
    assert not store.get_run(run_id).data.tags.get("mlflow_hp.recording_error")


class Own(RegressorMixin, BaseEstimator):
    """A wrapper of the user's own, that keeps what Keras told it."""

    told: list = []  # noqa: RUF012

    def __init__(self, rate=0.1, fits=1):
        self.rate = rate
        self.fits = fits

    def fit(self, x, y):
        keras.utils.set_random_seed(3)
        self.model_ = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        self.model_.compile(keras.optimizers.SGD(self.rate), "mse")
        step = keras.callbacks.LearningRateScheduler(lambda epoch: self.rate / (1 + epoch))
        for _ in range(self.fits):
            history = self.model_.fit(x, y, epochs=2, verbose=0, callbacks=step)
            self.told.append(history.history)
        return self

    def predict(self, x):
        return self.model_.predict(x, verbose=0)[:, 0]


@pytest.mark.thorough
def test_any_wrapper_and_pipeline_with_a_schedule(store):
    Own.told.clear()
    pipeline = make_pipeline(StandardScaler(), Own())
    runs = children(store, record(GridSearchCV(pipeline, {"own__rate": [0.1, 0.2]}, cv=2, refit=False), X, Y))
    for i, run in enumerate(runs):
        for fold in (0, 1):
            told = Own.told[2 * i + fold]
            assert values(store, run, f"fold_{fold}/loss") == told["loss"]
            assert values(store, run, f"fold_{fold}/learning_rate") == told["learning_rate"]
    assert runs[1].info.run_name == "rate=0.2"


def test_a_second_fit_within_a_fold_is_told_apart(store):
    Own.told.clear()
    (run,) = children(store, record(GridSearchCV(Own(fits=2), {"rate": [0.1]}, cv=2, refit=False), X, Y))
    for fold in (0, 1):
        assert values(store, run, f"fold_{fold}/loss") == Own.told[2 * fold]["loss"]
        assert values(store, run, f"fold_{fold}/fit_1/loss") == Own.told[2 * fold + 1]["loss"]


def test_folds_with_runs_of_their_own_have_the_curves(store):
    search = GridSearchCV(Own(), {"rate": [0.1]}, cv=2, refit=False)
    (run,) = children(store, record(search, X, Y, per_fold_runs=True))
    for fold, one in enumerate(children(store, run.info.run_id)):
        assert values(store, one, "loss") == values(store, run, f"fold_{fold}/loss")
        assert one.data.metrics["score"] == points(store, run, "score")[fold]


def every_step(store, n_jobs):
    search = GridSearchCV(Own(), {"rate": [0.1, 0.2]}, cv=2, refit=False, n_jobs=n_jobs)
    run_id = record(search, X, Y, record="batches")
    assert "mlflow_hp.recording_error" not in store.get_run(run_id).data.tags
    for run in children(store, run_id):
        folds = children(store, run.info.run_id)
        assert len(folds) == 2
        for fold, one in enumerate(folds):
            assert one.info.status == "FINISHED"
            history = mlflow_hp.load_history(one.info.run_id)
            assert history.n_steps == 2
            assert history.epochs["loss"].tolist() == values(store, run, f"fold_{fold}/loss")
            assert values(store, one, "batch/loss") == history.steps["batch_loss"].tolist()
            assert one.data.tags["mlflow_hp.kind"] == "fold"
    return search


def test_every_step_of_every_fold(store):
    search = every_step(store, 1)
    assert found(search) == found(GridSearchCV(Own(), {"rate": [0.1, 0.2]}, cv=2, refit=False).fit(X, Y))


@pytest.mark.thorough
def test_every_step_of_a_seeded_estimator(store):
    search = GridSearchCV(classifier(random_state=1), {"units": [2]}, cv=2, refit=False)
    (run,) = children(store, record(search, X, LABELS, record="batches"))
    for fold, one in enumerate(children(store, run.info.run_id)):
        history = mlflow_hp.load_history(one.info.run_id)
        assert history.meta["reader"] == "graph"
        assert history.epochs["loss"].tolist() == values(store, run, f"fold_{fold}/loss")


@pytest.mark.thorough
@pytest.mark.slow
def test_every_step_of_every_fold_from_other_processes(store):
    every_step(store, 2)


@pytest.mark.thorough
def test_threads(store):
    search = GridSearchCV(Own(), {"rate": [0.1, 0.2]}, cv=2, refit=False, n_jobs=2)
    with joblib.parallel_config("threading"):
        runs = children(store, record(search, X, Y))
    for run in runs:
        assert {len(values(store, run, f"fold_{fold}/loss")) for fold in (0, 1)} == {2}


def test_curves_come_while_a_fold_runs(store, monkeypatch):
    monkeypatch.setattr(search_sender, "EVERY_SECONDS", 0.1)
    seen, go_on = [], threading.Event()

    def wait(epoch, logs):
        if epoch == 2 and not seen:
            go_on.wait()

    def poll(run_id):
        wait_for(lambda: (runs := children(store, run_id)) and len(values(store, runs[0], "fold_0/loss")) == 2)
        seen.append(children(store, run_id)[0].info.status)
        go_on.set()

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=wait)
    estimator = classifier(callbacks=[callback], random_state=None)
    search = GridSearchCV(estimator, {"units": [2]}, cv=2, refit=False)
    with mlflow_hp.record_search(search, progress=False, report=False) as recording:
        thread = threading.Thread(target=poll, args=(recording.run_id,))
        thread.start()
        search.fit(X, LABELS)
        thread.join()
    assert seen == ["RUNNING"]


def test_a_model_function_that_raises_for_one_value(store):
    def model(units):
        if units == 3:
            raise ValueError("three is no good")
        return build(units)

    search = GridSearchCV(classifier().set_params(model=model), {"units": [2, 3]}, cv=2, refit=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's own
        runs = children(store, record(search, X, LABELS))
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]


def test_outside_of_a_search_keras_is_left_alone():
    seen, ended = [], []
    model = build()
    model.compile("sgd", "mse")
    with record_epochs(lambda *event: seen.append(event), on_trained=lambda *trained: ended.append(trained[1:])):
        model.fit(X, Y, epochs=1, verbose=0)
        model.fit(X, Y, None, 1, 0, [])  # callbacks by position are left as they are
    first = model.fit(X, Y, epochs=1, verbose=0)
    assert [event[:2] for event in seen] == [(0, 0)]
    assert [epochs for epochs, _ in ended] == [1]
    assert list(first.history) == ["loss"]


@pytest.mark.thorough
@pytest.mark.slow
def test_curves_come_from_other_processes(store):
    estimator = classifier(fit__validation_split=0.25)
    search = GridSearchCV(estimator, {"units": [2, 4]}, cv=2, n_jobs=2, refit=False)
    run_id = record(search, X, LABELS)
    runs = children(store, run_id)
    alone = GridSearchCV(estimator, {"units": [2, 4]}, cv=2, n_jobs=1, refit=False)
    others = children(store, record(alone, X, LABELS))
    assert found(search) == found(alone)
    for run, other in zip(runs, others, strict=True):
        for fold in (0, 1):
            for curve in (f"fold_{fold}/{name}" for name in ("loss", "val_accuracy", "learning_rate")):
                assert values(store, run, curve) == values(store, other, curve)
                assert len(values(store, run, curve)) == 3
    assert nothing_runs(store, run_id)
    assert np.isfinite(search.best_score_)
