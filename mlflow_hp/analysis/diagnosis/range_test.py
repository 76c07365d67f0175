"""The learning-rate range test: where the loss falls fastest, and where it diverges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Change, Finding, two_digits

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

DIVERGED = 4.0
"""The test ends where the smoothed loss exceeds this multiple of its lowest, as in fastai's learning-rate finder."""
WINDOW = 0.05
"""Window of the running mean, as a share of the steps; a decade of learning rates is a fifth of a usual test."""
FALL = 6.0
"""Least fall, in standard deviations of the running mean; noise alone makes about three, rarely six."""


class RangeTest(NamedTuple):
    """A training with growing learning rate, up to where its loss diverged.

    Attributes
    ----------
    learning_rate, loss, smoothed : ndarray of shape (n,)
        By step up to the divergence: the learning rate, the batch's own loss, and its centred running mean.
    steepest : int
        Index (0-based) where the smoothed loss falls fastest per decade of the learning rate; -1 if it never falls
        by more than its noise.
    lowest : int
        Index of the lowest smoothed loss.
    divergence : int or None
        Index of the first step after the lowest whose loss is not finite or exceeds ``DIVERGED`` times the lowest.
    """

    learning_rate: np.ndarray
    loss: np.ndarray
    smoothed: np.ndarray
    steepest: int
    lowest: int
    divergence: int | None


def range_test(history: TrainingHistory) -> RangeTest:
    """Evaluate a training whose learning rate grew exponentially (Smith 2017, Cyclical Learning Rates, section 3.3).

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    RangeTest
        The evaluated test.
    """
    rate, loss = history.steps["learning_rate"], history.steps["batch_loss"]
    broken = np.flatnonzero(~np.isfinite(loss))
    n = int(broken[0]) if len(broken) else len(loss)
    width = max(3, round(WINDOW * len(loss)))
    smoothed = _smoothed(loss[:n], width)
    lowest = int(np.argmin(smoothed)) if n else 0
    above = np.flatnonzero(smoothed[lowest:] > DIVERGED * smoothed[lowest]) if n else np.zeros(0, int)
    divergence = lowest + int(above[0]) if len(above) else (n if len(broken) else None)
    end = n if divergence is None else min(divergence + 1, n)
    steepest = -1
    if lowest > 1 and smoothed[0] - smoothed[lowest] > FALL * _noise(loss[:n]) / np.sqrt(width):
        slope = np.gradient(smoothed[: lowest + 1], np.log10(rate[: lowest + 1]))
        steepest = int(np.argmin(slope))
    return RangeTest(rate[:end], loss[:end], smoothed[:end], steepest, lowest, divergence)


def range_finding(test: RangeTest, learning_rates: np.ndarray) -> Finding:
    """Suggest the learning rate of the steepest fall for the next run.

    The rate of the lowest loss would leave no margin: slightly larger ones already raise the loss.

    Parameters
    ----------
    test : RangeTest
        As from `range_test`.
    learning_rates : ndarray
        Of all steps, also those after the divergence.

    Returns
    -------
    Finding
        The finding.
    """
    evidence: dict[str, Any] = {"steepest_learning_rate": None, "divergence_learning_rate": None}
    if test.divergence is not None:
        evidence["divergence_learning_rate"] = float(learning_rates[min(test.divergence, len(learning_rates) - 1)])
    if test.steepest < 0:
        text = f"The loss never falls between learning rates {learning_rates[0]:.2g} and {learning_rates[-1]:.2g}."
        suggestion = "a lower `low`, more epochs, or another model"
        return Finding("range_test", "no fall", text, evidence, suggestion, severity="problem")
    rate = float(test.learning_rate[test.steepest])
    evidence |= {"steepest_learning_rate": rate, "suggested_learning_rate": two_digits(rate)}
    evidence["lowest_learning_rate"] = float(test.learning_rate[test.lowest])
    suggestion, change = f"learning_rate={two_digits(rate):g}", (Change("learning_rate", None, two_digits(rate)),)
    text = (
        f"The loss falls fastest at a learning rate of {rate:.2g}, is lowest at {evidence['lowest_learning_rate']:.2g}"
    )
    if test.divergence is None:
        text += f", and does not diverge up to {learning_rates[-1]:.2g}."
        return Finding("range_test", "falls", text, evidence, suggestion, severity="hint", change=change)
    text += f", and diverges from {evidence['divergence_learning_rate']:.2g} on."
    return Finding("range_test", "falls, then diverges", text, evidence, suggestion, severity="hint", change=change)


def _smoothed(values: np.ndarray, width: int) -> np.ndarray:
    """Centred running mean over `width` values (rounded up to odd); over fewer at the ends."""
    half = width // 2  # not by a cumulative sum, in which a huge loss would swallow the digits of all later ones
    inside = slice(half, half + len(values))
    window, ones = np.ones(2 * half + 1), np.ones(len(values))
    return np.convolve(values, window)[inside] / np.convolve(ones, window)[inside] if len(values) else values


def _noise(values: np.ndarray) -> float:
    """Standard deviation of normal noise around a slow change, from the median difference of neighbours.

    At least the rounding error of float32, in which losses are computed.
    """
    rounding = float(np.finfo(np.float32).eps) * float(np.median(np.abs(values)))
    return max(float(np.median(np.abs(np.diff(values)))) / (0.6745 * np.sqrt(2)), rounding)
