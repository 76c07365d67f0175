"""AdaptiveSearchCV: what it draws, what it fits, how it ends, and what it finds."""

from __future__ import annotations

import contextlib
import datetime as dt
import inspect
import math
import pickle
from typing import ClassVar

import mlflow
import numpy as np
import optuna
import pytest
from scipy import stats
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import FitFailedWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

import mlflow_hp
from mlflow_hp import AdaptiveSearchCV
from mlflow_hp.errors import UserError
from mlflow_hp.search.adaptive import search_cv, warm_start
from mlflow_hp.search.adaptive.budget import budget_seconds
from mlflow_hp.search.adaptive.space import combination, suggestions
from tests.helpers.searches import X, Y, children, record
from tests.helpers.waiting import wait_for

DATA = np.arange(12.0)[:, None], np.zeros(12)


class Bowl(BaseEstimator):
    """Its score is a function of its parameters; it counts its fits."""

    fits: ClassVar[list] = []

    def __init__(self, a=0.0, b=0.0, kind="round"):
        self.a, self.b, self.kind = a, b, kind

    def fit(self, x, y):
        self.fits.append(dict(self.get_params()))
        return self

    def score(self, x, y):
        if isinstance(self.kind, str) and self.kind == "nowhere":
            return math.nan
        depth = 1.0 if isinstance(self.kind, str) and self.kind == "narrow" else 0.0
        return depth - (self.a - 0.3) ** 2 - 10 * (self.b - 0.7) ** 2


@pytest.fixture(autouse=True)
def no_fits():
    Bowl.fits = []


def searched(space, **settings):
    settings = {"cv": 2, "n_iter": 5, "random_state": 0, "refit": False} | settings
    return AdaptiveSearchCV(Bowl(), space, **settings).fit(*DATA)


SQUARE = {"a": stats.uniform(-3, 6), "b": stats.uniform(-3, 6)}


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_it_learns(sampler):
    """The regret of ten searches, beside that of as many random draws."""
    if sampler == "gp":
        pytest.importorskip("torch")
    n = 10 if sampler == "tpe" else 3
    found = {}
    for seed in range(n):
        for name in (sampler, "random"):
            search = searched(SQUARE, sampler=name, n_iter=50, random_state=seed)
            found.setdefault(name, []).append(-search.cv_results_["mean_test_score"].max())
    assert np.median(found[sampler]) < np.median(found["random"]) / 3


DISTRIBUTIONS = {
    "uniform": stats.uniform(-2, 5),
    "loguniform": stats.loguniform(1e-4, 10),
    "loguniform with a scale": stats.loguniform(1e-2, 1, scale=5),
    "loguniform with a shift": stats.loguniform(1e-2, 1, loc=3),
    "normal": stats.norm(2, 0.5),
    "skewed": stats.gamma(2.0, scale=3.0),
    "truncated": stats.truncnorm(-1, 0.5),
    "not frozen": stats.norm,
    "histogram": stats.rv_histogram(np.histogram([0.0, 1.0, 1.5, 4.0], bins=3)),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_draws_have_the_distribution(name):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = [combination(study.ask(), {"p": DISTRIBUTIONS[name]})["p"] for _ in range(400)]
    assert {type(value) for value in drawn} == {float}
    assert stats.kstest(drawn, DISTRIBUTIONS[name].cdf).pvalue > 0.001


@pytest.mark.parametrize(
    "values", [stats.randint(3, 9), stats.poisson(4), stats.binom(6, 0.3)], ids=["uniform", "poisson", "binomial"]
)
def test_whole_numbers_have_the_distribution(values):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = [combination(study.ask(), {"p": values})["p"] for _ in range(600)]
    assert {type(value) for value in drawn} == {int}
    for value in range(-1, 10):
        assert np.mean(np.array(drawn) == value) == pytest.approx(values.pmf(value), abs=0.07)


LOGISTIC, RIDGE = LogisticRegression(), Ridge()


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 3], ("a", "b"), np.array([0.1, 0.2]), [None, True, "x"], [1, True, 1.0], [RIDGE, LOGISTIC],
        [(8,), (8, 8)], [[1, 2], [3, 4]], [math.nan, 1.0], [np.float32(0.1), np.int64(2)], [print, len], [7],
        optuna.distributions.CategoricalDistribution(["p", "q"]),
        optuna.distributions.FloatDistribution(0, 1, step=0.5), optuna.distributions.IntDistribution(1, 64, log=True),
    ],
)  # fmt: skip
def test_each_value_of_a_list_is_drawn_as_it_is(values):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [combination(study.ask(), {"p": values})["p"] for _ in range(60)]
    if isinstance(values, optuna.distributions.FloatDistribution):
        assert {*drawn} == {0.0, 0.5, 1.0}
    elif isinstance(values, optuna.distributions.IntDistribution):
        assert min(drawn) < 4 <= 16 < max(drawn) <= 64
    else:
        expected = getattr(values, "choices", values)
        expected = expected.tolist() if isinstance(expected, np.ndarray) else list(expected)
        kept = {(type(value), repr(value)) for value in expected}
        assert {(type(value), repr(value)) for value in drawn} == kept


def test_a_combination_is_fitted_once_and_an_exhausted_space_ends():
    search = searched({"a": [0, 1], "b": [0, 1, 2]}, n_iter=50)
    assert search.stopped_by_ == "space"
    tried = [tuple(params.values()) for params in search.cv_results_["params"]]
    assert sorted(tried) == [(a, b) for a in (0, 1) for b in (0, 1, 2)]
    assert len(Bowl.fits) == 2 * 6
    assert search.cv_results_["rank_test_score"][tried.index((0, 1))] == 1
    assert searched({"a": [0.5]}, n_iter=3).stopped_by_ == "space"
    assert searched(SQUARE, n_iter=3).stopped_by_ == "n_iter"


@pytest.mark.parametrize("values", [stats.uniform(0.3, 1e-3), stats.randint(10**9, 10**9 + 50)])
def test_each_combination_has_its_own_score_however_near_it_is_to_another(values):
    search = searched({"b": values}, n_iter=40)
    assert len(search.cv_results_["params"]) == 40
    for trial in search.study_.trials:
        assert trial.value == Bowl(b=trial.params["b"]).score(None, None)


def test_objects_of_equal_contents_are_one_value():
    search = searched({"kind": [Ridge(1.0), Ridge(1.0), Ridge(2.0), np.zeros(3), np.zeros(3)]}, n_iter=50)
    assert (search.stopped_by_, len(search.cv_results_["params"])) == ("space", 3)


def test_a_function_that_always_draws_the_same_ends_too():
    search = searched(lambda trial: {"a": trial.suggest_categorical("a", [1.0])}, n_iter=3)
    assert (search.stopped_by_, len(search.cv_results_["params"])) == ("space", 1)


def test_what_is_asked_depends_on_what_was_chosen():
    def space(trial):
        kind = trial.suggest_categorical("kind", ["round", "narrow"])
        return {"kind": kind} | ({"a": trial.suggest_float("a", 0, 1)} if kind == "narrow" else {})

    search = searched(space, n_iter=20)
    for params in search.cv_results_["params"]:
        assert ("a" in params) == (params["kind"] == "narrow")
    several = searched([{"a": [5.0], "kind": ["round"]}, {"b": stats.uniform(0, 1)}], n_iter=12)
    names = [set(params) for params in several.cv_results_["params"]]
    assert {"b"} in names
    assert names.count({"a", "kind"}) == 1  # the only one of its space


@pytest.mark.filterwarnings("ignore:One or more of the test scores")
def test_failed_combinations_are_passed_over():
    search = searched({"kind": ["nowhere", "round"], "a": stats.uniform(0, 1)}, n_iter=12)
    failed = [params["kind"] == "nowhere" for params in search.cv_results_["params"]]
    assert 0 < sum(failed) < 12
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == failed
    states = [trial.state for trial in search.study_.trials]
    assert states.count(optuna.trial.TrialState.FAIL) == sum(failed)


class Refuses(Bowl):
    """Refuses a negative `a`."""

    def fit(self, x, y):
        if self.a < 0:
            raise ValueError(f"a={self.a} is refused")
        return super().fit(x, y)


@pytest.mark.filterwarnings("ignore:One or more of the test scores")
def test_values_that_the_estimator_refuses():
    def refusing(space, **settings):
        settings = {"cv": 2, "n_iter": 6, "random_state": 1, "refit": True} | settings
        return AdaptiveSearchCV(Refuses(), space, **settings)

    search = refusing({"a": stats.uniform(-1, 1.5)}, n_iter=12)
    with pytest.warns(FitFailedWarning, match=r"(\d+) fits failed out of a total of 24"):
        search.fit(*DATA)
    refused = np.array([params["a"] < 0 for params in search.cv_results_["params"]])
    assert 0 < refused.sum() < 12
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == refused.tolist()
    assert search.best_params_["a"] >= 0
    grid = GridSearchCV(Refuses(), {"a": [-1.0, -2.0]}, cv=2)
    for each in (grid, refusing({"a": [-1.0, -2.0]})):
        with pytest.raises(ValueError, match="All the 4 fits failed"):
            each.fit(*DATA)
    inner = AdaptiveSearchCV(grid, {"estimator__b": [0.0, 1.0]}, cv=2, n_iter=2, random_state=0)
    with pytest.raises(ValueError, match=r"All the 4 fits failed[\s\S]*All the 4 fits failed"):
        inner.fit(np.arange(24.0)[:, None], np.zeros(24))
    with pytest.raises(ValueError, match=r"a=-\d.0 is refused"):
        refusing({"a": [-1.0, -2.0]}, error_score="raise").fit(*DATA)


SCORES = {"good": lambda e, x, y: e.score(x, y), "bad": lambda e, x, y: -e.score(x, y)}


def test_refit_names_the_score_that_guides():
    for name, sign in (("good", 1), ("bad", -1)):
        search = searched(SQUARE, scoring=SCORES, refit=name, n_iter=30)
        scores = search.cv_results_["mean_test_good"]
        assert [trial.value for trial in search.study_.trials] == [pytest.approx(sign * score) for score in scores]
        assert search.best_index_ == np.argmax(sign * scores)
    Bowl.fits = []
    with pytest.raises(UserError, match="refit=False names none of the scores good, bad"):
        searched(SQUARE, scoring=SCORES, refit=False)
    assert Bowl.fits == []
    with pytest.raises(UserError, match="refit=False names none of the scores p, q"):
        searched(SQUARE, scoring=lambda e, x, y: {"p": 1.0, "q": 2.0}, refit=False)
    with pytest.raises(ValueError, match="refit"):
        searched(SQUARE, scoring=SCORES, refit="other")


def test_the_same_seed_finds_the_same_whatever_the_number_of_jobs():
    def found(**settings):
        search = AdaptiveSearchCV(
            LogisticRegression(max_iter=500), {"C": stats.loguniform(1e-3, 1e2)}, n_iter=6, cv=3, **settings
        )
        return search.fit(X, Y).cv_results_["params"]

    alone = found(random_state=7)
    assert found(random_state=7) == alone
    assert found(random_state=7, n_jobs=2) == alone
    assert found(random_state=8) != alone
    assert found(random_state=7, n_at_once=3)[:3] != alone[3:]
    assert len(found(random_state=7, n_at_once=4)) == 6
    sampler = optuna.samplers.TPESampler(seed=3)
    assert found(sampler=sampler) == found(sampler=sampler)  # each fit begins with a copy


@pytest.mark.parametrize("budget", [100, "100", "1min 40s", "100 s", dt.timedelta(seconds=100)])
def test_a_budget_ends_the_search_in_time(monkeypatch, budget):
    now = [0.0]
    monkeypatch.setattr(search_cv.time, "monotonic", lambda: now[0])

    class Slow(Bowl):
        def fit(self, x, y):
            now[0] += 7.0
            return self

    search = AdaptiveSearchCV(Slow(), SQUARE, n_iter=99, cv=2, random_state=0, refit=False, time_budget=budget)
    assert search.fit(*DATA).stopped_by_ == "time_budget"
    assert now[0] == 98.0  # seven combinations of 14 s; an eighth would end at 112
    now[0] = 0.0
    assert len(clone(search).set_params(time_budget=0.1).fit(*DATA).cv_results_["params"]) == 1


def test_budgets_in_words():
    assert [budget_seconds(text) for text in ("1h 30min", "0.5h", "2d", "90", None)] == [
        5400,
        1800,
        172800,
        90,
        math.inf,
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"param_distributions": {}}, "names no parameter"),
        ({"param_distributions": []}, "is no space"),
        ({"param_distributions": "a"}, "is no space"),
        ({"param_distributions": {"a": []}}, r"\['a'\] is empty"),
        ({"param_distributions": {"a": 3}}, r"\['a'\]=3 is no distribution"),
        ({"param_distributions": {"a": "abc"}}, "is no distribution"),
        ({"param_distributions": {1: [1]}}, "the key 1"),
        ({"param_distributions": {"a": type("D", (), {"rvs": lambda self: 1})()}}, "no quantiles"),
        ({"param_distributions": {"a": stats.randint}}, "lacks parameters, or has wrong"),
        ({"param_distributions": {"a": stats.uniform(0, -1)}}, "lacks parameters, or has wrong"),
        ({"param_distributions": lambda trial: 3}, "returned 3 for a trial"),
        ({"n_iter": 0}, "n_iter=0"),
        ({"n_iter": 2.5}, "n_iter=2.5"),
        ({"n_at_once": True}, "n_at_once=True"),
        ({"sampler": "best"}, "sampler='best' is unknown"),
        ({"sampler": 7}, "sampler=7 is unknown"),
        ({"time_budget": 0}, "time_budget=0 is no time"),
        ({"time_budget": "soon"}, "time_budget='soon'"),
        ({"time_budget": "5 weeks"}, "time_budget='5 weeks'"),
        ({"time_budget": math.nan}, "time_budget=nan"),
    ],
)
def test_bad_input_is_told_before_anything_is_fitted(settings, said):
    search = AdaptiveSearchCV(Bowl(), **({"param_distributions": SQUARE, "cv": 2} | settings))
    with pytest.raises(UserError, match=said):
        search.fit(*DATA)
    assert Bowl.fits == []


def test_it_is_an_estimator_of_scikit_learn():
    search = AdaptiveSearchCV(
        make_pipeline(StandardScaler(), Ridge()), {"ridge__alpha": [0.1, 1.0]}, cv=2, random_state=0
    )
    assert clone(search).get_params().keys() == search.get_params().keys()
    fitted = search.fit(X, Y.astype(float))
    assert pickle.loads(pickle.dumps(fitted)).best_params_ == fitted.best_params_  # noqa: S301 - our own bytes
    assert set(RandomizedSearchCV(Ridge(), {}).get_params(deep=False)) <= set(search.get_params(deep=False))
    assert fitted.predict(X).shape == (len(X),)


@pytest.mark.skipif("on_skip" not in inspect.signature(check_estimator).parameters, reason="scikit-learn before 1.6")
@pytest.mark.filterwarnings("ignore")
def test_it_passes_scikit_learns_checks_as_far_as_a_grid_search():
    def failed(search):
        checks = check_estimator(search, on_skip=None, on_fail=None)
        return {check["check_name"] for check in checks if check["status"] == "failed"}

    space = {"alpha": [0.1, 1.0]}
    assert failed(AdaptiveSearchCV(Ridge(), space, cv=2, random_state=0)) <= failed(GridSearchCV(Ridge(), space, cv=2))


@pytest.mark.usefixtures("new_experiment", "impatient")
@pytest.mark.parametrize(
    ("settings", "expected", "n_done"),
    [
        ({}, 5, 5),
        ({"param_distributions": {"a": [0, 1]}}, 2, 2),
        ({"time_budget": 1e-9}, 5, 1),
        ({"n_iter": "x"}, 0, 0),
    ],
    ids=["n_iter", "space", "budget", "refused"],
)
def test_what_is_planned_is_known_from_the_start(store, settings, expected, n_done):
    def tag(name):
        return store.get_run(recording.run_id).data.tags.get(f"mlflow_hp.{name}", "0")

    class Watched(Bowl):
        def fit(self, x, y):
            if not self.fits:
                wait_for(lambda: tag("planned") == str(expected))
            return super().fit(x, y)

    search = AdaptiveSearchCV(
        Watched(), **{"param_distributions": SQUARE, "n_iter": 5, "cv": 2, "random_state": 0, "refit": False} | settings
    )
    refused = contextlib.nullcontext() if n_done else pytest.raises(UserError, match="n_iter")
    with mlflow_hp.record_search(search, progress=False, report=False) as recording, refused:
        search.fit(*DATA)
    assert (tag("planned"), tag("done")) == (str(n_done), str(n_done))


@pytest.mark.usefixtures("new_experiment")
def test_its_runs_are_those_of_a_search(store):
    search = AdaptiveSearchCV(
        LogisticRegression(max_iter=500), lambda trial: {"C": trial.suggest_float("C", 1e-3, 10, log=True)},
        n_iter=4, cv=3, random_state=0,
    )  # fmt: skip
    run_id = record(search)
    runs, parent = children(store, run_id), store.get_run(run_id)
    assert [run.data.metrics["mean_score"] for run in runs] == pytest.approx(search.cv_results_["mean_test_score"])
    assert [float(run.data.params["C"]) for run in runs] == [params["C"] for params in search.cv_results_["params"]]
    assert {run.info.run_name for run in runs} == {f"C={float(run.data.params['C']):.4g}" for run in runs}
    assert parent.data.params["search"] == "AdaptiveSearchCV"
    assert parent.data.tags["mlflow_hp.done"] == "4"


WARM_SPACE = {"alpha": stats.loguniform(1e-3, 1e3), "fit_intercept": [True, False]}
TARGET = X @ [1.0, -2.0, 0.5, 0.0] + np.sin(np.arange(len(X)))


def ridge(space=WARM_SPACE, **settings):
    settings = {"n_iter": 4, "cv": 3, "random_state": 0} | settings
    return AdaptiveSearchCV(Ridge(), space, **settings)


def numbers_of(params):
    return params["alpha"], params["fit_intercept"]


@pytest.fixture
def team(new_experiment):
    """A grid and a random search of colleagues on the data, and their parent runs."""
    grid = GridSearchCV(Ridge(), {"alpha": [0.01, 1.0, 1e6], "fit_intercept": [False]}, cv=3)
    drawn = RandomizedSearchCV(Ridge(), WARM_SPACE, n_iter=3, cv=3, random_state=4)
    return [(search, record(search, X, TARGET)) for search in (grid, drawn)]


def test_it_starts_from_what_the_team_has_recorded(team, caplog):
    (grid, grid_id), (drawn, drawn_id) = team
    caplog.set_level("INFO", "mlflow_hp")
    search = ridge(warm_start_from=[grid_id, drawn_id])
    known = {}
    for each, indices in ((grid, (0, 1)), (drawn, (0, 1, 2))):
        for index in indices:
            known[numbers_of(each.cv_results_["params"][index])] = each.cv_results_["mean_test_score"][index]
    search.fit(X, TARGET)
    warm = search.study_.trials[: len(known)]
    assert {numbers_of(trial.params): trial.value for trial in warm} == pytest.approx(known)
    assert search.warm_started_from_ == {grid_id: 2, drawn_id: 3}
    assert f"warm start from 2 runs with their combinations: {grid_id} (2), {drawn_id} (3); 1 combination left out" in (
        caplog.text
    )
    assert len(search.cv_results_["params"]) == 4
    assert numbers_of(search.cv_results_["params"][0]) == max(known, key=known.get)  # the best is tried first
    assert search.best_score_ >= max(known.values()) - 1e-12
    again = clone(search).fit(X, TARGET)
    assert again.cv_results_["params"] == search.cv_results_["params"]
    experiment = mlflow.get_run(grid_id).info.experiment_id
    for name in (experiment, mlflow.get_experiment(experiment).name):
        assert ridge(warm_start_from=name).fit(X, TARGET).warm_started_from_ == search.warm_started_from_


def test_of_other_folds_or_estimators_only_the_best_is_tried_first(team):
    (grid, grid_id), _ = team
    best = {"alpha": grid.best_params_["alpha"], "fit_intercept": False}
    other_estimator = AdaptiveSearchCV(
        Ridge(tol=0.5), WARM_SPACE, n_iter=2, cv=3, random_state=0, warm_start_from=[grid_id]
    )
    for search in (ridge(cv=4, warm_start_from=[grid_id]), other_estimator):
        search.fit(X, TARGET)
        assert len(search.study_.trials) == len(search.cv_results_["params"])
        assert search.cv_results_["params"][0] == best


def test_what_a_warm_start_refuses(team, store):
    grid_id = team[0][1]
    candidate = children(store, grid_id)[0].info.run_id
    for source, data, settings, said in (
        ([grid_id], TARGET + 1, {}, r"not comparable: its data \(\w+\) are not those of this search"),
        ([grid_id], TARGET, {"scoring": "neg_mean_squared_error"}, "its scoring is None, not neg_mean_squared_error"),
        ([candidate], TARGET, {}, "not the parent run of a search"),
        (["0" * 32], TARGET, {}, "is not in the store"),
        ("no such experiment", TARGET, {}, "no such experiment"),
        ([], TARGET, {}, "names no runs"),
        (7, TARGET, {}, "names no runs"),
        ([7], TARGET, {}, "names no runs"),
        ([grid_id], TARGET, {"space": lambda trial: {"alpha": trial.suggest_float("alpha", 0, 1)}}, "function of the"),
    ):
        with pytest.raises(UserError, match=said):
            ridge(warm_start_from=source, **settings).fit(X, data)


def test_an_experiment_without_comparable_searches_is_a_cold_start(team):
    name = mlflow.get_experiment(mlflow.get_run(team[0][1]).info.experiment_id).name
    with pytest.warns(RuntimeWarning, match="no search there is comparable, so this one starts cold .its data"):
        warm = ridge(warm_start_from=name).fit(X, TARGET + 1)
    cold = ridge().fit(X, TARGET + 1)
    assert warm.warm_started_from_ == {}
    assert warm.cv_results_["params"] == cold.cv_results_["params"]


def test_runs_outside_of_the_space_are_a_cold_start(team):
    grid_id = team[0][1]
    with pytest.warns(RuntimeWarning, match=r"no combination of 1 run is used, so it starts cold .3 combinations left"):
        warm = ridge({"alpha": [7.0, 8.0]}, warm_start_from=[grid_id]).fit(X, TARGET)
    assert warm.warm_started_from_ == {}


def test_a_long_list_of_runs_is_cut(team, caplog, monkeypatch):
    caplog.set_level("INFO", "mlflow_hp")
    monkeypatch.setattr(warm_start, "MAX_LISTED", 1)
    (_, grid_id), (_, drawn_id) = team
    ridge(warm_start_from=[grid_id, drawn_id]).fit(X, TARGET)
    assert f"combinations: {grid_id} (2), and 1 more; 1 combination left out" in caplog.text


def test_of_too_many_runs_the_last_are_learnt_from(team, caplog, monkeypatch):
    caplog.set_level("INFO", "mlflow_hp")
    monkeypatch.setattr(warm_start, "MAX_RUNS", 1)
    (_, grid_id), (_, drawn_id) = team
    name = mlflow.get_experiment(mlflow.get_run(grid_id).info.experiment_id).name
    for source in (name, [grid_id, drawn_id]):
        assert ridge(warm_start_from=source).fit(X, TARGET).warm_started_from_ == {drawn_id: 3}
    assert "warm start from 1 of 2 runs" in caplog.text


def test_a_text_as_space_is_refused_once(store):
    search = ridge("alpha")
    with pytest.raises(UserError, match="'alpha' is no space"):
        record(search, X, TARGET)
    (run,) = store.search_runs([store.get_experiment_by_name("tests").experiment_id], max_results=1)
    assert "is no space" in run.data.tags["mlflow_hp.error"]
    assert "mlflow_hp.recording_error" not in run.data.tags


def test_a_resumed_search_starts_from_the_same_runs(team, store):
    name = mlflow.get_experiment(mlflow.get_run(team[0][1]).info.experiment_id).name
    fits = []

    class Stops(Ridge):
        def fit(self, x, y, sample_weight=None):
            fits.append(self.alpha)
            if len(fits) == 5:
                raise KeyboardInterrupt
            return super().fit(x, y, sample_weight)

    def stopping():
        return AdaptiveSearchCV(Stops(), WARM_SPACE, n_iter=4, cv=3, random_state=0, warm_start_from=name)

    search = stopping()
    with pytest.raises(KeyboardInterrupt), mlflow_hp.record_search(search, progress=False, report=False) as recording:
        search.fit(X, TARGET)
    record(GridSearchCV(Ridge(), {"alpha": [3.0], "fit_intercept": [True]}, cv=3), X, TARGET)  # meanwhile
    resumed = stopping()
    record(resumed, X, TARGET, resume=recording.run_id)
    assert resumed.warm_started_from_ == {run_id: n for (_, run_id), n in zip(team, (2, 3), strict=True)}
    assert resumed.cv_results_["params"][0]["alpha"] == fits[0]
    assert len(fits) == 5 + 4 * 3 - 4 + 1  # with the refit
    assert len(children(store, recording.run_id)) == 4


@pytest.mark.parametrize(
    ("values", "texts", "outside"),
    [
        (stats.uniform(-2, 5), ["-2.0", "0.25", "3"], ["3.5", "nan", "abc", "inf", "None"]),
        (stats.loguniform(1e-3, 1.0), ["0.001", "1e-2"], ["0", "2"]),
        (stats.randint(1, 5), ["1", "4", "2.0"], ["5", "1.5", "1e400"]),
        (stats.norm(0, 1), ["0.5", "-3.25"], ["nan", "x"]),
        (stats.poisson(4), ["0", "7"], ["-1", "0.5"]),
        ([1, 10, 100.0], ["1", "10.0", "100"], ["2", "1e3", "None"]),
        ([None, True, "x", "1.5"], ["None", "True", "x", "1.5"], ["False", "1"]),
        ([(8,), (8, 8)], ["(8,)", "(8, 8)"], ["(4,)"]),
        ([print, len], ["print", "len"], ["abs"]),
        (optuna.distributions.FloatDistribution(0, 1, step=0.25), ["0.75"], ["0.8", "1.25"]),
        (optuna.distributions.IntDistribution(2, 8, step=2), ["6"], ["5", "10"]),
        (optuna.distributions.CategoricalDistribution(["p", 2]), ["p", "2"], ["q"]),
    ],
    ids=[
        "uniform",
        "loguniform",
        "randint",
        "norm",
        "poisson",
        "numbers",
        "mixed",
        "tuples",
        "functions",
        "steps",
        "even",
        "choices",
    ],
)
def test_recorded_values_are_those_of_the_space(values, texts, outside):
    for text in texts:
        (suggested,) = suggestions({"p": values}, {"p": text}).params.values()
        study = optuna.create_study()
        study.enqueue_trial({"p": suggested})
        value = combination(study.ask(), {"p": values})["p"]
        name = getattr(value, "__name__", value)
        assert str(name) == text or float(value) == pytest.approx(float(text))
    for text in outside:
        assert suggestions({"p": values}, {"p": text}) is None
    assert suggestions({"p": values}, {"q": texts[0]}) is None
    several = suggestions([{"q": [1]}, {"p": values}], {"p": texts[0]})
    assert several.params["which_space"] == 1
