"""Rules for the descent of a linear regression on its exact cost surface."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Change, Finding

if TYPE_CHECKING:
    from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface

ARRIVED_WITHIN = 0.01
"""A path has arrived if J stays within this share of J*."""
REVERSALS = 0.75
"""Share of reversed updates above which a descent overshoots; `overshoot` gives the reason."""
ILL_CONDITIONED = 1000.0
"""Condition number above which a surface is ill-conditioned."""


def curvature(surface: LinearRegressionSurface, standardized: bool = False) -> Finding:
    """Report the largest stable learning rate, and whether the condition number exceeds ``ILL_CONDITIONED``.

    Gradient descent reduces the error along the valley by at best ``(k - 1) / (k + 1)`` a step (Nesterov 2004,
    Introductory Lectures on Convex Optimization, section 2.1.5): at k = 1000, about 1150 steps for a factor of 10.

    Parameters
    ----------
    surface : LinearRegressionSurface
        Cost surface of the training data.
    standardized : bool
        Whether the feature is standardised. Defaults to False.

    Returns
    -------
    Finding
        The finding.
    """
    k, rate = surface.condition_number, surface.largest_stable_learning_rate
    evidence = {"condition_number": k, "largest_stable_learning_rate": rate}
    text = f"Plain gradient descent is stable below a learning rate of {rate:.3g}; the condition number is {k:.3g}"
    if k > ILL_CONDITIONED:
        weight_is_steep = surface.hessian[0, 0] > surface.hessian[1, 1]
        steep, flat = ("weight", "bias") if weight_is_steep else ("bias", "weight")
        text += f": the cost changes so much more with the {steep} than with the {flat} that the {flat} hardly moves."
        suggestion = None if standardized else "standardize=true, which brings the condition number to 1"
        change = () if standardized else (Change("standardize", False, True),)
        return Finding("curvature", "ill-conditioned", text, evidence, suggestion, severity="hint", change=change)
    return Finding("curvature", "well-conditioned", text + ".", evidence)


def distance(surface: LinearRegressionSurface, w: np.ndarray, b: np.ndarray) -> Finding:
    """Distance of the end of the path (w, b), each (n_steps + 1,), from least squares, in w, b and J.

    The end is at the minimum if J is within ``ARRIVED_WITHIN`` of J*.

    Parameters
    ----------
    surface : LinearRegressionSurface
        Cost surface of the training data.
    w : ndarray of shape (n_steps + 1,)
        Weight before the first step and after each.
    b : ndarray of shape (n_steps + 1,)
        Bias before the first step and after each.

    Returns
    -------
    Finding
        The finding.
    """
    best = surface.minimum
    cost = float(surface.cost(w[-1], b[-1]))
    excess = (cost - best.cost) / best.cost if best.cost > 0 else math.inf
    evidence = {
        "distance_w": float(w[-1]) - best.w,
        "distance_b": float(b[-1]) - best.b,
        "distance_J": cost - best.cost,
        "excess_J": excess,
        "least_squares_w": best.w,
        "least_squares_b": best.b,
        "least_squares_J": best.cost,
        "final_J": cost,
    }
    text = (
        f"The end (w {w[-1]:.4g}, b {b[-1]:.4g}, J {cost:.4g}) is {evidence['distance_w']:+.3g} in w, "
        f"{evidence['distance_b']:+.3g} in b and {_percent(excess, evidence['distance_J'])} in J away from "
        f"least squares (w {best.w:.4g}, b {best.b:.4g}, J {best.cost:.4g})."
    )
    near = cost - best.cost <= arrival_tolerance(surface)
    return Finding("distance", "at the minimum" if near else "off the minimum", text, evidence)


def arrival(surface: LinearRegressionSurface, w: np.ndarray, b: np.ndarray) -> Finding:
    """Decide whether the path has arrived, crawls, hovers or diverges, from J over the training set after each step.

    J is quadratic, so its mean over the last tenth of the path splits exactly into two parts: J at the mean point,
    the distance still to go, and a remainder from jumping around that point.

    - has arrived: the mean of J is within ``ARRIVED_WITHIN`` of J*.
    - crawls: it is not, and most of the excess is distance still to go.
    - hovers: it is not, and most of the excess comes from the jumps.
    - diverges: J is not finite at the end; or it is above its start, and above all of the path's first half.

    The arrival is the first step after which J is within ``ARRIVED_WITHIN`` of that mean; -1 is the start.

    Parameters
    ----------
    surface : LinearRegressionSurface
        Cost surface of the training data.
    w : ndarray of shape (n_steps + 1,)
        Weight before the first step and after each.
    b : ndarray of shape (n_steps + 1,)
        Bias before the first step and after each.

    Returns
    -------
    Finding
        The finding.
    """
    with np.errstate(all="ignore"):
        cost, best = surface.cost(w, b), surface.minimum.cost
        last = _at_end(len(w))
        level = float(cost[last].mean())
        still_to_go = float(surface.cost(w[last].mean(), b[last].mean())) - best
    excess, start = level - best, float(cost[0])
    evidence: dict[str, Any] = {"arrival_step": None, "fall_at_end": None, "share_still_to_go": None}
    if not np.isfinite([cost[-1], excess, still_to_go]).all():
        text = f"The cost ends at {cost[-1]:.3g}; it began at {start:.3g}."
        return _diverges(text, evidence)
    near = excess <= arrival_tolerance(surface)
    if not near and level > 1.01 * start and level > cost[: (len(cost) + 1) // 2].max():
        text = f"The cost ends higher ({cost[-1]:.3g}) than it began ({start:.3g}), and grows."
        return _diverges(text, evidence)
    ahead = float(cost[last.start]) - best
    evidence["fall_at_end"] = 1 - (float(cost[-1]) - best) / ahead if ahead > 0 else 0.0
    evidence["share_still_to_go"] = min(still_to_go / excess, 1.0) if excess > 0 else 0.0
    mean = f"over the last {_steps(last.stop - last.start)} the cost is on average"
    mean += f" {_percent(excess / best if best > 0 else math.inf, excess)} above the minimum"
    if not near and evidence["share_still_to_go"] >= 0.5:
        text = f"It crawls: {mean}, and most of that is distance still to go."
        cause = "the learning rate is too small, or the cost changes much more with one parameter than with the other"
        return Finding("arrival", "crawls", text, evidence, "more epochs", severity="problem", cause=cause)
    step = int(np.argmax(cost <= (1 + ARRIVED_WITHIN) * level)) - 1
    evidence["arrival_step"] = step
    when = f"within 1 % of that after step {step}" if step >= 0 else "there from the start"
    if not near:
        text = f"It hovers: {mean}, from jumping around it; {when}."
        cause = "the learning rate is too large for the noise of the batches"
        suggestion = "a smaller learning rate, or a larger batch"
        return Finding("arrival", "hovers", text, evidence, suggestion, severity="problem", cause=cause)
    text = f"It has arrived: {mean}, {when}."
    return Finding("arrival", "has arrived", text, evidence)


def overshoot(w: np.ndarray, b: np.ndarray, arrived: Finding) -> Finding:
    """Decide whether the descent overshoots, by the share of consecutive updates with a negative inner product.

    Measured up to the arrival if the path has arrived (noise around the minimum reverses too), else over all of it. On
    a quadratic with a learning rate over 1 / curvature every update reverses (LeCun, Bottou, Orr and Müller 1998,
    Efficient BackProp, section 4). With a small learning rate, noise reverses half of them. At 1 / curvature the noise
    of consecutive updates has correlation -1/2, which reverses 2/3 of them in one dimension and 3/4 in two:
    ``REVERSALS``. A path that reverses and crawls zig-zags across a valley; a smaller learning rate would not help.

    Parameters
    ----------
    w : ndarray of shape (n_steps + 1,)
        Weight before the first step and after each.
    b : ndarray of shape (n_steps + 1,)
        Bias before the first step and after each.
    arrived : Finding
        Result of `arrival`.

    Returns
    -------
    Finding
        The finding.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        updates = np.diff(np.column_stack([w, b]).astype(np.float64), axis=0)
        updates = updates[np.isfinite(updates).all(axis=1)]
        largest = np.abs(updates).max(axis=1, keepdims=True)
        updates = updates / np.where(largest > 0, largest, 1)  # only the sign counts; avoids overflow
        reversed_ = np.einsum("ij,ij->i", updates[1:], updates[:-1]) < 0
    everywhere = float(reversed_.mean()) if len(reversed_) else 0.0
    at_goal = arrived.verdict == "has arrived"
    on_way = reversed_[: max(arrived.evidence["arrival_step"], 0)] if at_goal else reversed_
    measured = float(on_way.mean()) if len(on_way) else 0.0
    evidence = {"reversal_share": everywhere, "reversal_share_on_the_way": measured}
    if at_goal:
        text = f"{measured:.0%} of consecutive updates on the way reverse ({everywhere:.0%} over the whole path)"
    else:
        text = f"{everywhere:.0%} of consecutive updates reverse"
    if measured <= REVERSALS or (at_goal and len(on_way) < 10):
        return Finding("overshoot", "does not overshoot", text + ": it does not overshoot.", evidence)
    if arrived.verdict == "crawls":
        return Finding("overshoot", "zig-zags", text + ": it zig-zags across the valley that it follows.", evidence)
    text += ": it overshoots."
    return Finding("overshoot", "overshoots", text, evidence, "a smaller learning rate", severity="hint")


def _diverges(text: str, evidence: dict[str, Any]) -> Finding:
    cause = "the learning rate is too large"
    return Finding("arrival", "diverges", text, evidence, "a smaller learning rate", severity="problem", cause=cause)


def _percent(share: float, difference: float) -> str:
    return f"{share:.2%}" if share < 100 else f"{difference:.3g}"


def arrival_tolerance(surface: LinearRegressionSurface) -> float:
    """Distance from J* that counts as arrived; a share of the variance of y if the data lie on a line and J* is 0."""
    best = surface.minimum
    return max(ARRIVED_WITHIN * best.cost, 1e-6 * (best.cost + (best.w * feature_std(surface)) ** 2))


def feature_std(surface: LinearRegressionSurface) -> float:
    """Standard deviation of x, from the determinant of the Hessian, 4 var(x)."""
    return math.sqrt(float(surface.eigenvalues.prod())) / 2


def _at_end(n_points: int) -> slice:
    """Slice of a path's last tenth, at least 10 points or half of it; even in length, so that zig-zags average out."""
    size = max(n_points // 10, min(10, n_points // 2))
    return slice(n_points - max(size - size % 2, 1), n_points)


def _steps(count: int) -> str:
    return "step" if count == 1 else f"{count} steps"
