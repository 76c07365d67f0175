"""Runs that are said to be nested in each other in a circle, in one that is not there, or without an end."""

from __future__ import annotations

import itertools

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2

import mlflow_hp
from mlflow_hp import compare
from mlflow_hp.history.load import load_history
from mlflow_hp.reproduce import recipe, run_comparison
from mlflow_hp.search.resume import previous_run
from mlflow_hp.sync import selection
from mlflow_hp.tracking import runs, uncommitted_code
from mlflow_hp.tracking.nesting import DEEPEST, ancestors
from mlflow_hp.tracking.tags import UNCOMMITTED_TAG
from mlflow_hp.training import training_recovery
from tests.helpers.fits import X, Y, regression
from tests.helpers.stored_runs import add_run, new_experiment

PARENT = "mlflow.parentRunId"


@pytest.fixture
def experiment(store, tmp_path):
    return new_experiment(store, tmp_path)


def nest(store, experiment, *parents, **more):
    """Runs whose parents have the numbers given, or are named by a text; None for none. Their ids."""
    ids = [add_run(store, experiment, f"run {number}", **more) for number in range(len(parents))]
    for run_id, parent in zip(ids, parents, strict=True):
        if parent is not None:
            store.set_tag(run_id, PARENT, ids[parent] if isinstance(parent, int) else parent)
    return ids


def names_above(store, run_id):
    return [run.info.run_name for run in itertools.islice(ancestors(store, store.get_run(run_id)), 1000)]


@pytest.mark.parametrize(
    ("parents", "expected"),
    [
        ([None], []),
        ([1, 2, None], ["run 1", "run 2"]),
        ([0], []),
        ([1, 0], ["run 1"]),
        ([1, 2, 0], ["run 1", "run 2"]),
        ([1, 2, 3, 1], ["run 1", "run 2", "run 3"]),
        ([1, 1], ["run 1"]),
        ([1, "0" * 32], ["run 1"]),
        ([1, ""], ["run 1"]),
        ([1, "' or '1' = '1"], ["run 1"]),
        ([1, "../../../etc/passwd"], ["run 1"]),
        ([1, "x\x1b]0;y\x07\n\u202e"], ["run 1"]),
        ([1, "x" * 5000], ["run 1"]),
    ],
)
def test_the_runs_above(store, experiment, parents, expected):
    assert names_above(store, nest(store, experiment, *parents)[0]) == expected


def test_the_runs_above_end_at_a_deleted_one(store, experiment):
    ids = nest(store, experiment, 1, 2, 3, None)
    store.delete_run(ids[2])
    assert names_above(store, ids[0]) == ["run 1"]


def test_the_runs_above_end_somewhere(store, experiment):
    ids = nest(store, experiment, *range(1, DEEPEST + 20), None)
    assert len(names_above(store, ids[0])) == DEEPEST


class Refusing:
    """A client to which the server answers for all runs but the first with an error."""

    def __init__(self, store, first, code):
        self._store, self._first, self._code = store, first, code

    def get_run(self, run_id):
        if run_id == self._first:
            return self._store.get_run(run_id)
        raise MlflowException("no", databricks_pb2.ErrorCode.Value(self._code))


def test_the_runs_above_end_at_a_forbidden_one_but_not_for_a_server_that_fails(store, experiment):
    ids = nest(store, experiment, 1, 2, None)
    run = store.get_run(ids[0])
    assert [r.info.run_id for r in ancestors(Refusing(store, ids[1], "PERMISSION_DENIED"), run)] == [ids[1]]
    with pytest.raises(MlflowException):
        list(ancestors(Refusing(store, ids[1], "TEMPORARILY_UNAVAILABLE"), run))


@pytest.fixture(params=[[0], [1, 0], [1, 2, 0], [1, 2, 3, 1]], ids=str)
def circle(request, store, experiment):
    tags = {"command": "python x.py", "kind": "search", "process": "{}", "data_digest": "d"}
    return nest(store, experiment, *request.param, status="RUNNING", tags=tags)


def test_all_that_follows_parents_ends(circle, store, monkeypatch):
    top = store.get_run(circle[0])
    assert recipe.recipe_of(circle[0]).run.info.run_id == circle[0]
    below = [run.info.run_id for run in run_comparison.nested_runs(top)]
    assert len(below) == len(set(below)) < len(circle) + 1
    assert circle[0] not in below
    assert run_comparison.compare(top, top).differences == []
    facts = compare.gather(compare.open_source(store), [circle[0]])
    assert len(facts) == len({run.run_id for run in facts})
    assert {run.info.run_id for run in selection.find(store, run_ids=[circle[0]]).runs} <= set(circle)
    monkeypatch.setattr(uncommitted_code, "uncommitted", lambda: "# changes\n")
    runs.log_code(circle[0])
    assert any(UNCOMMITTED_TAG in store.get_run(run_id).data.tags for run_id in circle)
    previous_run.close_below(store, top)
    assert store.get_run(circle[0]).info.status == "RUNNING"
    training_recovery._end_ancestors(top, "{}", runs.time.time_ns() // 1_000_000)
    states = [store.get_run(run_id).info.status for run_id in circle]
    assert states == ["RUNNING"] + ["KILLED"] * (len(circle) - 1)


def test_a_training_in_a_circle_is_recorded(store):
    with mlflow.start_run() as one:
        pass
    with mlflow.start_run() as two:
        store.set_tag(one.info.run_id, PARENT, two.info.run_id)
        store.set_tag(two.info.run_id, PARENT, one.info.run_id)
        recorder = mlflow_hp.TrainingRecorder(report=False)
        regression().fit(X, Y, batch_size=8, epochs=1, verbose=0, callbacks=[recorder])
    assert load_history(two.info.run_id).n_steps == 5
    assert store.get_run(two.info.run_id).data.tags["mlflow_hp.fits"] == "1"
