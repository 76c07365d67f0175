"""Whether one trained model is really better than another on the same test samples: a paired bootstrap."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

LEVEL = 0.95
RESAMPLES = 1000
ROUNDING = 1e-9
"""Scores that differ by less are equal."""


class Gain(NamedTuple):
    """The score of one model less that of another, and the interval that holds it with probability ``LEVEL``."""

    value: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """What the interval says."""
        if np.isnan(self.low) or np.isnan(self.high):
            return "no interval can be given for this scorer"
        if self.low <= ROUNDING and self.high >= -ROUNDING:
            return "these test samples can't tell whether there is any"
        return "it is more than the choice of test samples explains"

    @property
    def told(self) -> str:
        """The gain in words."""
        return f"{self.value:+.4f}, {LEVEL:.0%} interval from {self.low:+.4f} to {self.high:+.4f}: {self.verdict}"


def paired_gain(scorer: Callable[..., float], tuned: Any, baseline: Any, x: np.ndarray, y: np.ndarray) -> Gain:
    """The gain of `tuned` over `baseline` on the test samples, with its bootstrap percentile interval.

    Each resample draws as many samples as there are, with replacement, and scores both models on it: Efron and
    Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13. It tells what other test samples would
    change; not what training once more with another seed would.

    Parameters
    ----------
    scorer : callable
        ``scorer(estimator, x, y)``, as `sklearn.metrics.check_scoring` gives it.
    tuned, baseline : classifier or regressor
        Fitted.
    x, y : ndarray of shape (n, n_features) and (n,)
        The test part.

    Returns
    -------
    Gain
        Its interval is nan where the scorer can't score a resample, such as one without samples of a class.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    models = _known(tuned, x), _known(baseline, x)

    def gain(rows: np.ndarray) -> float:
        try:
            one, other = (scorer(model, rows[:, None], y[rows]) for model in models)
        except ValueError:
            return np.nan
        return one - other

    rows = np.arange(len(y))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # the interval is nan
        found = bootstrap(
            (rows,), gain, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile", vectorized=False,
            random_state=np.random.default_rng(0),
        )  # fmt: skip
    return Gain(gain(rows), float(found.confidence_interval.low), float(found.confidence_interval.high))


def _known(model: Any, x: np.ndarray) -> Any:
    """A model that has predicted all of `x` already: what it is asked to predict are rows' numbers, shape (n, 1)."""
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
