"""Results of searches: read, ranked, compared, explained; against scikit-learn, SciPy and closed forms."""

from __future__ import annotations

import dataclasses
import logging
import math
import warnings

import numpy as np
import pytest
from scipy import stats

from mlflow_hp.analysis.importance import importance, variance_shares
from mlflow_hp.analysis.search_results import from_cv_results, plus_minus
from mlflow_hp.analysis.search_space import parameter, value_text
from mlflow_hp.analysis.significance import holm, p_values_against_first, winner
from mlflow_hp.errors import UserError
from mlflow_hp.search.report import search_pictures, search_sentences

RNG = np.random.default_rng(0)


def cv_results(candidates, scores, seconds=None, name="score"):
    """What a search would hold for these scores (n_candidates, n_splits), without what is derived from them."""
    found = {f"split{fold}_test_{name}": column for fold, column in enumerate(np.asarray(scores, float).T)}
    seconds = np.ones(len(candidates)) if seconds is None else np.asarray(seconds, float)
    return {"params": candidates, "mean_fit_time": seconds, "mean_score_time": seconds / 10} | found


def results(scores, seconds=None):
    return from_cv_results(cv_results([{"a": i} for i in range(len(scores))], scores, seconds))


@pytest.fixture(scope="module")
def search():
    """A real grid with two scorers, train scores, and a value that fails."""
    from sklearn.datasets import load_iris
    from sklearn.exceptions import FitFailedWarning
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import GridSearchCV

    grid = {"alpha": [0.1, -1.0, 1000.0], "solver": ["auto", "svd"]}
    found = GridSearchCV(RidgeClassifier(), grid, cv=4, scoring=["accuracy", "f1_macro"], refit="f1_macro",
                         return_train_score=True)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitFailedWarning)
        warnings.filterwarnings("ignore", "One or more of the", UserWarning)
        return found.fit(*load_iris(return_X_y=True))


def test_scikit_learns_own_means_and_ranks(search):
    for scorer in ("accuracy", "f1_macro"):
        found = from_cv_results(search.cv_results_, scorer)
        np.testing.assert_allclose(found.mean, search.cv_results_[f"mean_test_{scorer}"])
        np.testing.assert_allclose(found.std, search.cv_results_[f"std_test_{scorer}"])
        np.testing.assert_array_equal(found.ranks, search.cv_results_[f"rank_test_{scorer}"])
        bare = {key: value for key, value in search.cv_results_.items() if not key.startswith("rank")}
        np.testing.assert_array_equal(from_cv_results(bare, scorer).ranks, found.ranks)
    assert found.candidates[winner(found).best] == search.best_params_
    assert found.train_scores["accuracy"].shape == (6, 4)
    assert found.parameters == ("alpha", "solver")
    assert found.compared.tolist() == [True, True, False, False, True, True]
    assert from_cv_results(search.cv_results_).scorer == "accuracy"


def test_the_table(search):
    found = from_cv_results(search.cv_results_, "f1_macro")
    table = found.to_table()
    assert table["rank"].is_monotonic_increasing
    assert table.loc[0, ["alpha", "solver"]].to_dict() == search.best_params_
    assert table.loc[0, "mean_f1_macro"] == search.best_score_
    assert math.isnan(table["mean_f1_macro"].iloc[-1])
    assert {"fold_3_accuracy", "fold_0_train_f1_macro", "mean_train_accuracy", "fit_seconds"} <= set(table.columns)
    lines = found.to_markdown(5).splitlines()
    assert len(lines) == 7
    assert lines[0] == "| rank | alpha | solver | f1_macro | fit seconds |"
    assert "failed" in lines[-1]
    assert all(line.count("|") == 6 for line in lines)


def test_of_a_halving_search_the_last_iteration_is_compared():
    from sklearn.datasets import load_iris
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingGridSearchCV
    from sklearn.naive_bayes import GaussianNB

    grid = {"var_smoothing": [1e-9, 1e-3, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4, 1e5]}
    search = HalvingGridSearchCV(GaussianNB(), grid, cv=3, random_state=0, min_resources=30)
    search.fit(*load_iris(return_X_y=True))
    found = from_cv_results(search.cv_results_)
    last = search.cv_results_["iter"] == search.n_iterations_ - 1
    assert len(found.candidates) == 9 < len(search.cv_results_["params"])
    assert found.compared.sum() == last.sum()
    assert found.candidates[winner(found).best] == search.best_params_
    np.testing.assert_allclose(sorted(found.mean[found.compared]), sorted(search.cv_results_["mean_test_score"][last]))
    assert found.ranks[found.compared].max() <= last.sum() < found.ranks[~found.compared].min()
    assert any(f"{9 - last.sum()} of 9 were dropped earlier" in said for said in search_sentences(found))
    assert found.to_table()["iteration"].iloc[0] == search.n_iterations_ - 1


def test_wrong_input_is_named():
    held = cv_results([{"a": 1}], [[0.5, 0.6]])
    with pytest.raises(UserError, match=r"'accuracy'.*'score'"):
        from_cv_results(held, "accuracy")
    with pytest.raises(UserError, match="no candidate"):
        from_cv_results({"params": []})


@pytest.mark.parametrize(
    ("values", "kind", "labels"),
    [
        ([0.1, 0.001, 0.01], "log", ["0.001", "0.01", "0.1"]),
        ([8, 128, 16, 64, 32], "log", ["8", "16", "32", "64", "128"]),
        ([0.1, 0.3, 0.5, 0.9], "linear", ["0.1", "0.3", "0.5", "0.9"]),
        ([-1, 100, 10_000], "linear", ["-1", "100", "10000"]),
        ([np.float64(1.0), 1, 10], "linear", ["1", "10"]),
        ([None, 8, 2], "category", ["2", "8", "None"]),
        ([True, False, 1], "category", ["1", "True", "False"]),
        ([1, "1"], "category", ["1.0", "1"]),
        ([(64,), (64, 32)], "category", ["(64,)", "(64, 32)"]),
        ([0.100001, 0.100002], "linear", ["0.100001", "0.100002"]),
        ([math.inf, 1.0], "category", ["1", "inf"]),
    ],
)
def test_parameters_are_ordered_and_named(values, kind, labels):
    found = parameter([{"p": value} for value in values], "p")
    assert (found.kind, found.labels) == (kind, labels)
    assert [found.levels[code] for code in found.codes] == values


def test_a_parameter_that_some_combinations_do_not_set():
    found = from_cv_results(cv_results([{"a": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 3}], RNG.normal(size=(3, 3))))
    assert found.parameters == ("b",)
    assert found.parameter("b").labels == ["2", "3", "(absent)"]
    assert found.labels == ["the only one", "b=2", "b=3"]


def test_values_in_words():
    assert value_text(np.float64(0.000123456)) == "0.0001235"
    assert value_text(np.mean) == "mean"
    assert value_text(dict) == "dict"
    assert value_text("a\n  b") == "a b"
    assert plus_minus(0.95312, 0.0112) == "0.953 ± 0.011"
    assert plus_minus(-3021.4, 210.0) == "-3021 ± 210"
    assert plus_minus(0.5, 0.0) == "0.5000 ± 0.0000"


def test_two_candidates_are_compared_by_the_paired_test_with_nadeau_and_bengios_variance():
    scores = np.sort(RNG.normal(size=(2, 7)), axis=0)[::-1] + RNG.normal(size=7)
    ordinary, _ = p_values_against_first(scores, 0.0)
    assert ordinary[0] == pytest.approx(stats.ttest_rel(scores[0], scores[1]).pvalue)
    difference = scores[0] - scores[1]
    for ratio in (1 / 6, 1 / 9):
        t = difference.mean() / math.sqrt((1 / 7 + ratio) * difference.var(ddof=1))
        p, error = p_values_against_first(scores, ratio)
        assert p[0] == pytest.approx(2 * stats.t.sf(abs(t), 6))
        assert error[0] == pytest.approx(difference.mean() / t)
    found = winner(results(scores))
    assert found.p_values[1] == pytest.approx(p_values_against_first(scores, 1 / 6)[0][0])


def test_the_variance_of_many_is_the_residual_of_candidates_and_folds():
    scores = RNG.normal(size=(6, 5)) + np.linspace(5, 0, 6)[:, None] + RNG.normal(size=5)
    p_values, errors = p_values_against_first(scores, 0.25)
    for last in range(1, 6):
        block = scores[: last + 1]
        residual = block - block.mean(1, keepdims=True) - block.mean(0) + block.mean()
        freedom = last * 4
        pooled, own = 2 * (residual**2).sum() / freedom, (scores[0] - scores[last]).var(ddof=1)
        error = math.sqrt((1 / 5 + 0.25) * max(pooled, own))
        assert errors[last - 1] == pytest.approx(error)
        t = (scores[0] - scores[last]).mean() / error
        assert p_values[last - 1] == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-6)


def test_holm_is_the_definition():
    p = np.array([0.04, 0.001, 0.012, 0.9, 0.011])
    ordered = sorted(p)
    expected = [max(min(1, (5 - j) * ordered[j]) for j in range(ordered.index(value) + 1)) for value in p]
    np.testing.assert_allclose(holm(p), expected)


def correlated(rng, shape, rho, scale=1.0):
    """Scores whose folds correlate by `rho` within a candidate, plus what each fold does to all."""
    own, shared = rng.normal(size=shape), rng.normal(size=(*shape[:-1], 1))
    return scale * (math.sqrt(1 - rho) * own + math.sqrt(rho) * shared) + rng.normal(size=(*shape[:-2], 1, shape[-1]))


def test_false_alarms_between_two_equal_candidates_are_as_rare_as_stated():
    """Folds whose scores correlate by n_test / (n_test + n_train), which the correction assumes, make it exact."""
    n, k = 4000, 5
    scores = correlated(np.random.default_rng(1), (n, 2, k), 1 / k)
    scores = np.take_along_axis(scores, np.argsort(-scores.mean(-1), axis=-1)[..., None], axis=1)
    corrected = np.mean([p_values_against_first(pair, 1 / (k - 1))[0][0] < 0.05 for pair in scores])
    ordinary = np.mean([p_values_against_first(pair, 0.0)[0][0] < 0.05 for pair in scores])
    assert corrected == pytest.approx(0.05, abs=0.012)  # 3.5 standard errors
    assert ordinary > 0.12


@pytest.mark.parametrize("spread", [1, 10])
def test_who_is_as_good_as_the_best_stays_among_the_tied(spread):
    """Twenty equal candidates, also where some scatter ten times as much as others: the tied hold 95 % of them."""
    rng, out = np.random.default_rng(2), []
    for _ in range(300):
        scale = np.exp(rng.uniform(0, math.log(spread), 20))[:, None]
        found = winner(results(correlated(rng, (20, 5), 1 / 5, scale)))
        out.append(1 - found.tied.mean())
    assert np.mean(out) < 0.05
    assert np.mean(out) > 0.001


def test_a_clear_winner_is_told():
    scores = np.array([[0.99, 0.98, 0.985], [0.7, 0.69, 0.701], [0.5, 0.52, 0.49]])
    found = winner(results(scores))
    assert found.best == 0
    assert found.tied.tolist() == [True, False, False]
    assert found.cheapest == 0
    assert search_sentences(results(scores))[0].startswith(
        "The best, `a=0` (0.9850 ± 0.0041), is significantly better than all 2 others"
    )


def test_the_cheapest_that_is_as_good_is_named():
    fold = np.array([0.02, -0.01, 0.0, -0.02, 0.01])
    noise = np.array([1, -1, 2, -2, 0]) * 0.004
    scores = [0.950 + fold + noise, 0.949 + fold - noise, 0.948 + fold, 0.6 + fold, np.full(5, np.nan)]
    found = results(scores, seconds=[6.4, 3.0, 2.0, 0.1, 0.01])
    said = search_sentences(found)
    assert winner(found).cheapest == 2
    assert "is not significantly better than 2 of 3 others" in said[0]
    assert "`a=2` (0.948 ± 0.014), which trains 3.2 times faster (2 s a fold instead of 6.4 s)" in said[1]
    assert said[-1] == "Left out: 1 of 5 candidates, which failed in one fold or more."


def test_a_bad_one_whose_folds_scatter_is_not_advised_for_being_cheap():
    fold = np.array([0.02, -0.01, -0.01])
    found = results([0.95 + fold, 0.951 - fold, [0.9, 0.1, 0.7]], seconds=[5, 4, 0.1])
    assert winner(found).tied[2]
    assert winner(found).cheapest == 1


def test_equal_scores_are_tied_whatever_the_last_digit():
    row = np.array([0.1, 0.2, 0.3])
    found = winner(results([row, row + 1e-16, row * (1 + 1e-15)]))
    assert found.tied.all()
    np.testing.assert_array_equal(np.delete(found.p_values, found.best), 1.0)
    told = winner(results([row, row - 0.01]))  # the same distance on each fold
    assert told.p_values[1] < 1e-6


def test_scores_that_diverge_do_not_disturb_the_others():
    scores = np.concatenate([RNG.normal(size=(4, 3)) / 100, [[-1e40, 0, 0], [-1e300, 1, 1], [-np.inf, 1, 1]]])
    found = results(scores)
    assert found.compared.tolist() == [True] * 5 + [False] * 2
    alone = winner(results(scores[:4]))
    np.testing.assert_allclose(winner(found).p_values[:4], alone.p_values)


def test_what_can_not_be_compared():
    assert winner(results(np.full((3, 3), np.nan))) is None
    assert search_sentences(results(np.full((3, 3), np.nan))) == [
        "In each of the 3 candidates one fold or more failed: there is no best one."
    ]
    single = results([[0.5], [0.9]])
    assert winner(single).tied.all()
    assert "single split" in search_sentences(single)[0]
    assert "no other" in search_sentences(results([[0.5, 0.6]]))[0]


def grid(score, n_failed=0):
    """A full grid of three parameters, of which `score` says the score; the first few candidates failed."""
    candidates = [
        {"rate": rate, "units": units, "kind": kind}
        for rate in (1e-4, 1e-3, 1e-2, 1e-1)
        for units in (8, 16, 64)
        for kind in ("relu", "tanh")
    ]
    scores = np.array([score(**candidate) for candidate in candidates])[:, None] + np.array([0, 0.01])
    scores[:n_failed] = np.nan
    return from_cv_results(cv_results(candidates, scores))


def test_importance_finds_the_one_that_matters(caplog, recwarn):
    import optuna

    before = optuna.logging.get_verbosity()
    found = importance(grid(lambda rate, units, kind: -abs(math.log10(rate) + 2) + units / 1000, n_failed=3))
    assert next(iter(found)) == "rate"
    assert found["rate"] > 0.6
    assert set(found) == {"rate", "units", "kind"}
    assert sum(found.values()) == pytest.approx(1)
    assert optuna.logging.get_verbosity() == before
    assert not recwarn.list
    assert not [record for record in caplog.records if record.levelno >= logging.INFO]
    assert next(iter(importance(grid(lambda rate, units, kind: float(kind == "tanh"))))) == "kind"


def test_importance_is_silent_where_there_is_none():
    assert importance(grid(lambda **_: 1.0)) == {}
    assert importance(results(RNG.normal(size=(9, 3)))) == {}  # a single parameter
    assert importance(grid(lambda **_: 1.0, n_failed=24)) == {}


def test_variance_shares_are_exact_on_a_full_grid():
    """An additive score: shares as variances add up; a product of two centred parameters: nothing but interplay."""
    rates, units = np.log10([1e-4, 1e-3, 1e-2, 1e-1]), np.array([8, 16, 64])
    found = variance_shares(grid(lambda rate, units, kind: math.log10(rate) + units / 10))
    total = rates.var() + (units / 10).var()
    assert found["rate"] == pytest.approx(rates.var() / total)
    assert found["units"] == pytest.approx((units / 10).var() / total)
    assert found["kind"] == pytest.approx(0)
    sign = {"relu": -1, "tanh": 1}
    together = variance_shares(grid(lambda rate, units, kind: sign[kind] * (math.log10(rate) + 2.5)))
    assert sum(together.values()) == pytest.approx(0, abs=1e-12)
    whole = grid(lambda rate, **_: rate)
    part = dataclasses.replace(whole, candidates=whole.candidates[:-1], scores={"score": whole.fold_scores[:-1]})
    assert variance_shares(part) is None
    assert variance_shares(grid(lambda **_: 1.0)) is None


def test_what_matters_and_the_edge_in_words():
    said = search_sentences(grid(lambda rate, units, kind: math.log10(rate) + units / 1000))
    assert any("at the largest rate tried, 0.1" in text for text in said)
    assert any(text.startswith("Importance for being among the best (PED-ANOVA): rate (") for text in said)
    assert any("rate 100%" in text for text in said)


class Pictures:
    """A report that keeps the axes."""

    def __init__(self):
        self.axes = {}

    def picture(self, name, axes):
        self.axes[name] = axes


def test_the_pictures_that_a_search_allows():
    report = Pictures()
    search_pictures(report, grid(lambda rate, units, kind: math.log10(rate) + units / 10, n_failed=2))
    always = {"scores", "scores_by_fold", "score_by_fit_time"}
    pairs = {"heatmap_rate_units", "heatmap_rate_kind", "heatmap_units_kind"}
    assert set(report.axes) == always | pairs | {"importance", "parallel_coordinates"}
    single = Pictures()
    search_pictures(single, results(RNG.normal(size=(9, 3))))
    assert set(single.axes) == always | {"score_by_a"}
    failed = Pictures()
    search_pictures(failed, grid(lambda **_: 1.0, n_failed=24))
    assert set(failed.axes) == {"scores_by_fold", "parallel_coordinates"} | pairs
