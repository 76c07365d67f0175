"""Diagnosis of a linear regression: all rules on its descent, and what to try next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Change, Finding, by_severity, two_digits
from mlflow_hp.analysis.diagnosis.regression_descent import (
    ILL_CONDITIONED,
    arrival,
    arrival_tolerance,
    curvature,
    distance,
    feature_std,
    overshoot,
)
from mlflow_hp.analysis.diagnosis.training import not_finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
    from mlflow_hp.history import TrainingHistory


def diagnose_regression(
    history: TrainingHistory,
    surface: LinearRegressionSurface,
    w: np.ndarray,
    b: np.ndarray,
    settings: Mapping[str, Any],
) -> list[Finding]:
    """Run all rules on a linear regression with the path (w, b), each (n_steps + 1,).

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    surface : LinearRegressionSurface
        Cost surface of the training data.
    w : ndarray of shape (n_steps + 1,)
        Weight before the first step and after each.
    b : ndarray of shape (n_steps + 1,)
        Bias before the first step and after each.
    settings : mapping of str to object
        Settings `optimizer`, `learning_rate`, `epochs` and `standardize` of the training.

    Returns
    -------
    list of Finding
        Findings, the most important first.
    """
    arrived = arrival(surface, w, b)
    results = [
        not_finite(history),
        distance(surface, w, b),
        arrived,
        overshoot(w, b, arrived),
        curvature(surface, bool(settings.get("standardize"))),
    ]
    findings = [finding for finding in results if finding is not None]
    return [*by_severity(findings), next_try(findings, surface, w, b, settings)]


def next_try(
    findings: Sequence[Finding],
    surface: LinearRegressionSurface,
    w: np.ndarray,
    b: np.ndarray,
    settings: Mapping[str, Any],
) -> Finding:
    """Choose what to try next, from findings and the settings `optimizer`, `learning_rate`, `epochs`, `standardize`.

    For gradient descent, the learning rate that arrives in a third of the steps, at most half the largest stable one.
    For other optimizers, the one that would have covered the distance to the minimum in a third of the steps, at the
    mean length of the steps. If no learning rate does, `standardize` together with one that suits it.

    Parameters
    ----------
    findings : sequence of Finding
        Findings, the most important first.
    surface : LinearRegressionSurface
        Cost surface of the training data.
    w : ndarray of shape (n_steps + 1,)
        Weight before the first step and after each.
    b : ndarray of shape (n_steps + 1,)
        Bias before the first step and after each.
    settings : mapping of str to object
        Settings `optimizer`, `learning_rate`, `epochs` and `standardize` of the training.

    Returns
    -------
    Finding
        The finding.
    """
    by_name = {finding.name: finding for finding in findings}
    arrived, n_steps = by_name["arrival"], max(len(w) - 1, 1)
    rate, epochs = float(settings["learning_rate"]), int(settings["epochs"])
    reaches, stable = _rates(surface, w, b, settings)
    evidence: dict[str, Any] = {}
    worse = "not_finite" in by_name or arrived.verdict in ("diverges", "hovers")
    valley = surface.condition_number > ILL_CONDITIONED or reaches > stable
    suggestion = None
    changes: tuple[Change, ...] = ()
    if arrived.verdict != "has arrived" and valley and not settings.get("standardize"):
        evidence["suggested_learning_rate"] = two_digits(_rate_where_standardized(surface, w, b, settings))
        suggestion = f"standardize=true with learning_rate={evidence['suggested_learning_rate']:g}"
        changes = (Change("standardize", False, True),)
    elif worse or by_name["overshoot"].verdict == "overshoots":
        slower = 0.1
        if arrived.evidence["arrival_step"] is not None:  # the smallest rate that would still have arrived
            slower = min(max(3 * (arrived.evidence["arrival_step"] + 1) / n_steps, 0.1), 0.5)
        better = min(reaches, stable, rate / 2) if _is_gradient_descent(settings) else rate * slower
        evidence["suggested_learning_rate"] = two_digits(better)
        suggestion = f"learning_rate={evidence['suggested_learning_rate']:g}"
    elif arrived.verdict == "crawls":
        better = two_digits(min(reaches, stable, 1000 * rate))
        suggestion = f"epochs={5 * epochs}"
        if better > 1.5 * rate:
            evidence["suggested_learning_rate"] = better
            suggestion = f"learning_rate={better:g} or {suggestion}"
        else:
            changes = (Change("epochs", epochs, 5 * epochs),)
    elif arrived.verdict == "has arrived":
        n_enough = max(1, math.ceil(1.5 * (arrived.evidence["arrival_step"] + 1) * epochs / n_steps))
        if n_enough <= epochs / 2:
            evidence["suggested_epochs"] = n_enough
            suggestion = f"epochs={n_enough}, which is enough"
            changes = (Change("epochs", epochs, n_enough),)
    if suggestion is None:
        return Finding("next_try", "nothing", "Nothing more to try with these settings.", evidence)
    if "suggested_learning_rate" in evidence:
        changes = (*changes, Change("learning_rate", rate, evidence["suggested_learning_rate"]))
    cause = f"the descent {arrived.verdict}"
    if changes and changes[0].parameter == "standardize":
        cause += (
            f" in a valley: the cost changes {surface.condition_number:.3g} times as much across it as along it, since "
            "the feature is not standardised"
        )
    severity: Literal["problem", "fine"] = "fine" if arrived.verdict == "has arrived" and not worse else "problem"
    return Finding("next_try", "try", f"Next, try {suggestion}.", evidence, suggestion, severity, cause, change=changes)


def _is_gradient_descent(settings: Mapping[str, Any]) -> bool:
    return str(settings["optimizer"]).lower() == "sgd"


def _rates(
    surface: LinearRegressionSurface, w: np.ndarray, b: np.ndarray, settings: Mapping[str, Any]
) -> tuple[float, float]:
    """The learning rate that reaches the minimum in a third of the steps, and the largest one to try."""
    best, rate = surface.minimum, float(settings["learning_rate"])
    if _is_gradient_descent(settings):
        excess, curved = float(surface.cost(w[0], b[0])) - best.cost, float(surface.eigenvalues[0])
        return _descent_rates(
            excess / arrival_tolerance(surface), curved, 2 / surface.largest_stable_learning_rate, w, settings
        )
    left = np.abs([best.w - w[0], best.b - b[0]])
    return rate * float((left / (_step_lengths(w, b) * (len(w) - 1) / 3 + 1e-300)).max()), math.inf


def _rate_where_standardized(
    surface: LinearRegressionSurface, w: np.ndarray, b: np.ndarray, settings: Mapping[str, Any]
) -> float:
    """The learning rate that would reach the minimum in a third of the steps from w = b = 0 if x were standardised."""
    best = surface.minimum
    if _is_gradient_descent(settings):
        excess = float(surface.cost(0.0, 0.0)) - best.cost  # the Hessian is then 2 I
        return min(_descent_rates(excess / arrival_tolerance(surface), 2.0, 2.0, w, settings))
    mean_y = best.b + best.w * float(surface.hessian[0, 1]) / 2
    left = max(abs(best.w) * feature_std(surface), abs(mean_y))
    return float(settings["learning_rate"]) * left / (float(_step_lengths(w, b).max()) * (len(w) - 1) / 3 + 1e-300)


def _descent_rates(
    excess: float, flattest: float, steepest: float, w: np.ndarray, settings: Mapping[str, Any]
) -> tuple[float, float]:
    """Compute the same two rates for gradient descent, with `excess` in units of the arrival tolerance.

    ``exp(-2 rate flattest n / 3)`` reduces the excess to a tenth; momentum m multiplies each update by 1 / (1 - m).
    """
    keeps = 1 - float(settings.get("momentum") or 0)
    reaches = 3 * math.log(max(10 * excess, math.e)) / (2 * flattest * max(len(w) - 1, 1))
    return keeps * reaches, keeps / steepest


def _step_lengths(w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean length of the finite updates in w and in b; 0 if there are none."""
    updates = np.abs(np.diff(np.column_stack([w, b]), axis=0))
    updates = updates[np.isfinite(updates).all(axis=1)]
    return updates.mean(axis=0) if len(updates) else np.zeros(2)
