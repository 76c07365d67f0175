"""Rules on outputs of a single unit: a softmax over it, or a loss over several classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Finding
from mlflow_hp.analysis.diagnosis.program.facts import (
    CATEGORICAL,
    REGRESSION_LOSSES,
    SPARSE,
    answers,
    are_labels,
)
from mlflow_hp.analysis.diagnosis.program.repairs import classes_from_labels, output_for, two_classes

if TYPE_CHECKING:
    from mlflow_hp.analysis.diagnosis.program.facts import Answer
    from mlflow_hp.analysis.diagnosis.program.repairs import Repair
    from mlflow_hp.history.program import Program


def softmax_on_one_unit(program: Program) -> Finding | None:
    """Detect a softmax over a single unit: exp(x) / exp(x) is 1 whatever x is.

    The loss may fall nevertheless: on TensorFlow Keras takes the logits from in front of the softmax. Source: the
    definition of softmax (Keras' documentation, layer activations). Threshold: one unit.
    """
    axes = [layer.config.get("axis", -1) for layer in program.layers if layer.kind == "Softmax"]
    for answer in answers(program):
        if answer.activation != "softmax" or answer.output.units != 1 or any(axis != -1 for axis in axes):
            continue
        repair = _for_one_unit(program, answer)
        return Finding(
            "softmax_on_one_unit",
            "constant output",
            "The output is a softmax over one unit, which is 1 for every sample.",
            {"output_units": 1},
            repair.suggestion,
            "problem",
            "softmax over one unit",
            answer.where,
            repair.change,
        )
    return None


def one_unit_for_classes(program: Program) -> Finding | None:
    """Detect a cross-entropy over exclusive classes on a single unit: its only class is always right.

    The categorical cross-entropy of one unit is 0; the sparse one knows label 0 only. Source: Keras' documentation of
    both losses (a floating point value for each class). Threshold: one unit.
    """
    for answer in answers(program):
        if answer.loss not in (SPARSE, CATEGORICAL) or answer.output.units != 1 or answer.activation == "softmax":
            continue
        n_labels = _n_labels(answer)
        is_binary = (n_labels or 2) == 2 and (answer.activation == "sigmoid" or answer.loss == CATEGORICAL)
        repair = two_classes(program, answer) if is_binary else classes_from_labels(program, answer, n_labels)
        return Finding(
            "one_unit_for_classes",
            "too few units",
            f"The loss {answer.loss} expects a unit for each class; the output has one, which can name one class only.",
            {"output_units": 1} | ({} if n_labels is None else {"n_classes": n_labels}),
            repair.suggestion,
            "problem",
            "a loss over exclusive classes on one unit",
            answer.where,
            repair.change,
        )
    return None


def _for_one_unit(program: Program, answer: Answer) -> Repair:
    """Output for the targets of a softmax over one unit."""
    n_labels = _n_labels(answer)
    if (n_labels or 0) > 2 or answer.loss == SPARSE:
        return classes_from_labels(program, answer, n_labels)
    if answer.loss in REGRESSION_LOSSES and n_labels is None and not (answer.target and answer.target.is_binary):
        return output_for(program, answer, units=1, activation="linear", loss=answer.loss)
    return two_classes(program, answer)


def _n_labels(answer: Answer) -> int | None:
    """Number of different labels; None if the targets are unknown or no labels."""
    target = answer.target
    return len(target.counts) if target is not None and target.counts and are_labels(target) else None
