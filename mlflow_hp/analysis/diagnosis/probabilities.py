"""Probability that the change of a finding lowers the held-out loss, as counted on trainings with made faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from mlflow_hp.analysis.diagnosis.finding import Finding

FOLLOWED = {
    "problem of the program": (119, 123),
    "problem of a curve": (4, 5),
    "further problem": (26, 56),
    "still falling": (16, 31),
    "stopped learning": (4, 38),
    "hint": (10, 25),
}
"""Kind of finding -> how often its change lowered the held-out loss by over 1 %, and how often it was made, by
``python -m benchmarks.diagnosis --proposals --all-of-them``. The first problem is the cause, and those behind it are
mostly its effects: to change these alone seldom helps."""
TRIED = {
    "activation", "batch_normalization", "batch_size", "clipnorm", "dropout", "epochs", "kernel_initializer",
    "last_activation", "layers", "learning_rate", "loss", "momentum", "optimizer", "rate", "regularizer",
    "scale_targets", "shuffle", "standardize", "units",
}  # fmt: skip
"""Parameters that were changed in them: of other changes, such as of metrics, nothing was counted."""
OF_VALIDATION = {"validation_scaled_differently", "classes_of_validation"}
"""Findings that are about what is validated on, not about the training."""
MORE_LIKELY = 0.6
"""Probability from which it is said in words."""


def with_probabilities(findings: Sequence[Finding], curve_rules: Collection[str]) -> list[Finding]:
    """Add to each finding that proposes a change the probability that it lowers the held-out loss.

    It is that of its kind in ``FOLLOWED``, by Laplace's rule of succession: (k + 1) / (n + 2).

    Parameters
    ----------
    findings : sequence of Finding
        Findings, the most important first.
    curve_rules : collection of str
        Names of those on curves and layers; all others are on the program.

    Returns
    -------
    list of Finding
        The same. Those that are fine, propose nothing that a program could change, or a change that was never tried,
        have none.
    """
    first = next((finding.name for finding in findings if finding.severity == "problem"), None)
    return [_with_probability(finding, finding.name == first, curve_rules) for finding in findings]


def odds(finding: Finding) -> str:
    """Write the probability of a finding as a sentence, with a space before it; empty if it is unknown, or small.

    Parameters
    ----------
    finding : Finding
        The finding.

    Returns
    -------
    str
        The sentence.
    """
    if finding.probability is None or finding.probability < MORE_LIKELY:
        return ""
    return f" That lowered the held-out loss in {finding.probability:.0%} of made cases."


def _with_probability(finding: Finding, is_first: bool, curve_rules: Collection[str]) -> Finding:
    tried = any(change.new is not None and change.parameter in TRIED for change in finding.change)
    if finding.severity == "fine" or not tried or finding.name in OF_VALIDATION:
        return finding
    if finding.severity == "problem":
        of_first = "problem of a curve" if finding.name in curve_rules else "problem of the program"
        kind = of_first if is_first else "further problem"
    else:
        kind = finding.verdict if finding.verdict in FOLLOWED else "hint"
    n_improved, n_tried = FOLLOWED[kind]
    return finding._replace(probability=round((n_improved + 1) / (n_tried + 2), 2))
