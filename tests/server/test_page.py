"""The page's routes on a real store: what they tell, whom they tell it, and what they refuse."""

from __future__ import annotations

import gzip
import math
import re
import tomllib
import types
from importlib import import_module
from pathlib import Path

import pytest
from flask import Flask, Response
from mlflow.entities import Metric, Param, RunTag

import mlflow_hp
from mlflow_hp.server import permissions, queries
from mlflow_hp.server.mlflow_ui_link import add_link_to_mlflow_ui
from mlflow_hp.server.permissions import allow_all
from mlflow_hp.server.responses import StaticFiles
from mlflow_hp.server.routes import page_blueprint

STATIC = StaticFiles()
SPIKE = 1234


def answering(monkeypatch, store, readable=allow_all):
    """A client of an application with the page over `store`."""
    monkeypatch.setattr("mlflow.server.handlers._get_tracking_store", lambda: store)
    app = Flask(__name__)
    app.register_blueprint(page_blueprint(readable, STATIC), url_prefix="/hp")
    return app.test_client()


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store of its own with two experiments: `open` with three runs, and `hidden` with one."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("page")
    store = SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", (folder / "artifacts").as_uri())
    made = {}

    def run(experiment, name, start, tags=(), params=(), metrics=()):
        own = store.create_run(experiment, "me", start, [RunTag(*tag) for tag in tags], name)
        metrics = [Metric(key, value, start, step) for key, value, step in metrics]
        for at in range(0, len(metrics), 1000):
            store.log_batch(own.info.run_id, metrics[at : at + 1000], [], [])
        store.log_batch(own.info.run_id, [], [Param(*param) for param in params], [])
        made[name] = own.info.run_id

    made["open"], made["hidden"] = store.create_experiment("open"), store.create_experiment("hidden")
    spiky = [("batch/loss", 9.0 if step == SPIKE else 1.0, step) for step in range(5000)]
    run(made["open"], "first", 1_000, [("mlflow_hp.author", "ann"), ("mlflow_hp.kind", "training"), ("team", "red")],
        [("learning_rate", "0.1")], [*spiky, ("loss", 0.5, 0), ("weights/dense/norm", 1.0, 0)])  # fmt: skip
    run(made["hidden"], "secret", 2_000, [("mlflow_hp.author", "mallory"), ("mlflow_hp.device", "secret machine")],
        [("password", "?")], [("loss", 0.1, 0)])  # fmt: skip
    tags = [("mlflow.user", "bob"), ("mlflow.parentRunId", made["secret"]), ("long", "x" * 300)]
    run(made["open"], "second", 3_000, tags, [("learning_rate", "0.2")], [("loss", math.inf, 0), ("gap", 1.0, 0),
        ("gap", math.nan, 1), ("gap", math.inf, 2)])  # fmt: skip
    run(made["open"], "gone", 4_000)
    store.delete_run(made["gone"])
    return store, made


@pytest.fixture
def page(monkeypatch, filled):
    return answering(monkeypatch, filled[0])


@pytest.fixture
def made(filled):
    return filled[1]


def test_experiments_come_with_the_newest_run_first(page, made):
    listed = page.get("/hp/api/experiments").json
    assert [(item["name"], item["runs"], item["last"]) for item in listed] == [
        ("open", 2, 3000), ("hidden", 1, 2000), ("Default", 0, None),
    ]  # fmt: skip


def test_runs_come_as_columns(page, made):
    answer = page.get(f"/hp/api/runs?experiment={made['open']}").json
    assert answer["runs"] == {
        "id": [made["second"], made["first"]],
        "name": ["second", "first"],
        "status": ["RUNNING", "RUNNING"],
        "started": [3000, 1000],
        "ended": [None, None],
        "author": ["bob", "ann"],
        "kind": ["", "training"],
        "parent": [made["secret"], None],
    }
    assert answer["params"] == {"learning_rate": ["0.2", "0.1"]}
    assert answer["metrics"] == {"batch/loss": [None, 1.0], "gap": ["∞", None], "loss": ["∞", 0.5]}
    assert answer["tags"] == {"team": [None, "red"]}
    assert answer["metric_names"] == ["batch/loss", "gap", "loss", "weights/dense/norm"]
    assert answer["left_out"] == 0


def test_some_runs_and_the_newest_runs(page, made, monkeypatch):
    route = f"/hp/api/runs?experiment={made['open']}"
    assert page.get(f"{route}&runs={made['first']}").json["runs"]["name"] == ["first"]
    monkeypatch.setattr(queries, "MAX_RUNS", 1)
    answer = page.get(route).json
    assert (answer["runs"]["name"], answer["left_out"]) == (["second"], 1)


def test_long_histories_keep_the_spike_and_zoom_shows_all(page, made):
    route = f"/hp/api/histories?runs={made['first']}&metric=batch/loss"
    long = page.get(f"{route}&pixels=100").json[made["first"]]
    assert (long["n"], len(long["steps"]) <= 202, max(long["values"])) == (5000, True, 9.0)
    whole = page.get(f"{route}&pixels=100&start={SPIKE - 50}&end={SPIKE + 49}").json[made["first"]]
    assert (whole["n"], whole["steps"]) == (100, list(range(SPIKE - 50, SPIKE + 50)))
    assert whole["values"].index(9.0) == 50


def test_what_is_not_finite_is_a_gap(page, made):
    answer = page.get(f"/hp/api/histories?runs={made['second']}&metric=gap").json
    assert answer[made["second"]] == {"steps": [0, 1, 2], "values": [1.0, None, None], "n": 3, "times": [3000] * 3}


def test_sections_are_drawn_from_json(page, made):
    answer = page.get(f"/hp/api/sections?runs={made['first']},{made['second']}&parts=overview,differences").json
    assert answer["sections"][0]["words"]
    assert {"key", "title", "level", "words", "table", "figure", "alt", "code"} == set(answer["sections"][0])
    assert isinstance(answer["lines"], dict)


@pytest.mark.parametrize(
    ("route", "status", "words"),
    [
        ("runs?experiment=77", 404, "no experiment '77'"),
        ("runs?experiment=x", 404, "no experiment 'x'"),
        ("runs", 404, "no experiment ''"),
        ("runs?experiment=" + "9" * 30, 404, "no experiment"),
        ("histories?metric=loss&start=soon", 400, "start='soon'"),
        ("sections?parts=poetry", 400, "parts='poetry'"),
        (f"sections?runs={','.join('a' * 101)}", 400, "101 runs"),
        ("sections?judge=worst", 400, "judge='worst'"),
    ],
)
def test_what_is_wrong_is_said(page, route, status, words):
    answer = page.get(f"/hp/api/{route}")
    assert answer.status_code == status
    assert words in answer.json["error"]


def test_who_may_not_read_an_experiment_sees_nothing_of_it(monkeypatch, filled):
    store, made = filled
    page = answering(monkeypatch, store, lambda ids: [one for one in ids if one != made["hidden"]])
    assert [item["name"] for item in page.get("/hp/api/experiments").json] == ["open", "Default"]
    hidden, unknown = (page.get(f"/hp/api/runs?experiment={one}") for one in (made["hidden"], "77"))
    assert (hidden.status_code, hidden.json["error"].replace(made["hidden"], "77")) == (404, unknown.json["error"])
    both = f"runs={made['secret']},{made['first']}"
    assert list(page.get(f"/hp/api/histories?{both}&metric=loss").json) == [made["first"]]
    compared = page.get(f"/hp/api/sections?{both}").text
    assert "first" in compared
    assert not re.search("secret|mallory|password", compared)


def test_a_run_that_claims_a_hidden_parent_shows_nothing_of_it(monkeypatch, filled):
    store, made = filled
    allowed = answering(monkeypatch, store)
    runs = f"runs={made['first']},{made['second']}"
    assert "mallory" in allowed.get(f"/hp/api/sections?{runs}").text  # who may read the parent, is told its author
    page = answering(monkeypatch, store, lambda ids: [one for one in ids if one == made["open"]])
    assert not re.search("secret machine|mallory", page.get(f"/hp/api/sections?{runs}").text)


def test_every_route_only_reads(page):
    for rule in page.application.url_map.iter_rules():
        assert rule.methods <= {"GET", "HEAD", "OPTIONS"}
    assert page.post("/hp/api/runs").status_code == 405


def reached(script):
    """A script, and all that it imports, which the page's head loads with it."""
    found, new = set(), {script}
    while new:
        name = new.pop()
        found.add(name)
        imported = re.findall(r'from "\./([^"]+)"', STATIC.file(name).content.decode())
        assert set(imported) <= set(STATIC.names)
        new |= set(imported) - found
    return found


def test_the_page_and_all_it_loads(page):
    answer = page.get("/hp/")
    assert answer.status_code == 200
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    assert not re.search(r"<script>|<style|\son\w+=|https?://", answer.text)
    loaded = re.findall(r'(?:src|href)="(?!\.\./)([^"]+)"', answer.text)
    assert {Path(name).name for name in loaded} == {"icon.svg", "page.css"} | reached("page.js")
    others = {"icon.svg", "page.css", "run_page.css", "plotly.js", "link.js", "workflow.js"}
    others |= {"report.js", "atlas.js", "unpacking.js"}  # of documents
    assert others | reached("page.js") | reached("run.js") == set(STATIC.names)
    for name in [*loaded, *(f"{STATIC.version}/{name}" for name in ("plotly.js", "link.js", "workflow.js"))]:
        sent = page.get(f"/hp/{name}", headers={"Accept-Encoding": "gzip"})
        assert sent.headers["Cache-Control"].endswith("immutable"), name
        assert gzip.decompress(sent.data) == page.get(f"/hp/{name}").data
    assert page.get("/hp").headers["Location"].endswith("/hp/")


def test_large_answers_are_packed(page, made):
    route = f"/hp/api/histories?runs={made['first']}&metric=batch/loss"
    plain, packed = page.get(route), page.get(route, headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.data) == plain.data
    assert plain.headers["Cache-Control"] == "no-store"


def test_what_the_page_does_not_work_on_is_said(monkeypatch, page):
    with monkeypatch.context() as changed:
        changed.setenv("MLFLOW_ENABLE_WORKSPACES", "true")
        answer = page.get("/hp/api/experiments")
        assert (answer.status_code, "workspaces" in answer.json["error"]) == (501, True)
    monkeypatch.setattr("mlflow.server.handlers._get_tracking_store", object)
    answer = page.get("/hp/")
    assert (answer.status_code, "--backend-store-uri" in answer.json["error"]) == (501, True)


STOCK = "<head></head><body>MLflow</body>"


def test_each_link_to_a_run_in_mlflow_shows_it_as_a_training():
    package = Path(mlflow_hp.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in package.rglob("*") if path.suffix in (".py", ".js", ".html")]
    links = [link for text in texts for link in re.findall(r"""#/experiments/[^`'"]*""", text)]
    assert len(links) >= 3
    assert [link for link in links if not link.endswith("?workflowType=machine_learning")] == []


def test_mlflows_own_page_links_to_ours():
    app = Flask(__name__)
    add_link_to_mlflow_ui(app, "/ml/", "abc")
    for path, mimetype in (("/ml/", "text/html"), ("/other", "text/html"), ("/json", "application/json")):
        app.add_url_rule(path, path.strip("/"), lambda mimetype=mimetype: stock(mimetype))
    client = app.test_client()
    served = client.get("/ml/", headers={"If-None-Match": '"stock"'})
    assert served.text == (
        '<head><script src="hp/abc/workflow.js"></script></head>'
        '<body>MLflow<script src="hp/abc/link.js" defer></script></body>'
    )
    assert "ETag" not in served.headers
    assert client.get("/other").text == client.get("/json").text == STOCK


def stock(mimetype):
    from flask import request

    response = Response(STOCK, mimetype=mimetype)
    response.set_etag("stock")
    return response.make_conditional(request)


def test_nobody_reads_anything_without_a_login(monkeypatch):
    auth = pytest.importorskip("mlflow.server.auth", reason="Flask-WTF, of MLflow's basic-auth, is not installed")
    monkeypatch.setattr(auth, "authenticate_request", lambda: Response(status=401))
    app = Flask(__name__)
    app.add_url_rule("/", "ask", lambda: permissions.readable_by_sender(["1"]))
    assert app.test_client().get("/").status_code == 401


def test_the_applications_are_there_under_their_names():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["entry-points"]["mlflow.app"]
    assert set(declared) == {"mlflow-hp", "mlflow-hp-basic-auth"}
    for value in declared.values():
        module, _, name = value.partition(":")
        assert isinstance(getattr(import_module(module), name), types.FunctionType)  # so MLflow knows a factory
