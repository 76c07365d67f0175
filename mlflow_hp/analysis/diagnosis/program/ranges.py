"""Rules on the values that the activation of the output can have, against the targets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.program.facts import BINARY, REGRESSION_LOSSES, answers, highest, lowest
from mlflow_hp.analysis.diagnosis.program.repairs import NO_PROBABILITIES, with_activation

if TYPE_CHECKING:
    from mlflow_hp.history.program import ArrayStatistics, Program

ADDS_UP = 0.1
"""Distance of the sum of the targets' means from 1 above which they are no shares of a whole."""
RANGES = {
    "relu": (0.0, math.inf), "relu6": (0.0, 6.0), "softplus": (0.0, math.inf), "exponential": (0.0, math.inf),
    "sigmoid": (0.0, 1.0), "hard_sigmoid": (0.0, 1.0), "softmax": (0.0, 1.0), "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0), "elu": (-1.0, math.inf), "selu": (-1.7581, math.inf), "gelu": (-0.17, math.inf),
    "silu": (-0.2785, math.inf), "mish": (-0.3088, math.inf),
}  # fmt: skip
"""Activation -> the values that it can have (Keras' documentation of layer activations)."""
LEAVES_BY = 0.05
"""Targets leave a range if they exceed it by this share of their own range."""


def output_range(program: Program) -> Finding | None:
    """Detect an output of a regression whose activation cannot reach the targets.

    Threshold: targets exceed the activation's values by 5 % of their own range. A problem if they do by a standard
    deviation, or if their mean is within a quarter of one of the limit; else a hint: single values do. Source: the
    values of each activation, by Keras' documentation of layer activations; Bishop 2006, section 4.3.6 (identity for
    regression).
    """
    for answer in answers(program):
        target, limits = answer.target, RANGES.get(answer.activation)
        if answer.loss not in REGRESSION_LOSSES or limits is None or target is None or target.is_binary:
            continue
        low, high = lowest(target), highest(target)
        margin = LEAVES_BY * (high - low)
        is_below, is_above = low < limits[0] - margin, high > limits[1] + margin
        if not (is_below or is_above):
            continue
        leave = [_leaves(target, column, limits) for column in range(len(target.mean))]
        layer = answer.output.layer
        span = f"from {limits[0]:g} to {limits[1]:g}" if math.isfinite(limits[1]) else f"from {limits[0]:g} up"
        return Finding(
            "output_range",
            "targets out of reach",
            f"The targets range from {low:.3g} to {high:.3g}, but the output is a {answer.activation}, whose values "
            f"are {span}.",
            {"target_min": low, "target_max": high, "columns_out_of_reach": sum(leave)},
            with_activation(program, answer, "linear"),
            "problem" if any(leave) else "hint",
            f"{answer.activation} on a regression",
            answer.where,
            (Change("last_activation", answer.activation, "linear", layer or None),),
        )
    return None


def softmax_for_numbers(program: Program) -> Finding | None:
    """Detect a softmax on several numbers that do not add up to 1, such as the pixels of an autoencoder.

    Source: Keras' documentation of ``softmax`` (the values of a row add up to 1). Threshold: a loss for numbers, or a
    binary cross-entropy, and targets whose means add up to another sum, by more than a tenth.
    """
    for answer in answers(program):
        target = answer.target
        if answer.activation != "softmax" or target is None or (answer.output.units or 0) < 2 or target.is_one_hot:
            continue
        if answer.loss not in REGRESSION_LOSSES | {BINARY} or len(target.mean) != answer.output.units:
            continue
        total = sum(target.mean)
        if not math.isfinite(total) or abs(total - 1) <= ADDS_UP or (target.is_binary and answer.loss == BINARY):
            continue
        return Finding(
            "softmax_for_numbers",
            "softmax for numbers",
            f"The outputs of a softmax add up to 1, and the targets to {total:.3g} on average.",
            {"sum_of_targets": total},
            with_activation(program, answer, "sigmoid" if lowest(target) >= 0 and highest(target) <= 1 else "linear"),
            "problem",
            "softmax on numbers that do not add up to 1",
            answer.where,
            (Change("last_activation", "softmax", "linear", answer.output.layer or None),),
        )
    return None


def relu_output(program: Program) -> Finding | None:
    """Suggest another output than one ReLU unit, which learns nothing more once it is 0 for all samples.

    Source: Lu et al. 2020, Dying ReLU and initialization. Threshold: one unit with ReLU on a regression whose targets
    are not negative; a hint.
    """
    for answer in answers(program):
        target = answer.target
        if answer.activation != "relu" or answer.output.units != 1 or not answer.is_flat:
            continue
        if answer.loss not in REGRESSION_LOSSES or target is None or target.is_binary:
            continue
        return Finding(
            "relu_output",
            "ReLU at the output",
            "The output is one ReLU unit: where it is 0 it has no gradient, and once it is 0 for every sample it "
            "learns nothing more.",
            {},
            f'{with_activation(program, answer, "linear")}, or activation="softplus" to keep it above 0',
            "hint",
            "ReLU on a regression",
            answer.where,
            (Change("last_activation", "relu", "linear", answer.output.layer or None),),
        )
    return None


def poisson_output(program: Program) -> Finding | None:
    """Detect the Poisson loss on an output that can be negative, whose logarithm it takes.

    Source: Keras' documentation of ``Poisson``: loss = y_pred - y_true * log(y_pred). Threshold: an activation whose
    values may be below 0.
    """
    for answer in answers(program):
        if answer.loss != "poisson" or answer.activation not in NO_PROBABILITIES - {"relu", "relu6"}:
            continue
        return Finding(
            "poisson_output",
            "log of negatives",
            f"The Poisson loss takes the logarithm of the output, which can be negative ({answer.activation}): the "
            "loss becomes NaN.",
            {},
            with_activation(program, answer, "exponential"),
            "problem",
            "Poisson loss on values that may be negative",
            answer.where,
            (Change("last_activation", answer.activation, "exponential", answer.output.layer or None),),
        )
    return None


def _leaves(target: ArrayStatistics, column: int, limits: tuple[float, float]) -> bool:
    """Whether more than single values of a column lie outside limits."""
    mean, std = target.mean[column], target.std[column]
    if not math.isfinite(mean):
        return False
    excess = max(limits[0] - target.min[column], target.max[column] - limits[1])
    return excess > std or mean - std / 4 < limits[0] or mean + std / 4 > limits[1]
