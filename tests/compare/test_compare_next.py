"""What to search next: all combinations of a team over one space, reviewed as those of one search."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from mlflow_hp.analysis import from_cv_results
from mlflow_hp.analysis.review import review
from mlflow_hp.compare import open_source, sections
from mlflow_hp.compare.comparability import RunGroup, group_runs
from mlflow_hp.compare.html_report import Head, page
from mlflow_hp.compare.next_space import MAX_COMBINATIONS, spaces
from tests.helpers.stored_runs import SAME, add_run, add_search, facts_of, new_experiment, tag

RNG = np.random.default_rng(0)
RATES = [1e-5, 1e-4, 1e-3, 1e-2]
SCORES = {
    str(rate): tuple(0.5 + 0.1 * index + 0.01 * RNG.normal(size=5)) for index, rate in enumerate(RATES)
}  # rises to the largest rate


@pytest.fixture
def experiment(store, tmp_path):
    return new_experiment(store, tmp_path)


def found(store, experiment, **more):
    return sections(facts_of(store, experiment), open_source(store), parts=["next"], **more)[1:]


def of_authors(store, experiment, scores=SCORES, **more):
    """Two searches, of two authors, each with every other learning rate."""
    items = list(scores.items())
    for author, own in (("ada", items[::2]), ("grace", items[1::2])):
        add_search(store, experiment, dict(own), tags={"author": author}, **more)


def test_searches_of_a_team_are_reviewed_as_one(store, experiment):
    of_authors(store, experiment)
    (section,) = found(store, experiment)
    columns = {f"split{i}_test_score": [scores[i] for scores in SCORES.values()] for i in range(5)}
    expected = review(from_cv_results({"params": [{"learning_rate": rate} for rate in RATES], **columns}))
    assert [finding.name for finding in expected.findings] == ["edge/learning_rate"]
    assert yaml.safe_load(section.code) == expected.next_space == {"learning_rate": [0.001, 0.01, 0.1, 1.0]}
    first, finding, last = section.words
    assert "4 combinations of learning_rate, tried in 2 parent runs by 2 authors" in first
    assert expected.findings[0].text in finding
    assert f"What to do: {expected.findings[0].suggestion}." in finding
    assert "as in “learning_rate=0.01” by grace" in last


def test_one_search_has_too_few_alone(store, experiment):
    scores = dict(list(SCORES.items())[2:])
    add_search(store, experiment, scores)
    assert found(store, experiment) == []


def test_failed_combinations_count_and_pruned_ones_do_not(store, experiment):
    parent, _ = add_search(store, experiment, SCORES)
    for rate in ("0.1", "1.0"):
        add_run(
            store, experiment, params={"learning_rate": rate}, parent=parent, tags={"kind": "candidate"},
            status="FAILED",
        )  # fmt: skip
    add_run(
        store, experiment, params={"learning_rate": "0.2"}, parent=parent, metrics={"score": 0.4},
        tags={"kind": "candidate", "pruned": "it cannot become the best"},
    )  # fmt: skip
    (section,) = found(store, experiment)
    assert "6 combinations of learning_rate, tried in 1 parent run, 2 of which failed" in section.words[0]
    assert max(yaml.safe_load(section.code)["learning_rate"]) < 0.1
    assert "edge" not in " ".join(section.words)


def test_other_estimators_folds_and_names_are_other_spaces(store, experiment):
    add_search(store, experiment, SCORES)
    worse = {rate: tuple(0.5 * score for score in scores) for rate, scores in SCORES.items()}
    add_search(store, experiment, worse, params={"estimator": "Other()"})
    add_search(store, experiment, {"0.1": (0.2,) * 5, "0.2": (0.3,) * 5}, tags={"folds_digest": "cv-2"})
    (group,) = group_runs(facts_of(store, experiment)).groups
    tried = spaces(group)
    assert [[run.tag("mlflow_hp.search_estimator") for run in each.runs] for each in tried] == [
        ["Network()"] * 4, ["Other()"] * 4,
    ]  # fmt: skip
    assert [section.key for section in found(store, experiment)] == ["next-1", "next-1-2"]


def test_an_estimator_is_the_same_at_another_address(store, experiment):
    items = list(SCORES.items())
    for address, own in (("0x7f01", items[:2]), ("0x7fab", items[2:])):
        add_search(store, experiment, dict(own), params={"estimator": f"KerasClassifier(<function f at {address}>)"})
    (section,) = found(store, experiment)
    assert section.words[0].startswith("4 combinations")


def trainings(store, experiment, value_of, **more):
    for rate in RATES:
        for seed in (1, 2):
            add_run(
                store, experiment, params={"learning_rate": rate, "seed": seed, "shuffle": True},
                tags={"kind": "training", **SAME}, metrics={"val_loss": value_of(rate, seed)}, **more,
            )  # fmt: skip


def test_seeds_repeat_a_combination_of_a_sweep(store, experiment):
    trainings(store, experiment, lambda rate, seed: 1 + (np.log10(rate) + 3) ** 2 + seed / 10)
    (group,) = group_runs(facts_of(store, experiment)).groups
    (tried,) = spaces(group)
    assert tried.results.parameters == ("learning_rate",)
    assert tried.results.candidates[0] == {"learning_rate": 1e-3}
    assert sorted(-tried.results.mean) == pytest.approx([1.15, 2.15, 2.15, 5.15])
    assert tried.fixed == {"shuffle": True}
    (section,) = found(store, experiment)
    assert yaml.safe_load(section.code)["learning_rate"] == pytest.approx([3.16e-4, 1e-3, 3.16e-3])
    assert "single split" not in " ".join(section.words)  # the scores say so


def test_seeds_alone_are_no_space(store, experiment):
    for seed in range(5):
        add_run(
            store, experiment, params={"learning_rate": 0.1, "random_state": seed},
            tags={"kind": "training", **SAME}, metrics={"val_loss": seed},
        )  # fmt: skip
    assert found(store, experiment) == []


def test_runs_that_still_train_wait_for_their_end(store, experiment):
    trainings(store, experiment, lambda rate, seed: rate + seed, status="RUNNING")
    assert found(store, experiment, unfinished=True) == []


def test_values_that_are_no_numbers_come_back_as_they_were(store, experiment):
    for index, (hidden, bias) in enumerate([("(8, 8)", "True"), ("8,8", "False"), ("relu", "None"), ("(4,)", "True")]):
        add_run(
            store, experiment, params={"hidden": hidden, "bias": bias, "rate": 10.0**-index},
            tags={"kind": "training", **SAME}, metrics={"val_loss": index + 1},
        )  # fmt: skip
    (group,) = group_runs(facts_of(store, experiment)).groups
    (tried,) = spaces(group)
    assert [c["hidden"] for c in tried.results.candidates] == [(8, 8), "8,8", "relu", (4,)]
    assert [c["bias"] for c in tried.results.candidates] == [True, False, None, True]


def test_names_and_values_are_only_text(store, experiment):
    hostile = "</pre><script>alert(1)</script>"
    parent, children = add_search(store, experiment, SCORES)
    for index, run_id in enumerate(children.values()):
        store.log_param(run_id, "kind", hostile if index % 2 else "plain")
    tag(store, parent, author=hostile)
    (section,) = found(store, experiment)
    assert hostile in section.code
    assert hostile not in page(Head("title", [], ""), [section])
    assert "&lt;/pre&gt;" in page(Head("title", [], ""), [section])


def test_of_many_combinations_the_best_is_kept(store, experiment):
    trainings(store, experiment, lambda rate, seed: rate)
    run = facts_of(store, experiment)[0]
    n = MAX_COMBINATIONS + 500
    runs = [run._replace(params={"rate": str(n - index)}, metrics={"score": n - index}) for index in range(n)]
    (tried,) = spaces(RunGroup(runs, "score", "max", "data-1", "split-1"))
    assert tried.n_tried == n
    assert len(tried.results.candidates) == MAX_COMBINATIONS
    assert tried.results.candidates[0] == {"rate": n}
