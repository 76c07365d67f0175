"""Importance of a search's parameters: Optuna's PED-ANOVA, and exact shares of variance on a full grid."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.computed_once import computed_once

if TYPE_CHECKING:
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.search_space import Parameter

TOP_SHARE = 0.1
"""Share of the best candidates that PED-ANOVA compares with the others."""
MIN_TOP = 5
"""Least number of them, as Optuna's documentation advises for few trials."""
MAX_TOP_SHARE = 0.5
"""Largest share of them."""


@computed_once
def importance(results: SearchResults) -> dict[str, float]:
    """Importance of each varying parameter for being among the best, by Optuna's PED-ANOVA; descending, sums to 1.

    Candidates with a failed fold are left out. Empty with fewer than two varying parameters, fewer than four
    candidates, or equal scores.
    """
    import optuna

    complete = np.flatnonzero(np.isfinite(results.mean))
    scores = results.mean[complete]
    if len(results.parameters) < 2 or len(complete) < 4 or np.ptp(scores) == 0:
        return {}
    parameters = [results.parameter(name) for name in results.parameters]
    distributions = {p.name: _distribution(p) for p in parameters}
    values = {p.name: p.labels if p.kind == "category" else [_plain(level) for level in p.levels] for p in parameters}
    trials = [
        optuna.trial.create_trial(
            params={p.name: values[p.name][p.codes[index]] for p in parameters},
            distributions=distributions,
            value=float(score),
        )
        for index, score in zip(complete, scores, strict=True)
    ]
    share = min(max(TOP_SHARE, MIN_TOP / len(complete)), MAX_TOP_SHARE)
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # experimental features, few trials
            study = optuna.create_study(direction="maximize")
            study.add_trials(trials)
            evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share)
            importances = optuna.importance.get_param_importances(study, evaluator=evaluator, normalize=False)
    finally:
        optuna.logging.set_verbosity(verbosity)
    total = sum(importances.values())
    if not total > 0:
        return {}
    return {name: value / total for name, value in sorted(importances.items(), key=lambda item: -item[1])}


@computed_once
def variance_shares(results: SearchResults) -> dict[str, float] | None:
    """Exact share of the variance of the mean scores that each parameter explains alone, on a full grid.

    The remainder to 1 is interaction and noise. None if the search is not a full grid (every tuple of values
    exactly once, none failed) or all means are equal.
    """
    parameters = [results.parameter(name) for name in results.parameters]
    shape = tuple(len(p.levels) for p in parameters)
    cells = {tuple(codes) for codes in zip(*(p.codes.tolist() for p in parameters), strict=True)}
    mean = results.mean
    full = np.prod(shape) == len(mean) == len(cells) and results.iterations is None
    if len(parameters) < 2 or not full or not np.isfinite(mean).all() or np.ptp(mean) == 0:
        return None
    table = np.empty(shape)
    table[tuple(p.codes for p in parameters)] = mean
    axes = range(len(shape))
    return {
        p.name: float(table.mean(axis=tuple(a for a in axes if a != axis)).var() / table.var())
        for axis, p in enumerate(parameters)
    }


def _distribution(parameter: Parameter) -> Any:
    """Optuna's distribution over the values tried."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.kind == "category":
        return CategoricalDistribution(parameter.labels)
    low, high, log = _plain(parameter.levels[0]), _plain(parameter.levels[-1]), parameter.kind == "log"
    whole = all(isinstance(_plain(level), int) for level in parameter.levels)
    return IntDistribution(low, high, log=log) if whole else FloatDistribution(low, high, log=log)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
