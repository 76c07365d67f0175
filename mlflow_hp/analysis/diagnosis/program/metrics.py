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


OF_THE_LARGEST = {
    "CategoricalAccuracy", "SparseCategoricalAccuracy", "categorical_accuracy", "sparse_categorical_accuracy",
}  # fmt: skip
"""Metrics that count samples whose largest output is that of their class."""
RESOLVED = ("accuracy", "acc")
"""Names that Keras replaces by the accuracy for the output's shape: ``BinaryAccuracy`` for one unit, else a categorical
one."""


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
    for a model that always says no; ``CategoricalAccuracy`` looks at the largest output only: it is meaningless for one
    unit, and misleading for several labels. Source: Keras' documentation of these metrics. Threshold: the class of the
    metric. A problem where no other accuracy is among the metrics, as the number says nothing; a hint for ``accuracy``,
    which Keras chooses by the shape of the output.
    """
    for answer in answers(program):
        kind, names = task(answer), set(answer.output.metrics)
        units = answer.output.units or 0
        if "Accuracy" in names and kind in ("binary", "multi-label", "classification"):
            old, new = "Accuracy", "accuracy"
            text = "Accuracy counts probabilities that equal the label exactly."
        elif units == 1 and kind == "binary" and (of_largest := names & OF_THE_LARGEST):
            old, new = min(of_largest), "accuracy"
            text = f"{old} looks for the largest of the outputs, and there is one."
        elif (of_columns := names & {"BinaryAccuracy", "binary_accuracy"}) and kind == "classification" and units > 2:
            old, new = min(of_columns), "accuracy"
            text = f"{old} counts each of the {units} columns: always no is right in {1 - 1 / units:.0%}."
        elif kind == "multi-label" and names & {"CategoricalAccuracy", *RESOLVED} and units > 1:
            old, new = (
                next(name for name in answer.output.metrics if name in {"CategoricalAccuracy", *RESOLVED}),
                "binary_accuracy",
            )
            text = f"{old} looks at the largest of the {units} outputs only, and a sample has several labels."
        else:
            continue
        return Finding(
            "accuracy_of_other_task",
            "misleading accuracy",
            text,
            {},
            f'metrics=["{new}"]',
            "hint" if old in RESOLVED or len(accuracies(answer.output)) > 1 else "problem",
            "accuracy of another task",
            answer.where,
            (Change("metrics", old, new),),
        )
    return None


def accuracy_of_logits(program: Program) -> Finding | None:
    """Detect the accuracy of two classes on logits, whose threshold is 0.5 where it is 0 for logits.

    Source: Keras' documentation of ``BinaryAccuracy`` (threshold: 0.5 by default). Threshold: ``from_logits=True``
    without an activation of the output, and a metric by its name, which has no threshold of its own; a hint.
    """
    for answer in answers(program):
        names = [name for name in answer.output.metrics if name in (*RESOLVED, "binary_accuracy")]
        if answer.loss != BINARY or not answer.from_logits or answer.activation != "linear" or not names:
            continue
        if names[0] in RESOLVED and answer.output.units != 1:
            continue
        return Finding(
            "accuracy_of_logits",
            "accuracy of logits",
            f"The metric {names[0]} takes outputs over 0.5 for class 1; of logits it is 0.",
            {},
            "metrics=[keras.metrics.BinaryAccuracy(threshold=0)]",
            "hint",
            "threshold of probabilities on logits",
            answer.where,
            (Change("metrics", names[0], "BinaryAccuracy(threshold=0)"),),
        )
    return None
