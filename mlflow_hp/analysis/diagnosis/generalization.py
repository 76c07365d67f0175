"""What the validation curves tell: when to stop, whether it overfits, whether it beats guessing."""

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

STILL = 0.25
"""A plateau has lasted for this share of the epochs, as long as a quarter that could have shown the contrary."""
NEGLIGIBLE = 1e-3
"""Share of the whole fall of a loss that is no improvement: it keeps a loss that goes to 0 from improving for ever."""
LOST = 0.05
"""Rise of the validation loss over its lowest from which training overfits: the criterion GL_5 of Prechelt (1998,
Early stopping - but when?, section 2)."""
CHANCE = 0.1
"""A classifier is at chance within this share of the way from guessing to always right, and below twice guessing."""
ACCURACIES = ("accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy", "binary_accuracy")
"""What Keras calls the accuracy, in the order looked for."""


def plateau(history: TrainingHistory) -> Finding | None:
    """When learning stopped: the first epoch after which the validation loss never again improves.

    Of the training loss where there is no validation. An improvement is one by over ``LEVEL`` of the lowest loss,
    ``NEGLIGIBLE`` of the fall to it from the start, and three standard deviations of the curve's noise. None where
    under ``STILL`` of the epochs are left after it, or the loss falls steadily all the same. A loss that is not below
    its start has learned nothing, unless the fit goes on from another, which may have arrived.
    """
    which = "validation" if curve(history, "val_loss") is not None else "training"
    loss = curve(history, "val_loss" if which == "validation" else "loss")
    if loss is None or still_to_fall(loss) is not None:
        return None
    first = first_losses(history)
    start = max(float(first.mean()), float(loss[0])) if len(first) else float(loss[0])
    lowest = float(loss.min())
    fall = start - lowest
    least = max(LEVEL * abs(lowest), NEGLIGIBLE * fall, 3 * noise(loss))
    stopped = int(np.argmax(np.minimum.accumulate(loss) <= lowest + least))
    left, enough = len(loss) - 1 - stopped, stopped + 1
    if left < STILL * len(loss):
        return None
    uncertain = 2 * float(first.std()) / math.sqrt(len(first)) if len(first) else 0.0
    if fall <= least + uncertain and not history.meta.get("first_epoch"):
        text = f"The {which} loss is {lowest:.4g} at its lowest, which is no lower than it began."
        evidence = {"loss_fall": fall}
        return Finding("plateau", "learns nothing", text, evidence, "another learning rate, or another initialisation")
    text = (
        f"It stopped learning after epoch {epoch_number(history, stopped)}: in the {left} epochs after it the {which} "
        f"loss, {loss[stopped]:.4g}, improved by no more than {least:.2g}."
    )
    evidence = {"ideal_epochs": enough, "suggested_epochs": enough}
    return Finding("plateau", "stopped learning", text, evidence, f"epochs={enough}, which is enough")


def overfit(history: TrainingHistory) -> Finding | None:
    """Whether, and from where, the validation loss rises while the training loss falls.

    Over means of a sixth of the epochs (at least three): from the lowest to the last, the validation loss rises by
    over ``LOST`` of the lowest, ``LEVEL`` of its fall and eight standard deviations of such a mean's noise (the lowest
    of many means of noise alone is two or three below the last), while the training loss falls.
    """
    train, validation = curve(history, "loss"), curve(history, "val_loss")
    if train is None or validation is None:
        return None
    width = max(len(validation) // 6, 3)
    smooth, smooth_train = running_mean(validation, width), running_mean(train, width)
    low = int(np.argmin(smooth))
    best, end = float(smooth[low]), float(smooth[-1])
    rise, spread = end - best, noise(validation) / math.sqrt(width)
    if rise <= max(LOST * abs(best), LEVEL * float(validation[0] - best), 8 * spread):
        return None
    if smooth_train[-1] >= smooth_train[low]:
        return None
    lowest = int(np.argmin(validation))
    enough, gap = lowest + 1, end - float(smooth_train[-1])
    text = (
        f"It overfits from epoch {epoch_number(history, lowest)} on: the validation loss rises from "
        f"{validation[lowest]:.4g} to {end:.4g} while the training loss falls to {smooth_train[-1]:.4g}."
    )
    evidence = {
        "overfit_epoch": epoch_number(history, lowest),
        "overfit_rise": rise,
        "generalization_gap": gap,
        "ideal_epochs": enough,
        "suggested_epochs": enough,
    }
    told = f"early stopping or epochs={enough}; then dropout=0.2 or a smaller network"
    return Finding("overfit", "overfits", text, evidence, told)


def chance(history: TrainingHistory, n_classes: int) -> Finding | None:
    """Whether a classifier is no better than guessing among `n_classes` by its training accuracy.

    Its mean over the last quarter of the epochs is within ``CHANCE`` of 1 / n_classes. A loss that falls slowly tells
    of a learning rate too small; one that oscillates, or a cross-entropy that ends above that of guessing,
    ln(n_classes), or has blown up on its way, of one too large; else units may all stay alike (zero initialisation).
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
    if why := speed(history) or oscillation(history):
        return Finding("chance", "at chance", text, evidence, why.suggestion)
    if blown_up(history, n_classes):
        told, rate = change_rate(history, SMALLER**2)
        text += " The loss is above that of guessing, or was far above it: the learning rate is too large."
        return Finding("chance", "at chance", text, evidence | rate, told)
    told = "a random initialisation (He for ReLU, Glorot else), or another learning rate"
    return Finding("chance", "at chance", text, evidence, told)


def blown_up(history: TrainingHistory, n_classes: int) -> bool:
    """Whether a cross-entropy ends above that of guessing, or was ``BLOWN_UP`` times as large for a batch."""
    loss, steps = curve(history, "loss"), history.steps.get("batch_loss", np.zeros(0))
    if loss is None or "crossentropy" not in str(history.meta.get("params", {}).get("loss", "")):
        return False
    guessing = math.log(n_classes)
    ends_above = float(loss[-max(len(loss) // 4, 1) :].mean()) > 1.05 * guessing
    return ends_above or bool((steps > BLOWN_UP * guessing).any())
