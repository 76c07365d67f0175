"""Rules for any training: losses that are not finite, and the trend of the loss at the end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import MIN_EPOCHS, SMALLER, change_epochs, change_rate
from mlflow_hp.analysis.diagnosis.finding import Change, Finding, epochs
from mlflow_hp.analysis.diagnosis.result import success
from mlflow_hp.history.step_record import batch_values
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.program import ArrayStatistics

FAST, UNFINISHED = 0.03, 0.7
"""Fall of the loss in the last epoch, and share of the way from a constant prediction to a perfect one, from and below
which a training of less than ``MIN_EPOCHS`` is too short."""
UNBOUNDED = 100.0
"""Growth of a negative loss from which it has no lower bound."""
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
    return weights_not_finite(history)


def unbounded_loss(history: TrainingHistory) -> Finding | None:
    """Detect a loss that falls below zero without end: it has no lowest value, and nothing is learned by it.

    It ends negative, and ``UNBOUNDED`` times as far from zero as it began. Source: a loss is minimised only if it has a
    minimum; the cosine similarity, and likelihoods of densities, are negative, but level off.
    """
    loss = history.epochs.get("loss", np.zeros(0))
    if len(loss) < 2 or not np.isfinite(loss).all() or loss[-1] >= 0 or abs(loss[-1]) < UNBOUNDED * abs(loss[0]):
        return None
    name = history.program.outputs[0].loss if history.program.outputs else "the loss"
    return Finding(
        "unbounded_loss",
        "loss without end",
        f"The loss falls below zero, from {loss[0]:.3g} to {loss[-1]:.3g}: {name} has no lowest value for "
        "these targets.",
        {"first_loss": float(loss[0]), "last_loss": float(loss[-1])},
        "a loss with a minimum, such as a square or an absolute value of the error",
        severity="problem",
        cause="a loss without a lower bound",
        change=(Change("loss", name, None),),
    )


def weights_not_finite(history: TrainingHistory) -> Finding | None:
    """Detect weights or gradients that are NaN or infinite although the loss is finite, and the step where they begin.

    A ReLU turns NaN into 0 where XLA compiles it, so that a NaN in one feature makes a network constant.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    first, names = math.inf, list[str]()
    for tensor in history.tensors if history.n_steps and history.recorded != "none" else ():
        if not tensor.trainable:
            continue
        taken = history.has_statistics(tensor.name)
        bad = np.flatnonzero(taken & ~np.isfinite(history.statistics(tensor.name)["norm"]))
        if len(bad):
            first, names = min(first, max(int(bad[0]) - 1, 0)), [*names, tensor.name]
    if not names:
        return None
    step = _step_number(history, int(first))
    listed = ", ".join(names[:3]) + (f" and {count(len(names) - 3, 'other')}" if len(names) > 3 else "")
    bad_inputs = [each for each in _training_inputs(history) if any(each.not_finite)]
    text = f"Weights are NaN or infinite from step {step} on, although the loss is finite: {listed}."
    if bad_inputs:
        features = [index for index, share in enumerate(bad_inputs[0].not_finite) if share]
        text += f" The data have NaN or infinite values in feature {', '.join(map(str, features[:5]))} (0-based)."
    return Finding(
        "not_finite",
        "not finite",
        text,
        {"first_step_not_finite": step, "tensors_not_finite": len(names)},
        "fill in or leave out the values that are NaN or infinite" if bad_inputs else "a smaller learning rate",
        severity="problem",
        cause="NaN or infinite values in the data" if bad_inputs else None,
        where={"step": step},
        change=(Change("features", None, None),) if bad_inputs else change_rate(history, SMALLER**2).change,
    )


def _step_number(history: TrainingHistory, index: int) -> int:
    """Number of a recorded step; its index in a history without numbers, made of arrays."""
    return int(history.steps["step"][index]) if "step" in history.columns else index


def _is_short(history: TrainingHistory, change: float) -> bool:
    """Whether a training of few epochs was ended long before it has succeeded."""
    reached = success(history)
    return history.n_epochs < MIN_EPOCHS and change > FAST and reached is not None and reached < UNFINISHED


def _training_inputs(history: TrainingHistory) -> tuple[ArrayStatistics, ...]:
    data = history.program.training
    return () if data is None else data.inputs


def _not_finite(history: TrainingHistory, loss: np.ndarray, subject: str) -> Finding | None:
    steps = np.flatnonzero(~np.isfinite(loss))
    if not len(steps):
        return None
    first = int(steps[0])
    kind = "NaN" if np.isnan(loss[first]) else "infinite"
    step = _step_number(history, first)
    text = f"{subject} is {kind} at step {step}, and not finite in {len(steps)} of {count(len(loss), 'step')}."
    evidence = {"first_step_not_finite": step, "steps_not_finite": len(steps)}
    grew = bool(first > 1 and np.isfinite(loss[:first]).all() and loss[first - 1] > 100 * loss[0])
    if grew:
        smaller = change_rate(history, SMALLER**2)
        return Finding(
            "not_finite",
            "diverges",
            text + " It had grown before.",
            evidence | smaller.evidence,
            smaller.text,
            severity="problem",
            cause="the learning rate is too large",
            where={"step": step},
            change=smaller.change,
        )
    return Finding(
        "not_finite",
        "not finite",
        text,
        evidence,
        "check the data for NaN and very large values",
        severity="problem",
        where={"step": step},
        change=(Change("features", None, None),),
    )


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
        more = 2 * history.n_epochs
        larger = change_rate(history, 2.0)
        return Finding(
            "trend",
            "still falling",
            text,
            evidence | larger.evidence | {"suggested_epochs": more},
            f"{larger.text}, or epochs={more}",
            severity="problem" if _is_short(history, change) else "hint",
            cause="too few epochs",
            change=change_epochs(history, more),
        )
    if change < -LEVEL:
        text = f"The training loss rose by {-change:.1%} over the last {epochs(back)}."
        smaller = change_rate(history, SMALLER)
        return Finding(
            "trend", "rising", text, evidence | smaller.evidence, smaller.text, severity="hint", change=smaller.change
        )
    text = f"The training loss changed by {-change:+.1%} over the last {epochs(back)}."
    return Finding("trend", "level", text, evidence)
