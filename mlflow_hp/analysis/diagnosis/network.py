"""All findings of a training, from most to least important, without contradictions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.diagnosis.causes import explain
from mlflow_hp.analysis.diagnosis.chance import MOST_FREQUENT, chance, explains_nothing
from mlflow_hp.analysis.diagnosis.curve import MIN_EPOCHS
from mlflow_hp.analysis.diagnosis.descent import divergence, oscillation, speed
from mlflow_hp.analysis.diagnosis.finding import Finding, by_severity
from mlflow_hp.analysis.diagnosis.generalization import does_not_generalize, moving_averages, overfit, plateau
from mlflow_hp.analysis.diagnosis.layers import dead_units, layers, saturated_units
from mlflow_hp.analysis.diagnosis.noise_scale import certain_noise_scale
from mlflow_hp.analysis.diagnosis.own_regression import regression_of
from mlflow_hp.analysis.diagnosis.probabilities import odds, with_probabilities
from mlflow_hp.analysis.diagnosis.program import diagnose_program, suspicions
from mlflow_hp.analysis.diagnosis.rate_schedule import rate_schedule
from mlflow_hp.analysis.diagnosis.regression import diagnose_regression
from mlflow_hp.analysis.diagnosis.result import best_guess, success
from mlflow_hp.analysis.diagnosis.stopping import few_epochs, missing_metric, stopped_early
from mlflow_hp.analysis.diagnosis.training import not_finite, trend, unbounded_loss
from mlflow_hp.history.unit_shares import DEAD_UNITS, SATURATED_UNITS, last_unit_shares

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.program import Program

Key = str | tuple[str, str]
"""A finding, or a finding and its verdict."""
IN_ORDER = (
    "metric_that_is_missing", "not_finite", "unbounded_loss", "divergence", "rate_schedule", "stopped_early",
    "few_epochs", "moving_averages", "generalization", "oscillation", "layers", "chance", "dead_units",
    "saturated_units", "speed", "overfit", "plateau", "trend", "noise_scale",
)  # fmt: skip
"""The findings, from most to least important."""
MINOR = ("trend", "noise_scale")
"""Findings whose suggestion counts only if no other finding has one."""
FALLS, RISES = ("trend", "still falling"), ("trend", "rising")
OF_THE_WHOLE = (
    "trend", "speed", "noise_scale", "rate_schedule", "stopped_early", "few_epochs", "moving_averages", "arrival",
    "distance",
)  # fmt: skip
"""Findings that are about a training as a whole, and are left to its end."""
UNDER_WAY = 0.2
"""Share of the planned epochs, and at least ``MIN_EPOCHS``, before which a training that goes on may be at chance."""
HINTS = {"oscillation": 0.9, "layers": 0.9, "speed": 0.7, "dead_units": 0.5, "saturated_units": 0.5}
"""Finding -> share of the way from a constant prediction to a perfect one from which it is a hint, no problem."""
LARGE = 2**28
"""Number of recorded weights above which the rules that read them are left out: they would take seconds."""
MOOT: dict[Key, set[Key]] = {
    "not_finite": set[Key](IN_ORDER) - {"not_finite", "trend", "metric_that_is_missing"},
    "unbounded_loss": {"divergence", "chance", "speed", "oscillation", "plateau", "few_epochs", FALLS},
    "stopped_early": {"speed", FALLS},
    "few_epochs": {"speed", FALLS},
    "rate_schedule": {"layers", "chance", "speed", "plateau", "few_epochs", "noise_scale", FALLS},
    "divergence": {"oscillation", "chance", "speed", "overfit", "plateau", "noise_scale"},
    "layers": {"speed", "overfit", "plateau", "noise_scale"},
    "oscillation": {"speed", "plateau", "noise_scale", FALLS, RISES},
    "chance": {"overfit", "plateau", "noise_scale"},
    "overfit": {"speed", "plateau", FALLS},
    "moving_averages": {"overfit", "plateau"},
    "generalization": {"overfit", "plateau", "speed", FALLS},
    "plateau": {"speed"},
    ("plateau", "stopped learning"): {FALLS},
    RISES: {"noise_scale"},
}
"""Finding, or finding and verdict -> those that it explains, or that would contradict it or what it suggests."""


CURVE_RULES = (
    missing_metric, unbounded_loss, rate_schedule, stopped_early, few_epochs, divergence, oscillation, speed,
    moving_averages, does_not_generalize, overfit, plateau, trend,
)  # fmt: skip


def diagnose(
    history: TrainingHistory,
    *,
    n_classes: int | None = None,
    dead: Mapping[str, float] | None = None,
    saturated: Mapping[str, float] | None = None,
    so_far: bool = False,
) -> list[Finding]:
    """Run all rules on a training: those on its program, its data, its curves and its layers.

    Rules whose numbers were not recorded are left out. A linear regression on one feature is diagnosed on its exact
    cost surface, by `diagnose_regression`.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training. Weights or statistics, where recorded, are read: each tensor at most three times.
    n_classes : int, optional
        Number of classes of a classifier, to compare it with guessing. Defaults to that of the program's targets.
    dead : mapping of str to float, optional
        Layer -> share of its units that output 0 for every sample. Defaults to the last shares that were recorded.
    saturated : mapping of str to float, optional
        Layer -> share of its outputs at the ends of the range of sigmoid or tanh, without layers whose outputs are
        those of the network. Defaults to the last shares that were recorded.
    so_far : bool
        Whether the training goes on: then its result is no failure yet, and rules on a training as a whole are left
        out. Defaults to False.

    Returns
    -------
    list of Finding
        Problems, hints, and what is fine, each from most to least important; the last is ``next_try``, with the
        suggestion of the first that has one.
    """
    regression = regression_of(history)
    if regression is not None:
        of_descent = diagnose_regression(history, *regression)
        return [
            each for each in of_descent if not so_far or each.name not in OF_THE_WHOLE or each.verdict == "diverges"
        ]
    dead = last_unit_shares(history.epochs, DEAD_UNITS) if dead is None else dead
    saturated = last_unit_shares(history.epochs, SATURATED_UNITS) if saturated is None else saturated
    results = [
        not_finite(history),
        *(rule(history) for rule in CURVE_RULES),
        layers(history) if _n_recorded(history) < LARGE else None,
        dead_units(dead),
        saturated_units(saturated),
        chance(history, n_classes) or explains_nothing(history),
        certain_noise_scale(history) if _n_recorded(history) < LARGE else None,
    ]
    if so_far:
        left_out = OF_THE_WHOLE if _is_well_under_way(history) else (*OF_THE_WHOLE, "chance")
        results = [each for each in results if each is None or each.name not in left_out]
    of_curves = _graded(_in_order(results), history, n_classes)
    program = _with_recorded_rate(history)
    of_program = diagnose_program(program, gradient_norm=_gradient_norm(history))
    guess = best_guess(history.program, n_classes)
    is_uneven = guess is not None and guess.accuracy > MOST_FREQUENT  # an accuracy hardly above it may be the best
    reached = None if is_uneven or so_far else success(history, n_classes=n_classes)
    of_program = explain(of_program, suspicions(program), of_curves, reached)
    if history.meta.get("fit"):  # goes on with what earlier fits of its run have trained
        of_program = [finding for finding in of_program if finding.name != "few_steps"]
    if history.meta.get("fit") or any(finding.name == "few_steps" for finding in of_program):  # which says so, too
        of_curves = [finding for finding in of_curves if finding.name != "few_epochs"]
    findings = _consistent(by_severity(_without_repetition([*of_program, *of_curves])))
    findings = with_probabilities(findings, IN_ORDER)
    return [*findings, next_try_of(findings)]


def next_try_of(findings: Sequence[Finding]) -> Finding:
    """Choose the suggestion of the first of `findings` that has one, with its numbers.

    Parameters
    ----------
    findings : sequence of Finding
        Findings, the most important first.

    Returns
    -------
    Finding
        The finding ``next_try``.
    """
    first = next((finding for finding in findings if finding.suggestion), None)
    if first is None:
        return Finding("next_try", "nothing", "Nothing more to try with these settings.", {})
    evidence = {k: v for k, v in first.evidence.items() if k.startswith("suggested_")}
    text = f"Next: {first.suggestion}.{odds(first)}"
    return first._replace(
        name="next_try", verdict="try", text=text, evidence=evidence, severity="fine", cause=None, where={}
    )


def _is_well_under_way(history: TrainingHistory) -> bool:
    """Whether a training that goes on has had the time to rise above guessing."""
    return history.n_epochs >= max(MIN_EPOCHS, UNDER_WAY * (history.program.fit.get("epochs") or 0))


def _with_recorded_rate(history: TrainingHistory) -> Program:
    """Description of the program with the learning rate that a callback has set, if it was the same from then on."""
    program, rates = history.program, history.steps.get("learning_rate", np.zeros(0))
    rate = program.optimizer.get("learning_rate")
    if (
        not isinstance(rate, (int, float))
        or not len(rates)
        or not np.isfinite(rates).all()
        or (rates != rates[-1]).any()
    ):
        return program
    return program._replace(optimizer={**program.optimizer, "learning_rate": float(rates[-1])})


def _gradient_norm(history: TrainingHistory) -> float | None:
    """Median norm of the gradients of all tensors together; None if it was not recorded."""
    norms = history.steps.get("gradient_norm", np.zeros(0))
    norms = norms[np.isfinite(norms)]
    return float(np.median(norms)) if len(norms) else None


def _n_recorded(history: TrainingHistory) -> int:
    """Number of values that are read of the tensors."""
    if history.recorded != "values":
        return history.n_steps * len(history.tensors)
    return history.n_steps * sum(math.prod(tensor.shape) for tensor in history.tensors)


def _in_order(results: Sequence[Finding | None]) -> list[Finding]:
    """Sort findings, drop those that others explain, and drop suggestions of minor ones if a major one has any."""
    by_name = {finding.name: finding for finding in results if finding is not None}
    keys: dict[str, set[Key]] = {name: {name, (name, finding.verdict)} for name, finding in by_name.items()}
    moot = {moot for each in keys.values() for key in each for moot in MOOT.get(key, ())}
    findings = [by_name[name] for name in IN_ORDER if name in by_name and not keys[name] & moot]
    suggested = any(finding.suggestion for finding in findings if finding.name not in MINOR)
    return [_without_suggestion(f) if suggested and f.name in MINOR else f for f in findings]


def _graded(findings: Sequence[Finding], history: TrainingHistory, n_classes: int | None) -> list[Finding]:
    """Make hints of the problems of a training that has succeeded all the same."""
    reached = success(history, n_classes=n_classes)
    if reached is None:
        return list(findings)
    return [f._replace(severity="hint") if reached >= HINTS.get(f.name, math.inf) else f for f in findings]


def _without_repetition(findings: Sequence[Finding]) -> list[Finding]:
    """Drop findings of a name that an earlier one has."""
    return list({finding.name: finding for finding in reversed(findings)}.values())[::-1]


def _consistent(findings: Sequence[Finding]) -> list[Finding]:
    """Drop the suggestions of findings that would change a parameter in another way than those before them."""
    proposed: dict[tuple[str, str | None], object] = {}
    consistent: list[Finding] = []
    for finding in findings:
        changes = {(each.parameter, each.layer): each.new for each in finding.change}
        differs = any(proposed.get(key, new) != new for key, new in changes.items())
        consistent.append(_without_suggestion(finding) if differs else finding)
        if not differs:
            proposed |= changes
    return consistent


def _without_suggestion(finding: Finding) -> Finding:
    numbers = {key: value for key, value in finding.evidence.items() if not key.startswith("suggested_")}
    return finding._replace(suggestion=None, evidence=numbers, change=(), probability=None)
