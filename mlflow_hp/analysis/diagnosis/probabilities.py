"""Probability that the change of a finding improves the held-out loss, as counted on trainings with made faults."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.analysis.diagnosis.finding import Finding

FOLLOWED: dict[str, dict[str, tuple[int, int]]] = {"problem": {}, "hint": {}}
"""Severity -> finding -> how often its change lowered the held-out loss by over 1 %, and how often it was tried: each
once, by ``python -m benchmarks.diagnosis --proposals --all-of-them``, on the half that the rules were tuned on."""
WEIGHT = 4.0
"""Number of trials that the share of all findings of a severity counts as, in the estimate for one of them."""


def with_probabilities(findings: Sequence[Finding]) -> list[Finding]:
    """Add to each finding that proposes a change the probability that it improves the held-out loss.

    Parameters
    ----------
    findings : sequence of Finding
        Findings.

    Returns
    -------
    list of Finding
        The same, in their order. Those that are fine, or propose nothing that a program could change, have none.
    """
    return [_with_probability(finding) for finding in findings]


def _with_probability(finding: Finding) -> Finding:
    counts = FOLLOWED.get(finding.severity)
    if not counts or not any(change.new is not None for change in finding.change):
        return finding
    improved, tried = (sum(each[i] for each in counts.values()) for i in range(2))
    own_improved, own_tried = counts.get(finding.name, (0, 0))
    probability = (own_improved + WEIGHT * improved / tried) / (own_tried + WEIGHT)
    return finding._replace(probability=round(probability, 2))


def odds(finding: Finding) -> str:
    """Write the probability of a finding as a sentence, with a space before it; empty if it is unknown."""
    if finding.probability is None:
        return ""
    return f" That lowered the held-out loss in {finding.probability:.0%} of made cases."
