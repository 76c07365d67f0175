"""How an experiment runs and ends: statuses, exit codes, several values; with a fake in place of training."""

from __future__ import annotations

import base64
import re
import signal

import mlflow
import pandas as pd
import pytest

import mlflow_hp
from mlflow_hp.analysis import Finding
from projects import arguments, stopping
from projects.arguments import Parameter
from projects.experiment import Experiment, Outcome, command
from projects.runner import run
from projects.stopping import Stopped
from projects.sweep_report import add_report

PARAMETERS = [
    Parameter("rate", "0.1", arguments.number(), "as a fake needs it"),
    Parameter("size", "1", arguments.whole(1), "another"),
]


def train(settings, command):
    run_id = mlflow.active_run().info.run_id
    mlflow.log_metric("seen", settings["rate"])
    if settings["rate"] == 13:
        raise RuntimeError("an unlucky rate\nand more")
    if settings["rate"] == 14:
        raise KeyboardInterrupt
    if settings["rate"] == 15:
        raise Stopped
    if settings["rate"] == 17:
        mlflow.end_run("KILLED")
        return Outcome(run_id, {}, ["left"], None, status="KILLED")
    if settings["rate"] == 16:
        raise mlflow_hp.UserError("rate=16 does not suit")
    cost = abs(settings["rate"] - 0.3)
    return Outcome(run_id, {"cost": cost, "size": float(settings["size"])}, [f"cost {cost:.2g}"], settings)


def compare(run_id, outcomes):
    compared.append((run_id, list(outcomes)))
    return [f"**{len(outcomes)}** of them compared."]


compared: list = []
FAKE = Experiment("fake", "What does a fake find?", PARAMETERS, train, compare, "cost")


@pytest.fixture
def go(store, capsys):
    """Run the fake; gives exit status, its top run, its children by name, stdout and stderr."""

    def go(*argv):
        compared.clear()
        before = {r.info.run_id for r in mlflow.search_runs(search_all_experiments=True, output_format="list")}
        status = run(FAKE, argv)
        new = [r for r in all_runs(store) if r.info.run_id not in before]
        assert mlflow.active_run() is None
        assert not [r for r in new if r.info.status == "RUNNING"]
        top = [r for r in new if "mlflow.parentRunId" not in r.data.tags]
        children = {r.info.run_name: r for r in new if "mlflow.parentRunId" in r.data.tags}
        printed = capsys.readouterr()
        return status, top[0] if top else None, children, printed.out, printed.err

    return go


def all_runs(store):
    experiment = store.get_experiment_by_name("tests").experiment_id
    return mlflow.search_runs([experiment], output_format="list", max_results=5000)


def test_one_training(go):
    status, top, children, out, _ = go("--rate", "0.2")
    assert (status, top.info.status, children) == (0, "FINISHED", {})
    assert top.info.run_name == "fake rate=0.2"
    assert top.data.params == {"rate": "0.2", "size": "1"}
    assert top.data.tags["mlflow_hp.kind"] == "training"
    assert "cost 0.1" in out
    assert f"run {top.info.run_id}" in out


@pytest.mark.sampled(2)
@pytest.mark.parametrize(
    ("rate", "exit_status", "status", "said"),
    [
        ("13", 1, "FAILED", "fake: RuntimeError: an unlucky rate"),
        ("14", 130, "KILLED", "fake: interrupted"),
        ("15", 130, "KILLED", "fake: interrupted"),
        ("16", 2, "FAILED", "fake: rate=16 does not suit"),
        ("fast", 2, "FAILED", "fake: rate='fast' has to be a number"),
    ],
)
def test_a_training_that_ends_badly(go, store, rate, exit_status, status, said):
    ended, top, _, _, err = go("--rate", rate)
    assert (ended, top.info.status) == (exit_status, status)
    assert err.startswith(said)
    assert err.count("\n") == 1
    artifacts = [a.path for a in store.list_artifacts(top.info.run_id, "error")]
    assert artifacts == (["error/traceback.txt"] if exit_status == 1 else [])
    assert top.data.tags["mlflow_hp.error"]
    if exit_status == 2:
        assert "Bad input" in top.data.tags["mlflow.note.content"]
    if exit_status == 1:
        assert "an unlucky rate" in mlflow.artifacts.load_text(f"runs:/{top.info.run_id}/{artifacts[0]}")


def test_several_values(go, store, monkeypatch):
    monkeypatch.setattr("projects.sweep.is_live", lambda: True)  # as in a terminal
    status, top, children, out, err = go("--rate", "0.1,0.2,0.4", "--size", "1,2")
    assert (status, top.info.status) == (0, "FINISHED")
    assert len(children) == 6
    best = children["rate=0.2 size=1"]
    assert top.data.tags["mlflow_hp.kind"] == "sweep"
    assert top.data.tags["mlflow_hp.best_run_id"] == best.info.run_id
    assert top.data.tags["mlflow_hp.combinations"] == "6 planned, 6 done, 0 failed"
    assert top.data.metrics["best/cost"] == pytest.approx(0.1)
    for child in children.values():
        assert child.data.tags["mlflow.parentRunId"] == top.info.run_id
        assert child.data.tags["mlflow_hp.kind"] == "training"
        assert child.info.status == "FINISHED"
    assert best.data.params == {"rate": "0.2", "size": "1"}
    table = pd.read_csv(store.download_artifacts(top.info.run_id, "combinations.csv"))
    assert table["rate"].tolist() == [0.1, 0.1, 0.2, 0.2, 0.4, 0.4]
    assert table["run_id"][2] == best.info.run_id
    note = top.data.tags["mlflow.note.content"]
    assert "What does a fake find?" in note
    assert "| 0.2 | 2 | FINISHED | 0.1 |" in note
    assert "`mlflow run . -e fake --env-manager local -P rate=0.1,0.2,0.4 -P size=1,2`" in note
    assert top.data.params == {"rate": "0.1,0.2,0.4", "size": "1,2"}
    assert compared == [(top.info.run_id, list(children)[::-1])]
    assert "The best of 6 is rate=0.2 size=1, cost 0.1" in out
    assert "6 of them compared." in out
    assert "**Findings**\n\n- **6** of them compared.\n" in note
    assert "6/6" in err
    html = mlflow.artifacts.load_text(f"{top.info.artifact_uri}/report.html")
    assert "The best of 6 is rate=0.2 size=1, cost 0.1" in html
    assert "6 of them compared." in html
    assert re.findall("<td>0.[124]</td><td>[12]</td>", html)[:2] == ["<td>0.2</td><td>1</td>", "<td>0.2</td><td>2</td>"]
    assert "What to try" not in html  # neither an edge nor a finding
    assert not re.search(r"<[^>]+(?:src|href)=[\"'](?!data:)", html)


def test_what_to_try_after_a_sweep(store, tmp_path):
    finding = Finding("speed", "learns slowly", "The loss still falls.", {}, "learning_rate=0.4", "problem")
    fine = Finding("fit", "no overfitting", "All is well.", {}, severity="fine")
    with mlflow.start_run(run_name="three <b>rates</b>") as parent:
        plots = tmp_path / "plots"
        plots.mkdir()
        for name in ("accuracy", "loss_by_epoch"):
            (plots / f"{name}.png").write_bytes(name.encode())
        mlflow.log_artifacts(plots, "plots")
    run_id = parent.info.run_id
    table = pd.DataFrame({"rate": ["0.1", "0.2", "0.4", "x<y"], "cost": [3.0, 2.0, float("nan"), 1.0],
                          "run_id": ["a", "b", "c", "d"]})  # fmt: skip
    following = Finding("next_try", "try", "Next, try 0.4.", {}, "0.4", "hint")
    best = Outcome("b", {}, [], None, advice=[finding, fine, following])
    add_report(run_id, FAKE, table, ["rate"], best, ["**b** won"], "data digits", "mlflow run .")
    html = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/report.html")
    assert "three &lt;b&gt;rates" in html
    assert "Learns slowly: The loss still falls. Try: learning_rate=0.4." in html
    assert "mlflow-hp improve b trains the best" in html
    assert "All is well" not in html
    assert "<p>Next, try 0.4.</p>" in html
    assert html.count('class="result"') == 1
    assert [base64.b64decode(data) for data in re.findall('base64,([^"]+)', html)] == [b"loss_by_epoch", b"accuracy"]
    assert html.index("x&lt;y") < html.index("<td>0.2</td>") < html.index("<td>0.4</td>")  # best first, unknown last
    add_report(run_id, FAKE, table[:3], ["rate"], best._replace(run_id="a"), ["a won"], "", "mlflow run .")
    html = mlflow.artifacts.load_text(f"{parent.info.artifact_uri}/report.html")
    assert "The best has the smallest rate tried, 0.1: a wider range" in html


def test_a_combination_that_fails_does_not_stop_the_others(go, store):
    status, top, children, out, err = go("--rate", "0.1,13,16,0.4")
    assert (status, top.info.status) == (0, "FINISHED")
    assert {name: c.info.status for name, c in children.items()} == {
        "rate=0.1": "FINISHED", "rate=13": "FAILED", "rate=16": "FAILED", "rate=0.4": "FINISHED"
    }  # fmt: skip
    assert top.data.metrics["combinations_failed"] == 2
    assert "2 failed" in out
    assert "rate=13 failed: RuntimeError: an unlucky rate" in err
    failed = children["rate=13"].info.run_id
    assert "an unlucky rate" in mlflow.artifacts.load_text(f"runs:/{failed}/error/traceback.txt")


def test_all_combinations_failing(go):
    status, top, children, _, err = go("--rate", "13", "--size", "1,2")
    assert (status, top.info.status) == (1, "FAILED")
    assert {c.info.status for c in children.values()} == {"FAILED"}
    assert "all 2 combinations failed; size=1: an unlucky rate" in err
    assert go("--rate", "16", "--size", "1,2")[0] == 2


@pytest.mark.parametrize("rate", ["14", "15"])
def test_an_interrupted_sweep_keeps_and_compares_what_ended(go, store, rate):
    status, top, children, _, _ = go("--rate", f"0.1,0.2,{rate},0.4")
    assert (status, top.info.status) == (130, "KILLED")
    assert {name: c.info.status for name, c in children.items()} == {
        "rate=0.1": "FINISHED", "rate=0.2": "FINISHED", f"rate={rate}": "KILLED"
    }  # fmt: skip
    assert compared == [(top.info.run_id, ["rate=0.1", "rate=0.2"])]
    table = pd.read_csv(store.download_artifacts(top.info.run_id, "combinations.csv"))
    assert table["status"].tolist() == ["FINISHED", "FINISHED", "KILLED"]


def test_an_error_after_the_interrupt_does_not_hide_it(go, monkeypatch):
    def broken(run_id, outcomes):
        raise OSError("no space left")

    monkeypatch.setattr("test_experiment.FAKE", FAKE._replace(compare=broken))
    status, top, _, _, err = go("--rate", "0.1,14")
    assert (status, top.info.status) == (130, "KILLED")
    assert "after the interrupt: OSError: no space left" in err
    assert "Traceback" not in err


def test_the_handler_of_sigterm_is_put_back(go):
    before = signal.getsignal(signal.SIGTERM)
    go("--rate", "13")
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_run_that_mlflow_made_is_adopted_with_its_params(go, store, monkeypatch):
    made = store.create_run(store.get_experiment_by_name("tests").experiment_id, run_name="theirs")
    store.log_param(made.info.run_id, "rate", "2e-1")
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    assert go("--rate", "2e-1")[0] == 0
    adopted = store.get_run(made.info.run_id)
    assert (adopted.info.status, adopted.info.run_name) == ("FINISHED", "theirs")
    assert adopted.data.params["rate"] == "2e-1"


def test_a_run_that_is_left_to_be_resumed_stays_killed(go, store, monkeypatch):
    watched = []
    monkeypatch.setattr(stopping, "keep_killed", watched.append)
    assert go("--rate", "17")[1].info.status == "KILLED"
    made = store.create_run(store.get_experiment_by_name("tests").experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    assert go("--rate", "17")[0] == 0
    assert store.get_run(made.info.run_id).info.status == "KILLED"
    assert watched == [made.info.run_id]  # `mlflow run` sets another status afterwards


def test_bad_input_ends_the_run_that_mlflow_made(go, store, monkeypatch):
    made = store.create_run(store.get_experiment_by_name("tests").experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", made.info.run_id)
    assert go("--rate", "fast")[0] == 2
    assert store.get_run(made.info.run_id).info.status == "FAILED"


def test_a_server_that_is_down(store, capsys):
    mlflow.set_tracking_uri("http://127.0.0.1:9")
    assert run(FAKE, []) == 2
    assert "the tracking server http://127.0.0.1:9 does not answer" in capsys.readouterr().err


def test_command_names_what_differs_from_the_defaults():
    assert command(FAKE, {"rate": 0.1, "size": 7}) == "mlflow run . -e fake --env-manager local -P size=7"
