"""Rules on trainings that end no better than a constant prediction."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.diagnosis.curve import SMALLER, change_rate
from mlflow_hp.analysis.diagnosis.descent import BLOWN_UP, oscillation, speed
from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.layers import update_ratios
from mlflow_hp.analysis.diagnosis.result import accuracy_of, best_guess, success

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory

CHANCE = 0.1
"""Margin over guessing, as a share of the way from guessing to always right, below which a classifier is at chance."""
MOST_FREQUENT = 0.8
"""Share of the most frequent class above which an accuracy says nothing about that."""
FEWEST_EPOCHS = 3
"""Number of epochs from which the last tells: the accuracy of the first ones includes what was not yet learned."""
FALLEN = 0.98
"""Ratio of the last to the first epoch's loss below which it has fallen, if from above that of guessing."""
HARDLY = 1e-4
"""Median update of the tensors in a step, as a share of each, below which the learning rate is too small; a tenth of
the healthy 1e-3 (Karpathy, CS231n notes, Neural networks 3)."""
NOTHING = 0.02
"""Share of the variance of the targets below which a regression explains nothing."""


def chance(history: TrainingHistory, n_classes: int | None = None) -> Finding | None:
    """Detect a classifier whose training accuracy is no better than always choosing the most frequent class.

    The mean accuracy over the last quarter of the epochs (at least ``FEWEST_EPOCHS``) is within ``CHANCE`` of that of
    the guess, and below twice that. A slowly falling loss points to a learning rate that is too small; an oscillating
    loss, or a cross-entropy that ends above that of guessing, ln(n_classes), or blew up before, to one that is too
    large. Otherwise all units may be identical (zero initialisation).

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    n_classes : int, optional
        Number of classes. Defaults to that of the program's targets; without either, there is no finding.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report.
    """
    accuracy, guess = accuracy_of(history), best_guess(history.program, n_classes)
    if accuracy is None or guess is None or len(accuracy) < FEWEST_EPOCHS or guess.accuracy > MOST_FREQUENT:
        return None
    end = float(accuracy[-max(len(accuracy) // 4, 1) :].mean())
    if end >= min(guess.accuracy + CHANCE * (1 - guess.accuracy), 2 * guess.accuracy):
        return None
    of_labels = f"guessing among {guess.n_classes} classes" if guess.is_exclusive else "guessing each label"
    text = f"The accuracy stays at {end:.1%}, where {of_labels} gives {guess.accuracy:.1%}."
    evidence: dict[str, Any] = {"accuracy_at_end": end, "accuracy_of_guessing": guess.accuracy}
    if cause := speed(history) or oscillation(history):
        return cause._replace(name="chance", verdict="at chance", text=text, evidence=evidence)
    if blown_up(history, guess.n_classes):
        smaller = change_rate(history, SMALLER**2)
        text += " The loss is above that of guessing, or was far above it: the learning rate is too large."
        return Finding(
            "chance",
            "at chance",
            text,
            evidence | smaller.evidence,
            smaller.text,
            severity="problem",
            cause="the learning rate is too large",
            change=smaller.change,
        )
    if _hardly_moves(history):
        larger = change_rate(history, 10.0)
        text += f" In each step the weights change by less than {HARDLY:.0e} of themselves."
        return Finding(
            "chance",
            "at chance",
            text,
            evidence | larger.evidence,
            larger.text,
            severity="problem",
            cause="the learning rate is too small",
            change=larger.change,
        )
    return Finding(
        "chance",
        "at chance",
        text,
        evidence,
        "a random initialisation (He for ReLU, Glorot else), or another learning rate",
        severity="problem",
        change=(Change("kernel_initializer", None, "he_normal"),),
    )


def _hardly_moves(history: TrainingHistory) -> bool:
    """Whether the weights move, but all of them by less than ``HARDLY`` of themselves in a step."""
    ratios = [ratio for ratio in update_ratios(history).values() if math.isfinite(ratio)]
    return bool(ratios) and 0 < float(np.median(ratios)) < HARDLY and min(ratios) > 0


def blown_up(history: TrainingHistory, n_classes: int) -> bool:
    """Whether a cross-entropy ends above guessing without falling, or exceeded ``BLOWN_UP`` times that in a batch.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    n_classes : int
        Number of classes.

    Returns
    -------
    bool
        False for other losses.
    """
    loss, steps = history.epochs.get("loss", np.zeros(0)), history.steps.get("batch_loss", np.zeros(0))
    if not len(loss) or "crossentropy" not in str(history.meta.get("params", {}).get("loss", "")):
        return False
    guessing = math.log(n_classes)
    end = float(loss[-max(len(loss) // 4, 1) :].mean())
    ends_above = end > max(1.05 * guessing, FALLEN * float(loss[0]))
    return ends_above or bool((steps > BLOWN_UP * guessing).any())


def explains_nothing(history: TrainingHistory) -> Finding | None:
    """Detect a regression whose error is no smaller than that of always predicting the mean of the targets.

    It explains less than ``NOTHING`` of their variance at the end, after at least ``FEWEST_EPOCHS`` epochs.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    Finding or None
        The finding; None if there is nothing to report, or the targets are not known.
    """
    if accuracy_of(history) is not None or history.n_epochs < FEWEST_EPOCHS:
        return None
    explained = success(history)
    if explained is None or explained >= NOTHING:
        return None
    text = (
        "The training error is no smaller than that of always predicting the mean of the targets: "
        f"it explains {max(explained, 0.0):.0%} of their variance."
        if explained > -NOTHING
        else f"The training error is {1 - explained:.3g} times that of always predicting the mean of the targets."
    )
    evidence = {"variance_explained": explained}
    if cause := speed(history) or oscillation(history):
        return cause._replace(name="chance", verdict="explains nothing", text=text, evidence=evidence)
    return Finding(
        "chance",
        "explains nothing",
        text,
        evidence,
        "standardised inputs and targets, or another learning rate",
        severity="problem",
        change=(Change("standardize", False, True),),
    )
