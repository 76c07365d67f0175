"""A curve by epoch, and what its rules share: its noise, its level, the learning rate behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import two_digits

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

FEWEST = 8
"""Epochs under which a curve tells nothing beside its trend: its quarters would be single epochs."""


def curve(history: TrainingHistory, name: str) -> np.ndarray | None:
    """A column by epoch, (n_epochs,). None where it is not there, not finite, or under ``FEWEST`` epochs."""
    values = history.epochs.get(name)
    if values is None or len(values) < FEWEST or not np.isfinite(values).all():
        return None
    return values


def epoch_number(history: TrainingHistory, index: int) -> int:
    """The number of an epoch of this fit, which goes on from the fit before in the same run."""
    return int(history.epochs["epoch"][index]) if "epoch" in history.epochs else index


def noise(values: np.ndarray) -> float:
    """Standard deviation of a curve's noise, (n,) with n > 2: a trend cancels, and jumps hardly count.

    The median of |v[i - 1] - 2 v[i] + v[i + 1]|, which is 0.6745 sqrt(6) standard deviations for normal noise.
    """
    return float(np.median(np.abs(np.diff(values, 2)))) / (0.6745 * 6**0.5)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """The means of `width` values in a row, (n - width + 1,)."""
    return np.convolve(values, np.full(width, 1 / width), "valid")


def first_losses(history: TrainingHistory) -> np.ndarray:
    """The losses of the first batches, up to ten, as far as they are finite: where the training started."""
    loss = history.steps.get("batch_loss", np.zeros(0))[:10]
    return loss[np.isfinite(loss)]


def learning_rate(history: TrainingHistory) -> float | None:
    """The learning rate of the whole fit; None where it is unknown or a schedule."""
    told = history.meta.get("optimizer", {}).get("learning_rate", history.meta.get("params", {}).get("learning_rate"))
    if told is None:
        by_step = history.steps.get("learning_rate", np.zeros(0))
        told = float(by_step[0]) if len(by_step) and (by_step == by_step[0]).all() else None
    return float(told) if isinstance(told, (int, float)) and told > 0 else None


def change_rate(history: TrainingHistory, factor: float) -> tuple[str, dict[str, Any]]:
    """To try the learning rate `factor` times as large: as words, and as evidence where it is known."""
    rate = learning_rate(history)
    if rate is None:
        return f"a learning rate {'larger' if factor > 1 else 'smaller'} by {max(factor, 1 / factor):.2g}", {}
    better = two_digits(rate * factor)
    return f"learning_rate={better:g}", {"suggested_learning_rate": better}
