"""One real store for all tests, and quiet libraries."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
os.environ.pop("MLFLOW_TRACKING_URI", None)

import signal

import fast_sqlite
import pytest

fast_sqlite.install()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what it starts in the background ignore it


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory):
    """A SQLite store with local artifacts, made once: its tables take seconds."""
    import mlflow

    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.MlflowClient(uri).create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
    return uri


@pytest.fixture
def store(tracking_uri, tmp_path, monkeypatch):
    """The store is MLflow's, with the experiment "tests" active and no run left from another test."""
    import mlflow

    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(tmp_path / "on-its-way"))
    monkeypatch.setattr("mlflow_hp.provenance.uncommitted", lambda: None)  # what a developer has not committed yet
    mlflow.set_tracking_uri(tracking_uri)
    experiment = mlflow.set_experiment("tests")
    client = mlflow.MlflowClient()
    yield client
    while mlflow.active_run():
        mlflow.end_run("KILLED")
    for run in client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'"):
        client.set_terminated(run.info.run_id, "KILLED")
    mlflow.set_tracking_uri(None)
