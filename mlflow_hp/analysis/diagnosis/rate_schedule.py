"""Rules on the learning rate by step, as it was recorded, whatever has set it: a schedule, a callback, or a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.result import success

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

FEWEST_STEPS, FEWEST_EPOCHS = 20, 4
"""Numbers of steps and epochs from which a schedule is judged."""
GONE, SOON = 0.01, 0.4
"""Share of its largest value below which a rate is gone, and share of the training before which that is too early."""
FALLEN = 0.1
"""Share of its first value to which a rate has fallen that counts steps as if they were epochs."""
GROWTH = 3.0
"""Ratio of the last to the first learning rate from which it is warmed up."""
STRAIGHT = 0.1
"""Largest distance of a warm-up from a straight line, as a share of its end: range tests grow by a factor a step."""
GOOD_ENOUGH = 0.95
"""Share of the way from a constant prediction to a perfect one from which the rate was as good as another."""


def rate_schedule(history: TrainingHistory) -> Finding | None:
    """Detect a learning rate that falls before the training has learned, or is warmed up until its end.

    It is below ``GONE`` of its largest value after less than ``SOON`` of the steps; or falls to ``FALLEN`` of its first
    value within the first epoch, for good, as where epochs are given for steps; or grows on a straight line to the end.
    Where the result is ``GOOD_ENOUGH``, nothing is said, nor where ``ReduceLROnPlateau`` has waited with patience, nor
    of a training that has not reached its planned epochs, for which the schedule was made.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    rates = history.steps.get("learning_rate", np.zeros(0))
    if len(rates) < FEWEST_STEPS or not np.isfinite(rates).all() or rates.max() <= 0 or (rates == rates[0]).all():
        return None
    if history.n_epochs < (history.program.fit.get("epochs") or 0):
        return None
    reached = success(history, "val_")
    reached = success(history) if reached is None else reached
    if reached is not None and reached >= GOOD_ENOUGH:
        return None
    if any(
        each.kind == "ReduceLROnPlateau" and (each.config.get("patience") or 0) > 1
        for each in history.program.callbacks
    ):
        return None
    return _falls_within_an_epoch(history, rates) or _is_gone(rates) or _warms_up_to_the_end(rates)


def _falls_within_an_epoch(history: TrainingHistory, rates: np.ndarray) -> Finding | None:
    n_epochs, per_epoch = history.n_epochs, len(rates) // max(history.n_epochs, 1)
    if n_epochs < FEWEST_EPOCHS or per_epoch < 2 or rates[per_epoch - 1 :].max() > FALLEN * rates[0]:
        return None
    text = (
        f"The learning rate falls from {rates[0]:.2g} to {rates[per_epoch - 1]:.2g} within the first of {n_epochs} "
        f"epochs, which has {per_epoch} steps: a schedule counts steps, not epochs."
    )
    return _finding(
        text,
        f"boundaries and decay_steps in steps: {per_epoch} for each epoch",
        rates,
        "a schedule that falls within an epoch",
    )


def _is_gone(rates: np.ndarray) -> Finding | None:
    above = np.flatnonzero(rates > GONE * rates.max())
    share = (int(above[-1]) + 1) / len(rates)
    if share >= SOON:
        return None
    text = (
        f"After {share:.0%} of the steps the learning rate is below {GONE:.0%} of its largest value, "
        f"{rates.max():.2g}: in the rest of the training hardly anything is learned."
    )
    return _finding(
        text, "a schedule that falls more slowly, or a constant rate", rates, "the learning rate falls too early"
    )


def _warms_up_to_the_end(rates: np.ndarray) -> Finding | None:
    line = np.linspace(rates[0], rates[-1], len(rates))
    if rates[-1] < GROWTH * rates[0] or np.abs(rates - line).max() > STRAIGHT * rates[-1]:
        return None
    text = f"The learning rate grows to the end, from {rates[0]:.2g} to {rates[-1]:.2g}: the warm-up never ends."
    return _finding(
        text, f"a warm-up of a tenth of the {len(rates):,} steps", rates, "a warm-up that is longer than the training"
    )


def _finding(text: str, suggestion: str, rates: np.ndarray, cause: str) -> Finding:
    evidence = {"first_learning_rate": float(rates[0]), "last_learning_rate": float(rates[-1])}
    change = (Change("schedule", None, None),)
    return Finding(
        "rate_schedule", "unsuitable schedule", text, evidence, suggestion, "problem", cause=cause, change=change
    )
