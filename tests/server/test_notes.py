"""Notes on comparisons: read from an experiment's tags, whoever wrote them, for whom may read the experiment."""

from __future__ import annotations

import json

import pytest
from flask import Flask
from mlflow.entities import ExperimentTag

from mlflow_hp.server.permissions import allow_all
from mlflow_hp.server.responses import StaticFiles
from mlflow_hp.server.routes import page_blueprint

NOTE = {"name": "rates", "text": "0.01 wins", "view": "e=1&r=abc", "author": "ann", "changed": 2}
STATIC = StaticFiles()


@pytest.fixture
def noted(tmp_path, monkeypatch):
    """Function that sets tags of a new store's experiments, and returns what a reader is told."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"sqlite:///{tmp_path}/mlflow.db", (tmp_path / "artifacts").as_uri())
    experiments = [store.create_experiment(name) for name in ("open", "other")]
    monkeypatch.setattr("mlflow.server.handlers._get_tracking_store", lambda: store)

    def told(tags, asked="1,2", readable=allow_all, experiment=0, **headers):
        for key, value in tags.items():
            store.set_experiment_tag(experiments[experiment], ExperimentTag(f"mlflow_hp.note.{key}", value))
        app = Flask(__name__)
        app.register_blueprint(page_blueprint(readable, STATIC), url_prefix="/hp")
        return app.test_client().get(f"/hp/api/notes?experiments={asked}", **headers)

    yield told
    store._dispose_engine()


def test_the_last_changed_comes_first(noted):
    older, newest = {**NOTE, "changed": 1}, {**NOTE, "changed": 3}
    answer = noted({"b": json.dumps(NOTE), "a": json.dumps(older), "c": json.dumps(newest), "gone": ""}).json
    assert answer["tag"] == "mlflow_hp.note."
    assert [note["id"] for note in answer["notes"]] == ["c", "b", "a"]
    assert answer["notes"][1] == {"id": "b", "experiment": "1", **NOTE}


def test_only_those_of_experiments_that_may_be_read(noted):
    noted({"a": json.dumps(NOTE)})
    both = noted({"b": json.dumps(NOTE)}, experiment=1).json
    assert [(note["id"], note["experiment"]) for note in both["notes"]] == [("a", "1"), ("b", "2")]
    mine = noted({}, readable=lambda ids: [one for one in ids if one == "1"]).json
    assert [note["id"] for note in mine["notes"]] == ["a"]
    for nothing in ("", "3", "nan", "-1", "1e0", "99999999999999999999"):
        assert noted({}, asked=nothing).json["notes"] == []


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "text",
    ["no JSON", "[1]", "null", "7", "[" * 5000, '{"name": 1, "text": ["x"], "view": null, "changed": "now"}',
     '{"name": "\\ud800", "text": "\\u0000", "changed": NaN}', '{"changed": 1e400}', '{"changed": true}'],
)  # fmt: skip
def test_what_another_program_wrote_hides_no_other(noted, text):
    answer = noted({"a": json.dumps(NOTE), "b": text})
    assert answer.status_code == 200
    notes = {note["id"]: note for note in answer.json["notes"]}
    assert notes["a"]["text"] == "0.01 wins"
    assert notes["b"]["changed"] == 0
    assert all(isinstance(notes["b"][key], str) for key in ("name", "text", "view", "author"))
    if not text.startswith("{"):
        assert notes["b"]["text"] == text


def test_a_login_is_the_writer_by_default(noted):
    assert noted({}).json["sender"] is None
    assert noted({}, headers={"Authorization": "Basic YW5uOnNlY3JldA=="}).json["sender"] == "ann"
