"""Another version of MLflow: its active runs, the store behind a client, its server."""

from __future__ import annotations

import importlib
import re

import mlflow
import numpy as np
import pytest
from flask import Flask
from mlflow.entities import Metric

import mlflow_hp
from mlflow_hp._compat import mlflow as of_mlflow
from mlflow_hp.compare.source import open_source
from mlflow_hp.errors import UserError
from mlflow_hp.server import app as server
from mlflow_hp.server.permissions import allow_all
from mlflow_hp.sync import points
from tests.helpers.changed_names import change
from tests.helpers.fits import X, Y, regression


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (of_mlflow.ACTIVE_RUNS, "gone"),
        (of_mlflow.ACTIVE_RUNS, "something else"),
        (of_mlflow.LAST_RUN, "gone"),
        (of_mlflow.LAST_RUN, "something else"),
        (of_mlflow.MONITORS, "gone"),
        (of_mlflow.MONITORS, "something else"),
    ],
)
def test_active_runs_that_are_kept_elsewhere_are_ended_by_mlflow(store, monkeypatch, name, form):
    outer, inner = mlflow.start_run(), mlflow.start_run(nested=True)
    text = change(monkeypatch, name, form)
    with pytest.warns(RuntimeWarning, match=re.escape(text)):
        of_mlflow.deactivate(inner.info.run_id, "FAILED")
    assert mlflow.active_run().info.run_id == outer.info.run_id
    assert store.get_run(inner.info.run_id).info.status == "FAILED"
    of_mlflow.deactivate(inner.info.run_id, "FAILED")  # it is active no more: the outer one stays
    assert of_mlflow.active_runs() == {outer.info.run_id}
    of_mlflow.deactivate(outer.info.run_id, "FINISHED")
    assert mlflow.active_run() is None


def test_a_stack_that_holds_something_else(store, monkeypatch):
    run = mlflow.start_run()
    change(monkeypatch, of_mlflow.ACTIVE_RUNS, "gone")
    kept = type("Stack", (), {"get": lambda self: ()})()
    monkeypatch.setattr(mlflow.tracking.fluent, of_mlflow.ACTIVE_RUNS.name, kept, raising=False)
    with pytest.warns(RuntimeWarning, match="holds a tuple"):
        assert of_mlflow.active_runs() == {run.info.run_id}


def test_as_they_are_no_store_is_asked(store, monkeypatch):
    outer, inner = mlflow.start_run(), mlflow.start_run(nested=True)
    assert of_mlflow.active_runs() == {outer.info.run_id, inner.info.run_id}
    for name in ("start_run", "end_run"):
        monkeypatch.setattr(mlflow, name, lambda *_, **__: pytest.fail("the store was waited for"))
    of_mlflow.deactivate(inner.info.run_id, "FAILED")
    assert of_mlflow.active_runs() == {outer.info.run_id}
    of_mlflow.activate(inner)
    assert mlflow.active_run().info.run_id == inner.info.run_id
    of_mlflow.deactivate(inner.info.run_id, "FAILED")
    of_mlflow.deactivate(outer.info.run_id, "FAILED")
    assert mlflow.active_run() is None


@pytest.mark.parametrize("form", ["gone", "something else"])
def test_a_run_is_made_active_by_mlflow_where_active_runs_are_kept_elsewhere(store, monkeypatch, form):
    run = mlflow.start_run()
    mlflow.end_run()
    with monkeypatch.context() as patch:
        text = change(patch, of_mlflow.ACTIVE_RUNS, form)
        with pytest.warns(RuntimeWarning, match=re.escape(text)):
            of_mlflow.activate(run)
    assert mlflow.active_run().info.run_id == run.info.run_id


@pytest.mark.parametrize("form", ["gone", "called in another way"])
def test_autologging_without_a_hook_for_the_end_of_mlflows(store, monkeypatch, form):
    text = change(monkeypatch, of_mlflow.REVERT, form)
    try:
        with pytest.warns(RuntimeWarning, match=re.escape(text)):
            mlflow_hp.autolog(report=False)
        regression().fit(X, Y, verbose=0)
    finally:
        mlflow_hp.autolog(disable=True)
    run_id = mlflow.last_active_run().info.run_id
    assert mlflow_hp.load_history(run_id).n_steps == 2


@pytest.mark.parametrize("form", ["gone", "something else"])
def test_a_client_that_hides_its_store_is_read_and_written_all_the_same(store, monkeypatch, form):
    run = store.create_run(mlflow.get_experiment_by_name("tests").experiment_id)
    run_id = run.info.run_id
    store.log_batch(run_id, [Metric("m", value, 1000 + step, step) for step, value in enumerate((3.0, 1.0, 2.0))])
    expected, curves = points.read(store, run_id, "m"), open_source(store).points([run_id], "m")
    text = change(monkeypatch, of_mlflow.CLIENT, form, mlflow.MlflowClient)
    if form == "something else":
        text = text.rstrip() + " has no store"
    with pytest.warns(RuntimeWarning, match=re.escape(text)) as told:
        found = points.read(store, run_id, "m")
    assert len(told) == 1
    np.testing.assert_array_equal(found, expected)
    for one, other in zip(open_source(store).points([run_id], "m")[run_id], curves[run_id], strict=True):
        np.testing.assert_array_equal(one, other)
    points.send(store, run_id, list(points.with_name("n", expected)))
    assert [point.value for point in store.get_metric_history(run_id, "n")] == [3.0, 1.0, 2.0]


@pytest.mark.parametrize("form", ["gone", "called in another way"])
def test_a_server_that_does_not_give_its_store_does_not_start_with_the_page(monkeypatch, form):
    text = change(monkeypatch, of_mlflow.SERVER_STORE, form)
    with pytest.raises(UserError, match=re.escape(text)):
        server.add_page(Flask(__name__), allow_all)


@pytest.mark.filterwarnings("ignore:starlette")  # of what MLflow's server is made of
@pytest.mark.parametrize("form", ["gone", "called in another way"])
def test_a_server_that_can_not_be_asked_what_a_user_may_read_does_not_start(monkeypatch, form):
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "tests")
    if not hasattr(importlib.import_module(of_mlflow.MAY_READ_RUNS.owner), of_mlflow.MAY_READ_RUNS.name):
        pytest.skip("this MLflow is too old for the page with logins: pip install 'mlflow>=3.17'")
    text = change(monkeypatch, of_mlflow.MAY_READ_RUNS, form)
    with pytest.raises(UserError, match=re.escape(text)):
        server.create_app_with_basic_auth()


@pytest.mark.parametrize("form", ["gone", "something else"])
def test_a_server_of_an_unknown_kind_counts_as_uvicorn(monkeypatch, form):
    text = change(monkeypatch, of_mlflow.KIND_OF_SERVER, form).rstrip()
    with pytest.warns(RuntimeWarning, match=re.escape(text)):
        assert of_mlflow.runs_under_uvicorn()


@pytest.mark.parametrize("form", ["gone", "something else"])
@pytest.mark.parametrize("name", [of_mlflow.PREDICATES, of_mlflow.NOUNS], ids=["adjectives", "nouns"])
def test_no_name_is_random_where_the_words_are_unknown(monkeypatch, name, form):
    text = change(monkeypatch, name, form).rstrip()
    with pytest.warns(RuntimeWarning, match=re.escape(text)):
        assert of_mlflow.words_of_random_names() == (frozenset(), frozenset())
