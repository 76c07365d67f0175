"""Routes of the page of one run on a real store: what they show, to whom, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from flask import Flask
from mlflow.entities import Metric, Param, RunStatus, RunTag

from mlflow_hp.analysis.surfaces.landscape_file import to_json
from mlflow_hp.analysis.surfaces.plane import Landscape
from mlflow_hp.history import HistoryWriter, Tensor
from mlflow_hp.history.weight_snapshots import FILE, Snapshots, save
from mlflow_hp.server import recorded
from mlflow_hp.server.permissions import allow_all
from mlflow_hp.server.responses import StaticFiles
from mlflow_hp.server.routes import page_blueprint

STATIC = StaticFiles()
N = 40


def answering(monkeypatch, store, readable=allow_all):
    """A client of an application with the page over `store`."""
    monkeypatch.setattr("mlflow.server.handlers._get_tracking_store", lambda: store)
    app = Flask(__name__)
    app.register_blueprint(page_blueprint(readable, STATIC), url_prefix="/hp")
    return app.test_client()


def write_history(folder, width=2):
    """History of `N` steps of one tensor with its statistics, and snapshots."""
    tensors = [Tensor("dense/kernel", (40, width), "float32", trainable=True)]
    columns = {"batch_loss": "float64", "gradient_norm_of/dense/kernel": "float64"}
    first = {"dense/kernel": np.ones(4)}
    with HistoryWriter(
        folder, columns=columns, tensors=tensors, weights="statistics", initial=first, meta={}
    ) as writer:
        losses = np.geomspace(1, 0.1, N)
        writer.append(
            {"batch_loss": losses, "gradient_norm_of/dense/kernel": losses}, {"dense/kernel": np.ones((N, 4))}
        )
    path = np.arange(N + 1.0)[:, None, None] * np.ones((1, 40, width))
    path[:, :20] **= 2
    save(Snapshots(np.arange(N + 1), {"dense/kernel": path.astype(np.float32)}, 1, N), folder / FILE)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store with an ended training, one that runs, and its parent; and one in a hidden experiment."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("run_page")
    store = SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", (folder / "artifacts").as_uri())
    made = {"open": store.create_experiment("open"), "hidden": store.create_experiment("hidden")}

    def run(name, experiment="open", tags=(), metrics=(), *, ended=True):
        own = store.create_run(made[experiment], "me", 1_000, [RunTag(*tag) for tag in tags], name).info
        store.log_batch(own.run_id, [Metric(*each) for each in metrics], [Param("epochs", "2")], [])
        if ended:
            store.update_run_info(own.run_id, RunStatus.FINISHED, 2_000, name)
        made[name] = own.run_id
        return folder / "artifacts" / own.artifact_uri.rsplit("/artifacts/", 1)[1]

    run("parent", tags=[("mlflow_hp.kind", "sweep")])
    nested = [("mlflow.parentRunId", made["parent"])]
    files = run("ended", tags=[*nested, ("mlflow_hp.kind", "training"), ("mlflow.note.content", "Loss 0.1.")])
    write_history(files / "training")
    finding = {"name": "speed", "verdict": "too slow", "text": "It crawls.", "evidence": {}, "severity": "hint"}
    (files / "diagnosis.json").write_text(json.dumps({"speed": finding}))
    running = [("batch/loss", 1.0 / (step + 1), 1, step) for step in range(10)]
    live = run("running", tags=nested, metrics=[*running, ("val_loss", 0.5, 1, 0)], ended=False)
    heatmap = {"key": "norm", "title": "weight norm", "rows": ["a"], "steps": [0, 5], "values": [[1.0]], "broken": [],
               "log": True}  # fmt: skip
    (live / "training").mkdir(parents=True)
    (live / "training" / "layers_so_far.json").write_text(json.dumps({"heatmaps": [heatmap], "note": None}))
    run("secret", "hidden")
    damaged = run("damaged")
    write_history(damaged / "training")
    losses = {"t": [0.0, 0.5, 1.0], "losses": {"line": [1.0, 3.0, 1.0]}, "barriers": {"line": 2.0}}
    for other in (made["damaged"], made["secret"], "0" * 32):
        path = files / "barriers" / f"{other}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"run_ids": [made["ended"], other], **losses}))
    (files / "barriers" / "nonsense.json").write_text("nonsense")
    small = run("of another architecture")
    write_history(small / "training", width=3)
    data = bytearray((damaged / "training" / "history.arrows").read_bytes())
    at = data.find(np.float64(1.0).tobytes(), len(data) // 2)
    data[at] ^= 1
    (damaged / "training" / "history.arrows").write_bytes(data)
    return store, made


@pytest.fixture
def made(filled):
    return filled[1]


@pytest.fixture
def page(monkeypatch, filled):
    store, made = filled
    return answering(monkeypatch, store, lambda ids: [each for each in ids if each != made["hidden"]])


def test_the_page_has_the_run_and_no_inline_script(page, made):
    answer = page.get(f"/hp/run/{made['ended']}")
    assert f'data-run="{made["ended"]}"' in answer.text
    assert "unsafe-inline" not in answer.headers["Content-Security-Policy"].split("script-src")[1].split(";")[0]
    assert answer.text.count("<script") == 1
    assert page.get("/hp/run/..%2f..").status_code == 404


def test_a_run_and_what_was_found(page, made):
    answer = page.get(f"/hp/api/run?run={made['ended']}").json
    assert (answer["run"]["name"], answer["run"]["parent"], answer["result"]) == ("ended", made["parent"], "Loss 0.1.")
    assert [finding["text"] for finding in answer["findings"]] == ["It crawls."]
    assert answer["params"] == [["epochs", "2"]]


def test_a_parent_has_its_nested_runs(page, made):
    children = page.get(f"/hp/api/run?run={made['parent']}").json["children"]
    assert set(children["ids"]) == {made["ended"], made["running"]}
    assert children["statuses"] == {"FINISHED": 1, "RUNNING": 1}


def test_a_training_and_a_stretch_of_it(page, made):
    whole = page.get(f"/hp/api/training?run={made['ended']}").json["training"]
    assert (whole["n_steps"], {each["key"] for each in whole["heatmaps"]}) == (
        N, {"update_ratio", "gradient_norm", "norm"},
    )  # fmt: skip
    part = page.get(f"/hp/api/training?run={made['ended']}&start=10&stop=12").json["training"]
    assert part["curves"][0]["steps"] == [10, 11]


def test_steps_that_were_shown_are_not_read_again(page, made, monkeypatch):
    computed = []
    compute = recorded.microscope
    monkeypatch.setattr(recorded, "microscope", lambda *arguments: computed.append(arguments) or compute(*arguments))
    first, again = (page.get(f"/hp/api/training?run={made['ended']}&start=5&stop=17").json for _ in range(2))
    assert first == again
    assert len(computed) == 1


def test_a_training_that_goes_on(page, made):
    live = page.get(f"/hp/api/training?run={made['running']}").json["training"]
    assert (live["n_steps"], live["epochs"]["values"]) == (10, {"val_loss": [0.5]})
    assert [each["rows"] for each in live["heatmaps"]] == [["a"]]
    part = page.get(f"/hp/api/training?run={made['running']}&start=3&stop=5").json["training"]
    assert part["curves"][0]["steps"] == [3, 4]


def test_a_run_without_a_training(page, made):
    assert page.get(f"/hp/api/training?run={made['parent']}").json == {"training": None}
    assert page.get(f"/hp/api/descent?runs={made['parent']}").json["descent"] is None
    assert page.get(f"/hp/api/weights?run={made['parent']}").json == {"weights": None}


def test_a_descent_and_weights(page, made):
    shown = page.get(f"/hp/api/descent?runs={made['ended']},{made['secret']}").json
    assert [path["run"] for path in shown["descent"]["paths"]] == [made["ended"]]
    assert shown["names"] == {made["ended"]: "ended"}
    weights = page.get(f"/hp/api/weights?run={made['ended']}&step=3").json["weights"]
    assert (weights["step"], sum(weights["counts"])) == (3, 80)


def test_runs_whose_descents_can_be_drawn_with_it(page, made):
    answer = page.get(f"/hp/api/comparable?run={made['ended']}").json
    assert [(run["id"], run["name"]) for run in answer["runs"]] == [(made["damaged"], "damaged")]
    assert answer["at_most"] == 20
    assert page.get(f"/hp/api/comparable?run={made['parent']}").json["runs"] == []


def test_on_another_machine_runs_with_the_same_tags_are_listed_without_a_download(monkeypatch, page, made, filled):
    monkeypatch.setattr("mlflow_hp.server.comparable_runs.is_on_this_machine", lambda run: False)
    monkeypatch.setattr("mlflow_hp.server.comparable_runs.history_folder", None)
    store, _ = filled
    for name in ("ended", "of another architecture"):
        store.set_tag(made[name], RunTag("mlflow_hp.data_digest", "abc"))
    answer = page.get(f"/hp/api/comparable?run={made['ended']}").json
    assert [run["name"] for run in answer["runs"]] == ["of another architecture"]


@pytest.fixture
def landscape(filled, made):
    """Logs a landscape with the paths of some runs to the artifacts of one."""
    store, _ = filled
    written = []

    def log(owner, runs, name="landscape"):
        uri = store.get_run(made[owner]).info.artifact_uri.removeprefix("file://")
        path = Path(uri) / "plots" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        axis, points, steps = np.array([0.0, 1.0]), np.zeros((3, 2)), np.arange(3)
        loss = np.full((2, 2), float(len(runs)))
        plane = Landscape(axis, axis, loss, dict.fromkeys(runs, points), dict.fromkeys(runs, steps), "principal",
                          (0.5, 0.5), "", 9, 4)  # fmt: skip
        path.write_text(to_json(plane, {run: made[run] for run in runs}))
        written.append(path)

    yield log
    for path in written:
        path.unlink(missing_ok=True)


def drawn(page, *runs):
    shown = page.get(f"/hp/api/descent?runs={','.join(runs)}").json
    return shown["descent"]["kind"], [shown["names"][path["run"]] for path in shown["descent"]["paths"]]


def test_a_logged_landscape_is_drawn_for_the_runs_that_are_on_it(page, made, landscape):
    assert drawn(page, made["ended"]) == ("plane", ["ended"])
    landscape("ended", ["ended"])
    landscape("ended", ["damaged", "ended"], "landscape_of_2_runs")
    assert drawn(page, made["ended"]) == ("landscape", ["ended"])
    shown = page.get(f"/hp/api/descent?runs={made['ended']}").json["descent"]
    assert shown["z"] == [[0.0, 0.0], [0.0, 0.0]]  # that of this run alone: a loss of 1
    assert drawn(page, made["ended"], made["damaged"]) == ("landscape", ["ended", "damaged"])
    assert drawn(page, made["ended"], made["of another architecture"])[0] == "plane"


def test_the_landscape_of_a_sweep_is_drawn_for_it_and_for_its_runs(page, made, landscape):
    landscape("parent", ["running", "ended", "secret"])
    assert drawn(page, made["parent"]) == ("landscape", ["running", "ended"])
    assert drawn(page, made["ended"]) == ("landscape", ["ended"])
    assert drawn(page, made["ended"], made["running"]) == ("landscape", ["ended", "running"])


def test_a_file_that_is_no_landscape_is_left_out(page, made, landscape, filled):
    landscape("ended", ["ended"])
    uri = filled[0].get_run(made["ended"]).info.artifact_uri.removeprefix("file://")
    (Path(uri) / "plots" / "landscape.json").write_text("[" * 1000)
    assert drawn(page, made["ended"]) == ("plane", ["ended"])


def test_logged_barriers_to_runs_that_may_be_read(page, made):
    (barrier,) = page.get(f"/hp/api/barriers?run={made['ended']}").json["barriers"]
    assert (barrier["other"], barrier["name"], barrier["ways"][0]["height"]) == (made["damaged"], "damaged", 2.0)
    assert page.get(f"/hp/api/barriers?run={made['parent']}").json == {"barriers": []}


ROUTES = ["run?run={}", "training?run={}", "descent?runs={}", "weights?run={}", "comparable?run={}", "barriers?run={}"]


@pytest.mark.parametrize("route", ROUTES)
def test_a_hidden_run_looks_as_one_that_does_not_exist(page, made, route):
    hidden = page.get(f"/hp/api/{route.format(made['secret'])}")
    missing = page.get(f"/hp/api/{route.format('0' * 32)}")
    assert hidden.status_code == missing.status_code == 404
    assert hidden.json["error"].replace(made["secret"], "") == missing.json["error"].replace("0" * 32, "")


@pytest.mark.parametrize("query", ["training?run={}&start=x", "training?run={}&fit=x", "weights?run={}&step=1.5"])
def test_what_is_no_number_is_refused(page, made, query):
    assert page.get(f"/hp/api/{query.format(made['ended'])}").status_code == 400


@pytest.mark.parametrize("query", ["start=-5&stop=3", "start=39&stop=1000000", "start=9&stop=2", "fit=7", "fit=-1"])
def test_a_stretch_that_is_not_there_is_none_or_cut(page, made, query):
    assert page.get(f"/hp/api/training?run={made['ended']}&{query}").status_code == 200


def test_a_damaged_history_is_told(page, made):
    answer = page.get(f"/hp/api/training?run={made['damaged']}")
    assert answer.status_code == 400
    assert "damaged" in answer.json["error"]
    assert page.get(f"/hp/api/run?run={made['damaged']}").status_code == 200


def test_too_many_descents_are_refused(page):
    assert page.get(f"/hp/api/descent?runs={','.join(['a'] * 21)}").status_code == 400
