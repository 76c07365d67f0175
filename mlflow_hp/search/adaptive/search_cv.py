"""AdaptiveSearchCV: a scikit-learn search whose next combination depends on the scores of those before."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna

from mlflow_hp._compat.sklearn import failures_at_the_end, search_class
from mlflow_hp.analysis.search_space import identity
from mlflow_hp.errors import UserError
from mlflow_hp.search import time_limit
from mlflow_hp.search.adaptive.budget import budget_seconds
from mlflow_hp.search.adaptive.space import check, combination, n_combinations
from mlflow_hp.search.adaptive.study import new_study

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REPEATS = 200
"""Combinations in a row that were tried before; then the space counts as exhausted."""


class AdaptiveSearchCV(search_class()):  # type: ignore[misc]
    """Search that learns from its trials, with the interface of ``RandomizedSearchCV``; Optuna's samplers choose.

    Folds, scores, ``cv_results_`` and refit are scikit-learn's, so that pipelines, clones, several scorers, metadata
    routing and `mlflow_hp.record_search` with its resume work as for its own searches. A combination that was tried
    before is not fitted again.

    Parameters
    ----------
    estimator : estimator
        Estimator of scikit-learn's interface, such as scikeras' ``KerasClassifier``.
    param_distributions : dict, list of dict, or callable
        Parameter -> list of values, frozen distribution of `scipy.stats`, or distribution of `optuna.distributions`; of
        several dicts one is chosen for each combination. A function gets the ``optuna.Trial`` and returns the
        parameters, so that what is asked may depend on what was chosen.
    n_iter : int
        Number of combinations. Defaults to 10.
    sampler : {"tpe", "random", "cmaes", "gp", "qmc"} or optuna.samplers.BaseSampler
        Chooses the combinations. Defaults to ``"tpe"``, seeded by `random_state`; an object brings its own seed, and is
        copied for each fit.
    n_at_once : int
        Combinations that are chosen before the first of them is scored, so that more than ``cv`` fits run in parallel.
        The results depend on it, and not on `n_jobs`. Defaults to 1.
    time_budget : float, str, timedelta or None
        Seconds, or a text as ``"10min"``, after which no combination begins; nor does one that by the mean of those
        before would end more than 5 % beyond it. The first is always fitted. Defaults to None: no limit.
    warm_start_from : list of str, str or None
        Ids of parent runs of `mlflow_hp.record_search`, or the name or id of an experiment: the combinations that these
        searches have tried on the same data are learnt from. Scores in the same folds, of an equal estimator, go to the
        study; of these the best, and up to three of other searches on the data, are tried first. A combination outside
        the space is left out. Defaults to None.
    scoring : str, callable, list, tuple, dict or None
        As of ``RandomizedSearchCV``. Defaults to None: the estimator's own score.
    n_jobs : int or None
        Fits in parallel. Defaults to None: one.
    refit : bool, str or callable
        As of ``RandomizedSearchCV``; with several scorers the name of the score that guides the search. Defaults to
        True.
    cv : int, cross-validation generator, iterable or None
        Folds. Defaults to None: five.
    verbose : int
        As of ``RandomizedSearchCV``. Defaults to 0.
    pre_dispatch : int or str
        As of ``RandomizedSearchCV``. Defaults to ``"2*n_jobs"``.
    random_state : int, RandomState instance or None
        Seed of the sampler. Defaults to None: a search that is resumed needs one, to ask for the same again.
    error_score : float or "raise"
        Score of a fit that fails; a combination without a finite score tells the sampler nothing. Defaults to nan.
    return_train_score : bool
        Whether ``cv_results_`` has the scores of the training parts. Defaults to False.

    Attributes
    ----------
    study_ : optuna.Study
        All trials, those of a warm start first. A parameter of another distribution of SciPy than the uniform,
        log-uniform and whole numbers appears by its quantile, a choice of objects by its index (0-based).
    stopped_by_ : {"n_iter", "time_budget", "space"}
        What ended the search; "space" if no untried combination was found.
    warm_started_from_ : dict of str to int
        Id of each run that was learnt from -> number of its combinations in the space; empty without any.
    cv_results_, best_estimator_, best_params_, best_score_, best_index_, ...
        As of ``RandomizedSearchCV``.

    Raises
    ------
    UserError
        In `fit`: if the space, the sampler or the budget is not understood, no single score guides the search, or a run
        of `warm_start_from` is missing, has other data or another scoring. An experiment without a comparable search is
        a warning.

    Notes
    -----
    The tree-structured Parzen estimator (TPE): Bergstra et al., *Algorithms for Hyper-Parameter Optimization* (2011).

    Examples
    --------
    >>> import mlflow_hp
    >>> from scipy.stats import loguniform
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.linear_model import Ridge
    >>> X, y = make_regression(40, 5, noise=5.0, random_state=0)
    >>> search = mlflow_hp.AdaptiveSearchCV(Ridge(), {"alpha": loguniform(1e-3, 1e3)}, n_iter=12, cv=3, random_state=0)
    >>> search.fit(X, y).best_params_["alpha"] < 10
    True
    """

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_iter: int = 10,
        sampler: Any = "tpe",
        n_at_once: int = 1,
        time_budget: Any = None,
        warm_start_from: Any = None,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: Any = "2*n_jobs",
        random_state: Any = None,
        error_score: Any = np.nan,
        return_train_score: bool = False,
    ) -> None:
        self.param_distributions = param_distributions
        self.n_iter = n_iter
        self.sampler = sampler
        self.n_at_once = n_at_once
        self.time_budget = time_budget
        self.warm_start_from = warm_start_from
        self.random_state = random_state
        super().__init__(
            estimator=estimator, scoring=scoring, n_jobs=n_jobs, refit=refit, cv=cv, verbose=verbose,
            pre_dispatch=pre_dispatch, error_score=error_score, return_train_score=return_train_score,
        )  # fmt: skip

    def expected_candidates(self) -> int:
        """Return how many combinations a fit tries at most.

        Returns
        -------
        int
            `n_iter`, or the size of a smaller space.
        """
        return int(min(self.n_iter, n_combinations(self.param_distributions)))

    def _run_search(self, evaluate_candidates: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        for name in ("n_iter", "n_at_once"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < 1:
                raise UserError(f"{name}={value!r} is no number of combinations: give a whole number from 1 on")
        if isinstance(self.scoring, (list, tuple, set, dict)) and not isinstance(self.refit, str):
            raise self._without_guide(list(self.scoring))
        budget = budget_seconds(self.time_budget)
        check(self.param_distributions)
        self.study_ = new_study(self.sampler, self.random_state, self.n_at_once)
        self._start_warm()
        asked = _Asked(self.study_, self.param_distributions)
        with failures_at_the_end(self):
            self._ask_and_tell(asked, budget, evaluate_candidates)

    def _ask_and_tell(
        self, asked: _Asked, budget: float, evaluate_candidates: Callable[[list[dict[str, Any]]], dict[str, Any]]
    ) -> None:
        began = time.monotonic()
        n_done, self.stopped_by_ = 0, "n_iter"
        while n_done < self.n_iter:
            elapsed = time.monotonic() - began
            n = min(self.n_at_once, self.n_iter - n_done)
            if n_done and (time_limit.is_over() or elapsed * (1 + n / n_done) > 1.05 * budget):
                self.stopped_by_ = "time_budget"
                break
            new = asked.new(n)
            if not new:
                self.stopped_by_ = "space"
                break
            results = evaluate_candidates([params for _, params in new])
            scores = self._guiding(results)[-len(new) :]
            for (trial, params), score in zip(new, scores, strict=True):
                asked.tell(trial, params, float(score))
            n_done += len(new)

    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:  # noqa: N803 - as scikit-learn names it
        """Search, and fit the best combination to all data.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Features.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), optional
            Targets. Defaults to None.
        **params
            As of ``RandomizedSearchCV.fit``.

        Returns
        -------
        AdaptiveSearchCV
            Itself.
        """
        self._data = X, y, params.get("groups")
        try:
            return super().fit(X, y, **params)
        finally:
            del self._data

    def _start_warm(self) -> None:
        """Tell the study what recorded searches have found, and enqueue what is to be tried first."""
        self.warm_started_from_: dict[str, int] = {}
        if self.warm_start_from is None:
            return
        from mlflow_hp.search.adaptive.warm_start import warm_start

        warm = warm_start(self, *self._data)
        self.warm_started_from_ = warm.runs
        for (params, distributions), score in warm.scored:
            self.study_.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=score))
        for suggested in warm.first:
            self.study_.enqueue_trial(suggested.params)

    def _without_guide(self, names: list[str]) -> UserError:
        return UserError(
            f"refit={self.refit!r} names none of the scores {', '.join(names)}: name the one that guides the search"
        )

    def _guiding(self, results: dict[str, Any]) -> np.ndarray:
        """Scores that guide the search, of all candidates; of pruned ones the mean over the folds that they have."""
        names = [name.removeprefix("mean_test_") for name in results if name.startswith("mean_test_")]
        guide = "score" if names == ["score"] else self.refit
        if not isinstance(guide, str) or guide not in names:
            raise self._without_guide(names)
        means = np.asarray(results[f"mean_test_{guide}"], float)
        n_splits = sum(name.startswith("split") and name.endswith(f"_test_{guide}") for name in results)
        folds = np.array([results[f"split{split}_test_{guide}"] for split in range(n_splits)], float)
        is_pruned = np.isnan(results["mean_fit_time"]) & np.isfinite(folds).any(axis=0)
        n_known = np.maximum(np.isfinite(folds).sum(axis=0), 1)
        return np.where(is_pruned, np.nansum(folds, axis=0) / n_known, means)


class _Asked:
    """Combinations of a study: new ones are asked for, those tried before get their score again."""

    def __init__(self, study: optuna.Study, space: Any) -> None:
        self._study, self._space = study, space
        self._scores: dict[str, float] = {}
        self._n_combinations = n_combinations(space)

    def new(self, n: int) -> list[tuple[optuna.Trial, dict[str, Any]]]:
        """Ask for `n` combinations that were not tried; fewer if none is left or found."""
        new: dict[str, tuple[optuna.Trial, dict[str, Any]]] = {}
        for _ in range(MAX_REPEATS + n):
            if len(new) == n or len(self._scores) + len(new) >= self._n_combinations:
                break
            trial = self._study.ask()
            params = combination(trial, self._space)
            key = _key(params)
            if key in self._scores:
                self.tell(trial, params, self._scores[key])
            elif key in new:
                self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            else:
                new[key] = trial, params
        return list(new.values())

    def tell(self, trial: optuna.Trial, params: dict[str, Any], score: float) -> None:
        """Tell the study the score of a combination; one that is not finite counts as failed."""
        self._scores[_key(params)] = score
        if math.isfinite(score):
            self._study.tell(trial, score)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)


def _key(params: dict[str, Any]) -> str:
    """Identity of a combination: equal for equal values, and for objects of equal contents."""
    return repr(sorted((name, identity(value)) for name, value in params.items()))
