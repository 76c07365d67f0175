"""All findings of a training, from most to least important, without two that contradict each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.curve import change_rate
from mlflow_hp.analysis.diagnosis.descent import SMALLER, divergence, oscillation, speed
from mlflow_hp.analysis.diagnosis.finding import Finding
from mlflow_hp.analysis.diagnosis.generalization import chance, overfit, plateau
from mlflow_hp.analysis.diagnosis.layers import dead_units, layers
from mlflow_hp.analysis.diagnosis.noise_scale import noise_scale
from mlflow_hp.analysis.diagnosis.training import not_finite, trend

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.history import TrainingHistory

IN_ORDER = (
    "not_finite", "divergence", "oscillation", "layers", "chance", "dead_units", "speed", "overfit", "plateau", "trend",
    "noise_scale",
)  # fmt: skip
"""The findings, from most to least important."""
MINOR = ("trend", "noise_scale")
"""Those whose suggestion counts only where no other finding has one."""
RATES = {
    ("not_finite", "diverges"): SMALLER**2,
    ("trend", "rising"): SMALLER,
    ("trend", "still falling"): 2.0,
}
"""By how much the learning rate is to change after findings that name no number."""
MOOT = {
    "not_finite": {"divergence", "layers", "dead_units", "oscillation", "chance", "speed", "overfit", "plateau"},
    "divergence": {"oscillation", "chance", "speed", "overfit", "plateau"},
    "layers": {"speed", "overfit", "plateau"},
    "oscillation": {"speed", "plateau"},
    "chance": {"overfit", "plateau"},
    "overfit": {"speed", "plateau"},
    "plateau": {"speed"},
}
"""Finding -> those that it explains, or whose suggestion would contradict its own."""


def diagnose(history: TrainingHistory) -> list[Finding]:
    """The findings that any training allows, without reading its weights."""
    return _in_order([not_finite(history), *_of_curves(history), trend(history)])


def diagnose_network(
    history: TrainingHistory, *, n_classes: int | None = None, dead: Mapping[str, float] | None = None
) -> list[Finding]:
    """All findings of a network's training, and what to try next.

    Parameters
    ----------
    history : TrainingHistory
        Where weights or statistics were recorded, they are read: each tensor twice at most.
    n_classes : int, optional
        Of a classifier, which then is compared with guessing.
    dead : mapping of str to float, optional
        Layer -> share of its units that output 0 for every sample.

    Returns
    -------
    list of Finding
        From most to least important; the last is ``next_try``, with the suggestion of the first that has one.
    """
    found = [
        not_finite(history),
        *_of_curves(history),
        layers(history),
        dead_units(dead or {}),
        chance(history, n_classes) if n_classes else None,
        trend(history),
        noise_scale(history),
    ]
    findings = _in_order(found)
    return [*findings, next_network_try(history, findings)]


def next_network_try(history: TrainingHistory, findings: Sequence[Finding]) -> Finding:
    """The suggestion of the first of `findings` that has one, with its numbers, and with one for the learning rate."""
    first = next((finding for finding in findings if finding.suggestion), None)
    if first is None:
        return Finding("next_try", "nothing", "Nothing more to try with these settings.", {})
    told, evidence = str(first.suggestion), {k: v for k, v in first.evidence.items() if k.startswith("suggested_")}
    if (first.name, first.verdict) in RATES:
        told, evidence = change_rate(history, RATES[first.name, first.verdict])
    if first.verdict == "still falling":
        evidence["suggested_epochs"] = 2 * history.n_epochs
        told += f", or epochs={2 * history.n_epochs}"
    return Finding("next_try", "try", f"Next: {told}.", evidence, told)


def _of_curves(history: TrainingHistory) -> list[Finding | None]:
    return [rule(history) for rule in (divergence, oscillation, speed, overfit, plateau)]


def _in_order(found: Sequence[Finding | None]) -> list[Finding]:
    """Without those that others explain; and a minor one suggests nothing where a greater does."""
    there = {finding.name: finding for finding in found if finding is not None}
    moot = set().union(*(MOOT.get(name, set()) for name in there))
    findings = [there[name] for name in IN_ORDER if name in there and name not in moot]
    told = any(finding.suggestion for finding in findings if finding.name not in MINOR)
    return [f._replace(suggestion=None) if told and f.name in MINOR else f for f in findings]
