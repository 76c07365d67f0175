"""The minimisers against known ends, and what the experiment records of them."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path

import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from mlflow_hp.analysis import Finding
from mlflow_hp.analysis.surfaces.beale import BealeSurface
from mlflow_hp.errors import UserError
from projects import beale, minimisers
from projects.runner import run
from tests.helpers.forked_python import python

ROOT = Path(__file__).parents[2]
SURFACE = BealeSurface()
REACH_IT = [
    "L-BFGS-B-bounded", "L-BFGS-B", "BFGS", "TNC", "SLSQP", "Newton-CG", "trust-ncg", "trust-krylov", "trust-exact",
    "trust-constr", "Nelder-Mead",
]  # fmt: skip
BY_KERAS = [name for name, how in minimisers.METHODS.items() if isinstance(how, minimisers.KerasMethod)]


def minimised(method, start=(4.0, 4.0), bound=4.5, iterations=2000, learning_rate=None):
    points = [np.array(start)]
    ending = minimisers.minimise(
        method, SURFACE, points, bound=bound, iterations=iterations, learning_rate=learning_rate
    )
    return np.array(points), ending


def distance(point):
    return float(np.hypot(point[0] - 3, point[1] - 0.5))


@pytest.fixture
def go(store):
    """Run it in this process; gives exit status, top run, and its children by name."""

    def go(*argv):
        status = run(beale.EXPERIMENT, ["--animate", "false", *argv])
        experiment = store.get_experiment_by_name("tests").experiment_id
        runs = store.search_runs([experiment], order_by=["attributes.start_time DESC"], max_results=100)
        assert not [r for r in runs if r.info.status == "RUNNING"]
        top = next(r for r in runs if "mlflow.parentRunId" not in r.data.tags)
        children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == top.info.run_id]
        return status, top, {r.info.run_name: r for r in children}

    return go


def artifacts(store, found, path=None):
    return {Path(a.path).name for a in store.list_artifacts(found.info.run_id, path)}


def history(store, found, name):
    return [(m.step, m.value) for m in store.get_metric_history(found.info.run_id, name)]


def test_the_bounded_minimiser_ends_at_the_minimum():
    points, ending = minimised("L-BFGS-B-bounded")
    assert SURFACE.cost(*points[0]) == 68891.203125
    assert distance(points[-1]) < 1e-4
    assert np.abs(points).max() <= 4.5
    assert ending.success


@pytest.mark.parametrize("method", REACH_IT)
def test_methods_that_reach_the_minimum(method):
    points, ending = minimised(method)
    assert points[0].tolist() == [4, 4]
    assert distance(points[-1]) < 1e-4
    assert ending.success
    assert ending.message
    assert len(points) > 5
    how = minimisers.METHODS[method]
    assert ending.nfev > 0
    assert (ending.njev > 0, ending.nhev > 0) == (how.gradient, how.hessian)


@pytest.mark.parametrize("method", ["L-BFGS-B-bounded", "Nelder-Mead", "Newton-CG"])
def test_end_and_counts_are_scipys(method):
    how = minimisers.METHODS[method]
    points, ending = minimised(method)
    found = minimize(
        lambda p: SURFACE.cost(*p), [4.0, 4.0], method=how.name,
        jac=(lambda p: SURFACE.gradient(*p)) if how.gradient else None,
        hess=(lambda p: SURFACE.hessian(*p)) if how.hessian else None,
        bounds=[(-4.5, 4.5)] * 2 if how.bounded else None,
    )  # fmt: skip
    np.testing.assert_array_equal(points[-1], found.x)
    assert ending[:2] == (found.success, found.message)
    assert (ending.nfev, ending.njev, ending.nhev) == (found.nfev, found.get("njev", 0), found.get("nhev", 0))


def rule(method, rate):
    """The update of a method as its paper has it, with Keras' constants."""
    state = {"v": np.zeros(2), "m": np.zeros(2), "t": 0}

    def step(p, g):
        state["t"] += 1
        if method == "SGD":
            return p - rate * g
        if method in ("momentum", "Nesterov"):
            state["v"] = 0.9 * state["v"] - rate * g
            return p + (0.9 * state["v"] - rate * g if method == "Nesterov" else state["v"])
        if method == "RMSprop":
            state["v"] = 0.9 * state["v"] + 0.1 * g**2
            return p - rate * g / np.sqrt(state["v"] + 1e-7)
        state["m"] = 0.9 * state["m"] + 0.1 * g
        state["v"] = 0.999 * state["v"] + 0.001 * g**2
        scale = np.sqrt(1 - 0.999 ** state["t"]) / (1 - 0.9 ** state["t"])
        return p - rate * scale * state["m"] / (np.sqrt(state["v"]) + 1e-7)

    return step


@pytest.mark.parametrize("method", BY_KERAS)
def test_keras_takes_the_steps_of_its_rules(method):
    points, ending = minimised(method, iterations=30)
    step = rule(method, minimisers.METHODS[method].learning_rate)
    for before, after in itertools.pairwise(points):  # Keras has its constants in float32
        expected = step(before, SURFACE.gradient(*before))
        np.testing.assert_allclose(after - before, expected - before, rtol=1e-3)
    assert (len(points), ending.success) == (31, False)
    assert (ending.nfev, ending.njev, ending.nhev) == (0, 31, 0)
    assert ending.message.startswith("it stopped after 30 iterations")


def test_keras_stops_where_the_gradient_is_small():
    points, ending = minimised("SGD", start=(3.0, 0.5 + 1e-6), learning_rate=0.01)
    assert ending.success
    assert 1 < len(points) < 2000
    assert np.hypot(*SURFACE.gradient(*points[-1])) < 1e-6 <= np.hypot(*SURFACE.gradient(*points[-2]))


def test_a_rate_that_diverges():
    points, ending = minimised("SGD", learning_rate=0.01)
    assert not ending.success
    assert ending.message.startswith(f"diverged: not finite after iteration {len(points) - 1}")
    assert len(points) < 10
    assert not np.isfinite(SURFACE.gradient(*points[-1])).all()


def test_one_iteration_is_one():
    points, _ = minimised("Adam", iterations=1)
    assert len(points) == 2


def test_a_start_outside_the_bounds():
    with pytest.raises(UserError, match=r"x=4 and y=4 have to lie from -bound to bound, and bound is 2"):
        minimised("L-BFGS-B-bounded", bound=2)
    assert distance(minimised("L-BFGS-B", bound=2)[0][-1]) < 1e-4


def test_one_method(go, store):
    status, found, children = go("--method", "nelder-mead", "--animate", "true")
    assert (status, found.info.status, children) == (0, "FINISHED", {})
    points, ending = minimised("Nelder-Mead")
    for name, values in {
        "x": points[:, 0], "y": points[:, 1], "f": SURFACE.cost(*points.T),
        "gradient_norm": np.hypot(*SURFACE.gradient(*points.T)),
    }.items():  # fmt: skip
        steps, logged = zip(*history(store, found, name), strict=True)
        assert steps == tuple(range(len(points)))
        np.testing.assert_allclose(logged, values)
    assert found.data.metrics["distance"] == pytest.approx(distance(points[-1]))
    assert found.data.metrics["nfev"] == ending.nfev
    assert found.data.metrics["iterations"] == len(points) - 1
    assert found.data.metrics["success"] == 1
    assert found.data.tags["mlflow_hp.message"] == ending.message
    assert found.data.tags["mlflow_hp.verdict"] == "reached the minimum"
    pictures = {"path.png", "path.gif", "f_by_iteration.png", "gradient_norm_by_iteration.png"}
    assert artifacts(store, found, "plots") == pictures
    table = pd.read_csv(store.download_artifacts(found.info.run_id, "path.csv"), float_precision="round_trip")
    np.testing.assert_array_equal(table[["x", "y"]], points)
    told = json.loads(Path(store.download_artifacts(found.info.run_id, "diagnosis.json")).read_text())
    assert told["ending"]["verdict"] == "reached the minimum"
    note = found.data.tags["mlflow.note.content"]
    assert "`mlflow run . -e beale --env-manager local -P method=Nelder-Mead`" in note
    assert f"Nelder-Mead says: {ending.message}" in note


@pytest.mark.thorough
def test_several_methods(go, store, capsys):
    status, top, children = go(
        "--method", "L-BFGS-B-bounded,CG,COBYLA,SGD", "--iterations", "1200", "--animate", "true"
    )
    assert (status, top.info.status) == (0, "FINISHED")
    assert set(children) == {"method=L-BFGS-B-bounded", "method=CG", "method=COBYLA", "method=SGD"}
    assert {c.info.status for c in children.values()} == {"FINISHED"}
    assert artifacts(store, top, "plots") == {"paths.png", "paths.gif", "f_by_iteration.png"}
    assert len(history(store, children["method=SGD"], "f")) == 1201
    assert "path.gif" not in artifacts(store, children["method=SGD"], "plots")
    table = pd.read_csv(store.download_artifacts(top.info.run_id, "combinations.csv")).set_index("method")
    assert table.loc["L-BFGS-B-bounded", "distance"] < 1e-4
    assert (table["evaluations"] == table["nfev"] + table["njev"] + table["nhev"]).all()
    note, printed = top.data.tags["mlflow.note.content"], capsys.readouterr().out
    assert "| L-BFGS-B-bounded | FINISHED |" in note
    for method in ("L-BFGS-B-bounded", "COBYLA", "CG", "SGD"):
        assert f"**: {method} (" in note
        assert f": {method} (" in printed
    assert set(table["ended"]) == {child.data.tags["mlflow_hp.verdict"] for child in children.values()}
    # where the gradient method stops in the flat part, and what it calls that, is its rounding errors'
    assert ("which it calls a success" in note) == bool(children["method=CG"].data.metrics["success"])


def test_a_method_that_calls_another_end_a_success(go, store):
    """At (0, 1) the gradient is exactly 0, but the surface has a saddle there."""
    status, top, _ = go("--method", "BFGS,SGD", "--x", "0", "--y", "1", "--iterations", "3")
    assert status == 0
    assert "BFGS (2 evaluations, which it calls a success)" in top.data.tags["mlflow.note.content"]


def test_many_methods_are_counted_and_not_listed():
    settings = {"method": "BFGS", "x": 4.0, "y": 4.0}
    columns = {name: np.zeros(2) for name in ("x", "y", "f", "gradient_norm")}
    descents = {}
    for number in range(20):
        ending = minimisers.Ending(True, "done", 1 + number, 0, 0)
        verdict = Finding("ending", beale.ELSEWHERE, "It stopped.", {})
        descents[f"method {number}"] = beale.Descent(columns, ending, verdict, settings)
    (sentence,) = beale.findings(descents)
    assert sentence == (
        "**Ended elsewhere**: 20 of 20 methods, the cheapest of them method 0 (1 evaluation, which it calls a "
        "success); 20 call it a success."
    )


@pytest.mark.thorough
def test_diverging_beside_others(go, store):
    status, top, children = go("--method", "SGD,BFGS", "--learning_rate", "0.01", "--animate", "true")
    assert (status, top.info.status) == (0, "FINISHED")
    assert top.data.tags["mlflow_hp.best"] == "method=BFGS"
    lost = children["method=SGD"]
    assert lost.data.tags["mlflow_hp.verdict"] == "diverged"
    assert lost.data.metrics["success"] == 0
    assert "The picture to look at first: `plots/paths.png`" in top.data.tags["mlflow.note.content"]
    assert "The picture to look at first: `plots/path.png`" in lost.data.tags["mlflow.note.content"]
    assert "**Diverged**: SGD (" in top.data.tags["mlflow.note.content"]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("method", ["BFGS", "Nelder-Mead", "Adam"])
def test_a_start_at_the_minimum(go, method):
    status, found, _ = go("--method", method, "--x", "3", "--y", "0.5", "--animate", "true")
    assert status == 0
    assert found.data.metrics["distance"] < 1e-4
    assert found.data.tags["mlflow_hp.verdict"] == "reached the minimum"


@pytest.mark.thorough
def test_several_starts(go, store):
    status, top, children = go("--method", "BFGS", "--x", "4,1", "--y", "1")
    assert (status, set(children)) == (0, {"x=4", "x=1"})
    assert "x=1 (" in top.data.tags["mlflow.note.content"]


def test_bad_input(go, capsys):
    assert go("--method", "steepest")[0] == 2
    assert "method='steepest' has to be one of L-BFGS-B-bounded," in capsys.readouterr().err
    assert go("--method", "L-BFGS-B-bounded", "--x", "5")[0] == 2
    assert "have to lie from -bound to bound" in capsys.readouterr().err


def test_an_interrupt_keeps_the_path_up_to_there(go, store, monkeypatch):
    calls = []

    def interrupted(self, x, y):
        calls.append(x)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return gradient(self, x, y)

    gradient = BealeSurface.gradient
    monkeypatch.setattr(BealeSurface, "gradient", interrupted)
    status, found, _ = go("--method", "SGD")
    assert (status, found.info.status) == (130, "KILLED")
    assert [step for step, _ in history(store, found, "x")] == [0, 1, 2, 3, 4]


def test_a_long_path_is_logged_downsampled_in_full_batches(store, monkeypatch):
    sizes = []
    log_batch = mlflow.MlflowClient.log_batch

    def counting(self, run_id, metrics):
        sizes.append(metrics)
        log_batch(self, run_id, metrics=metrics)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", counting)
    monkeypatch.setattr(beale, "MAX_LOGGED", 600)
    values = np.sin(np.arange(1200.0))
    values[-1] = np.nan
    with mlflow.start_run() as active:
        beale.log_path(active.info.run_id, {"x": values, "y": np.full(1200, np.inf)})
        assert [len(each) == 1000 for each in sizes] == [True] * (len(sizes) - 1) + [False]
        steps = [m.step for batch in sizes for m in batch if m.key == "x"]
        assert (steps[0], steps[-1], 300 < len(steps) <= 600) == (0, 1199, True)
        assert {int(np.nanargmin(values)), int(np.nanargmax(values))} <= set(steps)
        assert np.isnan(store.get_metric_history(active.info.run_id, "x")[-1].value)


def advice(method, **values):
    """Minimise, and give the changes that the finding proposes."""
    settings = {"x": 4.0, "y": 4.0, "bound": 4.5, "iterations": 300, "learning_rate": None, "method": method} | values
    points, ending = minimised(
        method, (settings["x"], settings["y"]), 4.5, settings["iterations"], settings["learning_rate"]
    )
    finding = beale.judge(settings, beale.columns_of(SURFACE, list(points)), ending)
    assert (finding.severity == "fine") == (finding.verdict == "reached the minimum")
    assert bool(finding.change) == bool(finding.suggestion)
    return [(change.parameter, change.old, change.new) for change in finding.change]


@pytest.mark.thorough
def test_what_is_proposed():
    assert advice("BFGS") == []
    assert advice("SGD", learning_rate=0.01) == [("learning_rate", 0.01, 5.3e-06)]
    assert advice("momentum") == [("iterations", 300, 1500)]
    assert advice("RMSprop", learning_rate=0.3) == [("learning_rate", 0.3, 0.1)]
    assert advice("Adam", learning_rate=None, x=0.0, y=1.0) == [("x", 0.0, 0.0), ("y", 1.0, 0.25)]
    assert advice("CG") == [("x", 4.0, 1.0), ("y", 4.0, 1.0)]


@pytest.mark.thorough
@pytest.mark.usefixtures("blank_pictures")
def test_advice_is_followed(go, monkeypatch):
    from mlflow_hp.plots import training

    labels, draw = [], training.draw_curves
    monkeypatch.setattr(
        training, "draw_curves", lambda info: labels.append([c.label for c in info.curves]) or draw(info)
    )
    status, top, children = go("--method", "SGD", "--learning_rate", "2e-4", "--iterations", "20", "--improve", "3")
    assert (status, top.data.tags["mlflow_hp.kind"]) == (0, "improvement")
    assert set(children) == {"0 start", "1 learning_rate=5.3e-06", "2 iterations=100", "3 iterations=500"}
    assert top.data.tags["mlflow_hp.best_run_id"] == children["3 iterations=500"].info.run_id
    assert labels[-1][:2] == ["start (it diverged)", "1: learning_rate=5.3e-06 (it ended elsewhere)"]
    assert "after 20 iterations it is at (" in top.data.tags["mlflow.note.content"]


def test_advice_needs_one_method(go, capsys):
    assert go("--improve", "2")[0] == 2
    assert "advice is followed from one value of each parameter, and method has several" in capsys.readouterr().err


@pytest.mark.thorough
@pytest.mark.slow
def test_the_program(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_EXPERIMENT_ID"}
    environment |= {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "PYTHONPATH": str(ROOT)}
    command = [python(), "-m", "projects.beale", "--method", "BFGS", "--animate", "false"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "BFGS reached the minimum: after" in done.stdout
    (found,) = mlflow.MlflowClient(environment["MLFLOW_TRACKING_URI"]).search_runs(["0"])
    assert f"keras {keras.__version__}" in found.data.tags["mlflow_hp.versions"]
