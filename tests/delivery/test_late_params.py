"""Late params: the program's own params win; recorded ones are in a tag until the end of the run."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import textwrap
from pathlib import Path

import keras
import mlflow
import pytest
from mlflow.entities import Param
from mlflow.exceptions import MlflowException

import mlflow_hp
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.run_params import log_params, params_of, waiting_params
from mlflow_hp.tracking.tags import PARAMS_TAG
from mlflow_hp.training.short_fits import short_fits
from tests.helpers.fits import X, Y, record, regression
from tests.helpers.forked_python import python

pytestmark = pytest.mark.usefixtures("store")

OURS = {"optimizer": "RMSprop", "learning_rate": "0.05", "epochs": "1", "batch_size": "8", "loss": "mse"}
USERS = {"optimizer": "rms", "learning_rate": "5e-2", "epochs": "one", "batch_size": "eight", "loss": "squares"}


def fit(*callbacks, recorder=None):
    recorder = recorder or mlflow_hp.TrainingRecorder(report=False)
    regression(run_eagerly=True).fit(X, Y, batch_size=8, verbose=0, callbacks=[recorder, *callbacks])


def journals(tmp_path):
    gc.collect()  # the folder stays while its history is in use
    return list((tmp_path / "on-its-way").rglob("journal"))


class Logs(keras.callbacks.Callback):
    def __init__(self, hook):
        super().__init__()
        setattr(self, hook, lambda *_, **__: mlflow.log_params(USERS))


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    "when",
    ["before", "on_train_begin", "on_epoch_begin", "on_train_batch_end", "on_epoch_end", "on_train_end", "after"],
)
def test_params_of_the_program_win(store, tmp_path, when):
    with mlflow.start_run() as run:
        if when == "before":
            mlflow.log_params(USERS)
        fit(*([Logs(when)] if when.startswith("on_") else []))
        if when == "after":
            mlflow.log_params(USERS)
    found = store.get_run(run.info.run_id)
    assert found.data.params.items() >= USERS.items()
    assert found.data.params["rho"] == "0.9"
    assert PARAMS_TAG not in found.data.tags
    assert "mlflow_hp.recording_error" not in found.data.tags
    assert not journals(tmp_path)


def test_params_are_in_a_tag_during_the_run(store):
    with mlflow.start_run() as run:
        fit()
        during = store.get_run(run.info.run_id).data
        assert not during.params
        assert params_of(during).items() >= OURS.items()
        assert json.loads(during.tags[PARAMS_TAG]).items() >= OURS.items()
    after = store.get_run(run.info.run_id).data
    assert after.params == params_of(after) == params_of(during)


def of_the_client(run_id):
    mlflow.MlflowClient().set_terminated(run_id)


def by_update(run_id):
    mlflow.MlflowClient().update_run(run_id=run_id, status="FINISHED")


def by_failing(run_id):
    mlflow.MlflowClient().set_terminated(run_id, status="FAILED")


def at_exit(_):
    short_fits.settle_all()
    late_params.settle_all()


@pytest.mark.parametrize("end", [of_the_client, by_update, by_failing, at_exit])
def test_params_are_logged_at_any_end_of_the_run(store, end):
    before = mlflow.MlflowClient.set_terminated, mlflow.MlflowClient.log_batch
    run_id = store.create_run(mlflow.get_experiment_by_name("tests").experiment_id).info.run_id
    fit(recorder=mlflow_hp.TrainingRecorder(run_id, report=False))
    assert not store.get_run(run_id).data.params
    end(run_id)
    assert store.get_run(run_id).data.params.items() >= OURS.items()
    assert (mlflow.MlflowClient.set_terminated, mlflow.MlflowClient.log_batch) == before


def test_params_of_the_first_of_several_fits_are_kept(store):
    with mlflow.start_run() as run:
        fit()
        regression("sgd", run_eagerly=True).fit(
            X, Y, epochs=3, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(report=False)]
        )
    with mlflow.start_run(run.info.run_id):
        fit()
    params = store.get_run(run.info.run_id).data.params
    assert params.items() >= OURS.items()
    assert "momentum" in params  # of the second optimizer alone


def test_params_logged_at_the_same_moment(monkeypatch, store):
    """Between reading the params of the run and writing the missing ones."""
    real, raced = mlflow.MlflowClient.log_batch, []

    def race(self, run_id, metrics=(), params=(), tags=(), **more):
        if params and not raced:
            raced.append(run_id)
            real(self, run_id, params=[Param("optimizer", "theirs"), Param("epochs", "theirs")])
        return real(self, run_id, metrics=metrics, params=params, tags=tags, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", race)
    fitted = record(regression(run_eagerly=True))
    params = store.get_run(fitted.run_id).data.params
    assert raced == [fitted.run_id]
    assert (params["optimizer"], params["epochs"], params["loss"]) == ("theirs", "theirs", "mse")


def test_log_once_keeps_params_logged_meanwhile(store):
    with mlflow.start_run() as run:
        known = store.get_run(run.info.run_id)
        mlflow.log_param("a", "theirs")
        runs.log_once(known, {"a": "ours", "b": "ours"})
    assert store.get_run(run.info.run_id).data.params == {"a": "theirs", "b": "ours"}


def test_one_refused_param_among_many(monkeypatch, store):
    with mlflow.start_run() as run, pytest.warns(RuntimeWarning, match=r"refuses the param 'bad\[0\]'"):
        log_params(store, run.info.run_id, {f"p{i}": str(i) for i in range(150)} | {"bad[0]": "1"})
    assert len(store.get_run(run.info.run_id).data.params) == 150


def test_store_that_is_down_at_the_end_of_the_run(monkeypatch, store):
    with mlflow.start_run() as run:
        fit()
        monkeypatch.setattr(
            "mlflow_hp.delivery.late_params.log_params", lambda *_: (_ for _ in ()).throw(OSError("it is away"))
        )
        with pytest.warns(RuntimeWarning, match="in the tag mlflow_hp.params alone, not as params.*it is away"):
            mlflow.end_run()
    found = store.get_run(run.info.run_id)
    assert (found.info.status, found.data.params) == ("FINISHED", {})
    assert params_of(found.data).items() >= OURS.items()
    monkeypatch.undo()
    late_params.settle_all()
    assert store.get_run(run.info.run_id).data.params.items() >= OURS.items()


@pytest.mark.parametrize("tag", ['{"optimizer": "SG', "[1]", "null", '{"a": null}'])
def test_altered_tag_is_ignored(store, tag):
    assert isinstance(waiting_params({PARAMS_TAG: tag}), dict)


def test_params_of_the_program_win_in_a_search(store):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(LogisticRegression(), {"C": [1.0, 2.0]}, cv=2)
    labels = (Y > 0).astype(int)
    with mlflow.start_run() as run:
        mlflow.log_param("cv", "two")
        with mlflow_hp.record_search(search, report=False):
            search.fit(X, labels)
            mlflow.log_param("scoring", "by default")
        known = params_of(store.get_run(run.info.run_id).data)
        mlflow.log_param("estimator", "logistic")
    params = store.get_run(run.info.run_id).data.params
    assert (params["cv"], params["scoring"], params["estimator"]) == ("two", "by default", "logistic")
    assert params.keys() >= known.keys()


def test_program_that_leaves_runs_open(tracking_uri, tmp_path):
    program = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from tests.helpers.fits import *
        mlflow.set_tracking_uri({tracking_uri!r}); mlflow.set_experiment("tests")
        def fit(run_id=None):
            recorder = mlflow_hp.TrainingRecorder(run_id, report=False)
            regression(run_eagerly=True).fit(X, Y, batch_size=8, verbose=0, callbacks=[recorder])
        client = mlflow.MlflowClient()
        other = client.create_run(mlflow.get_experiment_by_name("tests").experiment_id)
        fit(other.info.run_id)
        run = mlflow.start_run()  # left to MLflow to end
        fit()
        mlflow.log_param("epochs", "one")
        print(run.info.run_id, other.info.run_id)
    """
    environment = os.environ | {"MLFLOW_HP_FOLDER": str(tmp_path)}
    done = subprocess.run(
        [python(), "-W", "error::RuntimeWarning", "-c", textwrap.dedent(program)],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [mlflow.MlflowClient(tracking_uri).get_run(run_id) for run_id in done.stdout.split()]
    assert [run.info.status for run in found] == ["FINISHED", "RUNNING"]
    assert [run.data.params["epochs"] for run in found] == ["one", "1"]
    assert all(run.data.params.items() >= (OURS.items() - {("epochs", "1")}) for run in found)


def test_recorded_params_never_conflict():
    with mlflow.start_run():
        fit()
        mlflow.log_params(USERS)
        with pytest.raises(MlflowException):
            mlflow.log_param("epochs", "two")  # the user's own, twice
