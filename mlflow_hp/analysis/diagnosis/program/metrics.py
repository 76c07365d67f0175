"""Rules on metrics that mean nothing for the task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.program.facts import (
    BINARY,
    REGRESSION_LOSSES,
    accuracies,
    answers,
    is_column,
    task,
)

if TYPE_CHECKING:
    from mlflow_hp.history.program import Program


def accuracy_of_numbers(program: Program) -> Finding | None:
    """Detect the accuracy as a metric of a regression: it counts predictions that equal the target exactly.

    Source: Keras' documentation of ``Accuracy`` and ``BinaryAccuracy`` ("how often predictions equal labels").
    Threshold: a loss for numbers and targets that are no classes. A problem for a column of targets, a hint for several
    (such as the pixels of an autoencoder).
    """
    for answer in answers(program):
        names = accuracies(answer.output)
        if not names or answer.target is None or answer.loss not in REGRESSION_LOSSES or task(answer) != "regression":
            continue
        return Finding(
            "accuracy_of_numbers",
            "accuracy of numbers",
            "The accuracy counts predictions that equal their target exactly, which says nothing of a regression.",
            {},
            'metrics=["mae"]',
            "problem" if is_column(answer.target) else "hint",
            "accuracy on a regression",
            answer.where,
            (Change("metrics", names[0], "mean_absolute_error"),),
        )
    return None


def accuracy_of_other_task(program: Program) -> Finding | None:
    """Detect an accuracy that counts something else than the right predictions of this task.

    ``Accuracy`` compares probabilities with labels for equality; ``BinaryAccuracy`` on k one-hot columns is 1 - 1 / k
    for a model that always says no; ``CategoricalAccuracy`` of several labels looks at the largest only. Source: Keras'
    documentation of these metrics. Threshold: the class of the metric; hints, as they do not change the training.
    """
    for answer in answers(program):
        kind, names = task(answer), set(answer.output.metrics)
        units = answer.output.units or 0
        if "Accuracy" in names and kind in ("binary", "multi-label", "classification"):
            old, new = "Accuracy", "accuracy"
            text = "Accuracy counts probabilities that equal the label exactly."
        elif "BinaryAccuracy" in names and kind == "classification" and units > 2:
            old, new = "BinaryAccuracy", "accuracy"
            text = f"BinaryAccuracy counts each of the {units} columns: always no is right in {1 - 1 / units:.0%}."
        elif "CategoricalAccuracy" in names and kind == "multi-label":
            old, new = "CategoricalAccuracy", "binary_accuracy"
            text = "CategoricalAccuracy looks at the largest output only, and a sample has several labels."
        else:
            continue
        return Finding(
            "accuracy_of_other_task",
            "misleading accuracy",
            text,
            {},
            f'metrics=["{new}"]',
            "hint",
            "accuracy of another task",
            answer.where,
            (Change("metrics", old, new),),
        )
    return None


def accuracy_of_logits(program: Program) -> Finding | None:
    """Detect the accuracy of two classes on logits, whose threshold is 0.5 where it is 0 for logits.

    Source: Keras' documentation of ``BinaryAccuracy`` (threshold: 0.5 by default). Threshold: ``from_logits=True``
    without an activation of the output; a hint.
    """
    for answer in answers(program):
        if answer.loss != BINARY or not answer.from_logits or answer.activation != "linear":
            continue
        if "BinaryAccuracy" not in answer.output.metrics:
            continue
        return Finding(
            "accuracy_of_logits",
            "accuracy of logits",
            "The accuracy takes logits over 0.5 for class 1, unless its threshold is 0, as it is for logits.",
            {},
            "metrics=[keras.metrics.BinaryAccuracy(threshold=0)]",
            "hint",
            "threshold of probabilities on logits",
            answer.where,
            (Change("metrics", "BinaryAccuracy", "BinaryAccuracy(threshold=0)"),),
        )
    return None
