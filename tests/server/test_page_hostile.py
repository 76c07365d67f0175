"""Every parameter of every route of the page, with what no browser of ours sends: refused in words, never a 500."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from flask import Flask
from mlflow.entities import Metric, Param, RunTag

from mlflow_hp.server import routes, run_routes
from mlflow_hp.server.permissions import allow_all
from mlflow_hp.server.responses import StaticFiles
from mlflow_hp.server.routes import page_blueprint
from tests.helpers.needs import database_of_its_own

PARAMETERS = {
    "experiments": [],
    "runs": ["experiment", "runs"],
    "histories": ["runs", "metric", "pixels", "start", "end", "x", "smooth"],
    "notes": ["experiments"],
    "sections": ["runs", "parts", "metric", "judge"],
    "run": ["run"],
    "training": ["run", "start", "stop", "fit"],
    "descent": ["runs"],
    "comparable": ["run"],
    "barriers": ["run"],
    "weights": ["run", "fit", "tensor", "step"],
}
"""Route -> what it takes."""

VALUES = {
    "nothing": b"",
    "a blank": b" ",
    "a NUL": b"\0",
    "a NUL in a word": b"lo\0ss",
    "a NUL behind the right word": b"%s\0",
    "control characters": b"\x01\x1b[2J\x7f",
    "a line": b"a\r\nSet-Cookie: x=1",
    "a lone surrogate": b"\xed\xa0\x80",
    "half a character": b"\xc3",
    "not UTF-8": b"\xff\xfe\x80",
    "an overlong NUL": b"\xc0\x80",
    "a NUL quoted twice": b"%00",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "an astral character": "😀".encode(),
    "a right-to-left mark": "\u202eevil".encode(),
    "not a character": "\uffff".encode(),
    "digits of another script": "٣".encode(),
    "a superscript": "²".encode(),
    "a negative number": b"-1",
    "a fraction": b"1.5",
    "not a number": b"nan",
    "an infinity": b"-inf",
    "an exponent": b"1e400",
    "an underscore": b"1_0",
    "2^63": b"9223372036854775808",
    "-2^63 - 1": b"-9223372036854775809",
    "many digits": b"9" * 5000,
    "a long text": b"x" * 200_000,
    "many commas": b"," * 15_000,
    "a list": b"[1, 2]",
    "an object": b'{"a": {"b": null}}',
    "deep JSON": b"[" * 20_000,
    "a quote": b"'; DROP TABLE runs; --",
    "a wildcard": b"%_\\",
    "a path": b"../../etc/passwd",
    "a tag": b"<script>alert(1)</script>",
    "the same twice": b"%s,%s",
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def page(request, tmp_path_factory):
    """The page over a store with one experiment of one run, and what it takes: each parameter's right value."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("hostile")
    with contextlib.ExitStack() as stack:
        uri = f"sqlite:///{folder}/mlflow.db"
        if request.param == "postgresql":
            uri = stack.enter_context(database_of_its_own(f"mlflow_hp_hostile_{os.getpid()}"))
        store = SqlAlchemyStore(uri, (folder / "artifacts").as_uri())
        stack.callback(store._dispose_engine)
        experiment = store.create_experiment("open")
        run_id = store.create_run(experiment, "me", 1, [RunTag("mlflow_hp.kind", "training")], "first").info.run_id
        store.log_batch(run_id, [Metric("loss", 1 / (i + 1), i, i) for i in range(9)], [Param("a", "1")], [])
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("mlflow.server.handlers._get_tracking_store", lambda: store)
        app = Flask(__name__)
        app.register_blueprint(page_blueprint(allow_all, StaticFiles()), url_prefix="/hp")
        right = {"experiment": str(experiment), "runs": run_id, "metric": "loss", "parts": "overview", "judge": "best"}
        right |= {"pixels": "9", "start": "0", "end": "8"}
        right |= {"x": "log", "smooth": "3", "experiments": str(experiment)}
        right |= {"run": run_id, "stop": "9", "fit": "0", "tensor": "dense/kernel", "step": "0"}
        yield app.test_client(), right


def asked(page, route, **values):
    """The answer of a route; values are bytes or text."""
    encoded = (f"{name}={quote_from_bytes(value if isinstance(value, bytes) else value.encode())}"
               for name, value in values.items())  # fmt: skip
    return page.get(f"/hp/api/{route}?{'&'.join(encoded)}")


def test_these_are_all_routes_and_parameters(page):
    rules = {
        rule.rule.removeprefix("/hp/api/") for rule in page[0].application.url_map.iter_rules() if "/api/" in rule.rule
    }
    assert rules == set(PARAMETERS)
    code = "".join(Path(each.__file__).read_text(encoding="utf-8") for each in (routes, run_routes))
    read = re.findall(r'(?:args\.get|request_args\.\w+|runs)\("(\w+)"', code)
    assert set(read) == {name for names in PARAMETERS.values() for name in names}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(("route", "name"), [(route, name) for route, names in PARAMETERS.items() for name in names])
def test_no_value_is_an_error_of_the_server(page, route, name, value):
    client, right = page
    sent = VALUES[value].replace(b"%s", right[name].encode())
    answer = asked(client, route, **{other: right[other] for other in PARAMETERS[route]} | {name: sent})
    assert answer.status_code in (200, 400, 404)
    assert answer.json is not None
    assert len(answer.data) < 20_000
    if answer.status_code != 200:
        assert answer.json["error"]
    if b"\0" in sent:
        assert (answer.status_code, name in answer.json["error"]) == (400, True)
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("value", ["a NUL", "a lone surrogate", "a long text", "deep JSON"])
@pytest.mark.parametrize("route", PARAMETERS)
def test_no_other_parameter_is_an_error_of_the_server(page, route, value):
    client, right = page
    values = {name: right[name] for name in PARAMETERS[route]}
    assert asked(client, route, **values, other=VALUES[value]).status_code in (200, 400)
    assert client.get(f"/hp/api/{route}?{quote_from_bytes(VALUES[value][:1000])}=1").status_code in (200, 400, 404)
    assert client.get(f"/hp/api/{route}?" + "a=1&" * 3000).status_code in (200, 400, 404)
    assert client.get(f"/hp/api/{route}{quote_from_bytes(VALUES[value][:1000])}").status_code == 404


@pytest.mark.parametrize("route", [route for route, names in PARAMETERS.items() if names])
def test_parameters_that_are_not_there_or_twice(page, route):
    client, right = page
    values = {name: right[name] for name in PARAMETERS[route]}
    for name in values:
        without = {other: value for other, value in values.items() if other != name}
        assert asked(client, route, **without).status_code in (200, 400, 404)
        twice = "&".join(f"{key}={value}" for key, value in [*values.items(), (name, "%00")])
        assert client.get(f"/hp/api/{route}?{twice}").status_code == 400
    assert asked(client, route).status_code in (200, 400, 404)


def test_what_is_right_is_answered(page):
    client, right = page
    for route, names in PARAMETERS.items():
        assert asked(client, route, **{name: right[name] for name in names}).status_code == 200
    history = asked(client, "histories", **{name: right[name] for name in PARAMETERS["histories"]}).json
    assert history[right["runs"]]["n"] == 9
    assert asked(client, "histories", runs=right["runs"], metric="größe 😀").json == {}
