"""Curves by epoch, and helpers that several rules share: noise, running mean, learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Change, two_digits

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

SMALLER = 1 / 3
"""Factor for a learning rate that is too large: try a third, and again until nothing diverges (Bengio 2012, Practical
recommendations for gradient-based training of deep architectures, section 3.1.1)."""
MIN_EPOCHS = 8
"""Least number of epochs for rules other than the trend: with fewer, a quarter would be a single epoch."""


def curve(history: TrainingHistory, name: str) -> np.ndarray | None:
    """Column by epoch, shape (n_epochs,); None if missing, not finite, or shorter than ``MIN_EPOCHS``."""
    values = history.epochs.get(name)
    if values is None or len(values) < MIN_EPOCHS or not np.isfinite(values).all():
        return None
    return values


def epoch_number(history: TrainingHistory, index: int) -> int:
    """Number of the epoch at `index`; a second fit in one run continues the numbers of the first."""
    return int(history.epochs["epoch"][index]) if "epoch" in history.epochs else index


def noise(values: np.ndarray) -> float:
    """Standard deviation of the noise of a curve (n,), n > 2; insensitive to a trend and to single jumps.

    From the median of |v[i - 1] - 2 v[i] + v[i + 1]|, which is 0.6745 sqrt(6) standard deviations for normal noise.
    """
    return float(np.median(np.abs(np.diff(values, 2)))) / (0.6745 * 6**0.5)


def running_mean(values: np.ndarray, width: int) -> np.ndarray:
    """Means of `width` consecutive values, shape (n - width + 1,)."""
    return np.convolve(values, np.full(width, 1 / width), "valid")


def first_losses(history: TrainingHistory) -> np.ndarray:
    """Finite losses among the first ten batches: the level at which training started."""
    loss = history.steps.get("batch_loss", np.zeros(0))[:10]
    return loss[np.isfinite(loss)]


def learning_rate(history: TrainingHistory) -> float | None:
    """Learning rate of the whole fit; None if unknown or a schedule."""
    rate = history.meta.get("optimizer", {}).get("learning_rate", history.meta.get("params", {}).get("learning_rate"))
    if rate is None:
        by_step = history.steps.get("learning_rate", np.zeros(0))
        rate = float(by_step[0]) if len(by_step) and (by_step == by_step[0]).all() else None
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else None


class RateChange(NamedTuple):
    """Proposal of another learning rate: in words, as evidence if the rate is known, and for programs."""

    text: str
    evidence: dict[str, Any]
    change: tuple[Change, ...]


def change_rate(history: TrainingHistory, factor: float) -> RateChange:
    """Suggest the learning rate `factor` times as large."""
    rate = learning_rate(history)
    if rate is None:
        text = f"a learning rate {'larger' if factor > 1 else 'smaller'} by {max(factor, 1 / factor):.2g}"
        return RateChange(text, {}, (Change("learning_rate", None, None),))
    better = two_digits(rate * factor)
    change = Change("learning_rate", rate, better)
    return RateChange(f"learning_rate={better:g}", {"suggested_learning_rate": better}, (change,))


def change_epochs(history: TrainingHistory, epochs: int) -> tuple[Change, ...]:
    """Propose another number of epochs, for programs."""
    return (Change("epochs", history.n_epochs, epochs),)
