"""What is comparable, what differs, and what is real: against what is computed otherwise."""

from __future__ import annotations

import json
import re

import mlflow
import numpy as np
import pytest
from scipy import stats

from mlflow_hp.analysis.importance import importance
from mlflow_hp.compare import gather, open_source, sections, to_json
from mlflow_hp.compare.comparability import goal_of, group_runs
from mlflow_hp.compare.differences import differences
from mlflow_hp.compare.parameters import results_of
from mlflow_hp.compare.parts import PARTS
from mlflow_hp.compare.scores import fold_test
from mlflow_hp.errors import UserError
from tests.helpers.stored_runs import SAME, add_run, add_search, facts_of, new_experiment, tag

FOLDS = {"0.1": (0.90, 0.93, 0.91), "0.01": (0.89, 0.92, 0.92), "0.001": (0.50, 0.54, 0.51)}


@pytest.fixture
def experiment(store, tmp_path):
    return new_experiment(store, tmp_path)


def training(store, experiment, name="training", value=0.5, **more):
    tags = {"kind": "training", **SAME, **more.pop("tags", {})}
    return add_run(store, experiment, name, tags=tags, metrics={"val_loss": value, **more.pop("metrics", {})}, **more)


def test_facts_are_read_from_run_and_parent(store, experiment):
    parent, children = add_search(store, experiment, FOLDS, tags={"author": "ada", "git_commit": "abc"})
    tag(store, children["0.01"], author="grace")
    found = {run.run_id: run for run in facts_of(store, experiment)}
    first, other = found[children["0.1"]], found[children["0.01"]]
    assert first.folds == {"score": FOLDS["0.1"]}
    assert (first.author, other.author) == ("ada", "grace")
    assert (first.data_digest, first.split_digest, first.parent_id) == ("data-1", "split-1", parent)
    assert first.params == {"learning_rate": "0.1", "batch_size": "32"}
    assert first.seconds == 10
    assert first.tag("mlflow_hp.git_commit") == "abc"


def test_a_named_parent_brings_what_is_nested_in_it(store, experiment):
    parent, children = add_search(store, experiment, FOLDS)
    training(store, experiment)
    found = gather(open_source(store), [parent])
    assert {run.run_id for run in found} == {parent, *children.values()}


def test_a_search_alone_stands_for_its_best(store, experiment):
    parent, children = add_search(store, experiment, FOLDS)
    tag(store, parent, best_run_id=children["0.1"])
    name = store.get_experiment(experiment).experiment_id
    (only,) = gather(open_source(store), experiment_ids=[name], filter_string="tags.`mlflow_hp.kind` = 'search'")
    assert only.folds == {"score": FOLDS["0.1"]}
    assert only.metrics["mean_score"] == pytest.approx(np.mean(FOLDS["0.1"]))


def test_many_runs_cost_few_requests(store, experiment):
    add_search(store, experiment, {f"{rate}": (0.1, 0.2) for rate in range(40)})
    asked = []

    class Counting:
        _tracking_client = store._tracking_client

        def __getattr__(self, name):
            asked.append(name)
            return getattr(store, name)

    source = open_source(Counting())
    ids = [run.run_id for run in gather(source, experiment_ids=[experiment])]
    assert len(ids) == 41
    assert len(asked) == 2  # the runs, the experiment
    asked.clear()
    gather(source, ids)
    assert asked.count("get_run") == 1
    assert len(asked) < 8


def test_an_unknown_run_or_filter_is_an_error_that_says_so(store, experiment):
    with pytest.raises(UserError, match="'0000' is not in the tracking store"):
        gather(open_source(store), ["0000"])
    with pytest.raises(UserError, match=r"filter .metrics\.a >>> 1."):
        facts_of(store, experiment, filter_string="metrics.a >>> 1")


def test_groups_are_of_the_same_data_split_and_metric(store, experiment):
    one, two = training(store, experiment), training(store, experiment, value=0.4)
    other_data = training(store, experiment, tags={"data_digest": "data-2"})
    other_split = training(store, experiment, tags={"split_digest": "split-2"})
    unfinished = training(store, experiment, status="RUNNING")
    failed = training(store, experiment, status="FAILED")
    diverged = training(store, experiment, value=float("nan"))
    foreign = add_run(store, experiment, metrics={"val_loss": 0.1})
    report = add_run(store, experiment, tags={"kind": "comparison"})
    _, children = add_search(store, experiment, FOLDS)
    found = group_runs(facts_of(store, experiment))
    assert [[run.run_id for run in group.runs] for group in found.groups] == [
        [children["0.1"], children["0.01"], children["0.001"]],
        [two, one],
    ]
    assert [(group.metric, group.goal) for group in found.groups] == [("mean_score", "max"), ("val_loss", "min")]
    reasons = {left.run.run_id: left.reason for left in found.left_out}
    assert "no other run was trained on its data (data-2)" in reasons[other_data]
    assert "used a different split" in reasons[other_split]
    assert "has not ended" in reasons[unfinished]
    assert "FAILED" in reasons[failed]
    assert "not finite" in reasons[diverged]
    assert "mlflow.log_input" in reasons[foreign]
    assert "comparison" in reasons[report]
    assert unfinished in {
        r.run_id for g in group_runs(facts_of(store, experiment), unfinished=True).groups for r in g.runs
    }


def test_a_metric_that_is_asked_for(store, experiment):
    for value in (0.1, 0.9):
        training(store, experiment, metrics={"f1": value})
    (group,) = group_runs(facts_of(store, experiment), "f1").groups
    assert group.scores == [0.9, 0.1]
    (group,) = group_runs(facts_of(store, experiment), "f1", "min").groups
    assert group.scores == [0.1, 0.9]
    with pytest.raises(UserError, match=r"'f2': no run has it, of 2 runs. There is .*f1"):
        group_runs(facts_of(store, experiment), "f2")


@pytest.mark.parametrize(
    ("metric", "goal"),
    [("loss", "min"), ("val_mae", "min"), ("distance", "min"), ("accuracy", "max"), ("mean_test_neg_log_loss", "max")],
)
def test_which_values_are_better(metric, goal):
    assert goal_of(metric) == goal


def test_runs_of_foreign_autologging_are_known_by_their_datasets(store, experiment):
    import pandas as pd

    table = pd.DataFrame({"x": np.arange(5.0), "y": np.arange(5.0)})
    data = mlflow.data.from_pandas(table, targets="y")
    for value in (0.1, 0.2):
        with mlflow.start_run(experiment_id=experiment):
            mlflow.log_input(data, context="train")
            mlflow.log_metrics({"training_score": value, "time/epoch": 3.0})
    facts = facts_of(store, experiment)
    assert {run.data_digest for run in facts} == {data.digest}
    (group,) = group_runs(facts).groups
    assert (group.metric, group.scores, group.split_digest) == ("training_score", [0.2, 0.1], None)
    titles = [section.title for section in sections(facts, open_source(store))]
    assert "Scores, and which differences are real" in titles


def test_only_what_differs_is_told(store, experiment):
    one = {"author": "ada", "versions": "python 3.11, keras 3.1", "git_commit": "a" * 40, "git_dirty": "false"}
    two = {**one, "author": "grace", "versions": "python 3.11, keras 3.2", "git_dirty": "true"}
    training(store, experiment, tags=one, params={"units": 8, "seed": 1})
    training(store, experiment, tags=two, params={"units": 8, "seed": 2, "clip": "1"})
    found = {name: (kind, values) for name, kind, values in differences(facts_of(store, experiment))}
    assert found == {
        "seed": ("parameter", ["1", "2"]),
        "clip": ("parameter", ["(absent)", "1"]),
        "uncommitted changes": ("code", ["no", "yes"]),
        "author": ("author", ["ada", "grace"]),
        "keras": ("version", ["3.1", "3.2"]),
    }


def test_differences_are_tested_as_nadeau_and_bengio_do(store, experiment):
    add_search(store, experiment, FOLDS, tags={"author": "ada"})
    add_search(store, experiment, {"1": (0.7, 0.6, 0.8)}, tags={"folds_digest": "cv-2", "author": "grace"})
    (group,) = group_runs(facts_of(store, experiment)).groups
    tested = fold_test(group)
    assert [group.runs[i].params["learning_rate"] for i in tested.paired] == ["0.1", "0.01", "0.001"]
    difference = np.array(FOLDS["0.1"]) - np.array(FOLDS["0.01"])
    error = np.sqrt((1 / 3 + 1 / 2) * difference.var(ddof=1))
    p = 2 * stats.t.sf(difference.mean() / error, 2)
    assert tested.winner.p_values[1] == pytest.approx(p)
    verdicts = {run.params["learning_rate"]: tested.verdict(index)[1] for index, run in enumerate(group.runs)}
    assert verdicts == {
        "0.1": "best", "0.01": "not significantly worse", "1": "not tested", "0.001": "significantly worse",
    }  # fmt: skip


def test_folds_of_two_searches_that_cant_be_known_again_are_not_paired(store, experiment):
    for author in ("ada", "grace"):
        add_search(store, experiment, FOLDS, tags={"author": author, "folds_digest": ""})
    (group,) = group_runs(facts_of(store, experiment)).groups
    assert len(group.runs) == 6
    assert {group.runs[i].author for i in fold_test(group).paired} == {"ada"}


def test_single_runs_are_not_said_to_differ(store, experiment):
    training(store, experiment)
    training(store, experiment, value=0.1)
    found = {s.key: s for s in sections(facts_of(store, experiment), open_source(store), parts=["scores"])}
    assert "cannot be tested: there are no scores on the same folds" in " ".join(found["scores-1"].words)
    assert "verdict" not in found["scores-1"].table.columns


def test_importance_is_that_of_a_search_over_all_authors(store, experiment):
    rng = np.random.default_rng(0)
    for index in range(24):
        rate, units = float(rng.choice([0.1, 0.01, 0.001])), int(rng.choice([8, 16]))
        training(
            store, experiment, value=abs(np.log10(rate) + 2) + 0.01 * rng.random(), params={
                "rate": rate, "units": units, "bytes": 4 * units, "note": f"run {index}", "same": 1,
            }, tags={"author": "ada" if index % 2 else "grace"},
        )  # fmt: skip
    (group,) = group_runs(facts_of(store, experiment)).groups
    results = results_of(group)
    assert set(results.parameters) == {"rate", "units & bytes"}  # names and constants are no settings
    assert results.scores["score"][:, 0].tolist() == [-score for score in group.scores]
    found = {s.key: s for s in sections([*group.runs], open_source(store), parts=["importance"])}
    rows = {row[0]: row[1] for row in found["importance-1"].table.rows}
    assert rows == importance(results)
    assert rows["rate"] > 0.9


def test_leaderboard_and_time(store, experiment):
    training(store, experiment, "slow", 0.1, seconds=100, tags={"author": "ada"})
    training(store, experiment, "fast", 0.2, seconds=1, tags={"author": "grace"})
    training(store, experiment, "worse", 0.3, seconds=50, tags={"author": "grace"})
    found = {s.key: s for s in sections(facts_of(store, experiment), open_source(store), parts=["leaderboard", "time"])}
    rows = found["leaderboard-1"].table.rows
    assert [(row[1], row[2], row[3].name, row[4], row[5]) for row in rows] == [
        ("ada", 0.1, "slow", 1, 100.0), ("grace", 0.2, "fast", 2, 51.0),
    ]  # fmt: skip
    front = found["time-1"].figure["data"][0]
    assert (front["x"], front["y"]) == ([1.0, 100.0], [0.2, 0.1])


def test_the_only_author_is_named_nowhere_else(store, experiment):
    for name, value, seconds in (("slow", 0.1, 100), ("fast", 0.2, 1)):
        training(store, experiment, name, value, seconds=seconds, tags={"author": "ada"})
    source = open_source(store)
    compared = {section.key: section for section in sections(facts_of(store, experiment), source)}
    assert "leaderboard-1" not in compared
    overview = compared.pop("overview")
    assert "1 author (ada)" in overview.words[0]
    text = str([compared[key] for key in ("scores-1", "differences-1")])
    assert "ada" not in re.sub("Pareto|shade|grada|[0-9a-f]{32}", "", text)
    asked = {section.key for section in sections(facts_of(store, experiment), source, by="author")}
    assert "leaderboard-1" in asked
    training(store, experiment, "other", 0.3, seconds=5, tags={"author": "grace"})
    both = {section.key: section for section in sections(facts_of(store, experiment), source)}
    assert both["scores-1"].table.columns[2] == "author"
    assert "“slow” by ada" in both["scores-1"].words[0]
    assert both["scores-1"].figure["layout"]["yaxis"]["ticktext"][0] == "slow · ada"


BEST = {"val_loss": (0.9, 0.1, 0.5), "best/val_loss": 0.1, "best/epoch": 1}


@pytest.mark.parametrize(
    ("judge", "order", "words", "judged_by"),
    [
        ("auto", [("kept", 0.1), ("old", 0.3), ("lost", 0.5)],
         "the best epoch of 1, and by the last value of 2", ["best, epoch 2", "last", "last"]),
        ("best", [("kept", 0.1), ("lost", 0.1), ("old", 0.3)],
         "the best epoch of 2, and by the last value of 1", ["best, epoch 2", "best, epoch 2", "last"]),
        ("last", [("old", 0.3), ("kept", 0.5), ("lost", 0.5)], "the last value of each run", None),
    ],
)  # fmt: skip
def test_runs_are_judged_by_their_best_epoch_or_their_last(store, experiment, judge, order, words, judged_by):
    training(store, experiment, "kept", tags={"saved_model": "best"}, metrics=BEST)
    training(store, experiment, "lost", tags={"saved_model": "last"}, metrics=BEST)
    training(store, experiment, "old", 0.3, tags={"author": "grace"})  # of before there were these metrics and tags
    facts, source = facts_of(store, experiment), open_source(store)
    (group,) = group_runs(facts, judge=judge).groups
    assert [(run.name, score) for run, score in zip(group.runs, group.scores, strict=True)] == order
    by_key = {section.key: section for section in sections(facts, source, judge=judge)}
    for key in ("group-1", "scores-1", "leaderboard-1"):
        assert f"judged by {words}" in " ".join(by_key[key].words)
    table = by_key["scores-1"].table
    column = [row[table.columns.index("judged by")] for row in table.rows] if "judged by" in table.columns else None
    assert column == judged_by


def test_a_judge_that_there_is_not(store, experiment):
    training(store, experiment)
    with pytest.raises(UserError, match="judge='worst' is none of 'auto', 'best', 'last'"):
        group_runs(facts_of(store, experiment), judge="worst")


def test_curves_keep_every_spike(store, experiment):
    values = np.ones(3000)
    values[1234], values[2345] = 50.0, -50.0
    for _ in range(2):
        training(store, experiment, metrics={"batch/loss": values.tolist()})
    found = {s.key: s for s in sections(facts_of(store, experiment), open_source(store), parts=["curves"], pixels=100)}
    for trace in found["curves-1-batch-loss"].figure["data"]:
        assert len(trace["x"]) <= 2 * 100 + 2
        assert {max(trace["y"]), min(trace["y"])} == {50.0, -50.0}
        at = trace["x"][trace["y"].index(50.0)]
        assert abs(at - 1234) <= 3000 / 100


def test_descents_lie_on_the_exact_surface_of_their_data(store, experiment):
    from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
    from mlflow_hp.compare.descents import linear_regression, surface_numbers
    from mlflow_hp.tracking.tags import SURFACE_METRICS

    rng = np.random.default_rng(1)
    x = rng.normal(3, 2, 50)
    surface = LinearRegressionSurface(x, 2 * x + 1 + rng.normal(0, 1, 50))
    numbers = surface_numbers(surface)
    again = linear_regression(*(numbers[name] for name in SURFACE_METRICS))
    w, b = rng.normal(size=(2, 20))
    np.testing.assert_allclose(again.cost(w, b), surface.cost(w, b), rtol=1e-12)
    paths = {"weights/linear/kernel": [0.0, 1.0, 2.0], "weights/linear/bias": [0.0, 0.5, 1.0]}
    for scale in (1, 0.5):
        moved = {name: [scale * value for value in path] for name, path in paths.items()}
        training(store, experiment, f"scale {scale}", metrics={**numbers, **moved})
    found = [s for s in sections(facts_of(store, experiment), open_source(store), parts=["descents"]) if s.figure]
    (section,) = found
    traces = {trace.get("name"): trace for trace in section.figure["data"]}
    assert traces["scale 1"]["x"] == [0.0, 1.0, 2.0]
    assert traces["scale 0.5"]["y"] == [0.0, 0.25, 0.5]
    assert section.words == ["2 descents on the exact cost surface of the same data."]


def test_sections_are_json_that_every_browser_takes(store, experiment):
    add_search(store, experiment, FOLDS)
    training(store, experiment, metrics={"batch/loss": [1.0, float("nan"), float("inf"), 2.0]})
    training(store, experiment)
    made = sections(facts_of(store, experiment), open_source(store), by="author")
    text = json.dumps([to_json(section) for section in made], allow_nan=False)
    assert "overview" in text
    keys = [section.key for section in made]
    assert len(set(keys)) == len(keys)
    assert all(section.alt for section in made if section.figure)


def test_parts_can_be_asked_for_alone(store, experiment):
    training(store, experiment)
    training(store, experiment)
    for part in PARTS:
        made = sections(facts_of(store, experiment), open_source(store), parts=[part])
        assert {s.key.split("-")[0] for s in made} <= {"group", part}


def test_nothing_comparable_is_said(store, experiment):
    add_run(store, experiment)
    (only,) = sections(facts_of(store, experiment), open_source(store))
    assert "No two of them are comparable: the table says why." in only.words
    assert "its data are not known" in only.table.rows[0][-1]
