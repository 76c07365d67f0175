"""Paired bootstrap: whether one trained model is really better than another on the same test samples."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

LEVEL = 0.95
RESAMPLES = 1000
ROUNDING = 1e-9
"""Scores that differ by less count as equal."""


class Gain(NamedTuple):
    """Score of a model minus that of another, and its confidence interval at ``LEVEL``."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Conclusion from the interval."""
        if np.isnan(self.low) or np.isnan(self.high):
            return "no interval can be given for this scorer"
        if self.low <= ROUNDING and self.high >= -ROUNDING:
            return "these test samples cannot tell whether there is any"
        return "it is more than the choice of test samples explains"

    @property
    def sentence(self) -> str:
        """Gain, interval and verdict in words."""
        return f"{self.value:+.4f}, {LEVEL:.0%} interval from {self.low:+.4f} to {self.high:+.4f}: {self.verdict}"


def paired_gain(scorer: Callable[..., float], tuned: Any, baseline: Any, x: np.ndarray, y: np.ndarray) -> Gain:
    """Compute the gain of `tuned` over `baseline` on the test samples, with its bootstrap percentile interval.

    Each resample draws as many samples as there are, with replacement, and scores both models on it: Efron and
    Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13. It estimates the effect of other test
    samples, not that of another training with another seed.

    Parameters
    ----------
    scorer : callable
        ``scorer(estimator, x, y)``, as `sklearn.metrics.check_scoring` returns it.
    tuned, baseline : classifier or regressor
        Fitted.
    x, y : ndarray of shape (n, n_features) and (n,)
        The test part.

    Returns
    -------
    Gain
        Its interval is nan if the scorer cannot score a resample, such as one without samples of a class.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    models = _predicted(tuned, x), _predicted(baseline, x)

    def gain(rows: np.ndarray) -> float:
        try:
            tuned_score, baseline_score = (scorer(model, rows[:, None], y[rows]) for model in models)
        except ValueError:
            return np.nan
        return tuned_score - baseline_score

    rows = np.arange(len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # the interval is nan
        result = bootstrap(
            (rows,), gain, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile", vectorized=False,
            random_state=np.random.default_rng(0),
        )  # fmt: skip
    return Gain(gain(rows), float(result.confidence_interval.low), float(result.confidence_interval.high))


def _predicted(model: Any, x: np.ndarray) -> Any:
    """Wrap the predictions for all of `x` as a model that predicts row numbers, shape (n, 1)."""
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

    values = model.predict(x)
    if not hasattr(model, "classes_"):

        class Regressor(RegressorMixin, BaseEstimator):
            def predict(self, rows: np.ndarray) -> np.ndarray:
                return values[rows[:, 0]]

        return Regressor()
    shares = model.predict_proba(x)

    class Classifier(ClassifierMixin, BaseEstimator):
        classes_ = model.classes_

        def predict(self, rows: np.ndarray) -> np.ndarray:
            return values[rows[:, 0]]

        def predict_proba(self, rows: np.ndarray) -> np.ndarray:
            return shares[rows[:, 0]]

    return Classifier()
