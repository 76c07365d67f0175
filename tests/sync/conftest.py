"""Two stores, and a server."""

from __future__ import annotations

import contextlib
import os
import shutil
import time

import mlflow
import pytest

from mlflow_hp.sync.stores import connect
from tests.helpers.needs import database_of_its_own
from tests.helpers.servers import Server


@pytest.fixture(scope="module")
def other_uri(tmp_path_factory):
    """A second store."""
    folder = tmp_path_factory.mktemp("other")
    uri = f"sqlite:///{folder}/mlflow.db"
    mlflow.MlflowClient(uri).search_experiments()
    return uri


@pytest.fixture
def empty_uri(tmp_path, tmp_path_factory):
    """A store without runs: its tables take seconds, so they are copied."""
    made = tmp_path_factory.getbasetemp() / "empty.db"
    if not made.exists():
        mlflow.MlflowClient(f"sqlite:///{made}").search_experiments()
    shutil.copy(made, tmp_path / "empty.db")
    return f"sqlite:///{tmp_path}/empty.db"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A store makes its folder of artifacts where the process is."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def both(tracking_uri, other_uri, request, tmp_path):
    """Both stores, and an experiment of its own at the source."""
    stores = connect(other_uri, tracking_uri)
    name = f"{request.node.name} {time.time_ns()}"
    experiment = stores.source.create_experiment(name, (tmp_path / "source").as_uri(), {"mlflow.note.content": "Why"})
    stores.target.create_experiment(name, (tmp_path / "target").as_uri())
    return stores, name, experiment


@pytest.fixture
def server(tmp_path, monkeypatch):
    """`mlflow server` on a PostgreSQL database of its own."""
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    with contextlib.ExitStack() as stack:
        uri = stack.enter_context(database_of_its_own(f"mlflow_hp_test_{os.getpid()}"))
        served = Server(tmp_path, uri)
        served.start()
        stack.callback(served.kill)
        yield served.uri
