"""Scores in units of the target, of networks and estimators that predict it standardised."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    import keras

    from projects.datasets.samples import Samples


class ScorerInUnits:
    """Scorer of scikit-learn by name, applied to targets and predictions in the target's own units.

    Parameters
    ----------
    name : str
        As of `sklearn.metrics.get_scorer`.
    mean, deviation : float
        Mean and standard deviation by which the target was standardised.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.dummy import DummyRegressor
    >>> from projects.unit_scores import ScorerInUnits
    >>> x, y = np.zeros((4, 1)), np.array([-1.0, 1.0, -1.0, 1.0])
    >>> ScorerInUnits("neg_mean_absolute_error", 20.0, 5.0)(DummyRegressor().fit(x, y), x, y)
    -5.0
    """

    def __init__(self, name: str, mean: float, deviation: float) -> None:
        self.name, self.mean, self.deviation = name, mean, deviation

    def __call__(self, estimator: Any, x: np.ndarray, y: np.ndarray) -> float:
        """Score an estimator on samples `x` and their standardised targets `y`."""
        from sklearn.metrics import get_scorer

        predictor = _predictor(self._in_units(estimator.predict(x)))
        return float(get_scorer(self.name)(predictor, x, self._in_units(y)))

    def __repr__(self) -> str:
        return f"ScorerInUnits({self.name!r}, {self.mean!r}, {self.deviation!r})"

    def _in_units(self, y: np.ndarray) -> np.ndarray:
        units: np.ndarray = y.astype(np.float64) * self.deviation + self.mean
        return units


def of_test_part(data: Samples, model: keras.Model) -> dict[str, float]:
    """Scores of the test part in units of the target: mean absolute error, root mean squared error; and R2."""
    from sklearn.metrics import r2_score

    predicted, y = data.in_units(model.predict(data.x_test, verbose=0)[:, 0]), data.in_units(data.y_test)
    errors = predicted - y
    if not np.isfinite(errors).all():
        return {"test_mean_absolute_error": math.nan}
    return {
        "test_mean_absolute_error": float(np.abs(errors).mean()),
        "test_root_mean_squared_error": float(np.sqrt(np.mean(errors**2))),
        "test_r2": float(r2_score(y, predicted)) if len(y) > 1 else math.nan,
    }


def in_words(numbers: Mapping[str, float]) -> str:
    """Scores in units of the target, in words."""
    mean, root = numbers["test_mean_absolute_error"], numbers["test_root_mean_squared_error"]
    return (
        f"mean absolute error {mean:,.6g} and root mean squared error {root:,.6g}, in units of the target; R2 "
        f"{numbers['test_r2']:.3f}"
    )


def _predictor(predicted: np.ndarray) -> Any:
    """Wrap predictions as a fitted regressor that returns them."""
    from sklearn.base import BaseEstimator, RegressorMixin

    class Predictor(RegressorMixin, BaseEstimator):
        def predict(self, x: np.ndarray) -> np.ndarray:  # noqa: ARG002
            return predicted

    return Predictor()
