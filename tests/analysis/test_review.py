"""Review of a search: each rule with a search that triggers it and one that must not, and the next space."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from mlflow_hp.analysis import from_cv_results
from mlflow_hp.analysis.review import n_combinations, review, splits_needed, to_yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mlflow_hp.analysis import SearchResults
    from mlflow_hp.analysis.review import Review

RATES = [1e-4, 1e-3, 1e-2, 1e-1]


def _search(
    grid: Mapping[str, Sequence[Any]], truth: Callable[[dict[str, Any]], float], noise: float = 0.002, n_splits: int = 5
) -> SearchResults:
    return _scored([dict(zip(grid, v, strict=True)) for v in itertools.product(*grid.values())], truth, noise, n_splits)


def _scored(
    candidates: list[dict[str, Any]], truth: Callable[[dict[str, Any]], float], noise: float = 0.002, n_splits: int = 5
) -> SearchResults:
    rng = np.random.default_rng(0)
    means = np.array([truth(candidate) for candidate in candidates])
    scores = means[:, None] + noise * rng.normal(size=(len(means), n_splits)) + 0.01 * rng.normal(size=n_splits)
    return from_cv_results({"params": candidates} | {f"split{i}_test_score": scores[:, i] for i in range(n_splits)})


def _valley(optimum: float, name: str = "learning_rate", width: float = 0.05) -> Callable[[dict[str, Any]], float]:
    return lambda candidate: 0.9 - width * (np.log10(candidate[name]) - optimum) ** 2


def _names(result: Review) -> set[str]:
    return {finding.name for finding in result.findings}


def _kinds(result: Review) -> set[str]:
    return {name.partition("/")[0] for name in _names(result)}


HEALTHY = _search({"learning_rate": RATES}, _valley(-2.4))


def test_nothing_is_said_of_a_healthy_search_and_the_next_space_is_finer():
    result = review(HEALTHY)
    assert result.findings == []
    assert result.next_space == {"learning_rate": [0.00316, 0.01, 0.0316]} or result.next_space == {
        "learning_rate": [0.000316, 0.001, 0.00316]
    }
    assert min(result.next_space["learning_rate"]) > RATES[0]
    assert max(result.next_space["learning_rate"]) < RATES[-1]


@pytest.mark.parametrize(("optimum", "extended"), [(0.5, [0.01, 0.1, 1.0, 10.0]), (-5.0, [1e-6, 1e-5, 1e-4, 1e-3])])
def test_the_range_goes_on_beyond_the_edge(optimum, extended):
    result = review(_search({"learning_rate": RATES}, _valley(optimum)))
    assert _names(result) == {"edge/learning_rate"}
    assert result.findings[0].severity == "problem"
    assert result.next_space["learning_rate"] == pytest.approx(extended)
    assert result.findings[0].change[0].parameter == "learning_rate"


def test_an_edge_is_one_of_all_the_best_not_of_a_lucky_one():
    candidates = [{"learning_rate": rate, "seed": seed} for rate in RATES for seed in range(4)]
    flat = {1e-4: 0.5, 1e-3: 0.9, 1e-2: 0.9, 1e-1: 0.9}
    lucky = _scored(candidates, lambda c: flat[c["learning_rate"]] + (0.001 if c == candidates[-1] else 0), noise=0.004)
    assert "edge" not in _kinds(review(lucky))


def test_an_edge_that_is_not_significant_stays_open():
    barely = lambda c: 0.9 + 0.002 * np.log10(c["learning_rate"])  # noqa: E731
    result = review(_search({"learning_rate": RATES}, barely, noise=0.003))
    assert "edge" not in _kinds(result)
    assert result.next_space == {"learning_rate": [0.0316, 0.1, 0.316]}
    shares = _search({"momentum": [0.5, 0.7, 0.9]}, lambda c: 0.9 + 0.02 * c["momentum"], noise=0.002)
    assert review(shares).next_space == {"momentum": [0.8, 0.9, 0.925]}


def test_nothing_is_tried_beyond_a_limit_or_where_some_failed():
    grid = {"learning_rate": RATES, "units": [8, 16, 32]}

    def barely(candidate):
        is_broken = candidate == {"learning_rate": 0.1, "units": 8}
        return np.nan if is_broken else 0.9 + 0.002 * np.log10(candidate["learning_rate"])

    result = review(_search(grid, barely, noise=0.003))
    assert result.next_space["learning_rate"] == [0.0316, 0.1]
    falls = _search({"dropout": [0.0, 0.2, 0.4]}, lambda c: 0.9 - 0.01 * c["dropout"], noise=0.001)
    assert review(falls).next_space == {"dropout": [0.0, 0.1]}


def test_limits_of_a_parameter_are_no_edges():
    falls = lambda c: 0.9 - 0.2 * c["dropout"]  # noqa: E731
    assert "edge" not in _kinds(review(_search({"dropout": [0.0, 0.2, 0.4]}, falls)))
    grows = lambda c: 0.5 + 0.1 * c["n_neighbors"] * -1  # noqa: E731
    assert "edge" not in _kinds(review(_search({"n_neighbors": [1, 2, 3]}, grows)))


def test_shares_are_extended_below_one_and_whole_numbers_stay_whole():
    momentum = review(_search({"momentum": [0.5, 0.7, 0.9]}, lambda c: 0.5 + 0.4 * c["momentum"])).next_space
    assert momentum == {"momentum": [0.7, 0.9, 0.95, 0.975]}
    units = review(_search({"units": [16, 32, 64]}, lambda c: 0.5 + 0.005 * c["units"])).next_space
    assert units["units"][-1] > 64
    assert all(isinstance(value, int) for value in units["units"])


def test_drawn_values_have_edges_too_and_get_a_range():
    rng = np.random.default_rng(1)
    candidates = [{"learning_rate": float(10 ** rng.uniform(-4, -1))} for _ in range(30)]
    result = review(_scored(candidates, _valley(0.0)))
    assert _names(result) == {"edge/learning_rate"}
    assert result.next_space["learning_rate"]["high"] > 0.3
    assert result.next_space["learning_rate"]["log"] is True
    inside = review(_scored(candidates, _valley(-2.5)))
    assert inside.findings == []
    limits = inside.next_space["learning_rate"]
    assert 1e-4 < limits["low"] < 10**-2.5 < limits["high"] < 0.1


def test_a_region_that_fails_is_cut_off():
    diverges = lambda c: np.nan if c["learning_rate"] > 0.05 else _valley(-2)(c)  # noqa: E731
    grid = {"learning_rate": RATES, "units": [16, 32]}
    result = review(_search(grid, diverges))
    assert "infeasible/learning_rate" in _names(result)
    assert next(f for f in result.findings if f.name == "infeasible/learning_rate").severity == "problem"
    assert max(result.next_space["learning_rate"]) < 0.1
    pruned = np.zeros(8, bool)
    assert "infeasible" not in _kinds(review(_search(grid, diverges), failed=pruned))


def test_what_is_at_chance_or_diverged_counts_as_failed():
    guesses = lambda c: 0.1 if c["learning_rate"] > 0.05 else _valley(-2)(c)  # noqa: E731
    grid = {"learning_rate": RATES, "units": [16, 32]}
    assert "infeasible/learning_rate" in _names(review(_search(grid, guesses), chance=0.1))
    explodes = lambda c: -1e6 if c["learning_rate"] > 0.05 else _valley(-2)(c)  # noqa: E731
    assert "infeasible/learning_rate" in _names(review(_search(grid, explodes)))


def test_a_failure_here_and_there_is_no_region():
    grid = {"learning_rate": RATES, "units": [16, 32, 64]}
    broken = ({"learning_rate": 1e-4, "units": 64}, {"learning_rate": 0.1, "units": 16})
    flaky = lambda c: np.nan if c in broken else _valley(-2.4)(c)  # noqa: E731
    assert "infeasible" not in _kinds(review(_search(grid, flaky)))


def _curves(loss: Callable[[np.ndarray], np.ndarray], n_epochs: int = 40) -> dict[int, list[dict[str, np.ndarray]]]:
    rng, epoch = np.random.default_rng(0), np.arange(n_epochs)
    return {
        candidate: [
            {"val_loss": 0.1 * candidate + loss(epoch) + 0.001 * rng.normal(size=n_epochs), "loss": np.exp(-epoch / 5)}
            for _ in range(5)
        ]
        for candidate in range(4)
    }


def test_lengths_by_curves():
    arrived = review(HEALTHY, curves=_curves(lambda epoch: np.exp(-epoch / 5)))
    assert _kinds(arrived) == set()
    short = review(HEALTHY, curves=_curves(lambda epoch: np.exp(-epoch / 40)))
    assert _kinds(short) == {"too_short"}
    assert short.findings[0].change[0] == ("epochs", 40, 80, None)
    long = review(HEALTHY, curves=_curves(lambda epoch: 0.5 + 0.01 * np.abs(epoch - 1)))
    assert "too_long" in _kinds(long)


def test_more_epochs_where_these_vary():
    grid = {"epochs": [5, 10, 20]}
    result = review(_search(grid, lambda c: 0.9 - 1 / c["epochs"]))
    assert _names(result) == {"too_short/epochs"}
    assert max(result.next_space["epochs"]) > 20
    assert review(_search(grid, lambda c: 0.9 - c["epochs"] / 100)).findings[0].verdict == "trained too long"


def test_overfitting_by_curves_and_by_training_scores():
    rises = _curves(lambda epoch: np.exp(-epoch / 3) + 0.02 * np.maximum(epoch - 15, 0))
    assert "overfit" in _kinds(review(HEALTHY, curves=rises))
    assert "overfit" in _kinds(review(replace(HEALTHY, train_scores={"score": np.ones((4, 5))})))
    fits = {"score": HEALTHY.fold_scores + 0.01}
    assert "overfit" not in _kinds(review(replace(HEALTHY, train_scores=fits)))


def test_late_variance_larger_than_the_differences():
    rng = np.random.default_rng(0)
    noisy = {
        c: [{"val_loss": 0.5 + np.exp(-np.arange(40) / 4) + 0.1 * rng.normal(size=40)} for _ in range(5)]
        for c in range(4)
    }
    assert "late_variance" in _kinds(review(HEALTHY, curves=noisy))
    assert "late_variance" not in _kinds(review(HEALTHY, curves=_curves(lambda epoch: np.exp(-epoch / 5))))


def test_a_comparison_needs_a_rate_tuned_for_each_value():
    shifts = {"SGD": -1.0, "Adam": -3.0}
    values = {"SGD": 0.0, "Adam": -0.05}
    truth = lambda c: _valley(shifts[c["optimizer"]], width=0.02)(c) + values[c["optimizer"]]  # noqa: E731
    wide = {"optimizer": ["SGD", "Adam"], "learning_rate": [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]}
    assert "nuisance" not in _kinds(review(_search(wide, truth)))
    few = review(_search({"optimizer": ["SGD", "Adam"], "learning_rate": [1e-2, 1e-1]}, truth))
    assert "nuisance/optimizer" in _names(few)
    assert few.next_space["optimizer"] == ["SGD", "Adam"]
    narrow = review(_search({"optimizer": ["SGD", "Adam"], "learning_rate": [1e-2, 1e-1, 1.0]}, truth))
    assert "nuisance/optimizer" in _names(narrow)
    fixed = {"optimizer": ["SGD", "Adam", "RMSprop"]}
    alone = review(
        _search(fixed, lambda c: {"SGD": 0.9, "Adam": 0.8}.get(c["optimizer"], 0.7)), fixed={"learning_rate": 0.01}
    )
    assert "nuisance/optimizer" in _names(alone)
    assert alone.next_space["learning_rate"] == [0.001, 0.01, 0.1]


def test_folds_that_cannot_tell_and_how_many_it_takes():
    noisy = review(_search({"units": [16, 24, 32, 48, 64]}, lambda _: 0.9, noise=0.05))
    assert "power" in _kinds(noisy)
    assert "power" not in _kinds(review(HEALTHY))
    single = review(_search({"learning_rate": RATES}, _valley(-2.4), n_splits=1))
    assert "power" in _kinds(single)


@pytest.mark.parametrize("difference", [0.022, 0.03, 0.05])
def test_splits_needed_show_the_difference(difference):
    """Simulation of repeated folds whose training sets overlap, as many as are said to be needed."""
    rng, sd, ratio = np.random.default_rng(0), 0.01, 1 / 4
    n = splits_needed(difference, sd, 5, ratio)
    assert n is not None
    assert n % 5 == 0
    error = sd * np.sqrt(2 * (1 / n + ratio))
    seen = np.abs(difference + error * rng.normal(size=20_000)) > 1.96 * error
    assert seen.mean() >= 0.79
    if n > 5:
        fewer = sd * np.sqrt(2 * (1 / (n - 5) + ratio))
        assert (np.abs(difference + fewer * rng.normal(size=20_000)) > 1.96 * fewer).mean() < 0.81


def test_no_number_of_repetitions_shows_what_the_data_cannot():
    assert splits_needed(0.001, 0.01, 5, 1 / 4) is None


def test_a_parameter_without_effect_is_fixed():
    grid = {"learning_rate": RATES, "momentum": [0.1, 0.5, 0.9]}
    idle = review(_search(grid, _valley(-2.4)))
    assert _names(idle) == {"no_effect/momentum"}
    assert len(idle.next_space["momentum"]) == 1
    acts = review(_search(grid, lambda c: _valley(-2.4)(c) - 0.3 * (c["momentum"] - 0.5) ** 2))
    assert "no_effect" not in _kinds(acts)


def test_parameters_that_act_only_together_stay_together():
    grid = {"learning_rate": RATES, "batch_size": [8, 32, 128]}
    ridge = lambda c: 0.9 - 0.05 * (np.log10(c["learning_rate"] / c["batch_size"]) + 4) ** 2  # noqa: E731
    assert "interaction/learning_rate/batch_size" in _names(review(_search(grid, ridge)))
    apart = lambda c: _valley(-2.4)(c) - 0.05 * np.log10(c["batch_size"] / 32) ** 2  # noqa: E731
    assert "interaction" not in _kinds(review(_search(grid, apart)))


def test_the_next_space_is_no_larger_than_the_search_and_a_file_that_reads_back():
    grid = {"model__learning_rate": RATES, "model__dropout": [0.1, 0.2, 0.3], "optimizer": ["SGD", "Adam"]}
    truth = lambda c: (  # noqa: E731
        _valley(0, "model__learning_rate")(c) - (c["model__dropout"] - 0.2) ** 2 - 0.01 * (c["optimizer"] == "Adam")
    )
    space = review(_search(grid, truth)).next_space
    assert n_combinations(space) <= 24
    assert set(space) == set(grid)
    assert yaml.safe_load(to_yaml(space)) == space
    assert json.loads(json.dumps(space)) == space


def test_objects_are_left_out_and_named():
    grid = {"learning_rate": RATES, "kernel": [np.square, np.sqrt]}
    result = review(_search(grid, _valley(-2.4)))
    assert set(result.next_space) == {"learning_rate"}
    assert "kernel is not in the next space" in result.remarks[0]


def test_too_few_candidates_are_not_reviewed():
    assert review(_search({"learning_rate": [0.1, 0.2]}, _valley(-1))) == ([], None, ())
    assert review(_search({"learning_rate": RATES}, lambda _: np.nan)) == ([], None, ())
