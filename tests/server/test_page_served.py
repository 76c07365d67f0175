"""The page on real servers: under uvicorn and gunicorn, and what MLflow's basic-auth lets whom see."""

from __future__ import annotations

import base64
import json

import mlflow
import pytest
import requests
from mlflow.entities import Metric, RunTag

from tests.helpers.needs import needed
from tests.helpers.servers import serving

pytestmark = pytest.mark.slow


def got(address, **headers):
    """Status, text and headers of what comes from an address."""
    answer = requests.get(address, headers=headers, timeout=60)
    return answer.status_code, answer.text, answer.headers


@pytest.mark.sampled(2)
@pytest.mark.parametrize("options", [(), ("--gunicorn-opts", "--timeout 60", "--static-prefix", "/ml")])
def test_beside_the_stock_ui(tmp_path, options):
    with serving(tmp_path, "mlflow-hp", *options) as server:
        assert "Compare runs" in got(f"{server}/hp/")[1]
        assert [item["name"] for item in json.loads(got(f"{server}/hp/api/experiments")[1])] == ["Default"]
        assert "link.js" in got(f"{server}/")[1]
        assert "link.js" not in got(f"{server}/hp/")[1]
        assert got(f"{server}/hp/api/experiments", Host="elsewhere.example")[0] == 403  # MLflow's own check
        _, _, headers = got(f"{server}/hp/api/experiments", Origin="https://elsewhere.example")
        assert "Access-Control-Allow-Origin" not in headers


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A server with logins: ann may read the experiment `hers`, bob nothing; what MLflow can't judge is shut."""
    needed("flask_wtf", "flask-wtf")
    auth = pytest.importorskip("mlflow.server.auth.client")  # which ignores the warnings of its libraries

    tmp_path = tmp_path_factory.mktemp("locked")
    (tmp_path / "auth.ini").write_text(
        "[mlflow]\ndefault_permission = NO_PERMISSIONS\nadmin_username = root\nadmin_password = the-root-of-all-1\n"
        f"database_uri = sqlite:///{tmp_path}/auth.db\n"
    )
    settings = {
        "MLFLOW_AUTH_CONFIG_PATH": str(tmp_path / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a key of the tests",
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
    }
    with serving(tmp_path, "mlflow-hp-basic-auth", **settings) as server, pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "root")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "the-root-of-all-1")
        client, users = mlflow.MlflowClient(server), auth.AuthServiceClient(server)
        made = {name: client.create_experiment(name) for name in ("hers", "other")}
        for name, experiment in list(made.items()):
            run = client.create_run(
                experiment, run_name=f"run of {name}", tags={"mlflow_hp.author": f"author of {name}"}
            )
            made[f"run of {name}"] = run.info.run_id
            client.log_batch(run.info.run_id, [Metric("loss", 1.0, 1, step) for step in range(3)])
        # A run may claim to be nested in one that its reader may not see.
        client.log_batch(made["run of hers"], tags=[RunTag("mlflow.parentRunId", made["run of other"])])
        for user in ("ann", "bob"):
            users.create_user(user, f"the-password-of-{user}")
        users.grant_user_permission("ann", "experiment", made["hers"], "READ")
        yield server, made


def login(user):
    password = "the-root-of-all-1" if user == "root" else f"the-password-of-{user}"
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_who_may_not_read_an_experiment_sees_nothing_of_it(locked):
    server, made = locked

    def seen(user, route):
        status, text, _ = got(f"{server}/hp/{route}", **login(user))
        return (status, json.loads(text))

    def listed(user):
        return {item["name"] for item in seen(user, "api/experiments")[1]}

    assert (listed("root"), listed("ann"), listed("bob")) == ({"Default", "hers", "other"}, {"hers"}, set())

    runs = f"runs={made['run of hers']},{made['run of other']}"
    for user, may_read in (("root", {"hers", "other"}), ("ann", {"hers"}), ("bob", set())):
        for name in ("hers", "other"):
            status, answer = seen(user, f"api/runs?experiment={made[name]}")
            assert status == (200 if name in may_read else 404)
            assert (f"run of {name}" in json.dumps(answer)) == (name in may_read)
        assert set(seen(user, f"api/histories?metric=loss&{runs}")[1]) == {made[f"run of {name}"] for name in may_read}
        compared = json.dumps(seen(user, f"api/sections?{runs}")[1])
        assert ("author of hers" in compared) == ("hers" in may_read)
        assert ("other" in compared) == ("other" in may_read)
        assert got(f"{server}/hp/", **login(user))[0] == 200


def test_a_note_is_written_by_whom_mlflow_lets_change_the_experiment(locked):
    server, made = locked
    note = json.dumps({"name": "n", "text": "for ann", "view": "", "author": "root", "changed": 1})
    content = {"experiment_id": made["hers"], "key": "mlflow_hp.note.1", "value": note}
    route = f"{server}/ajax-api/2.0/mlflow/experiments/set-experiment-tag"

    def written(user, **headers):
        return requests.post(route, json=content, headers=login(user) | headers, timeout=60).status_code

    def read(user):
        status, text, _ = got(f"{server}/hp/api/notes?experiments={made['hers']},{made['other']}", **login(user))
        assert status == 200
        answer = json.loads(text)
        assert answer["sender"] == user
        return [note["text"] for note in answer["notes"]]

    assert [written("ann"), written("bob")] == [403, 403]  # ann may read, and no more
    assert written("root", Origin="https://elsewhere.example") == 403
    assert written("root") == 200
    assert (read("root"), read("ann"), read("bob")) == (["for ann"], ["for ann"], [])


def test_without_a_login_there_is_nothing(locked):
    server, made = locked
    _, page, _ = got(f"{server}/hp/", **login("bob"))
    script = page.partition('type="module" src="')[2].partition('"')[0]
    assert "import" in got(f"{server}/hp/{script}", **login("bob"))[1]
    for route in (
        "",
        script,
        "api/experiments",
        f"api/runs?experiment={made['hers']}",
        "api/histories",
        "api/sections",
        f"api/notes?experiments={made['hers']}",
    ):
        status, text, headers = got(f"{server}/hp/{route}")
        assert (status, "Basic" in headers["WWW-Authenticate"]) == (401, True), route
        assert "run of" not in text
    assert got(f"{server}/hp/", Authorization="Basic " + base64.b64encode(b"ann:wrong").decode())[0] == 401
