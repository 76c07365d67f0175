"""Success of a training: its result on the way from guessing to perfect, from its metrics and data."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.program import Program

ACCURACIES = (
    "accuracy", "acc", "sparse_categorical_accuracy", "categorical_accuracy", "binary_accuracy",
)  # fmt: skip
"""Keras' names of the accuracy, in order of preference."""
SQUARED_ERRORS = ("mse", "mean_squared_error")
ABSOLUTE_ERRORS = ("mae", "mean_absolute_error")


class Guess(NamedTuple):
    """Best constant prediction of a classifier.

    Attributes
    ----------
    accuracy : float
        Share of the samples for which it is right, 0 to 1.
    n_classes : int
        Number of classes that it chooses from.
    is_exclusive : bool
        Whether each sample is of one class; else the accuracy is that of single labels.
    """

    accuracy: float
    n_classes: int
    is_exclusive: bool = True


def best_guess(program: Program, n_classes: int | None = None) -> Guess | None:
    """Return the accuracy of always choosing the most frequent class; None unless the training is a classification.

    Parameters
    ----------
    program : Program
        Description of the program.
    n_classes : int, optional
        Number of classes, if the program does not tell. Defaults to None.

    Returns
    -------
    Guess or None
        From the counts of the targets; 1 / n_classes where these are unknown.
    """
    if len(program.outputs) != 1 or not _is_classifier(program):
        return Guess(1 / n_classes, n_classes) if n_classes and n_classes > 1 else None
    output, data = program.outputs[0], program.training
    if data is not None and len(data.targets) == 1:
        target = data.targets[0]
        if target.counts and len(target.counts) > 1:
            largest = max(target.counts.values()) / sum(target.counts.values())
            return Guess(largest, n_classes or len(target.counts))
        if target.is_binary and len(target.mean) > 1:
            shares = np.array(target.mean)
            return Guess(float(np.maximum(shares, 1 - shares).mean()), len(shares), is_exclusive=False)
    units = output.units
    n_classes = n_classes or (2 if units == 1 else units)
    return Guess(1 / n_classes, n_classes) if n_classes and n_classes > 1 else None


def _is_classifier(program: Program) -> bool:
    names = [*program.outputs[0].metrics, program.outputs[0].loss]
    return any("crossentropy" in name.lower() or "acc" in name.lower() for name in names)


def accuracy_of(history: TrainingHistory, prefix: str = "") -> np.ndarray | None:
    """Accuracy by epoch, (n_epochs,); None if there is none.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    prefix : {"", "val_"}
        Of the training or the validation data. Defaults to the training data.

    Returns
    -------
    ndarray of shape (n_epochs,), or None
        Accuracy, 0 to 1.
    """
    columns = (history.epochs.get(prefix + name) for name in ACCURACIES)
    return next((values for values in columns if values is not None and np.isfinite(values).all()), None)


def success(history: TrainingHistory, prefix: str = "", n_classes: int | None = None) -> float | None:
    """Share of the way from a constant prediction to a perfect one, at the end of a training.

    For a classifier, of the accuracy, from that of the most frequent class to 1. For a regression, R^2 from the mean
    squared error and the variance of the targets, or the same of the mean absolute error of normally distributed ones.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    prefix : {"", "val_"}
        On the training or the validation data. Defaults to the training data.
    n_classes : int, optional
        Number of classes, if the program does not tell. Defaults to None.

    Returns
    -------
    float or None
        1 if perfect, 0 or less if no better than a constant prediction; None if unknown, and with class weights.
    """
    if history.program.fit.get("has_class_weight"):
        return None  # the loss is not the accuracy's
    accuracy, guess = accuracy_of(history, prefix), best_guess(history.program, n_classes)
    if accuracy is not None and len(accuracy) and guess is not None:
        last = float(accuracy[-_last(len(accuracy)) :].mean())
        return (last - guess.accuracy) / (1 - guess.accuracy) if guess.accuracy < 1 else None
    return None if guess is not None else _explained(history, prefix)


def _explained(history: TrainingHistory, prefix: str) -> float | None:
    """Share of the variance of the targets that a regression explains."""
    program = history.program
    if len(program.outputs) != 1 or program.training is None or len(program.training.targets) != 1:
        return None
    data = program.validation if prefix and program.validation is not None else program.training
    target = data.targets[0] if len(data.targets) == 1 else program.training.targets[0]
    variance = float(np.mean(np.square(target.std)))
    if not np.isfinite(variance) or variance <= 0:
        return None
    is_mean_loss = program.outputs[0].loss == "MeanSquaredError" and not _is_regularised(program)
    names = {**dict.fromkeys(SQUARED_ERRORS, variance), **dict.fromkeys(ABSOLUTE_ERRORS, variance * 2 / np.pi)}
    if is_mean_loss and not program.is_own_step:
        names = {"loss": variance, **names}
    for name, worst in names.items():
        errors = history.epochs.get(prefix + name)
        if errors is not None and len(errors) and np.isfinite(errors).all():
            end = float(errors[-_last(len(errors)) :].mean())
            return 1 - (end**2 if name in ABSOLUTE_ERRORS else end) / worst
    return None


def _is_regularised(program: Program) -> bool:
    """Whether the loss has terms of its own for the weights or outputs of a layer."""
    return any(
        name.endswith("regularizer") and value for layer in program.layers for name, value in layer.config.items()
    )


def _last(n_epochs: int) -> int:
    """Number of epochs at the end over which a result is taken."""
    return max(n_epochs // 10, 1)
