"""Autologging, and the runs that it makes."""

from __future__ import annotations

import pytest

import mlflow_hp


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
