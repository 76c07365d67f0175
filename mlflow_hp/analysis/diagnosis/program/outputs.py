"""Rules on the activation of the output, against its loss and targets.

Each takes a program and returns a finding, or None if there is nothing to report or it cannot know. Measured: two
hidden layers of 64 units on scikit-learn's digits, 20 epochs, with Keras 3.15 on TensorFlow (the right program is right
on 97 % of the held-out digits with Adam, on 90 % with SGD(0.01)).

Keras' losses on TensorFlow take the logits from in front of a softmax or sigmoid (keras.src.backend.tensorflow.nn,
``_get_logits``), so that such a program may learn although what it predicts is no probability.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.diagnosis.program.facts import BINARY, CATEGORICAL, SPARSE, answers, labels_per_sample
from mlflow_hp.analysis.diagnosis.program.graph import by_name, new_layer
from mlflow_hp.analysis.diagnosis.program.repairs import NO_PROBABILITIES, with_activation

if TYPE_CHECKING:
    from mlflow_hp.history.program import Program


def missing_probabilities(program: Program) -> Finding | None:
    """Detect a cross-entropy that expects probabilities on an output that gives none.

    Source: Keras' documentation of the cross-entropies (``from_logits``: by default the predictions are
    probabilities). Measured: with a linear output between 8 and 20 % of the digits are right. Threshold: an activation
    whose values may be below 0, and ``from_logits=False``.
    """
    for answer in answers(program):
        units = answer.output.units
        if answer.loss not in (SPARSE, CATEGORICAL, BINARY) or answer.from_logits or units is None:
            continue
        if answer.activation not in NO_PROBABILITIES | (
            {"softplus", "exponential"} if answer.loss == BINARY else set()
        ):
            continue
        right = "sigmoid" if answer.loss == BINARY else "softmax"
        code = with_activation(program, answer, right)
        if answer.activation == "linear":
            name = "".join(part.capitalize() for part in answer.loss.split("_"))
            code += f"; or keep it and use loss=keras.losses.{name}(from_logits=True)"
        has = "no activation" if answer.activation == "linear" else f"the activation {answer.activation}"
        return Finding(
            "missing_probabilities",
            "no probabilities",
            f"The loss {answer.loss} expects probabilities, but the output has {has}, and from_logits is not set.",
            {"output_units": units},
            code,
            "problem",
            "cross-entropy of values that are no probabilities",
            answer.where,
            (Change("last_activation", answer.activation, right, answer.output.layer or None),),
        )
    return None


def logits_twice(program: Program) -> Finding | None:
    """Detect ``from_logits=True`` on an output that is a softmax or sigmoid already.

    Source: Keras' warning "received `from_logits=True`, but the `output` argument was produced by a Softmax
    activation". Measured: on TensorFlow Keras takes the logits from in front of the activation, and the training is the
    same to the last digit: a hint. Other backends apply the softmax twice.
    """
    for answer in answers(program):
        expected = {SPARSE: "softmax", CATEGORICAL: "softmax", BINARY: "sigmoid"}.get(answer.loss)
        if not answer.from_logits or answer.activation != expected or answer.output.units == 0:
            continue
        without = new_layer(program, answer.output.layer, answer.output.units, "linear")
        return Finding(
            "logits_twice",
            "from_logits twice",
            f"The loss expects logits (from_logits=True), but the output is a {expected} already. TensorFlow "
            "takes the logits from in front of it; on other backends it is applied twice.",
            {},
            f"from_logits=False, or {without} without activation",
            "hint",
            f"{expected} in the output and in the loss",
            answer.where,
            (Change("from_logits", True, False),),
        )
    return None


def squashed_logits(program: Program) -> Finding | None:
    """Detect logits that pass an activation which limits them.

    Behind tanh all logits lie within -1 and 1: a softmax over 10 classes gives at most e / (e + 9 / e) = 45 % to one.
    Behind ReLU none is negative, and a unit without positive logits has no gradient. Source: the definition of softmax;
    Keras' documentation of ``from_logits``. Threshold: such an activation with ``from_logits=True``, or in front of a
    softmax.
    """
    for answer in answers(program):
        layer = by_name(program, answer.output.layer)
        own = layer.activation if layer is not None else ""
        activation = answer.activation if answer.from_logits else own if answer.activation == "softmax" else ""
        if answer.loss not in (SPARSE, CATEGORICAL, BINARY) or activation not in ("tanh", "relu", "relu6", "softsign"):
            continue
        return Finding(
            "squashed_logits",
            "limited logits",
            f"The logits pass {activation} before the loss makes probabilities of them, which limits how sure the "
            "model can be.",
            {},
            new_layer(program, answer.output.layer, answer.output.units, "linear"),
            "problem",
            f"{activation} between the last weights and the probabilities",
            answer.where,
            (Change("last_activation", activation, "linear", answer.output.layer or None),),
        )
    return None


def sigmoid_for_exclusive_classes(program: Program) -> Finding | None:
    """Detect sigmoids where every sample is of exactly one class.

    With a categorical cross-entropy the predicted values do not add up to 1: a problem, though the training itself is
    the same on TensorFlow (measured). With a binary cross-entropy each class is learned against all others, which is as
    good with Adam (97 %): a hint. Source: Bishop 2006, Pattern Recognition and Machine Learning, section 4.3.4 (softmax
    for exclusive classes), 4.3.2 (sigmoid for two). Threshold: more than one unit.
    """
    for answer in answers(program):
        units, target = answer.output.units or 0, answer.target
        if answer.activation not in ("sigmoid", "hard_sigmoid") or units < 2:
            continue
        categorical = answer.loss in (SPARSE, CATEGORICAL)
        if not categorical and not (answer.loss == BINARY and target is not None and target.is_one_hot):
            continue
        several = answer.loss == CATEGORICAL and target is not None and labels_per_sample(target) > 1
        layer = answer.output.layer or None
        change: tuple[Change, ...]
        if several:
            suggestion, change = f'loss="{BINARY}"', (Change("loss", answer.loss, BINARY),)
        elif categorical:
            suggestion = with_activation(program, answer, "softmax")
            change = (Change("last_activation", answer.activation, "softmax", layer),)
        else:
            suggestion = f'{with_activation(program, answer, "softmax")}, loss="{CATEGORICAL}"'
            change = (
                Change("last_activation", answer.activation, "softmax", layer),
                Change("loss", BINARY, CATEGORICAL),
            )
        text = f"Each of the {units} units is a {answer.activation} of its own, so the outputs do not add up to 1, "
        text += (
            f"but {answer.loss} expects that."
            if categorical
            else "but every sample is of exactly one class (one-hot targets)."
        )
        return Finding(
            "sigmoid_for_exclusive_classes",
            "several labels, one loss" if several else "sigmoid for classes",
            text,
            {"output_units": units},
            suggestion,
            "problem" if categorical else "hint",
            "sigmoid for exclusive classes",
            answer.where,
            change,
        )
    return None


def softmax_for_several_labels(program: Program) -> Finding | None:
    """Detect a softmax where a sample has several labels at once: its outputs add up to 1, the targets to more.

    Source: Keras' documentation of ``BinaryCrossentropy`` and Bishop 2006 as above. Threshold: 0/1 targets with more
    than 1.05 ones per sample on average; a softmax with categorical cross-entropy can rank labels (Mahajan et al. 2018,
    Exploring the limits of weakly supervised pretraining, section 2.2), which is a hint.
    """
    for answer in answers(program):
        target = answer.target
        if answer.activation != "softmax" or (answer.output.units or 0) < 2 or target is None or not answer.is_flat:
            continue
        if not target.is_binary or target.is_one_hot or labels_per_sample(target) <= 1.05:
            continue
        change = [Change("last_activation", "softmax", "sigmoid", answer.output.layer or None)]
        suggestion = with_activation(program, answer, "sigmoid")
        if answer.loss != BINARY:
            change.append(Change("loss", answer.loss, BINARY))
            suggestion += f', loss="{BINARY}"'
        n_labels = labels_per_sample(target)
        return Finding(
            "softmax_for_several_labels",
            "softmax for labels",
            f"A sample has {n_labels:.2g} labels on average, but the outputs of a softmax add up to 1.",
            {"labels_per_sample": n_labels},
            suggestion,
            "hint" if answer.loss == CATEGORICAL else "problem",
            "softmax where several labels are true",
            answer.where,
            tuple(change),
        )
    return None
