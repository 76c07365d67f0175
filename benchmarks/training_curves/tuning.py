"""Coefficients of the interval of a forecast, by quantile regression of the errors on curves for tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from mlflow_hp.analysis.diagnosis.extrapolation import MIN_VALUES, features

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.training_curves import Curve

QUANTILE = 0.955
"""Share of the errors below the upper side, and above the lower: 0.95, and a little for what is not in the tuning."""
SMOOTHING, RIDGE = 0.05, 1e-3


def fit_coefficients(curves: Sequence[Curve], shares: Sequence[float]) -> str:
    """Fit the coefficients, and write them as Python."""
    numbers, errors = [], []
    for curve in curves:
        n = len(curve.values)
        for share in shares if np.isfinite(curve.values).all() else ():
            k = max(MIN_VALUES, int(np.ceil(share * n)))
            if k < n:
                ahead = features(curve.values[:k], n)
                end = np.log(curve.values[-1]) if ahead.is_log else curve.values[-1]
                numbers.append(ahead.numbers)
                errors.append((end - ahead.offset) / ahead.scale - ahead.value)
    sides = {"ABOVE": np.array(errors), "BELOW": -np.array(errors)}
    lines = (f"{name} = ({', '.join(f'{b:.3f}' for b in _fit(np.array(numbers), e))})" for name, e in sides.items())
    return "\n".join(lines) + "\n"


def _fit(numbers: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Minimise the smoothed pinball loss of the logarithm of the errors on one side."""
    target = np.log(np.maximum(errors, 0) + 1e-3)
    first, *_ = np.linalg.lstsq(numbers, target, rcond=None)
    first[0] += 1

    def cost(b: np.ndarray) -> float:
        left = target - numbers @ b
        pinball = QUANTILE * left + SMOOTHING * np.logaddexp(0, -left / SMOOTHING)
        return float(pinball.mean() + RIDGE * (b[1:] ** 2).sum())

    def slope(b: np.ndarray) -> np.ndarray:
        left = target - numbers @ b
        weight = QUANTILE - 1 / (1 + np.exp(np.clip(left / SMOOTHING, -50, 50)))
        penalty = 2 * RIDGE * np.concatenate([[0.0], b[1:]])
        result: np.ndarray = -(numbers * weight[:, np.newaxis]).mean(axis=0) + penalty
        return result

    result: np.ndarray = minimize(cost, first, jac=slope, method="BFGS").x
    return result
