"""Learning rates of Keras' schedules by step, from their settings."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX = "learning_rate."


def is_schedule(optimizer: Mapping[str, Any]) -> bool:
    """Whether the learning rate is a schedule: its name instead of a number."""
    return isinstance(optimizer.get("learning_rate"), str)


def largest_rate(optimizer: Mapping[str, Any]) -> float | None:
    """Learning rate, or the largest of a schedule; None if unknown."""
    if not is_schedule(optimizer):
        rate = optimizer.get("learning_rate")
        return float(rate) if isinstance(rate, (int, float)) else None
    rates = [optimizer.get(f"{PREFIX}{name}") for name in ("initial_learning_rate", "warmup_target")]
    return max((float(rate) for rate in rates if isinstance(rate, (int, float))), default=None)


def rate_at(optimizer: Mapping[str, Any], step: float) -> float | None:
    """Learning rate of a schedule of Keras' at a step, as its documentation defines it; None for others.

    Parameters
    ----------
    optimizer : mapping of str to object
        Settings of an optimizer, those of its schedule as ``learning_rate.<name>``.
    step : float
        Number of steps before.

    Returns
    -------
    float or None
        Learning rate.
    """
    settings = {name.removeprefix(PREFIX): value for name, value in optimizer.items() if name.startswith(PREFIX)}
    first, steps = settings.get("initial_learning_rate"), settings.get("decay_steps")
    if not isinstance(first, (int, float)) or not isinstance(steps, (int, float)) or steps <= 0:
        return None
    kind = optimizer.get("learning_rate")
    if kind == "CosineDecay":
        return _cosine(settings, first, steps, step)
    if kind == "PolynomialDecay":
        if settings.get("cycle"):
            return None
        end, share = settings.get("end_learning_rate", 1e-4), min(step / steps, 1.0)
        return float((first - end) * (1 - share) ** settings.get("power", 1.0) + end)
    rate, share = settings.get("decay_rate"), step / steps
    if kind not in ("ExponentialDecay", "InverseTimeDecay") or not isinstance(rate, (int, float)):
        return None
    share = math.floor(share) if settings.get("staircase") else share
    return float(first * rate**share if kind == "ExponentialDecay" else first / (1 + rate * share))


def _cosine(settings: Mapping[str, Any], first: float, steps: float, step: float) -> float:
    target, warmup = settings.get("warmup_target"), settings.get("warmup_steps") or 0
    if isinstance(target, (int, float)):
        if step < warmup:
            return first + (target - first) * step / warmup
        first, step = target, step - warmup
    alpha = settings.get("alpha", 0.0)
    return float(first * ((1 - alpha) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0))) + alpha))
