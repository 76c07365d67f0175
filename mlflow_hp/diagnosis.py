"""What a recorded training tells: findings, each with its evidence and what to try next.

Each rule is one function; its threshold and where that comes from stand in its docstring.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.surfaces.linear_regression import LinearRegressionSurface

ARRIVED_WITHIN = 0.01
"""A path has arrived where J stays within this share of its final value."""
REVERSALS = 0.5
"""Share of reversed updates over which a descent is said to overshoot: noise alone reverses every second one."""
STILL_FALLING = 0.02
"""A descent crawls where the last tenth of its steps still had this share less excess cost than the tenth before."""


class Finding(NamedTuple):
    """One thing that a training tells.

    Attributes
    ----------
    name : str
        Which rule.
    verdict : str
        In a word or three.
    text : str
        In a sentence, with its numbers.
    evidence : dict of str to float, int, str, bool or None
        What the verdict rests on. Its numbers become metrics ``diagnosis/<name>``.
    suggestion : str or None
        What to try next.
    """

    name: str
    verdict: str
    text: str
    evidence: dict[str, Any]
    suggestion: str | None = None


def not_finite(history: TrainingHistory) -> Finding | None:
    """NaN or infinite batch losses: where they begin. Any one is a finding; none gives None."""
    loss = history.steps["batch_loss"]
    broken = np.flatnonzero(~np.isfinite(loss))
    if not len(broken):
        return None
    first = int(broken[0])
    what = "NaN" if np.isnan(loss[first]) else "infinite"
    step = int(history.steps["step"][first])
    text = f"The loss is {what} at step {step}, and not finite in {len(broken)} of {len(loss)} steps."
    evidence = {"first_step_not_finite": step, "steps_not_finite": len(broken)}
    grew = bool(first > 1 and np.isfinite(loss[:first]).all() and loss[first - 1] > 100 * loss[0])
    if grew:
        return Finding("not_finite", "diverges", text + " It had grown before.", evidence, "a smaller learning rate")
    return Finding("not_finite", "not finite", text, evidence, "check the data for NaN and very large values")


def trend(history: TrainingHistory) -> Finding | None:
    """Whether the training loss still falls at the end, by epoch.

    Falling: the last tenth of the epochs (at least one) lowered it by over 1 % of its value. None under 3 epochs.
    """
    loss = history.epochs.get("loss", np.zeros(0))
    if len(loss) < 3 or not np.isfinite(loss).all():
        return None
    back = max(1, len(loss) // 10)
    change = float(loss[-1 - back] - loss[-1]) / abs(float(loss[-1 - back]) or 1.0)
    evidence = {"loss_change_at_end": change}
    if change > ARRIVED_WITHIN:
        text = f"The training loss still fell by {change:.1%} over the last {_epochs(back)}."
        return Finding("trend", "still falling", text, evidence, "more epochs, or a larger learning rate")
    text = f"The training loss changed by {-change:+.1%} over the last {_epochs(back)}."
    return Finding("trend", "level", text, evidence)


def curvature(surface: LinearRegressionSurface, standardized: bool = False) -> Finding:
    """Largest stable learning rate and condition number; over 1000 a surface is called ill-conditioned.

    Gradient descent shrinks the error along the valley by at best ``(k - 1) / (k + 1)`` a step (Nesterov 2004,
    Introductory Lectures on Convex Optimization, section 2.1.5): at k = 1000, some 1150 steps for a factor 10.
    """
    k, rate = surface.condition_number, surface.largest_stable_learning_rate
    evidence = {"condition_number": k, "largest_stable_learning_rate": rate}
    text = f"Plain gradient descent is stable below a learning rate of {rate:.3g}; the condition number is {k:.3g}"
    if k > 1000:
        text += ": the cost changes so much more with the weight than with the bias that the bias hardly moves."
        suggestion = None if standardized else "standardize=true, which brings the condition number to 1"
        return Finding("curvature", "ill-conditioned", text, evidence, suggestion)
    return Finding("curvature", "well-conditioned", text + ".", evidence)


def distance(surface: LinearRegressionSurface, w: np.ndarray, b: np.ndarray) -> Finding:
    """How far the end of the path (w, b), each (n_steps + 1,), is from least squares, in w, b and J.

    At the minimum: J within ``ARRIVED_WITHIN`` of J*.
    """
    best = surface.minimum
    cost = float(surface.cost(w[-1], b[-1]))
    excess = cost / best.cost - 1 if best.cost > 0 else math.inf
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
        f"The end (w {w[-1]:.4g}, b {b[-1]:.4g}, J {cost:.4g}) is {_signed(evidence['distance_w'])} in w, "
        f"{_signed(evidence['distance_b'])} in b and {excess:.2%} in J away from least squares "
        f"(w {best.w:.4g}, b {best.b:.4g}, J {best.cost:.4g})."
    )
    return Finding("distance", "at the minimum" if excess <= ARRIVED_WITHIN else "off the minimum", text, evidence)


def arrival(surface: LinearRegressionSurface, w: np.ndarray, b: np.ndarray) -> Finding:
    """Arrived, crawling or neither, from J over the training set after each step of the path.

    The arrival is the first step after which J is within ``ARRIVED_WITHIN`` of its final value for the first time.
    Crawling: the mean excess J - J* of the last tenth of the steps is over ``STILL_FALLING`` lower than that of the
    tenth before, and the end is still over ``ARRIVED_WITHIN`` of J* above it; or over half the first excess is left.
    """
    cost, best = surface.cost(w, b), surface.minimum.cost
    final = float(cost[-1])
    evidence: dict[str, Any] = {"arrival_step": None, "fall_at_end": None}
    if not np.isfinite(final) or final > 1.01 * float(cost[0]):
        text = f"The cost ends higher ({final:.3g}) than it began ({float(cost[0]):.3g})."
        return Finding("arrival", "diverges", text, evidence, "a smaller learning rate")
    first = int(np.argmax(np.abs(cost - final) <= ARRIVED_WITHIN * final)) - 1
    tenth = max(1, len(cost) // 10)
    before, last = cost[-2 * tenth : -tenth].mean() - best, cost[-tenth:].mean() - best
    fall = float(1 - last / before) if before > 0 else 0.0
    evidence = {"arrival_step": max(first, 0), "fall_at_end": fall}
    off = final - best > ARRIVED_WITHIN * best
    if off and fall > STILL_FALLING:
        text = f"The cost above the minimum was still {fall:.0%} lower in the last tenth of the steps than just before."
        return Finding("arrival", "crawls", text, evidence, "more epochs or a larger learning rate")
    if off and (final - best) > 0.5 * (float(cost[0]) - best):
        text = f"It has hardly begun: {(final - best) / (float(cost[0]) - best):.0%} of the first excess cost is left."
        return Finding("arrival", "crawls", text, evidence, "more epochs or a larger learning rate")
    if off:
        above = final / best - 1
        text = f"The cost came within 1 % of its final value at step {max(first, 0)}, {above:.1%} above the minimum."
        return Finding("arrival", "stalled", text, evidence)
    text = f"It has arrived: the cost came within 1 % of its final value at step {max(first, 0)}."
    return Finding("arrival", "has arrived", text, evidence)


def overshoot(w: np.ndarray, b: np.ndarray, arrival_step: int | None = None) -> Finding:
    """Share of consecutive updates that reverse: whose inner product is negative.

    Measured on the way (up to `arrival_step`, 0-based) where that has 10 updates or more, else over all. It overshoots
    where over ``REVERSALS`` of them reverse: on a quadratic with a learning rate over 1 / curvature every update does
    (LeCun, Bottou, Orr and Müller 1998, Efficient BackProp, section 4), noise around a minimum every second one.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        updates = np.diff(np.column_stack([w, b]).astype(np.float64), axis=0)
        lengths = np.linalg.norm(updates, axis=1)
        updates = updates / np.where(lengths > 0, lengths, 1)[:, None]  # the sign is what counts
        reversed_ = np.einsum("ij,ij->i", updates[1:], updates[:-1]) < 0
    everywhere = float(reversed_.mean()) if len(reversed_) else 0.0
    on_way = reversed_[: arrival_step or 0]
    measured = float(on_way.mean()) if len(on_way) >= 10 else everywhere
    where = "on the way" if len(on_way) >= 10 else "of all"
    evidence = {"reversal_share": everywhere, "reversal_share_on_the_way": measured}
    text = f"{measured:.0%} of consecutive updates {where} reverse ({everywhere:.0%} over the whole path)"
    if measured > REVERSALS:
        return Finding("overshoot", "overshoots", text + ": it overshoots.", evidence, "a smaller learning rate")
    return Finding("overshoot", "does not overshoot", text + ": it does not overshoot.", evidence)


def next_try(
    findings: Sequence[Finding],
    surface: LinearRegressionSurface,
    w: np.ndarray,
    b: np.ndarray,
    settings: Mapping[str, Any],
) -> Finding:
    """What to try next, from the other findings and the settings `optimizer`, `learning_rate`, `epochs`, `standardize`.

    The learning rate for plain gradient descent is half the largest stable one. For others: the one that would have
    covered the distance to the minimum in a third of the steps, at the mean length that a step had.
    """
    verdicts = {finding.name: finding.verdict for finding in findings}
    rate, epochs = float(settings["learning_rate"]), int(settings["epochs"])
    plain = str(settings["optimizer"]).lower() == "sgd" and not settings.get("momentum")
    best, evidence = surface.minimum, {}
    tries = []
    worse = "not_finite" in verdicts or verdicts.get("arrival") == "diverges"
    if verdicts["curvature"] == "ill-conditioned" and not settings.get("standardize"):
        tries.append("standardize=true")
    if worse or verdicts["overshoot"] == "overshoots":
        better = 0.5 * surface.largest_stable_learning_rate if plain else rate / 10
        evidence["suggested_learning_rate"] = min(better, rate / 2)
        tries.append(f"learning_rate={evidence['suggested_learning_rate']:.2g}")
    elif verdicts["arrival"] == "crawls" and not tries:
        if plain:
            better = 0.5 * surface.largest_stable_learning_rate
        else:
            lengths = np.abs(np.diff(np.column_stack([w, b]), axis=0)).mean(axis=0)
            left = np.abs([best.w - w[0], best.b - b[0]])
            factor = float(np.max(left / np.maximum(lengths * (len(w) - 1) / 3, 1e-12)))
            better = rate * min(max(factor, 2.0), 1000.0)
        evidence["suggested_learning_rate"] = float(f"{better:.1g}")
        tries.append(f"learning_rate={evidence['suggested_learning_rate']:g} or epochs={5 * epochs}")
    elif verdicts["arrival"] == "has arrived" and not tries:
        step = next(f.evidence["arrival_step"] for f in findings if f.name == "arrival")
        enough = max(1, math.ceil(1.5 * (step + 1) * epochs / max(len(w) - 1, 1)))
        if enough <= epochs / 2:
            evidence["suggested_epochs"] = enough
            tries.append(f"epochs={enough}, which is enough")
    if not tries:
        return Finding("next_try", "nothing", "Nothing more to try with these settings.", evidence)
    return Finding("next_try", "try", f"Next, try {', then '.join(tries)}.", evidence, tries[0])


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
        overshoot(w, b, arrived.evidence["arrival_step"]),
        curvature(surface, bool(settings.get("standardize"))),
    ]
    findings = [finding for finding in found if finding is not None]
    return [*findings, next_try(findings, surface, w, b, settings)]


def diagnose(history: TrainingHistory) -> list[Finding]:
    """The findings that any training allows."""
    return [finding for finding in (not_finite(history), trend(history)) if finding is not None]


def to_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """Findings by name, as strict JSON takes them: numbers that are not finite become strings."""

    def strict(value: Any) -> Any:
        return value if not isinstance(value, float) or math.isfinite(value) else str(value)

    return {
        f.name: {**f._asdict(), "evidence": {key: strict(value) for key, value in f.evidence.items()}} for f in findings
    }


def to_metrics(findings: Sequence[Finding]) -> dict[str, float]:
    """The finite numbers of the evidence, as metrics ``diagnosis/<name>``."""
    numbers = {f"diagnosis/{key}": value for f in findings for key, value in f.evidence.items()}
    return {k: float(v) for k, v in numbers.items() if isinstance(v, (int, float)) and math.isfinite(v)}


def to_markdown(findings: Sequence[Finding]) -> str:
    """A list of the findings, a line each."""
    return "\n".join(f"- **{f.verdict}**: {f.text}" for f in findings)


def _epochs(count: int) -> str:
    return "epoch" if count == 1 else f"{count} epochs"


def _signed(value: float) -> str:
    return f"{value:+.3g}"
