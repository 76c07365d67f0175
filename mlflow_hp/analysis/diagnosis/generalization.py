"""Rules on the validation curves: when to stop, and overfitting.

Each takes a history and returns a finding, or None if there is nothing to report.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import (
    change_epochs,
    curve,
    epoch_number,
    first_losses,
    learning_rate,
    noise,
    running_mean,
)
from mlflow_hp.analysis.diagnosis.descent import still_to_fall
from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.result import accuracy_of, success
from mlflow_hp.analysis.diagnosis.training import LEVEL
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

PLATEAU = 0.25
"""Least length of a plateau, as a share of the epochs."""
NEGLIGIBLE = 1e-3
"""Share of the whole fall of a loss that is no improvement; otherwise a loss that goes to 0 improves forever."""
OVERFIT_RISE = 0.05
"""Rise of the validation loss over its lowest value from which training overfits: the criterion GL_5 of Prechelt (1998,
Early stopping - but when?, section 2)."""
LARGE_RISE = 0.2
"""Rise of the validation loss, as a share of its lowest value, from which overfitting is a problem, no hint; where
there is an accuracy, that decides: a cross-entropy also rises where predictions become surer, with the same classes."""
LEARNS, NOTHING_LEARNED, FALLS = 0.1, 0.03, 0.02
"""Shares of the way from a constant prediction to a perfect one, for the training and the validation data, and share of
the validation loss that it falls by, for a training that does not generalise."""
FEWEST_EPOCHS = 3
"""Number of epochs from which the last tells."""
DOUBLE, FAR_FROM_PERFECT = 2.0, 0.7
"""Ratio of the validation loss to its lowest from which overfitting is a problem for a classifier whose accuracy stays,
and its share of the way from a constant prediction to a perfect one below which that is so."""
NOT_ARRIVED = 0.2
"""Share of the start in a moving average from which it has not arrived."""
WORSE = 0.05
"""Fall of the validation accuracy from its best from which overfitting is a problem."""


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
        return Finding(
            "plateau",
            "learns nothing",
            text,
            evidence,
            "another learning rate, or another initialisation",
            severity="problem",
            change=(Change("learning_rate", learning_rate(history), None),),
        )
    stopped_at = epoch_number(history, stopped)
    text = (
        f"It stopped learning after epoch {stopped_at + 1}: in the {count(left, 'epoch')} after it the "
        f"{curve_name} loss, {loss[stopped]:.4g}, improved by no more than {threshold:.2g}."
    )
    evidence = {"ideal_epochs": n_enough, "suggested_epochs": n_enough}
    return Finding(
        "plateau",
        "stopped learning",
        text,
        evidence,
        f"epochs={n_enough}, which is enough",
        severity="hint",
        where={"epoch": stopped_at},
        change=change_epochs(history, n_enough),
    )


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
    best_epoch = epoch_number(history, lowest)
    text = (
        f"It overfits from epoch {best_epoch + 1} on: the validation loss rises from "
        f"{validation[lowest]:.4g} to {end:.4g} while the training loss falls to {smooth_train[-1]:.4g}."
    )
    accuracy = accuracy_of(history, "val_")
    if accuracy is None:
        is_worse = rise > LARGE_RISE * abs(best)
    else:
        by_epoch = running_mean(accuracy, width)
        is_worse = len(by_epoch) > 0 and float(by_epoch.max() - by_epoch[-1]) > WORSE
        is_worse |= end > DOUBLE * best > 0 and (success(history, "val_") or 0.0) < FAR_FROM_PERFECT
    evidence = {
        "overfit_epoch": best_epoch,
        "overfit_rise": rise,
        "generalization_gap": gap,
        "ideal_epochs": n_enough,
        "suggested_epochs": n_enough,
    }
    suggestion = f"early stopping or epochs={n_enough}; then dropout=0.2 or a smaller network"
    return Finding(
        "overfit",
        "overfits",
        text,
        evidence,
        suggestion,
        severity="problem" if is_worse else "hint",
        cause="too many epochs for a network of this size",
        where={"epoch": best_epoch},
        change=change_epochs(history, n_enough),
    )


def does_not_generalize(history: TrainingHistory) -> Finding | None:
    """Detect a training that learns its samples, and nothing about others: their labels have nothing to do with them.

    On the training data it gets on the way from a constant prediction to a perfect one, by over ``LEARNS``; on
    validation data of the same kind it never does, by ``NOTHING_LEARNED``. Source: Zhang et al. 2017, Understanding
    deep learning requires rethinking generalization, section 2 (networks fit random labels).
    """
    trained, validated = success(history), success(history, "val_")
    if trained is None or validated is None or history.n_epochs < FEWEST_EPOCHS:
        return None
    if trained < LEARNS or validated > NOTHING_LEARNED or trained - validated < LEARNS:
        return None
    loss = history.epochs.get("val_loss", np.zeros(0))
    if len(loss) > 1 and float(np.nanmin(loss)) < (1 - FALLS) * float(loss[0]):
        return None
    text = (
        f"It learns the training data ({trained:.0%} of the way from a constant prediction to a perfect one), but "
        f"nothing about the validation data ({max(validated, 0.0):.0%})."
    )
    return Finding(
        "generalization",
        "does not generalise",
        text,
        {"success": trained, "validation_success": validated},
        "check that inputs and labels are still of the same samples, in training and validation data",
        severity="problem",
        cause="labels that do not belong to the inputs, or other data for validation",
        change=(Change("targets", None, None), Change("features", None, None), Change("shuffle", None, None)),
    )


def moving_averages(history: TrainingHistory) -> Finding | None:
    """Detect batch normalisation whose moving averages have not arrived when the training ends.

    In inference BatchNormalization uses averages that keep ``momentum`` of themselves in each step: of their start, the
    share ``momentum ** n_steps`` is left. A problem from ``NOT_ARRIVED`` on, where validation is worse than training by
    ``LEARNS`` of the way from a constant prediction to a perfect one. Source: Ioffe and Szegedy 2015, Batch
    normalization, section 3.1; Keras' documentation of ``BatchNormalization`` (``momentum``).
    """
    layers = [layer for layer in history.program.layers if layer.kind == "BatchNormalization" and layer.trainable]
    momentum = max((float(layer.config.get("momentum", 0.99)) for layer in layers), default=0.0)
    left = momentum ** max(history.n_steps, 1)
    if left < NOT_ARRIVED or history.meta.get("first_step"):
        return None
    trained, validated = success(history), success(history, "val_")
    if trained is not None and validated is not None and trained - validated < LEARNS / 2:
        return None
    is_sure = trained is not None and validated is not None
    name = layers[0].name
    text = (
        f"After {count(history.n_steps, 'step')} the moving averages of {name} are still to {left:.0%} those that they "
        f"began with (momentum={momentum:g}): in inference the network is another one than in training."
    )
    better = 0.9 if momentum > 0.9 else 0.5
    return Finding(
        "moving_averages",
        "averages not ready",
        text,
        {"share_of_start": left},
        f"BatchNormalization(momentum={better}), smaller batches, or more epochs",
        severity="problem" if is_sure else "hint",
        cause="moving averages that have not arrived",
        where={"layer": name},
        change=tuple(Change("momentum", momentum, better, layer.name) for layer in layers),
    )
