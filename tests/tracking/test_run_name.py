"""Names of runs in titles."""

from __future__ import annotations

import mlflow

from mlflow_hp.tracking.run_name import run_name


def test_a_run_renamed_after_its_start_has_its_new_name(store):
    with mlflow.start_run(run_name="before") as run:
        store.set_tag(run.info.run_id, "mlflow.runName", "after")
        assert run_name(run.info.run_id) == "after"
    assert run_name(run.info.run_id) == "after"


def test_without_an_answer_it_is_the_name_at_the_start(store, monkeypatch):
    with mlflow.start_run(run_name="before") as run:
        monkeypatch.setattr(type(store), "get_run", lambda *_: 1 / 0)
        assert run_name(run.info.run_id) == "before"
        assert run_name("another") == ""
