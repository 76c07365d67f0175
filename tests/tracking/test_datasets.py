"""Digests of data: equal for equal content in any layout and program, different for any change."""

from __future__ import annotations

import json

import mlflow
import numpy as np
import pandas as pd
import pytest

from mlflow_hp.tracking import array_digest, datasets
from mlflow_hp.tracking.datasets import describe
from tests.helpers.fits import LABELS, X, Y


def digest(*data):
    return describe(*data).digest


def test_equal_content_in_any_layout():
    assert digest(X, Y) == digest(np.asfortranarray(X), Y.copy()) == digest(np.repeat(X, 2, axis=1)[:, ::2], Y)
    assert digest({"a": X, "b": Y}) == digest({"b": Y, "a": X})
    table = pd.DataFrame({"a": Y, "b": LABELS, "c": ["x", "y"] * 18 + ["z"]})
    assert digest(table, Y) == digest(table.copy()[["a", "b", "c"]], pd.Series(Y))


@pytest.mark.parametrize(
    "other",
    [
        (X + np.float32(1e-6), Y),
        (X[::-1], Y),
        (X, Y[::-1]),
        (X, None),
        (X, Y, Y),
        (X[:36], Y[:36]),
        (X.T, Y),
        (X.astype("float64"), Y),
        ([X], Y),
        (Y, X),
        (pd.DataFrame(X), Y),
        (pd.DataFrame(X, columns=["a", "b", "c"]), Y),
    ],
)
def test_any_difference(other):
    assert digest(*other) != digest(X, Y)


def test_it_is_the_same_in_another_program():
    assert digest(np.arange(6.0).reshape(3, 2), np.arange(3)) == "91c281e6d113b915"
    assert digest(np.array(["a", "b"], object)) == digest(np.array(["a", "b"], object))


def test_large_data_are_read_in_part(monkeypatch):
    monkeypatch.setattr(array_digest, "BYTES_HASHED", 4000)
    monkeypatch.setattr(array_digest, "BLOCK", 400)
    read = np.zeros(100_000, "int8")
    whole = digest(read)
    assert digest(np.zeros(100_001, "int8")) != whole
    for place in (0, 99_999):
        changed = read.copy()
        changed[place] = 1
        assert digest(changed) != whole


@pytest.mark.parametrize(
    "unknown", [iter([1]), np.array([[1], {}], object), {"a": X, "b": object()}, lambda: X, "a folder"]
)
def test_what_is_no_array_has_none(unknown):
    assert describe(unknown) is None


def test_schema_and_shapes():
    found = describe({"a": X, "b": pd.DataFrame({"c": Y, "d": ["x"] * 37})}, Y)
    assert found.profile == {
        "features_shape": {"a": [37, 3], "b/c": [37], "b/d": [37]},
        "targets_shape": [37],
        "num_rows": 37,
    }
    schema = json.loads(found.schema["mlflow_tensorspec"]["features"])
    assert [(each["name"], each["tensor-spec"]["shape"]) for each in schema] == [
        ("a", [-1, 3]),
        ("b/c", [-1]),
        ("b/d", [-1]),
    ]
    assert describe(np.float32(1)).profile["num_rows"] == 0


def test_programs_are_told_apart(store):
    """MLflow keeps one source for each name and digest."""
    data_sets = {"training": describe(X, Y)}
    for program in ("one.py", "two.py"):
        with mlflow.start_run(tags={"mlflow.source.name": f"/home/me/{program}"}) as run:
            datasets.log(run.info.run_id, data_sets)
            datasets.log(run.info.run_id, data_sets, 0)
        (used,) = store.get_run(run.info.run_id).inputs.dataset_inputs
        assert used.dataset.name.startswith(program)
        assert json.loads(used.dataset.source)["tags"]["mlflow.source.name"].endswith(program)


def test_a_schema_that_is_too_long_is_left_out(store):
    wide = pd.DataFrame(np.zeros((2, 2000)), columns=[f"column {number}" for number in range(2000)])
    with mlflow.start_run() as run:
        datasets.log(run.info.run_id, {"training": describe(wide)})
    (used,) = store.get_run(run.info.run_id).inputs.dataset_inputs
    assert used.dataset.schema is None or used.dataset.schema == ""
    assert used.dataset.digest == digest(wide)


@pytest.mark.parametrize(
    "text",
    [
        "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id, datasets.name, datasets.digest",
        '(psycopg2.errors.UniqueViolation) duplicate key value violates unique constraint "dataset_pk"',
        "(pymysql.err.IntegrityError) (1062, \"Duplicate entry '1-data-ab' for key 'PRIMARY'\")",
    ],
)
def test_a_data_set_that_another_process_writes_meanwhile_is_logged(store, monkeypatch, text):
    real, refusals = mlflow.MlflowClient.log_inputs, [text] * 3

    def log_inputs(*arguments):
        if refusals:
            raise mlflow.MlflowException(refusals.pop())
        real(*arguments)

    monkeypatch.setattr(mlflow.MlflowClient, "log_inputs", log_inputs)
    with mlflow.start_run() as run:
        datasets.log(run.info.run_id, {"training": describe(X, Y)})
    assert len(store.get_run(run.info.run_id).inputs.dataset_inputs) == 1


def test_other_errors_of_the_store_are_not_repeated():
    class Client:
        calls = 0

        def log_inputs(self, *_):
            self.calls += 1
            raise mlflow.MlflowException("no such run")

    client = Client()
    with pytest.raises(mlflow.MlflowException, match="no such run"):
        datasets.log_inputs(client, "1", [])
    assert client.calls == 1
