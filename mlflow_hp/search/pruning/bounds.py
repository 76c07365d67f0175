"""Largest possible score of a search's scorer."""

from __future__ import annotations

import inspect
import math
import numbers
import sys
from typing import Any

from mlflow_hp._compat.private_name import UnsupportedVersionError, warn_once
from mlflow_hp._compat.sklearn import ScoreFunction, score_function

ONE = (
    "accuracy", "balanced_accuracy", "top_k_accuracy", "average_precision", "f1", "f1_macro", "f1_micro", "f1_samples",
    "f1_weighted", "precision", "precision_macro", "precision_micro", "precision_samples", "precision_weighted",
    "recall", "recall_macro", "recall_micro", "recall_samples", "recall_weighted", "jaccard", "jaccard_macro",
    "jaccard_micro", "jaccard_samples", "jaccard_weighted", "roc_auc", "roc_auc_ovo", "roc_auc_ovr",
    "roc_auc_ovo_weighted", "roc_auc_ovr_weighted", "matthews_corrcoef", "r2", "explained_variance",
    "d2_absolute_error_score",
)  # fmt: skip
"""Names of scikit-learn's scorers whose largest score is 1."""
ZERO = (
    "neg_mean_squared_error", "neg_root_mean_squared_error", "neg_mean_absolute_error", "neg_median_absolute_error",
    "neg_mean_squared_log_error", "neg_root_mean_squared_log_error", "neg_mean_absolute_percentage_error",
    "neg_max_error", "neg_log_loss", "neg_brier_score", "neg_mean_poisson_deviance", "neg_mean_gamma_deviance",
)  # fmt: skip
"""Names of those whose largest score is 0."""
BOUNDS = {**dict.fromkeys(ONE, 1.0), **dict.fromkeys(ZERO, 0.0)}
"""Largest score of scikit-learn's scorers by name."""
UNNORMALIZED = ("normalize", "zero_division")
"""Arguments of a score function with which it may be larger."""


def upper_bound(search: Any) -> tuple[float, str]:
    """Return the largest possible score of the scorer that ranks the candidates of a search.

    Parameters
    ----------
    search : BaseSearchCV

    Returns
    -------
    bound : float
        Infinite if unknown.
    reason : str
        Why it is unknown.
    """
    scoring = search.scoring
    if isinstance(scoring, dict):
        scoring = scoring.get(search.refit)
    elif isinstance(scoring, (list, tuple, set)):
        scoring = search.refit
    bound = _of_estimator(search.estimator) if scoring is None else _of_scorer(scoring)
    if math.isinf(bound):
        what = f"{type(search.estimator).__name__}.score" if scoring is None else f"{scoring!r:.100}"
        return bound, f"the largest possible score of {what} is not known"
    if isinstance(search.error_score, numbers.Real) and float(search.error_score) > bound:
        return math.inf, f"error_score={search.error_score!r} is larger than the largest possible score"
    return bound, ""


def _of_scorer(scoring: Any) -> float:
    """Largest score of a scorer: scikit-learn's by name, or made by ``make_scorer`` of the same function."""
    if isinstance(scoring, str):
        return BOUNDS.get(scoring, math.inf)
    from sklearn.metrics import get_scorer, get_scorer_names

    try:
        made_of = score_function(scoring)
        if made_of is None or any(name in made_of.settings for name in UNNORMALIZED):
            return math.inf
        for name in sorted(BOUNDS.keys() & set(get_scorer_names())):
            if _is_same(made_of, score_function(get_scorer(name))):
                return BOUNDS[name]
    except UnsupportedVersionError as error:
        warn_once(error)
    return math.inf


def _is_same(one: ScoreFunction, other: ScoreFunction | None) -> bool:
    return other is not None and one.function is other.function and one.sign == other.sign


def _of_estimator(estimator: Any) -> float:
    """Largest value of an estimator's own `score`: 1 for accuracy and R²."""
    from sklearn.base import ClassifierMixin, RegressorMixin
    from sklearn.pipeline import Pipeline

    if isinstance(estimator, Pipeline):
        return _of_estimator(estimator.steps[-1][1]) if estimator.steps else math.inf
    score = inspect.getattr_static(type(estimator), "score", None)
    if score in (vars(ClassifierMixin)["score"], vars(RegressorMixin)["score"]):
        return 1.0
    if "scikeras.wrappers" in sys.modules:
        from scikeras.wrappers import BaseWrapper, KerasClassifier, KerasRegressor

        own = getattr(type(estimator), "scorer", None)
        if score is vars(BaseWrapper)["score"] and own in (KerasClassifier.scorer, KerasRegressor.scorer):
            return 1.0
    return math.inf
