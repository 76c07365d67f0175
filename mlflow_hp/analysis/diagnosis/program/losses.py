"""Rules on the loss and the form of the labels, against the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.program.facts import (
    BINARY,
    CATEGORICAL,
    FEW_CLASSES,
    REGRESSION_LOSSES,
    SPARSE,
    answers,
    are_labels,
    columns,
    has_accuracy,
    highest,
    is_adaptive,
    is_column,
    lowest,
)
from mlflow_hp.analysis.diagnosis.program.repairs import (
    classes_from_labels,
    classes_from_one_hot,
    numbers,
    output_for,
    two_classes,
)
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.analysis.diagnosis.program.facts import Answer
    from mlflow_hp.history.program import ArrayStatistics, Program

TOLERANCE = 1e-3
"""Targets from 0 to 1 may leave the range by this much: rounding."""


def text_labels(program: Program) -> Finding | None:
    """Detect labels that are text. Source: Keras' losses take numbers. Threshold: the type of the targets."""
    for answer in answers(program):
        if answer.target is None or answer.target.dtype not in ("string", "object", "str"):
            continue
        return Finding(
            "text_labels",
            "text as labels",
            "The targets are text, and losses take numbers.",
            {},
            "labels = keras.layers.StringLookup(num_oov_indices=0, vocabulary=classes)(labels), or scikit-learn's "
            "LabelEncoder",
            "problem",
            "labels are text",
            answer.where,
            (Change("targets", "text", "0..n-1"),),
        )
    return None


def form_of_labels(program: Program) -> Finding | None:
    """Detect a categorical loss with whole labels, and a sparse one with one-hot rows.

    Source: Keras' documentation of ``CategoricalCrossentropy`` ("labels to be provided in a one_hot representation")
    and ``SparseCategoricalCrossentropy`` ("as integers"). Threshold: more than one unit, and the shape of the targets.
    """
    for answer in answers(program):
        target, units = answer.target, answer.output.units or 0
        if target is None or units < 2:
            continue
        if answer.loss == CATEGORICAL and answer.is_flat and is_column(target) and target.is_integer:
            loss, has = SPARSE, "a whole number for each sample"
        elif answer.loss == SPARSE and answer.output.shape and tuple(target.shape) == tuple(answer.output.shape):
            loss, has = CATEGORICAL, f"rows of {units} numbers"
        else:
            continue
        repair = output_for(program, answer, units=units, activation=answer.activation or "softmax", loss=loss)
        return Finding(
            "form_of_labels",
            "loss for other labels",
            f"The targets are {has}, which {answer.loss} does not take.",
            {"output_units": units},
            repair.suggestion,
            "problem",
            "loss for another form of labels",
            answer.where,
            (Change("loss", answer.loss, loss),),
        )
    return None


def classification_loss_for_numbers(program: Program) -> Finding | None:
    """Detect a cross-entropy for targets that are no classes and no probabilities.

    Source: the cross-entropy is defined for probabilities (Bishop 2006, Pattern Recognition and Machine Learning,
    section 4.3); a squared error is the likelihood of numbers (section 5.2). Threshold: values that are not whole and
    leave 0 to 1, or whole numbers that look like no labels (see `are_labels`), such as 25 to 346.
    """
    for answer in answers(program):
        target = answer.target
        if target is None or answer.loss not in (SPARSE, CATEGORICAL, BINARY) or not _are_numbers(answer, target):
            continue
        low, high = lowest(target), highest(target)
        change: tuple[Change, ...]
        is_image = answer.loss == BINARY and not is_column(target) and low >= 0 and 1 < high <= 255
        if is_image:
            suggestion, change = f"targets / {high:g}", (Change("scale_targets", high, 1.0),)
        else:
            repair = numbers(program, answer, columns(target) if answer.is_flat else answer.output.units)
            suggestion, change = repair.suggestion, repair.change
        return Finding(
            "classification_loss_for_numbers",
            "loss for classes",
            f"The targets are numbers from {low:.3g} to {high:.3g}, and {answer.loss} is for classes or probabilities.",
            {"target_min": low, "target_max": high},
            suggestion,
            "problem",
            "targets beyond 0..1 under a cross-entropy" if is_image else "cross-entropy on a regression",
            answer.where,
            change,
        )
    return None


def binary_loss_for_classes(program: Program) -> Finding | None:
    """Detect a binary cross-entropy where there are more than two exclusive classes.

    With a label of 2 or more the loss has no minimum; with a softmax over more than two units each is learned against
    all others, but predicted as one of all (measured on digits: 97 % right with Adam, 17 to 36 % with SGD(0.01) where
    the categorical cross-entropy reaches 90 %). Source: Keras' documentation of ``BinaryCrossentropy`` ("labels 0 or
    1"). Threshold: three classes.
    """
    for answer in answers(program):
        target, units = answer.target, answer.output.units or 0
        if answer.loss != BINARY:
            continue
        if target is not None and is_column(target) and target.counts and are_labels(target) and len(target.counts) > 2:
            n_classes = len(target.counts)
            repair = classes_from_labels(program, answer, n_classes)
            text = f"The targets have {n_classes} classes, and binary_crossentropy is for two."
        elif answer.activation == "softmax" and units > 2 and (target is None or target.is_one_hot):
            n_classes = units
            repair = classes_from_one_hot(program, answer, units)
            text = f"The output is a softmax over {units} exclusive classes, and binary_crossentropy is for two."
        else:
            continue
        return Finding(
            "binary_loss_for_classes",
            "binary loss",
            text,
            {"n_classes": n_classes, "output_units": units},
            repair.suggestion,
            "problem",
            "binary cross-entropy for more than two classes",
            answer.where,
            repair.change,
        )
    return None


def labels_out_of_range(program: Program) -> Finding | None:
    """Detect labels that the loss cannot take: 1..n for n units, below 0, beyond the units, -1/1 or 1/2 for two.

    Source: Keras' documentation of ``SparseCategoricalCrossentropy`` (labels from 0 on, smaller than the number of
    units) and ``BinaryCrossentropy`` (0 or 1). Threshold: a single such label, in training or validation.
    """
    for answer, validation in zip(answers(program), _validation_targets(program), strict=True):
        target, units = answer.target, answer.output.units or 0
        if target is None or not target.is_integer:
            continue
        low, high = lowest(target), highest(target)
        if validation is not None and validation.is_integer:
            low, high = min(low, lowest(validation)), max(high, highest(validation))
        first, last = int(low), int(high)
        ignored = answer.output.loss_config.get("ignore_class")
        layer = answer.output.layer or None
        change: tuple[Change, ...]
        if answer.loss == SPARSE and units > 1 and (last >= units or (first < 0 and first != ignored)):
            expected = f"0 to {units - 1}, one for each of the {count(units, 'unit')}"
            if _are_two(target, first, last):
                suggestion = f"(labels == {last}).astype(int)"
                change = (Change("targets", f"{first}/{last}", "0/1"),)
            elif last - first < units:
                suggestion = f"labels - {first}" if first > 0 else f"labels + {-first}"
                change = (Change("targets", f"{first}..{last}", f"0..{last - first}"),)
            else:
                repair = output_for(program, answer, units=last + 1, activation=answer.activation, loss=SPARSE)
                suggestion, change = repair.suggestion, (Change("last_units", units, last + 1, layer),)
                if first < 0:
                    change = (Change("targets", f"{first}..{last}", "0..n-1"), *change)
        elif answer.loss == BINARY and (first, last) != (0, 1) and _are_two(target, first, last):
            expected = "0 and 1"
            suggestion = f"(labels == {last}).astype(int)"
            change = (Change("targets", f"{first}/{last}", "0/1"),)
            if answer.output.units == 1 and answer.activation == "tanh":
                repair = two_classes(program, answer)
                suggestion, change = f"{suggestion}, {repair.suggestion}", (*change, *repair.change)
        else:
            continue
        return Finding(
            "labels_out_of_range",
            "labels out of range",
            f"The labels range from {first} to {last}; {answer.loss} expects {expected}.",
            {"label_min": first, "label_max": last, "output_units": units},
            suggestion,
            "problem",
            "labels that the loss cannot take",
            answer.where,
            change,
        )
    return None


def columns_differ(program: Program) -> Finding | None:
    """Detect an output with another number of values than the targets, under a loss that compares value by value.

    NumPy's rules of broadcasting then compare each value with each. Source: Keras' documentation of the losses (shapes
    of y_true and y_pred are equal). Threshold: one differing column of flat outputs.
    """
    for answer in answers(program):
        target, units = answer.target, answer.output.units
        elementwise = REGRESSION_LOSSES | {BINARY, CATEGORICAL, "poisson", "hinge", "squared_hinge"}
        if target is None or units is None or not answer.is_flat or answer.loss not in elementwise:
            continue
        n_columns = columns(target)
        if len(target.shape) > 1 or n_columns is None or n_columns == units:
            continue
        if is_column(target) and are_labels(target) and target.counts:
            n_labels = len(target.counts)
            repair = (two_classes if n_labels == 2 else classes_from_labels)(
                program, answer, *([n_labels] * (n_labels > 2))
            )
        elif target.is_one_hot:
            repair = classes_from_one_hot(program, answer, n_columns)
        else:
            repair = output_for(
                program, answer, units=n_columns, activation=answer.activation or "linear", loss=answer.loss
            )
        return Finding(
            "columns_differ",
            "shapes differ",
            f"The output has {count(units, 'unit')}, the targets have {count(n_columns, 'value')} for each sample: "
            f"{answer.loss} compares each with each.",
            {"output_units": units, "target_columns": n_columns},
            repair.suggestion,
            "problem",
            "units and columns of the targets differ",
            answer.where,
            repair.change,
        )
    return None


def squared_error_for_classes(program: Program) -> Finding | None:
    """Detect a loss for numbers where the targets are classes.

    A squared error behind a softmax or sigmoid has hardly a gradient where the model is surely wrong (Golik, Doetsch
    and Ney 2013, Cross-entropy vs. squared error training). Measured on digits: as good as the cross-entropy with Adam,
    which scales gradients up (97 %: a hint), 13 % instead of 90 % right with SGD(0.01) (a problem). An absolute error,
    whose gradient is as small where the model is unsure: a problem. A single number
    for three or more labels puts the classes in an order that they do not have: a problem. Threshold: one-hot rows, 0/1
    columns, or labels with a softmax, sigmoid or the accuracy among the metrics.
    """
    for answer in answers(program):
        target, units = answer.target, answer.output.units or 0
        if answer.loss not in REGRESSION_LOSSES or not answer.activation:
            continue
        squashes = answer.activation in ("softmax", "sigmoid", "hard_sigmoid")
        is_problem = squashes and (answer.loss == "mean_absolute_error" or not is_adaptive(program))
        if units > 1 and (target.is_one_hot if target is not None else answer.activation == "softmax"):
            repair, n_labels = classes_from_one_hot(program, answer, units), units
        elif target is None or not is_column(target) or not target.counts or not are_labels(target):
            continue
        elif len(target.counts) == 2 and target.is_binary and units == 1:
            repair, n_labels, is_problem = two_classes(program, answer), 2, False
        elif len(target.counts) > 2 and (
            squashes or (has_accuracy(answer.output) and len(target.counts) <= FEW_CLASSES)
        ):
            n_labels, is_problem = len(target.counts), True
            repair = classes_from_labels(program, answer, n_labels)
        else:
            continue
        return Finding(
            "squared_error_for_classes",
            "loss for numbers",
            f"The targets are {n_labels} classes, and {answer.loss} is for numbers: its gradient vanishes where the "
            "model is surely wrong, and it puts classes in an order.",
            {"n_classes": n_labels},
            repair.suggestion,
            "problem" if is_problem else "hint",
            "a loss for numbers on classes",
            answer.where,
            repair.change,
        )
    return None


def loss_of_directions(program: Program) -> Finding | None:
    """Detect a cosine similarity as the loss of a single number: of that it sees the sign alone.

    Source: Keras' documentation of ``CosineSimilarity`` (the cosine of the angle between targets and predictions).
    Threshold: one unit.
    """
    for answer in answers(program):
        if answer.loss == "cosine_similarity" and answer.output.units == 1:
            repair = numbers(program, answer, 1)
            return Finding(
                "loss_of_directions",
                "loss of directions",
                "The cosine similarity compares directions, and a single number has only its sign.",
                {},
                repair.suggestion,
                "problem",
                "a loss of directions for a number",
                answer.where,
                repair.change,
            )
    return None


def _are_numbers(answer: Answer, target: ArrayStatistics) -> bool:
    """Whether targets of a cross-entropy are numbers, neither labels nor probabilities."""
    low, high = lowest(target), highest(target)
    if target.is_integer:
        if answer.loss == SPARSE:
            return answer.output.units == 1 and not are_labels(target) and not _are_two(target, int(low), int(high))
        if is_column(target):
            return high > 1 and not are_labels(target) and not _are_two(target, int(low), int(high))
        return high > 1
    if answer.loss == SPARSE:
        return True
    return low < -TOLERANCE or high > 1 + TOLERANCE


def _are_two(target: ArrayStatistics, first: int, last: int) -> bool:
    """Whether the targets have two values, in a column or several."""
    return first != last and (set(target.counts) == {first, last} if target.counts else (first, last) == (-1, 1))


def _validation_targets(program: Program) -> list[ArrayStatistics | None]:
    targets = program.validation.targets if program.validation else ()
    expected = answers(program)
    is_paired = len(targets) == len(program.outputs) == len(expected)
    return list(targets) if is_paired else [None] * len(expected)


def loss_of_other_numbers(program: Program) -> Finding | None:
    """Detect a hinge loss for numbers, and an error in percent of targets around 0.

    Source: Keras' documentation of ``Hinge`` (labels -1 or 1, or 0 or 1), and of ``MeanAbsolutePercentageError``, which
    divides by each target. Threshold: targets that are not all whole; targets on both sides of 0, or a tenth of whose
    standard deviation is larger than their smallest value.
    """
    for answer in answers(program):
        target = answer.target
        name = answer.output.loss.lower().replace("_", "")
        if target is None:
            continue
        low, high = lowest(target), highest(target)
        is_hinge = name in ("hinge", "squaredhinge") and not target.is_integer
        is_percentage = name in ("meanabsolutepercentageerror", "mape") and low <= 0 <= high and low != high
        if not is_hinge and not is_percentage:
            continue
        why = "is for labels of -1 and 1" if is_hinge else "divides by each target, and some are close to 0"
        return Finding(
            "loss_of_other_numbers",
            "loss for other numbers",
            f"The targets are numbers from {low:.3g} to {high:.3g}, and {answer.output.loss} {why}.",
            {"target_min": low, "target_max": high},
            'loss="mean_squared_error"',
            "problem",
            "a loss that does not fit the targets",
            answer.where,
            (Change("loss", answer.output.loss, "mean_squared_error"),),
        )
    return None
