"""Experiments that follow their own advice; with a fake in place of training, and the story of `main`."""

from __future__ import annotations

from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlflow_hp.analysis import Finding
from mlflow_hp.analysis.diagnosis import Change
from projects import arguments, cost_contour, main
from projects.arguments import Parameter
from projects.experiment import Experiment, Outcome
from projects.runner import run

PARAMETERS = [
    Parameter("learning_rate", "0.1", arguments.number(0), "as a fake needs it"),
    Parameter("activation", "relu", arguments.one_of(lambda: ["relu", "tanh"]), "another"),
    arguments.IMPROVE,
]


def advice(*changes):
    return Finding("rule", "too slow", "Slow.", {}, severity="problem", change=tuple(Change(*c) for c in changes))


def train(settings, command):
    rate = settings["learning_rate"]
    assert settings["improve"] == 0
    if rate == 13:
        raise RuntimeError("an unlucky rate\nand more")
    if rate == 14:
        raise KeyboardInterrupt
    following = {0.1: 0.5, 0.5: 13.0, 0.2: 14.0}.get(rate, 0.3)
    change = ("activation", "relu", "swish") if settings["activation"] == "tanh" else ("learning_rate", rate, following)
    return Outcome(mlflow.active_run().info.run_id, {"cost": 1 / rate}, [], settings, advice=[advice(change)])


compared: list = []


def compare(run_id, outcomes):
    compared.append(list(outcomes))
    return []


FAKE = Experiment("fake", "Who?", PARAMETERS, train, compare, "cost")


@pytest.fixture
def go(store, capsys):
    """Run the fake, or another experiment; gives exit status, its top run, its children by start, and stderr."""

    def go(*argv, experiment=FAKE):
        compared.clear()
        before = {r.info.run_id for r in mlflow.search_runs(search_all_experiments=True, output_format="list")}
        status = run(experiment, argv)
        new = [r for r in mlflow.search_runs(search_all_experiments=True, output_format="list")
               if r.info.run_id not in before]  # fmt: skip
        assert mlflow.active_run() is None
        (top,) = [r for r in new if "mlflow.parentRunId" not in r.data.tags]
        children = sorted((r for r in new if r is not top), key=lambda r: r.info.start_time)
        return status, top, children, capsys.readouterr().err

    return go


def test_advice_is_followed_in_nested_runs(go):
    status, top, children, _ = go("--improve", "1")
    assert (status, top.info.status, top.data.tags["mlflow_hp.kind"]) == (0, "FINISHED", "improvement")
    assert [child.data.params for child in children] == [
        {"learning_rate": "0.1", "activation": "relu"}, {"learning_rate": "0.5", "activation": "relu"},
    ]  # fmt: skip
    assert [child.info.run_name for child in children] == ["0 start", "1 learning_rate=0.5"]
    assert children[1].data.tags["mlflow_hp.finding"] == "rule: too slow"
    assert children[1].data.tags["mlflow_hp.experiment"] == "fake"
    assert top.data.tags["mlflow_hp.best_run_id"] == children[1].info.run_id
    assert top.data.metrics["best/cost"] == 2.0
    note = top.data.tags["mlflow.note.content"]
    assert "| 1 | learning_rate 0.1 -> 0.5 | too slow: Slow. | 2 | better **(the best)** |" in note
    assert "**To repeat it**: `mlflow run . -e fake --env-manager local -P improve=1`" in note
    assert compared == [["start", "1: learning_rate=0.5"]]


def test_a_failed_training_and_an_interrupt(go):
    status, top, children, err = go("--improve", "2")
    assert (status, [child.info.status for child in children]) == (0, ["FINISHED", "FINISHED", "FAILED"])
    assert "2: learning_rate=13 failed: RuntimeError: an unlucky rate" in err
    assert top.data.tags["mlflow_hp.best_run_id"] == children[1].info.run_id
    status, top, children, _ = go("--improve", "2", "--learning_rate", "0.2")
    assert (status, top.info.status, [child.info.status for child in children]) == (
        130, "KILLED", ["FINISHED", "KILLED"],
    )  # fmt: skip
    assert "It was interrupted" in top.data.tags["mlflow.note.content"]


def test_a_value_that_the_experiment_refuses_is_a_failed_training(go):
    status, _, children, _ = go("--improve", "1", "--activation", "tanh")
    assert (status, [child.info.status for child in children]) == (0, ["FINISHED", "FAILED"])
    assert "has to be one of" in children[1].data.tags["mlflow_hp.error"]


def test_several_values_and_a_failing_start_are_refused(go):
    status, top, children, err = go("--improve", "2", "--learning_rate", "0.1,0.2")
    assert (status, top.info.status, children) == (2, "FAILED", [])
    assert "improve=2: advice is followed from one value of each parameter, and learning_rate has several" in err
    status, top, children, _ = go("--improve", "2", "--learning_rate", "13")
    assert (status, [r.info.status for r in (top, *children)]) == (1, ["FAILED", "FAILED"])


def test_by_default_several_values_are_compared_instead(go, store):
    stories = [p._replace(default="2") if p is arguments.IMPROVE else p for p in PARAMETERS]
    status, top, children, _ = go("--learning_rate", "0.1,0.5", experiment=FAKE._replace(parameters=stories))
    assert (status, top.data.tags["mlflow_hp.kind"], len(children)) == (0, "sweep", 2)


def test_a_start_that_is_no_competitor(go):
    """The first one has no entry of the objective of improvements, as a range test has none."""

    def probe(settings, command):
        outcome = train(settings, command)
        numbers = {"lowest": 0.0} if settings["learning_rate"] == 0.1 else {"lowest": 1.0, **outcome.numbers}
        return outcome._replace(numbers=numbers)

    experiment = FAKE._replace(train=probe, objective="lowest", improvement_objective="cost")
    status, top, children, _ = go("--improve", "1", experiment=experiment)
    assert (status, top.data.tags["mlflow_hp.best_run_id"]) == (0, children[1].info.run_id)
    assert "(learning_rate=0.5), cost 2, after 1 further training." in top.data.tags["mlflow.note.content"]


def test_an_experiment_that_improves_itself_is_called_once(go):
    def once(settings, command):
        assert settings["improve"] == 2
        return Outcome(mlflow.active_run().info.run_id, {}, [f"improved by {settings['improve']}"], None)

    status, top, children, _ = go("--improve", "2", experiment=FAKE._replace(train=once, improves_itself=True))
    assert (status, top.data.tags["mlflow_hp.kind"], children) == (0, "training", [])


@pytest.mark.thorough
def test_main_crawls_then_hovers_then_arrives(go, store):
    status, top, children, _ = go("--animate", "false", experiment=main.EXPERIMENT)
    assert status == 0
    verdicts = [child.data.tags["mlflow.note.content"] for child in children]
    assert ["It crawls" in verdicts[0], "It hovers" in verdicts[1], "It has arrived" in verdicts[2]] == [True] * 3
    assert [child.data.params["standardize"] for child in children] == ["false", "false", "true"]
    assert top.data.tags["mlflow_hp.best_run_id"] == children[2].info.run_id
    plots = {Path(file.path).name for file in store.list_artifacts(top.info.run_id, "plots")}
    assert "cost_contour.png" in plots
    assert "across it as along it" in top.data.tags["mlflow.note.content"]


def test_a_path_in_the_units_of_the_data_has_the_same_costs():
    texts = {parameter.name: parameter.default for parameter in cost_contour.PARAMETERS}
    descents = []
    for standardize in ("false", "true"):
        (settings,) = arguments.combinations(texts | {"standardize": standardize}, cost_contour.PARAMETERS)
        dataset = cost_contour.data.regression(settings)
        from mlflow_hp.analysis import LinearRegressionSurface

        surface = LinearRegressionSurface(dataset.x_train, dataset.y_train)
        w, b = np.array([0.0, 20.0, surface.minimum.w]), np.array([0.0, 99.0, surface.minimum.b])
        descents.append(cost_contour.Descent(dataset, surface, w, b, None, settings))
    raw, standardized = descents
    converted = cost_contour.in_units_of(raw, standardized)
    np.testing.assert_allclose(
        raw.surface.cost(converted.w, converted.b), standardized.surface.cost(standardized.w, standardized.b), rtol=1e-5
    )
    assert (converted.w[-1], converted.b[-1]) == pytest.approx(raw.surface.minimum[:2], rel=1e-4)
    assert cost_contour.in_units_of(raw, raw) is raw
