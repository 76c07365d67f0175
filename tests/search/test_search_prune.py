"""Pruned searches: the same best candidate with fewer fits, and what is told of the rest."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, make_scorer, mean_squared_error
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mlflow_hp
from mlflow_hp import AdaptiveSearchCV, RecordingWarning
from mlflow_hp.errors import UserError
from mlflow_hp.search.pruning.bounds import BOUNDS, upper_bound
from mlflow_hp.search.pruning.exact import ExactRule
from mlflow_hp.search.pruning.tested import PairedTestRule
from tests.helpers.score_table import ACCURACY, Looked, data, own
from tests.helpers.searches import LOKY, children, record

N_SPLITS = 4
HITS = [(60, 60, 60, 60), (97, 96, 95, 94), (97, 96, 95, 94), (80, 98, 98, 98), (30, 99, 99, 99), (98, 93, 94, 96)]
"""The second and the third reach 95.5; the fourth reaches 93.5."""


@pytest.fixture(autouse=True)
def no_fits():
    Looked.fits = []


def grid(hits=HITS, kind=GridSearchCV, **settings):
    n_splits = settings.pop("n_splits", N_SPLITS)
    return kind(Looked(), {"hits": [tuple(each) for each in hits]}, **{"cv": data(n_splits)[2], **settings})


def fitted(search, **settings):
    """The parent run, and how many folds were fitted."""
    Looked.fits = []
    x, y, _ = data(search.cv.get_n_splits())
    run_id = record(search, x, y, **settings)
    return run_id, len(Looked.fits) - bool(search.refit)


def test_exact_finds_the_same_best_with_fewer_fits(store):
    plain = grid().fit(*data(N_SPLITS)[:2])
    search = grid()
    run_id, n_fits = fitted(search, prune="exact", report=True)
    assert (search.best_index_, search.best_score_) == (plain.best_index_, plain.best_score_) == (1, 0.955)
    assert search.best_params_ == plain.best_params_
    means, times = (search.cv_results_[f"mean_{name}"] for name in ("test_score", "fit_time"))
    missing = np.isnan(means)
    assert missing.tolist() == [True, False, False, True, True, False]  # ties stay
    assert np.isnan(times).tolist() == missing.tolist()
    assert n_fits == 12 + 1 + 1 + 1 < 24
    runs = children(store, run_id)
    assert {run.info.status for run in runs} == {"FINISHED"}
    reasons = [run.data.tags.get("mlflow_hp.pruned") for run in runs]
    assert [reason is not None for reason in reasons] == missing.tolist()
    assert "can reach at most 0.9, the best reach 0.955" in reasons[0]
    assert "mean_score" not in runs[0].data.metrics
    parent = store.get_run(run_id)
    assert parent.data.tags["mlflow_hp.failed"] == "0"
    assert parent.data.tags["mlflow_hp.done"] == "6"
    assert parent.info.status == "FINISHED"
    text = parent.data.tags["mlflow.note.content"]
    assert "Pruned: 9 of 24 fits, of 3 candidates" in text
    assert "failed in" not in text
    assert "not computed" in text


@pytest.mark.parametrize("seed", range(20))
def test_exact_never_misses_the_best_by_rounding_or_ties(seed):
    rng = np.random.default_rng(seed)
    scores = rng.choice([0.1, 0.3, 0.7, 0.9, 1.0], (12, 5))
    means = np.average(scores, axis=1)
    rule = ExactRule(1.0)
    so_far = np.where(rng.random(scores.shape) < 0.7, scores, np.nan)
    so_far[rng.integers(12, size=3)] = scores[rng.integers(12)]
    so_far = np.where(np.isnan(so_far), so_far, scores)
    hopeless = rule.judge(so_far, 1).is_hopeless
    assert not hopeless[means == means.max()].any()
    for n_best in (2, 3):
        top = np.sort(means)[-n_best]
        assert not (rule.judge(so_far, n_best).is_hopeless & (means >= top)).any()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("prune", ["exact", "tested"])
@pytest.mark.parametrize(
    "settings",
    [
        {"scoring": ["accuracy", "f1"], "refit": "accuracy", "return_train_score": True},
        {"scoring": {"a": ACCURACY, "own": own}, "refit": "a"},
        {"scoring": ACCURACY, "refit": False},
        {"scoring": "accuracy", "error_score": "raise"},
        {"kind": lambda *arguments, **named: RandomizedSearchCV(*arguments, n_iter=6, random_state=0, **named)},
    ],
    ids=["several", "dict", "no refit", "raise", "random"],
)
def test_forms_of_searches(prune, settings, store):
    plain = grid(**settings).fit(*data(N_SPLITS)[:2])
    search = grid(**settings)
    _, n_fits = fitted(search, prune=prune)
    assert search.best_index_ == plain.best_index_
    assert n_fits < 24
    assert set(search.cv_results_) == set(plain.cv_results_)


def test_tested_drops_what_is_worse_on_the_same_folds(store):
    rng = np.random.default_rng(0)
    hits = [(60 + 3 * i + rng.integers(-2, 3, 5)).tolist() for i in range(12)]
    search = grid(hits, n_splits=5)
    run_id, n_fits = fitted(search, prune="tested")
    assert search.best_index_ == 11
    assert n_fits <= 30
    tags = [run.data.tags.get("mlflow_hp.pruned", "") for run in children(store, run_id)]
    assert "worse than the best so far by" in tags[0]
    assert not tags[11]


def test_tested_keeps_what_differs_by_chance():
    scores = np.array([[0.9, 0.8, 0.85], [0.85, 0.84, np.nan], [0.86, np.nan, np.nan], [0.2, np.nan, np.nan]])
    assert PairedTestRule().judge(scores).is_hopeless.tolist() == [False, False, False, True]
    assert not PairedTestRule().judge(scores[2:]).is_hopeless.any()  # nobody has all folds


@pytest.mark.sampled(2)
@pytest.mark.parametrize("prune", ["exact", "tested"])
def test_halving_keeps_who_goes_on(prune, store):
    hits = [(h, h, h, h) for h in (99, 60, 98, 97, 50, 40, 96, 30)]
    settings = {
        "kind": HalvingGridSearchCV, "factor": 2, "resource": "effort", "max_resources": 4, "min_resources": 1,
    }  # fmt: skip

    plain = grid(hits, **settings).fit(*data(N_SPLITS)[:2])
    search = grid(hits, **settings)
    _, n_fits = fitted(search, prune=prune)
    assert search.best_params_ == plain.best_params_
    assert search.best_score_ == plain.best_score_
    survivors = [params["hits"] for params in np.array(search.cv_results_["params"])[search.cv_results_["iter"] == 1]]
    expected = [params["hits"] for params in np.array(plain.cv_results_["params"])[plain.cv_results_["iter"] == 1]]
    assert sorted(survivors) == sorted(expected)
    assert n_fits < 4 * len(plain.cv_results_["params"])


@pytest.mark.parametrize("prune", ["exact", "tested"])
def test_adaptive_search_learns_from_what_pruned_candidates_have(prune, store):
    hits = [(h, h + 1, h, h - 1) for h in range(20, 98, 6)]
    search = AdaptiveSearchCV(Looked(), {"hits": hits}, n_iter=10, cv=data(N_SPLITS)[2], random_state=0)
    _, n_fits = fitted(search, prune=prune)
    assert n_fits < 40
    assert np.isnan(search.cv_results_["mean_test_score"]).any()
    assert all(trial.state.name == "COMPLETE" and math.isfinite(trial.value) for trial in search.study_.trials)


@pytest.mark.filterwarnings(LOKY)
def test_in_two_processes(store, tmp_path):
    log = tmp_path / "fits"
    search = grid([*HITS, (50, 50, 50, 50), (40, 41, 40, 40), (30, 31, 30, 30)], n_jobs=2)
    search.estimator = Looked(seconds=0.05, log=str(log))
    run_id, _ = fitted(search, prune="exact")
    assert search.best_index_ == 1
    assert len(log.read_text().splitlines()) - 1 < 4 * 9
    assert {run.info.status for run in children(store, run_id)} == {"FINISHED"}


def test_pruned_folds_are_computed_when_resumed_without(store):
    run_id, n_pruned = fitted(grid(), prune="exact")
    plain = grid().fit(*data(N_SPLITS)[:2])
    again = grid()
    assert fitted(again, resume=run_id, prune="exact") == (run_id, 0)
    assert again.best_index_ == plain.best_index_
    whole = grid()
    assert fitted(whole, resume=run_id) == (run_id, 24 - n_pruned)
    assert np.array_equal(whole.cv_results_["mean_test_score"], plain.cv_results_["mean_test_score"])
    assert [run.info.status for run in children(store, run_id)] == ["FINISHED"] * 6
    assert not any(run.data.tags.get("mlflow_hp.pruned") for run in children(store, run_id))
    assert all("mean_score" in run.data.metrics for run in children(store, run_id))


def test_failed_folds_remain_failures(store):
    search = GridSearchCV(Looked(hits=HITS[1]), {"fails_on": [None, 0, 1], "hits": [HITS[1], HITS[0]]},
                          cv=data(N_SPLITS)[2])  # fmt: skip
    with pytest.warns(Warning, match="fits failed out of a total of 24"):
        run_id, _ = fitted(search, prune="exact", per_fold_runs=True)
    assert search.best_index_ == 0
    statuses = [run.info.status for run in children(store, run_id)]
    assert statuses.count("FAILED") >= 2
    assert statuses[0] == "FINISHED"


def test_if_all_fits_fail_it_is_said_as_without(store):
    search = GridSearchCV(Looked(seconds=-1.0), {"hits": HITS}, cv=data(N_SPLITS)[2])  # no sleep takes -1 s
    with pytest.raises(ValueError, match="All the 24 fits failed"):
        fitted(search, prune="exact")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"scoring": own}, "the largest possible score of <function own"),
        ({"scoring": ["accuracy"], "refit": False}, "refit names none"),
        ({"refit": lambda results: 0}, "refit is a function"),
        ({"error_score": 2.0}, "error_score=2.0 is larger"),
    ],
    ids=["own", "no guide", "function", "error score"],
)
def test_what_cannot_be_pruned_is_computed_and_told(settings, reason, store):
    search = grid(**settings)
    with pytest.warns(RecordingWarning, match=f"nothing is pruned: {reason}"):
        _, n_fits = fitted(search, prune="exact")
    assert n_fits == 24


def test_estimators_in_the_space_have_unknown_scores(store):
    search = GridSearchCV(make_pipeline(StandardScaler(), LogisticRegression()),
                          {"logisticregression": [LogisticRegression(C=1e-3), LogisticRegression()]}, cv=3)  # fmt: skip
    with pytest.warns(RecordingWarning, match="no more is pruned from here on: the search varies estimators"):
        record(search, prune="exact")
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("estimator", "scoring", "bound"),
    [
        (LogisticRegression(), None, 1),
        (Ridge(), None, 1),
        (make_pipeline(StandardScaler(), Ridge()), None, 1),
        (Ridge(), "neg_mean_squared_error", 0),
        (Ridge(), make_scorer(mean_squared_error, greater_is_better=False), 0),
        (Ridge(), make_scorer(mean_squared_error), math.inf),
        (LogisticRegression(), make_scorer(accuracy_score, normalize=False), math.inf),
        (LogisticRegression(), make_scorer(accuracy_score, greater_is_better=False), math.inf),
        (LogisticRegression(), ACCURACY, 1),
        (LogisticRegression(), own, math.inf),
        (LogisticRegression(), "mutual_info_score", math.inf),
    ],
)
def test_bounds(estimator, scoring, bound):
    assert upper_bound(GridSearchCV(estimator, {}, scoring=scoring))[0] == bound


def test_every_named_bound_is_a_scorer():
    from sklearn.metrics import get_scorer_names

    of_newer = {"neg_root_mean_squared_log_error", "d2_absolute_error_score", "neg_max_error"}  # versions
    assert set(BOUNDS) - set(get_scorer_names()) <= of_newer


def test_an_error_of_the_rule_computes_every_fit(store, monkeypatch):
    monkeypatch.setattr(ExactRule, "judge", lambda *_: 1 / 0)
    with pytest.warns(RecordingWarning, match="no more is pruned from here on: ZeroDivisionError"):
        _, n_fits = fitted(grid(), prune="exact")
    assert n_fits == 24


def test_unknown_rule():
    with (
        pytest.raises(UserError, match="prune='fast' is unknown; choose 'exact'"),
        mlflow_hp.record_search(grid(), prune="fast"),
    ):
        pass


def test_sentences_tell_pruned_from_failed():
    from mlflow_hp.analysis import from_cv_results
    from mlflow_hp.search import search_sentences

    results = {
        "params": [{"a": 0}, {"a": 1}, {"a": 2}],
        "split0_test_score": np.array([0.9, 0.5, np.nan]),
        "split1_test_score": np.array([0.9, np.nan, 0.5]),
        "mean_fit_time": np.array([1.0, np.nan, 1.0]),
        "mean_score_time": np.array([1.0, np.nan, 1.0]),
    }
    text = " ".join(search_sentences(from_cv_results(results)))
    assert "1 of 3 candidates, of which not every fold was computed" in text
    assert "1 of 3 candidates, which failed" in text
