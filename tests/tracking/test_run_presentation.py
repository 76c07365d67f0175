"""What MLflow's UI shows of a recorded run: names of what ran, the kind of the experiment, and the page."""

from __future__ import annotations

import threading

import keras
import mlflow
import pytest
from mlflow.exceptions import MlflowException
from sklearn.datasets import make_regression
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

import mlflow_hp
from mlflow_hp.tracking import run_presentation
from mlflow_hp.tracking.random_names import is_random
from mlflow_hp.tracking.run_presentation import EXPERIMENT_KIND, present, run_name
from mlflow_hp.tracking.tags import EXPERIMENT_KIND_TAG, RUN_PAGE_TAG
from tests.helpers.fits import X, Y, regression


def test_mlflows_names_are_random(store):
    experiment_id = store.create_experiment("random names")
    assert all(is_random(store.create_run(experiment_id).info.run_name) for _ in range(20))


@pytest.mark.parametrize("name", ["baseline-run-12", "bold-ant", "bold ant 12", "my-bold-ant-12", "Bold-Ant-12", "7"])
def test_names_of_users_are_not(name):
    assert not is_random(name)


def test_a_name_has_what_fits():
    long = run_name("a " * 50, {"x": "y" * 30, "z": 1})
    assert len(long) <= 60
    assert run_name("net", {"x": "y" * 80, "z": 1}) == "net z=1"
    assert run_name("net\n\x1b[2Jtwo", {"x": "a\nb"}) == "net \x1b[2Jtwo x=a b"


def fit(model=None, **settings):
    model = model or regression()
    model.fit(X, Y, epochs=1, batch_size=8, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(report=False, **settings)])


def named(run):
    return mlflow.get_run(run.info.run_id).info.run_name


def test_a_training_in_a_run_without_a_name(store):
    with mlflow.start_run() as run:
        fit()
    name = named(run)
    assert name.startswith("Sequential learning_rate=")
    assert name.endswith(" batch_size=8")


def test_a_name_of_the_user_stays(store):
    with mlflow.start_run(run_name="mine") as run:
        fit()
    assert named(run) == "mine"


def test_a_run_is_named_once(store):
    with mlflow.start_run() as run:
        fit()
        mlflow.MlflowClient().update_run(run.info.run_id, name="bold-ant-12")  # whoever wants that
        fit()
    assert named(run) == "bold-ant-12"


def test_a_model_with_a_name_of_its_own(store):
    model = keras.Sequential([keras.Input((X.shape[1],)), keras.layers.Dense(1)], name="prices")
    model.compile("sgd", "mse")
    with mlflow.start_run() as run:
        fit(model)
    assert named(run) == "prices learning_rate=0.01 batch_size=8"


def test_a_search(store):
    samples, y = make_regression(30, 3, random_state=0)
    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0]}, cv=3)
    with mlflow_hp.record_search(search, report=False, progress=False) as recording:
        search.fit(samples, y)
    assert mlflow.get_run(recording.run_id).info.run_name == "GridSearchCV of Ridge"


def test_the_experiment_is_one_of_model_training(store):
    experiment_id = store.create_experiment("kinds")
    with mlflow.start_run(experiment_id=experiment_id):
        fit()
    assert store.get_experiment(experiment_id).tags[EXPERIMENT_KIND_TAG] == EXPERIMENT_KIND


def test_a_kind_that_the_user_chose_stays(store):
    experiment_id = store.create_experiment("genai", tags={EXPERIMENT_KIND_TAG: "genai_development"})
    with mlflow.start_run(experiment_id=experiment_id):
        fit()
    assert store.get_experiment(experiment_id).tags[EXPERIMENT_KIND_TAG] == "genai_development"


def test_without_a_server_there_is_no_address(store):
    with mlflow.start_run() as run:
        fit()
    assert RUN_PAGE_TAG not in store.get_run(run.info.run_id).data.tags


@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", ["update_run", "set_experiment_tag", "get_experiment"])
def test_what_is_refused_leaves_the_rest(store, monkeypatch, method):
    def refuse(*_, **__):
        raise MlflowException("read-only")

    experiment_id = store.create_experiment(f"refused {method}")
    with mlflow.start_run(experiment_id=experiment_id) as run, monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, method, refuse)
        fit()
    tags = store.get_run(run.info.run_id).data.tags
    assert "mlflow_hp.recording_error" not in tags
    assert is_random(named(run)) == (method == "update_run")
    assert (EXPERIMENT_KIND_TAG in store.get_experiment(experiment_id).tags) == (method == "update_run")


def test_a_store_that_hangs_is_left_alone(store, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(run_presentation, "SECONDS", 0.2)
    monkeypatch.setattr(mlflow.MlflowClient, "update_run", lambda *_, **__: release.wait())
    with mlflow.start_run() as run:
        present(run.info.run_id, "a name")
    release.set()
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"
