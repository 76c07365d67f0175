"""Causes: which traits of a program may explain what the curves and layers of its training show."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.analysis.diagnosis.finding import Finding

POOR = 0.8
"""Share of the way from a constant prediction to a perfect one below which a trait in `WEAKENS` is a problem."""
WEAKENS = (
    "constant_weights", "saturating_stack", "strong_regularizer", "much_dropout", "few_units", "relu_output",
    "squashed_logits", "sorted_labels", "momentum_near_one", "batch_larger_than_data", "one_batch", "no_nonlinearity",
    "hidden_softmax", "narrow_layer", "frozen_part", "unusual_activation", "few_steps",
    "squared_error_for_classes", "softmax_for_several_labels", "deep_and_narrow", "much_noise", "squeezed_inputs",
)  # fmt: skip
"""Traits that may be the cause of a poor result."""
SCALES = (
    "unusual_learning_rate", "large_learning_rate", "small_learning_rate", "pixels", "unscaled_inputs",
    "size_of_weights", "huge_targets",
)  # fmt: skip
"""Traits that may be the cause where a training does not learn at all."""
STOPS = ("constant_weights", "narrow_layer", "saturating_stack", "unusual_activation", *SCALES)
"""Traits that may be the cause of layers that do not learn."""
FAR = 0.3
"""The same, below which those in `FAILS` are."""
FAILS = ("no_hidden_layer", "small_learning_rate", "large_learning_rate")
"""Traits that may be the cause of a result that is far from perfect."""
ONE_STEP = ("batch_larger_than_data", "one_batch")
"""Traits by which an epoch is a single step: its batch is the cause of few steps."""
CAUSES: dict[str, tuple[str, ...]] = {
    "chance": (*SCALES, *WEAKENS, "no_hidden_layer"),
    "few_epochs": ("few_steps",),
    "divergence": (*SCALES, "momentum_near_one", "unusual_activation", "softmax_for_several_labels"),
    "not_finite": (*SCALES, "momentum_near_one", "unusual_activation"),
    "oscillation": (*SCALES, "momentum_near_one", "sorted_labels"),
    "layers": STOPS,
    "plateau": (*SCALES, *WEAKENS),
    "saturated_units": (*SCALES, "saturating_stack"),
    "dead_units": (*STOPS, "frozen_part", "deep_and_narrow", "squeezed_inputs"),
    "speed": (
        *SCALES, "squeezed_inputs", "batch_larger_than_data", "one_batch", "few_steps", "saturating_stack",
        "momentum_near_one", "frozen_part",
    ),
}  # fmt: skip
"""Problem that curves or layers show -> traits of the program that may be its cause, and are problems then."""


def explain(
    of_program: Sequence[Finding],
    suspicions: Sequence[Finding],
    of_curves: Sequence[Finding],
    reached: float | None,
) -> list[Finding]:
    """Make a problem of the first hint on the program that may be the cause of a failure.

    A failure is a problem that the curves or layers show, or a result below ``POOR``.

    Parameters
    ----------
    of_program : sequence of Finding
        Findings on the program. If one is a problem, that is the cause.
    suspicions : sequence of Finding
        Traits that are left out unless they are the cause.
    of_curves : sequence of Finding
        Findings on curves and layers.
    reached : float or None
        Result, as `success` has it; None if unknown.

    Returns
    -------
    list of Finding
        Findings on the program.
    """
    if any(finding.severity == "problem" for finding in of_program):
        return list(of_program)
    causes = {name for finding in of_curves if finding.severity == "problem" for name in CAUSES.get(finding.name, ())}
    if reached is not None and reached < POOR:
        causes |= set(WEAKENS)
    if reached is not None and reached < FAR:
        causes |= set(FAILS)
    if any(finding.verdict in ("learns slowly", "still falling") for finding in of_curves):
        causes -= {"large_learning_rate"}
        causes |= {"small_learning_rate"} if reached is None or reached < POOR else set()
    if any(finding.name in ONE_STEP for finding in (*of_program, *suspicions)):
        causes -= {"few_steps"}
    possible = [finding for finding in (*of_program, *suspicions) if finding.name in causes and finding.change]
    if not possible:
        return list(of_program)
    first = possible[0]
    return [first._replace(severity="problem"), *(each for each in of_program if each is not first)]
