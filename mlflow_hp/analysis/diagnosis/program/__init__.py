"""Diagnosis of a program, before its training has cost anything: model, loss, data and settings against each other.

Each rule is one function of a `Program` that returns a finding, or None if there is nothing to report or it cannot
know; its source and threshold are in its docstring. Layers: `layers`, `initializers`. Output: `outputs`, `one_unit`,
`losses`, `ranges`, `metrics`. Data: `inputs`, `targets`. Settings: `settings`, `callbacks`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp import _notice
from mlflow_hp.analysis.diagnosis.program.callbacks import metric_that_is_missing, metric_the_other_way
from mlflow_hp.analysis.diagnosis.program.facts import n_classes, task_of
from mlflow_hp.analysis.diagnosis.program.initializers import constant_weights, size_of_weights, strong_regularizer
from mlflow_hp.analysis.diagnosis.program.inputs import (
    constant_inputs,
    embedded_numbers,
    not_finite_inputs,
    pixels,
    unscaled_inputs,
    validation_scaled_differently,
)
from mlflow_hp.analysis.diagnosis.program.layers import (
    activation_twice,
    dropout_at_output,
    everything_frozen,
    few_units,
    hidden_softmax,
    linear_pair,
    much_dropout,
    no_nonlinearity,
    normalization_of_one,
    normalization_over_one,
    saturating_stack,
)
from mlflow_hp.analysis.diagnosis.program.losses import (
    binary_loss_for_classes,
    classification_loss_for_numbers,
    columns_differ,
    form_of_labels,
    labels_out_of_range,
    loss_of_directions,
    loss_of_other_numbers,
    squared_error_for_classes,
    text_labels,
)
from mlflow_hp.analysis.diagnosis.program.metrics import (
    accuracy_of_logits,
    accuracy_of_numbers,
    accuracy_of_other_task,
)
from mlflow_hp.analysis.diagnosis.program.one_unit import one_unit_for_classes, softmax_on_one_unit
from mlflow_hp.analysis.diagnosis.program.outputs import (
    logits_twice,
    missing_probabilities,
    sigmoid_for_exclusive_classes,
    softmax_for_several_labels,
    squashed_logits,
)
from mlflow_hp.analysis.diagnosis.program.ranges import output_range, poisson_output, relu_output, softmax_for_numbers
from mlflow_hp.analysis.diagnosis.program.settings import (
    batch_larger_than_data,
    clipped_every_step,
    few_steps,
    momentum_near_one,
    no_learning_rate,
    schedule_ends_early,
    strong_weight_decay,
    unusual_learning_rate,
)
from mlflow_hp.analysis.diagnosis.program.suspicions import suspicions
from mlflow_hp.analysis.diagnosis.program.targets import (
    class_weights_the_other_way,
    classes_of_validation,
    huge_targets,
    not_finite_targets,
    sorted_labels,
    unequal_classes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_hp.analysis.diagnosis.finding import Finding
    from mlflow_hp.history.program import Program

    Rule = Callable[[Program], Finding | None]

__all__ = ["diagnose_program", "n_classes", "suspicions", "task_of"]

OUTPUT_RULES: tuple[Rule, ...] = (
    text_labels, form_of_labels, classification_loss_for_numbers, loss_of_other_numbers, loss_of_directions,
    softmax_on_one_unit, one_unit_for_classes, binary_loss_for_classes, labels_out_of_range, columns_differ,
    missing_probabilities, sigmoid_for_exclusive_classes, softmax_for_several_labels, squared_error_for_classes,
    poisson_output, softmax_for_numbers, output_range, squashed_logits, logits_twice, relu_output, accuracy_of_numbers,
    accuracy_of_other_task, accuracy_of_logits,
)  # fmt: skip
"""Rules on an output, its loss and targets: the root cause first, of which alone is reported."""
DATA_RULES: tuple[Rule, ...] = (
    not_finite_inputs, not_finite_targets, embedded_numbers, pixels, unscaled_inputs, validation_scaled_differently,
    sorted_labels, classes_of_validation, class_weights_the_other_way, huge_targets, unequal_classes, constant_inputs,
)  # fmt: skip
NETWORK_RULES: tuple[Rule, ...] = (
    everything_frozen, constant_weights, dropout_at_output, activation_twice, hidden_softmax, no_nonlinearity,
    normalization_of_one, normalization_over_one, few_units, saturating_stack, much_dropout, size_of_weights,
    strong_regularizer, linear_pair,
)  # fmt: skip
SETTINGS_RULES: tuple[Rule, ...] = (
    no_learning_rate, momentum_near_one, strong_weight_decay, unusual_learning_rate, schedule_ends_early,
    metric_the_other_way, metric_that_is_missing, batch_larger_than_data, few_steps,
)  # fmt: skip
ORDER = {"problem": 0, "hint": 1, "fine": 2}
EXPLAINS: dict[str, set[str]] = {
    "pixels": {"unscaled_inputs"},
    "softmax_on_one_unit": {"few_units", "activation_twice"},
    "squashed_logits": {"activation_twice"},
    "dropout_at_output": {"much_dropout"},
    "constant_weights": {"size_of_weights"},
    "everything_frozen": {
        "unusual_learning_rate", "few_steps", "constant_weights", "saturating_stack", "size_of_weights",
    },
    "momentum_near_one": {"unusual_learning_rate"},
    "unusual_learning_rate": {"clipped_every_step"},
    "batch_larger_than_data": {"few_steps"},
    "one_unit_for_classes": {"unequal_classes"},
}  # fmt: skip
"""Finding -> findings that it explains, or that would be said twice."""


def diagnose_program(program: Program, *, gradient_norm: float | None = None) -> list[Finding]:
    """Run all rules on a program: those for which something is unknown, such as statistics, keep quiet.

    Parameters
    ----------
    program : Program
        Description of a program, of as much of it as is known.
    gradient_norm : float, optional
        Median of the recorded norms of the gradients before they are clipped. Defaults to unknown.

    Returns
    -------
    list of Finding
        The most important first; none that another one explains.

    Examples
    --------
    >>> from mlflow_hp.analysis.diagnosis.program import diagnose_program
    >>> from mlflow_hp.history.program import Output, Program
    >>> output = Output("output", activation="softmax", shape=(1,), loss="BinaryCrossentropy")
    >>> (finding,) = diagnose_program(Program(outputs=(output,)))
    >>> finding.suggestion
    'Dense(1, activation="sigmoid")'
    """
    output = next((finding for rule in OUTPUT_RULES if (finding := _run(rule, program)) is not None), None)
    results = [output, *(_run(rule, program) for rule in (*DATA_RULES, *NETWORK_RULES, *SETTINGS_RULES))]
    results.append(_run(lambda each: clipped_every_step(each, gradient_norm), program))
    findings = [finding for finding in results if finding is not None]
    moot = {name for finding in findings for name in EXPLAINS.get(finding.name, ())}
    return sorted((each for each in findings if each.name not in moot), key=lambda each: ORDER[each.severity])


def _run(rule: Rule, program: Program) -> Finding | None:
    """Run a rule; an error of its own is reported, and costs only this rule's finding."""
    try:
        return rule(program)
    except Exception as error:  # noqa: BLE001 - the other rules, and the training, go on
        _notice.warn(f"a rule of the diagnosis failed: {type(error).__name__}: {error}")
        return None
