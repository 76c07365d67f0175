"""All findings of a training, from most to least important, without contradictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp.analysis.diagnosis.curve import change_rate
from mlflow_hp.analysis.diagnosis.descent import SMALLER, divergence, oscillation, speed
from mlflow_hp.analysis.diagnosis.finding import Finding
from mlflow_hp.analysis.diagnosis.generalization import chance, overfit, plateau
from mlflow_hp.analysis.diagnosis.layers import dead_units, layers, saturated_units
from mlflow_hp.analysis.diagnosis.noise_scale import certain_noise_scale, noise_scale
from mlflow_hp.analysis.diagnosis.training import not_finite, trend
from mlflow_hp.history.unit_shares import DEAD_UNITS, SATURATED_UNITS, last_unit_shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.history import TrainingHistory

Key = str | tuple[str, str]
"""A finding, or a finding and its verdict."""
IN_ORDER = (
    "not_finite", "divergence", "oscillation", "layers", "chance", "dead_units", "saturated_units", "speed", "overfit",
    "plateau", "trend", "noise_scale",
)  # fmt: skip
"""The findings, from most to least important."""
MINOR = ("trend", "noise_scale")
"""Findings whose suggestion counts only if no other finding has one."""
FALLS, RISES = ("trend", "still falling"), ("trend", "rising")
RATES = {
    ("not_finite", "diverges"): SMALLER**2,
    RISES: SMALLER,
    FALLS: 2.0,
}
"""Finding and verdict -> factor for the learning rate, for findings that suggest no number."""
MOOT: dict[Key, set[Key]] = {
    "not_finite": set[Key](IN_ORDER) - {"not_finite", "trend"},
    "divergence": {"oscillation", "chance", "speed", "overfit", "plateau", "noise_scale"},
    "layers": {"speed", "overfit", "plateau", "noise_scale"},
    "oscillation": {"speed", "plateau", "noise_scale", FALLS, RISES},
    "chance": {"overfit", "plateau", "noise_scale"},
    "overfit": {"speed", "plateau", FALLS},
    "plateau": {"speed"},
    ("plateau", "stopped learning"): {FALLS},
    RISES: {"noise_scale"},
}
"""Finding, or finding and verdict -> those that it explains, or that would contradict it or what it suggests."""


def diagnose(history: TrainingHistory) -> list[Finding]:
    """Run the rules that apply to any training, without reading its weights.

    Those on dead and saturated units apply to the last shares that were recorded.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.

    Returns
    -------
    list of Finding
        Findings, the most important first.
    """
    return _in_order(
        [
            not_finite(history), *_curve_findings(history), *_unit_findings(history), trend(history),
            certain_noise_scale(history),
        ]
    )  # fmt: skip


def diagnose_network(
    history: TrainingHistory,
    *,
    n_classes: int | None = None,
    dead: Mapping[str, float] | None = None,
    saturated: Mapping[str, float] | None = None,
) -> list[Finding]:
    """Run all rules on a network's training, and choose what to try next.

    Parameters
    ----------
    history : TrainingHistory
        Weights or statistics, where recorded, are read: each tensor at most twice.
    n_classes : int, optional
        Number of classes of a classifier, to compare it with guessing. Defaults to no comparison.
    dead : mapping of str to float, optional
        Layer -> share of its units that output 0 for every sample. Defaults to the last shares that were recorded.
    saturated : mapping of str to float, optional
        Layer -> share of its outputs at the ends of the range of sigmoid or tanh, without layers whose outputs are
        those of the network. Defaults to the last shares that were recorded.

    Returns
    -------
    list of Finding
        From most to least important; the last is ``next_try``, with the suggestion of the first that has one.
    """
    results = [
        not_finite(history),
        *_curve_findings(history),
        layers(history),
        *_unit_findings(history, dead, saturated),
        chance(history, n_classes) if n_classes else None,
        trend(history),
        noise_scale(history),
    ]
    findings = _in_order(results)
    return [*findings, next_network_try(history, findings)]


def next_network_try(history: TrainingHistory, findings: Sequence[Finding]) -> Finding:
    """Choose the suggestion of the first of `findings` that has one, with its numbers and a learning rate."""
    first = next((finding for finding in findings if finding.suggestion), None)
    if first is None:
        return Finding("next_try", "nothing", "Nothing more to try with these settings.", {})
    suggestion = str(first.suggestion)
    evidence = {k: v for k, v in first.evidence.items() if k.startswith("suggested_")}
    if (first.name, first.verdict) in RATES:
        suggestion, evidence = change_rate(history, RATES[first.name, first.verdict])
    if first.verdict == "still falling":
        evidence["suggested_epochs"] = 2 * history.n_epochs
        suggestion += f", or epochs={2 * history.n_epochs}"
    return Finding("next_try", "try", f"Next: {suggestion}.", evidence, suggestion)


def _curve_findings(history: TrainingHistory) -> list[Finding | None]:
    return [rule(history) for rule in (divergence, oscillation, speed, overfit, plateau)]


def _unit_findings(
    history: TrainingHistory, dead: Mapping[str, float] | None = None, saturated: Mapping[str, float] | None = None
) -> list[Finding | None]:
    dead = last_unit_shares(history.epochs, DEAD_UNITS) if dead is None else dead
    saturated = last_unit_shares(history.epochs, SATURATED_UNITS) if saturated is None else saturated
    return [dead_units(dead), saturated_units(saturated)]


def _in_order(results: Sequence[Finding | None]) -> list[Finding]:
    """Sort findings, drop those that others explain, and drop suggestions of minor ones if a major one has any."""
    by_name = {finding.name: finding for finding in results if finding is not None}
    keys: dict[str, set[Key]] = {name: {name, (name, finding.verdict)} for name, finding in by_name.items()}
    moot = {moot for each in keys.values() for key in each for moot in MOOT.get(key, ())}
    findings = [by_name[name] for name in IN_ORDER if name in by_name and not keys[name] & moot]
    suggested = any(finding.suggestion for finding in findings if finding.name not in MINOR)
    return [f._replace(suggestion=None) if suggested and f.name in MINOR else f for f in findings]
