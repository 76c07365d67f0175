"""Advice about the winner of a search, with a fake in place of training and of cross-validation."""

from __future__ import annotations

from types import SimpleNamespace

import mlflow
import numpy as np
import pytest

from mlflow_hp.analysis import Finding, from_cv_results
from mlflow_hp.analysis.diagnosis import Change
from projects import grid_search, search_advice, search_settings
from projects.experiment import Outcome
from projects.search_settings import SearchSetup

WINNER = {"learning_rate": np.float64(0.1), "hidden": "8-4"}
CV_RESULTS = {
    "params": [{"learning_rate": 0.1}, {"learning_rate": 0.2}],
    "split0_test_score": np.array([0.9, 0.5]),
    "split1_test_score": np.array([0.8, 0.5]),
}


def children(store, run_id):
    experiment = store.get_experiment_by_name("tests").experiment_id
    runs = store.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {run.info.run_name: run for run in runs}


def note(run):
    return run.data.tags["mlflow.note.content"]


def train(estimator, data, settings):
    """A lower rate is better, down to 0.01; more units fail, and other epochs are an interrupt."""
    assert (len(data.x_train) + len(data.x_validation), len(data.x_validation)) == (159, 32)
    if settings["hidden"] == (16, 16):
        raise RuntimeError("too large")
    if settings["epochs"] != 2:
        raise KeyboardInterrupt
    rate = settings["learning_rate"]
    change = {0.1: ("learning_rate", 0.1, 0.05), 0.05: ("units", None, 16)}.get(rate, ("epochs", 2, 5))
    found = Finding("rule", "too slow", "Slow.", {}, severity="problem", change=(Change(*change),))
    return Outcome(mlflow.active_run().info.run_id, {"val_loss": rate}, [], None, advice=[found])


@pytest.fixture
def follow(store, monkeypatch):
    """Follow the advice about the winner of a made-up search; gives the result, and the runs by name."""

    def follow(improve=2, rate=0.1, scores=(0.95, 0.75), train=train):
        asked = {"max_samples": 200, "hidden": "8", "epochs": 2, "cv": 2, "improve": improve}
        settings = {p.name: asked.get(p.name, p.read(p.default)) for p in grid_search.PARAMETERS}
        data = search_settings.load(settings)
        estimator = search_settings.estimator(data, settings)
        search = SimpleNamespace(
            estimator=estimator, best_params_={**WINNER, "learning_rate": np.float64(rate)}, best_index_=0, n_jobs=1,
            cv=search_settings.common(data, settings)["cv"],
        )  # fmt: skip
        judged = []

        def cross_val_score(estimator, x, y, **options):
            assert (len(x), options["cv"]) == (159, search.cv)
            judged.append(estimator.get_params())
            return np.array(scores)

        monkeypatch.setattr("sklearn.model_selection.cross_val_score", cross_val_score)
        monkeypatch.setattr(search_advice, "train_on_part", train)
        monkeypatch.setattr(search_advice.network, "compare", lambda *_: [])
        with mlflow.start_run() as active_run:
            setup = SearchSetup("Who?", settings, "the command", data)
            advised = search_advice.follow(setup, search, from_cv_results(CV_RESULTS))
        below = children(store, active_run.info.run_id)
        (parent,) = below.values()
        return advised, parent, children(store, parent.info.run_id), judged

    return follow


def test_the_best_is_judged_in_the_same_folds(follow):
    advised, parent, trainings, judged = follow()
    sentence = (
        "Following the advice about the winner: learning_rate=0.05, mean accuracy 0.85 in the same folds, 0.85 of the "
        "winner (better in 1 of 2 folds)."
    )
    assert advised.sentence == sentence.replace("winner: ", "winner did not make it better: ").replace(
        ", mean", " has mean"
    )
    assert advised.numbers["advised_score"] == parent.data.metrics["mean_score"] == 0.85
    assert [(each["learning_rate"], each["hidden"], each["epochs"]) for each in judged] == [(0.05, "8-4", 2)]
    assert {name: run.info.status for name, run in trainings.items()} == {
        "0 start": "FINISHED", "1 learning_rate=0.05": "FINISHED", "2 hidden=(16, 16)": "FAILED"
    }  # fmt: skip
    assert trainings["1 learning_rate=0.05"].data.params["hidden"] == "8-4"
    assert parent.data.tags["mlflow_hp.kind"] == "improvement"
    assert note(parent).startswith(f"**{advised.sentence}**\n\n**Result**: The best is training 1 (learning_rate=0.05)")
    assert follow(scores=(0.95, 0.85))[0].sentence == sentence.replace("0.85 in", "0.9 in").replace("1 of 2", "2 of 2")


def test_a_winner_that_stays_the_best(follow):
    advised, _, _, judged = follow(1, rate=0.05)
    assert (advised.numbers, judged) == ({}, [])
    assert advised.sentence.startswith("Following the advice about the winner: the start is the best after 1 further")


def test_a_failure_is_told(follow, capsys):
    advised, parent, _, _ = follow(train=lambda *_: 1 / 0)
    assert advised.sentence == "Following the advice about the winner failed: ZeroDivisionError: division by zero."
    assert parent.info.status == "FAILED"


def test_an_interrupt_keeps_what_was_tried(follow, store):
    with pytest.raises(KeyboardInterrupt):
        follow(rate=0.01)
    experiment = store.get_experiment_by_name("tests").experiment_id
    runs = mlflow.search_runs([experiment], output_format="list")  # the newest first
    advice = next(run for run in runs if run.info.run_name == search_advice.RUN_NAME)
    assert advice.info.status == "KILLED"
    assert "It was interrupted" in note(advice)
