"""Rules on the validation curves: when to stop, overfitting, a classifier no better than guessing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import change_rate, curve, epoch_number, first_losses, noise, running_mean
from mlflow_hp.analysis.diagnosis.descent import BLOWN_UP, SMALLER, oscillation, speed, still_to_fall
from mlflow_hp.analysis.diagnosis.finding import Finding
from mlflow_hp.analysis.diagnosis.training import LEVEL

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

PLATEAU = 0.25
"""Least length of a plateau, as a share of the epochs."""
NEGLIGIBLE = 1e-3
"""Share of the whole fall of a loss that is no improvement; otherwise a loss that goes to 0 improves forever."""
OVERFIT_RISE = 0.05
"""Rise of the validation loss over its lowest value from which training overfits: the criterion GL_5 of Prechelt (1998,
Early stopping - but when?, section 2)."""
CHANCE = 0.1
"""Margin over guessing, as a share of the way from guessing to always right, below which a classifier is at chance."""
ACCURACIES = ("accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy", "binary_accuracy")
"""Keras' names of the accuracy, in order of preference."""


def plateau(history: TrainingHistory) -> Finding | None:
    """Find the epoch after which the validation loss (without validation: the training loss) no longer improves.

    An improvement exceeds ``LEVEL`` of the lowest loss, ``NEGLIGIBLE`` of the fall to it from the start, and three
    standard deviations of the curve's noise. None if under ``PLATEAU`` of the epochs follow, or the loss still falls
    steadily. A model whose loss never fell below its start has learned nothing, unless the fit continues an earlier
    one, which may have reached the minimum.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    curve_name = "validation" if curve(history, "val_loss") is not None else "training"
    loss = curve(history, "val_loss" if curve_name == "validation" else "loss")
    if loss is None or still_to_fall(loss) is not None:
        return None
    first = first_losses(history)
    start = max(float(first.mean()), float(loss[0])) if len(first) else float(loss[0])
    lowest = float(loss.min())
    fall = start - lowest
    threshold = max(LEVEL * abs(lowest), NEGLIGIBLE * fall, 3 * noise(loss))
    stopped = int(np.argmax(np.minimum.accumulate(loss) <= lowest + threshold))
    left, n_enough = len(loss) - 1 - stopped, stopped + 1
    if left < PLATEAU * len(loss):
        return None
    uncertain = 2 * float(first.std()) / math.sqrt(len(first)) if len(first) else 0.0
    if fall <= threshold + uncertain and not history.meta.get("first_epoch"):
        text = f"The {curve_name} loss is {lowest:.4g} at its lowest, which is no lower than it began."
        evidence = {"loss_fall": fall}
        return Finding("plateau", "learns nothing", text, evidence, "another learning rate, or another initialisation")
    text = (
        f"It stopped learning after epoch {epoch_number(history, stopped)}: in the {left} epochs after it the "
        f"{curve_name} loss, {loss[stopped]:.4g}, improved by no more than {threshold:.2g}."
    )
    evidence = {"ideal_epochs": n_enough, "suggested_epochs": n_enough}
    return Finding("plateau", "stopped learning", text, evidence, f"epochs={n_enough}, which is enough")


def overfit(history: TrainingHistory) -> Finding | None:
    """Detect a validation loss that rises while the training loss falls, and the epoch where that begins.

    Compares means over a sixth of the epochs (at least three): from the lowest to the last, the validation loss rises
    by more than ``OVERFIT_RISE`` of the lowest, ``LEVEL`` of its fall, and eight standard deviations of such a mean's
    noise (from noise alone, the lowest of many means is two or three below the last).

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    train, validation = curve(history, "loss"), curve(history, "val_loss")
    if train is None or validation is None:
        return None
    width = max(len(validation) // 6, 3)
    smooth, smooth_train = running_mean(validation, width), running_mean(train, width)
    low = int(np.argmin(smooth))
    best, end = float(smooth[low]), float(smooth[-1])
    rise, spread = end - best, noise(validation) / math.sqrt(width)
    if rise <= max(OVERFIT_RISE * abs(best), LEVEL * float(validation[0] - best), 8 * spread):
        return None
    if smooth_train[-1] >= smooth_train[low]:
        return None
    lowest = int(np.argmin(validation))
    n_enough, gap = lowest + 1, end - float(smooth_train[-1])
    text = (
        f"It overfits from epoch {epoch_number(history, lowest)} on: the validation loss rises from "
        f"{validation[lowest]:.4g} to {end:.4g} while the training loss falls to {smooth_train[-1]:.4g}."
    )
    evidence = {
        "overfit_epoch": epoch_number(history, lowest),
        "overfit_rise": rise,
        "generalization_gap": gap,
        "ideal_epochs": n_enough,
        "suggested_epochs": n_enough,
    }
    suggestion = f"early stopping or epochs={n_enough}; then dropout=0.2 or a smaller network"
    return Finding("overfit", "overfits", text, evidence, suggestion)


def chance(history: TrainingHistory, n_classes: int) -> Finding | None:
    """Detect a classifier whose training accuracy is no better than guessing among `n_classes`.

    The mean accuracy over the last quarter of the epochs is within ``CHANCE`` of 1 / n_classes, and below twice that.
    A slowly falling loss points to a learning rate that is too small; an oscillating loss, or a cross-entropy that
    ends above that of guessing, ln(n_classes), or blew up before, to one that is too large. Otherwise all units may
    be identical (zero initialisation).

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    n_classes : int
        Number of classes.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    name = next((name for name in ACCURACIES if curve(history, name) is not None), None)
    if name is None or n_classes < 2:
        return None
    accuracy = history.epochs[name]
    end, guess = float(accuracy[-max(len(accuracy) // 4, 1) :].mean()), 1 / n_classes
    if end >= min(guess + CHANCE * (1 - guess), 2 * guess):
        return None
    text = f"The accuracy stays at {end:.1%}, where guessing among {n_classes} classes gives {guess:.1%}."
    evidence: dict[str, Any] = {"accuracy_at_end": end, "accuracy_of_guessing": guess}
    if cause := speed(history) or oscillation(history):
        return Finding("chance", "at chance", text, evidence, cause.suggestion)
    if blown_up(history, n_classes):
        suggestion, rate_evidence = change_rate(history, SMALLER**2)
        text += " The loss is above that of guessing, or was far above it: the learning rate is too large."
        return Finding("chance", "at chance", text, evidence | rate_evidence, suggestion)
    suggestion = "a random initialisation (He for ReLU, Glorot else), or another learning rate"
    return Finding("chance", "at chance", text, evidence, suggestion)


def blown_up(history: TrainingHistory, n_classes: int) -> bool:
    """Whether a cross-entropy ends above that of guessing, or exceeded ``BLOWN_UP`` times that in a batch."""
    loss, steps = curve(history, "loss"), history.steps.get("batch_loss", np.zeros(0))
    if loss is None or "crossentropy" not in str(history.meta.get("params", {}).get("loss", "")):
        return False
    guessing = math.log(n_classes)
    ends_above = float(loss[-max(len(loss) // 4, 1) :].mean()) > 1.05 * guessing
    return ends_above or bool((steps > BLOWN_UP * guessing).any())
