"""Repairs of outputs that several rules propose: in the user's code and as changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mlflow_hp.analysis.diagnosis.finding import Change
from mlflow_hp.analysis.diagnosis.program.facts import BINARY, CATEGORICAL, SPARSE, SQUARED
from mlflow_hp.analysis.diagnosis.program.graph import ACTIVATION_LAYERS, by_name, following, new_layer

if TYPE_CHECKING:
    from mlflow_hp.analysis.diagnosis.program.facts import Answer
    from mlflow_hp.history.program import Program

NO_PROBABILITIES = {
    "linear", "relu", "relu6", "leaky_relu", "prelu", "tanh", "elu", "selu", "gelu", "silu", "softsign", "mish",
    "log_softmax",
}  # fmt: skip
"""Activations whose values may be below 0, or are 0 without a gradient."""


class Repair(NamedTuple):
    """Change of a program, in the user's code and for programs.

    Attributes
    ----------
    suggestion : str
        Code of the user's.
    change : tuple of Change
        The same for programs.
    """

    suggestion: str
    change: tuple[Change, ...]


def output_for(program: Program, answer: Answer, *, units: int | None, activation: str, loss: str) -> Repair:
    """Output of so many units with an activation and a loss; what is right already is left out."""
    layer, changes, code = answer.output.layer or None, [], []
    if answer.loss != loss:
        changes.append(Change("loss", answer.loss, loss))
    if units != answer.output.units:
        changes.append(Change("last_units", answer.output.units, units, layer))
        code.append(new_layer(program, answer.output.layer, units, activation))
    if answer.activation != activation:
        changes.append(Change("last_activation", answer.activation or None, activation, layer))
        code = code or [with_activation(program, answer, activation)]
    if answer.loss != loss:
        code.append(f'loss="{loss}"')
    return Repair(", ".join(code), tuple(changes))


def classes_from_labels(program: Program, answer: Answer, n_labels: int | None) -> Repair:
    """A unit for each class, softmax, and the cross-entropy of whole labels."""
    return output_for(program, answer, units=n_labels, activation="softmax", loss=SPARSE)


def classes_from_one_hot(program: Program, answer: Answer, n_classes: int | None) -> Repair:
    """A unit for each class, softmax, and the cross-entropy of one-hot rows."""
    return output_for(program, answer, units=n_classes, activation="softmax", loss=CATEGORICAL)


def two_classes(program: Program, answer: Answer) -> Repair:
    """One unit with a sigmoid, and the binary cross-entropy."""
    return output_for(program, answer, units=1, activation="sigmoid", loss=BINARY)


def numbers(program: Program, answer: Answer, columns: int | None) -> Repair:
    """A unit without activation for each number, and a squared error."""
    return output_for(program, answer, units=columns, activation="linear", loss=SQUARED)


def with_activation(program: Program, answer: Answer, activation: str) -> str:
    """Code of the output with another activation, where the user wrote it: in its layer or in one after it."""
    layer = by_name(program, answer.output.layer)
    if layer is not None and layer.activation in ("", "linear") and answer.activation not in ("", "linear"):
        after = [each.kind for each in following(program, layer)]
        if any(kind == "Activation" or kind in ACTIVATION_LAYERS for kind in after):
            return f'Activation("{activation}") at the output'
    return new_layer(program, answer.output.layer, answer.output.units, activation)
