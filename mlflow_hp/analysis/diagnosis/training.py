"""Rules for any training: losses that are not finite, and the trend of the loss at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Finding, epochs
from mlflow_hp.history.step_record import batch_values

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

LEVEL = 0.01
"""Relative change up to which a loss counts as level."""


def not_finite(history: TrainingHistory) -> Finding | None:
    """Detect NaN or infinite batch losses, and the step where they begin; None if there are none.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    for name, values in batch_values(history.steps).items():
        finding = _not_finite(history, values, f"The {name}")
        if finding is not None:
            return finding
    return None


def _not_finite(history: TrainingHistory, loss: np.ndarray, subject: str) -> Finding | None:
    steps = np.flatnonzero(~np.isfinite(loss))
    if not len(steps):
        return None
    first = int(steps[0])
    kind = "NaN" if np.isnan(loss[first]) else "infinite"
    step = int(history.steps["step"][first])
    text = f"{subject} is {kind} at step {step}, and not finite in {len(steps)} of {len(loss)} steps."
    evidence = {"first_step_not_finite": step, "steps_not_finite": len(steps)}
    grew = bool(first > 1 and np.isfinite(loss[:first]).all() and loss[first - 1] > 100 * loss[0])
    if grew:
        return Finding("not_finite", "diverges", text + " It had grown before.", evidence, "a smaller learning rate")
    return Finding("not_finite", "not finite", text, evidence, "check the data for NaN and very large values")


def trend(history: TrainingHistory) -> Finding | None:
    """Decide whether the training loss still falls at the end, rises, or is level.

    It falls or rises if it changed by over 1 % in the last tenth of the epochs (at least one). None under 3 epochs.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    loss = history.epochs.get("loss", np.zeros(0))
    if len(loss) < 3 or not np.isfinite(loss).all():
        return None
    back = max(1, len(loss) // 10)
    change = float(loss[-1 - back] - loss[-1]) / abs(float(loss[-1 - back]) or 1.0)
    evidence = {"loss_change_at_end": change}
    if change > LEVEL:
        text = f"The training loss still fell by {change:.1%} over the last {epochs(back)}."
        return Finding("trend", "still falling", text, evidence, "more epochs, or a larger learning rate")
    if change < -LEVEL:
        text = f"The training loss rose by {-change:.1%} over the last {epochs(back)}."
        return Finding("trend", "rising", text, evidence, "a smaller learning rate, or a larger batch")
    text = f"The training loss changed by {-change:+.1%} over the last {epochs(back)}."
    return Finding("trend", "level", text, evidence)
