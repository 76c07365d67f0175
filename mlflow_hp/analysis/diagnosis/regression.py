"""A linear regression's descent against its exact cost surface."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Finding, two_digits
from mlflow_hp.analysis.diagnosis.training import not_finite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
    from mlflow_hp.history import TrainingHistory

ARRIVED_WITHIN = 0.01
"""A path has arrived where J stays within this share of J*."""
REVERSALS = 0.75
"""Share of reversed updates over which a descent is said to overshoot; why, is told at `overshoot`."""
ILL_CONDITIONED = 1000.0
"""Condition number over which a surface is called ill-conditioned."""


def curvature(surface: LinearRegressionSurface, standardized: bool = False) -> Finding:
    """Largest stable learning rate and condition number; over ``ILL_CONDITIONED`` a surface is called so.

    Gradient descent shrinks the error along the valley by at best ``(k - 1) / (k + 1)`` a step (Nesterov 2004,
    Introductory Lectures on Convex Optimization, section 2.1.5): at k = 1000, some 1150 steps for a factor 10.
    """
    k, rate = surface.condition_number, surface.largest_stable_learning_rate
    evidence = {"condition_number": k, "largest_stable_learning_rate": rate}
    text = f"Plain gradient descent is stable below a learning rate of {rate:.3g}; the condition number is {k:.3g}"
    if k > ILL_CONDITIONED:
        weight_is_steep = surface.hessian[0, 0] > surface.hessian[1, 1]
        steep, flat = ("weight", "bias") if weight_is_steep else ("bias", "weight")
        text += f": the cost changes so much more with the {steep} than with the {flat} that the {flat} hardly moves."
        suggestion = None if standardized else "standardize=true, which brings the condition number to 1"
        return Finding("curvature", "ill-conditioned", text, evidence, suggestion)
    return Finding("curvature", "well-conditioned", text + ".", evidence)


def distance(surface: LinearRegressionSurface, w: np.ndarray, b: np.ndarray) -> Finding:
    """How far the end of the path (w, b), each (n_steps + 1,), is from least squares, in w, b and J.

    At the minimum: J within ``ARRIVED_WITHIN`` of J*.
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
    near = cost - best.cost <= _close(surface)
    return Finding("distance", "at the minimum" if near else "off the minimum", text, evidence)


def arrival(surface: LinearRegressionSurface, w: np.ndarray, b: np.ndarray) -> Finding:
    """Whether the path has arrived, crawls, hovers or diverges, from J over the training set after each step.

    Over the last tenth of the path, the mean of J is split in two, exactly, since J is quadratic: J at the mean
    point, which tells how far there is still to go, and the rest, which comes from jumping to and fro about that point.

    - has arrived: the mean of J is within ``ARRIVED_WITHIN`` of J*.
    - crawls: it is not, and most of the excess is way still to go.
    - hovers: it is not, and most of the excess comes from the jumps.
    - diverges: J is not finite at the end; or it is above its start, and above all of the path's first half.

    The arrival is the first step after which J is within ``ARRIVED_WITHIN`` of that mean; -1 is the start.
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
        return Finding("arrival", "diverges", text, evidence, "a smaller learning rate")
    near = excess <= _close(surface)
    if not near and level > 1.01 * start and level > cost[: (len(cost) + 1) // 2].max():
        text = f"The cost ends higher ({cost[-1]:.3g}) than it began ({start:.3g}), and grows."
        return Finding("arrival", "diverges", text, evidence, "a smaller learning rate")
    ahead = float(cost[last.start]) - best
    evidence["fall_at_end"] = 1 - (float(cost[-1]) - best) / ahead if ahead > 0 else 0.0
    evidence["share_still_to_go"] = min(still_to_go / excess, 1.0) if excess > 0 else 0.0
    mean = f"over the last {_steps(last.stop - last.start)} the cost is on average"
    mean += f" {_percent(excess / best if best > 0 else math.inf, excess)} above the minimum"
    if not near and evidence["share_still_to_go"] >= 0.5:
        text = f"It crawls: {mean}, and most of that is way still to go."
        return Finding("arrival", "crawls", text, evidence, "more epochs")
    step = int(np.argmax(cost <= (1 + ARRIVED_WITHIN) * level)) - 1
    evidence["arrival_step"] = step
    when = f"it came within 1 % of that after step {step}" if step >= 0 else "it was there from the start"
    if not near:
        text = f"It hovers: {mean}, from jumping to and fro; {when}."
        return Finding("arrival", "hovers", text, evidence, "a smaller learning rate, or a larger batch")
    text = f"It has arrived: {mean}, and {when}."
    return Finding("arrival", "has arrived", text, evidence)


def overshoot(w: np.ndarray, b: np.ndarray, arrived: Finding) -> Finding:
    """Share of consecutive updates that reverse: whose inner product is negative.

    Measured on the way where the path has arrived (noise about the minimum reverses too), else over all of it. On a
    quadratic with a learning rate over 1 / curvature every update reverses (LeCun, Bottou, Orr and Müller 1998,
    Efficient BackProp, section 4). Noise reverses half of them where the learning rate is small. At 1 / curvature the
    noise of consecutive updates has correlation -1/2, which reverses 2/3 of them in one dimension and 3/4 in two:
    ``REVERSALS``. A path that crawls all the same zig-zags over a valley, and a smaller learning rate would not help.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        updates = np.diff(np.column_stack([w, b]).astype(np.float64), axis=0)
        updates = updates[np.isfinite(updates).all(axis=1)]
        largest = np.abs(updates).max(axis=1, keepdims=True)
        updates = updates / np.where(largest > 0, largest, 1)  # the sign is what counts, and it must not overflow
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
    return Finding("overshoot", "overshoots", text + ": it overshoots.", evidence, "a smaller learning rate")


def next_try(
    findings: Sequence[Finding],
    surface: LinearRegressionSurface,
    w: np.ndarray,
    b: np.ndarray,
    settings: Mapping[str, Any],
) -> Finding:
    """What to try next, from the other findings and the settings `optimizer`, `learning_rate`, `epochs`, `standardize`.

    The learning rate for gradient descent is the one that arrives in a third of the steps, at most half the largest
    stable one. For other optimizers: the one that would have covered the distance to the minimum in a third of the
    steps, at the mean length that a step had. Where none does, `standardize` comes with one that suits it.
    """
    by_name = {finding.name: finding for finding in findings}
    arrived, n_steps = by_name["arrival"], max(len(w) - 1, 1)
    rate, epochs = float(settings["learning_rate"]), int(settings["epochs"])
    reaches, stable = _rates(surface, w, b, settings)
    evidence: dict[str, Any] = {}
    worse = "not_finite" in by_name or arrived.verdict in ("diverges", "hovers")
    valley = surface.condition_number > ILL_CONDITIONED or reaches > stable
    told = None
    if arrived.verdict != "has arrived" and valley and not settings.get("standardize"):
        evidence["suggested_learning_rate"] = two_digits(_rate_where_standardized(surface, w, b, settings))
        told = f"standardize=true with learning_rate={evidence['suggested_learning_rate']:g}"
    elif worse or by_name["overshoot"].verdict == "overshoots":
        slower = 0.1
        if arrived.evidence["arrival_step"] is not None:  # so much slower, and it would still have come here
            slower = min(max(3 * (arrived.evidence["arrival_step"] + 1) / n_steps, 0.1), 0.5)
        better = min(reaches, stable, rate / 2) if _is_gradient_descent(settings) else rate * slower
        evidence["suggested_learning_rate"] = two_digits(better)
        told = f"learning_rate={evidence['suggested_learning_rate']:g}"
    elif arrived.verdict == "crawls":
        better = two_digits(min(reaches, stable, 1000 * rate))
        told = f"epochs={5 * epochs}"
        if better > 1.5 * rate:
            evidence["suggested_learning_rate"] = better
            told = f"learning_rate={better:g} or {told}"
    elif arrived.verdict == "has arrived":
        enough = max(1, math.ceil(1.5 * (arrived.evidence["arrival_step"] + 1) * epochs / n_steps))
        if enough <= epochs / 2:
            evidence["suggested_epochs"] = enough
            told = f"epochs={enough}, which is enough"
    if told is None:
        return Finding("next_try", "nothing", "Nothing more to try with these settings.", evidence)
    return Finding("next_try", "try", f"Next, try {told}.", evidence, told)


def diagnose_regression(
    history: TrainingHistory,
    surface: LinearRegressionSurface,
    w: np.ndarray,
    b: np.ndarray,
    settings: Mapping[str, Any],
) -> list[Finding]:
    """All findings of a linear regression whose path is (w, b), each (n_steps + 1,)."""
    arrived = arrival(surface, w, b)
    found = [
        not_finite(history),
        distance(surface, w, b),
        arrived,
        overshoot(w, b, arrived),
        curvature(surface, bool(settings.get("standardize"))),
    ]
    findings = [finding for finding in found if finding is not None]
    return [*findings, next_try(findings, surface, w, b, settings)]


def _percent(share: float, difference: float) -> str:
    return f"{share:.2%}" if share < 100 else f"{difference:.3g}"


def _close(surface: LinearRegressionSurface) -> float:
    """How far above J* is near: where the data lie on a line, J* is 0, and a share of the variance of y counts."""
    best = surface.minimum
    return max(ARRIVED_WITHIN * best.cost, 1e-6 * (best.cost + (best.w * _std(surface)) ** 2))


def _std(surface: LinearRegressionSurface) -> float:
    """Standard deviation of x: the determinant of the Hessian is 4 var(x)."""
    return math.sqrt(float(surface.eigenvalues.prod())) / 2


def _at_end(n_points: int) -> slice:
    """The last tenth of a path, at least 10 points or half of it; an even number, so that a zig-zag averages out."""
    size = max(n_points // 10, min(10, n_points // 2))
    return slice(n_points - max(size - size % 2, 1), n_points)


def _is_gradient_descent(settings: Mapping[str, Any]) -> bool:
    return str(settings["optimizer"]).lower() == "sgd"


def _rates(
    surface: LinearRegressionSurface, w: np.ndarray, b: np.ndarray, settings: Mapping[str, Any]
) -> tuple[float, float]:
    """The learning rate that comes to the minimum in a third of the steps, and the highest one to try."""
    best, rate = surface.minimum, float(settings["learning_rate"])
    if _is_gradient_descent(settings):
        excess, curved = float(surface.cost(w[0], b[0])) - best.cost, float(surface.eigenvalues[0])
        return _descent_rates(excess / _close(surface), curved, 2 / surface.largest_stable_learning_rate, w, settings)
    left = np.abs([best.w - w[0], best.b - b[0]])
    return rate * float((left / (_step_lengths(w, b) * (len(w) - 1) / 3 + 1e-300)).max()), math.inf


def _rate_where_standardized(
    surface: LinearRegressionSurface, w: np.ndarray, b: np.ndarray, settings: Mapping[str, Any]
) -> float:
    """The learning rate that would come to the minimum in a third of the steps, from w = b = 0, were x standardised."""
    best = surface.minimum
    if _is_gradient_descent(settings):
        excess = float(surface.cost(0.0, 0.0)) - best.cost  # the Hessian is then 2 I
        return min(_descent_rates(excess / _close(surface), 2.0, 2.0, w, settings))
    mean_y = best.b + best.w * float(surface.hessian[0, 1]) / 2
    left = max(abs(best.w) * _std(surface), abs(mean_y))
    return float(settings["learning_rate"]) * left / (float(_step_lengths(w, b).max()) * (len(w) - 1) / 3 + 1e-300)


def _descent_rates(
    excess: float, flattest: float, steepest: float, w: np.ndarray, settings: Mapping[str, Any]
) -> tuple[float, float]:
    """Of gradient descent: ``exp(-2 rate flattest n / 3)`` brings `excess`, in units of what is near, to a tenth.

    Momentum m makes each update count ``1 / (1 - m)`` times.
    """
    keeps = 1 - float(settings.get("momentum") or 0)
    reaches = 3 * math.log(max(10 * excess, math.e)) / (2 * flattest * max(len(w) - 1, 1))
    return keeps * reaches, keeps / steepest


def _step_lengths(w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean length of an update in w and in b, of those that are finite; 0 where there is none."""
    updates = np.abs(np.diff(np.column_stack([w, b]), axis=0))
    updates = updates[np.isfinite(updates).all(axis=1)]
    return updates.mean(axis=0) if len(updates) else np.zeros(2)


def _steps(count: int) -> str:
    return "step" if count == 1 else f"{count} steps"
