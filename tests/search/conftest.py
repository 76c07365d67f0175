"""Programs with a search, for the tests of what is resumed."""

from __future__ import annotations

import time

import mlflow
import pytest

from tests.helpers import search_faults
from tests.helpers.counted_fits import Fits
from tests.helpers.programs import Program


@pytest.fixture
def write(store, tmp_path, request):
    return lambda files, shift, **parts: Program(
        tmp_path / "project", f"{request.node.name} {time.time()}".replace("/", "_"), files, shift, **parts
    )


@pytest.fixture
def own_experiment(request, store, impatient, gives_up_soon, monkeypatch):
    """Give each test its own experiment, and no patience with a server that is away."""
    mlflow.set_experiment(f"{request.node.name} {time.time()}".replace("/", "_"))
    for name, seconds in (
        ("search.recovery.PATIENCE_SECONDS", 0.3),
        ("search.recovery.PAUSE_SECONDS", 0.1),
    ):
        monkeypatch.setattr(f"mlflow_hp.{name}", seconds)
    monkeypatch.setattr(search_faults.Acts, "n_fits", 0)
    yield
    search_faults.ACTS.clear()


@pytest.fixture
def new_experiment(request, store):
    """An experiment of each test's own: what is the latest there is its own."""
    mlflow.set_experiment(f"resume {request.node.name} {time.time()}".replace("/", "_"))


@pytest.fixture
def fits(tmp_path):
    return Fits(tmp_path)
