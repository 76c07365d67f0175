"""A repository, and runs of it with hostile tags."""

from __future__ import annotations

import pytest

from mlflow_hp.tracking import provenance
from tests.helpers.hostile_runs import Place, new_repository
from tests.helpers.stored_runs import new_experiment


@pytest.fixture(scope="module")
def hostile_repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeat") / "repository"
    new_repository(folder)
    return folder


@pytest.fixture
def place(hostile_repository, store, tmp_path, monkeypatch):
    monkeypatch.chdir(hostile_repository)
    at = Place(hostile_repository, store, new_experiment(store, tmp_path), tmp_path)
    monkeypatch.setenv("EVIL", str(at.evil))
    monkeypatch.setenv("CANARY", str(at.canary))
    for name in ("PYTHONPATH", *provenance.SETTINGS):
        monkeypatch.delenv(name, raising=False)
    return at
