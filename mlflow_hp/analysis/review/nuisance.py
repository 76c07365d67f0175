"""The learning rate has to be tuned again for each value of what is compared.

Playbook, "Identifying scientific, nuisance, and fixed hyperparameters".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Finding
from mlflow_hp.analysis.review.effects import is_range
from mlflow_hp.analysis.review.roles import OPTIMIZER, SCIENTIFIC, is_limit, is_rate
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.analysis.review.material import Material
    from mlflow_hp.analysis.search_space import Parameter

FEWEST_RATES = 3
"""Learning rates for each value from which its best one is known."""
MOST_VALUES = 6
"""Values up to which a parameter is a comparison of its values."""
RISE = 2.0
"""Standard errors by which a value's score rises to the edge of its learning rates."""


def nuisance_findings(material: Material) -> list[Finding]:
    """Report each comparison whose learning rate was not tuned for each of its values."""
    rates = [p for p in material.parameters.values() if is_rate(p.name) and p.kind != "category"]
    findings = []
    for parameter in material.parameters.values():
        if not _is_compared(parameter):
            continue
        reason = _untuned(material, parameter, rates[0]) if rates else _without_rate(parameter)
        if reason is not None:
            rate = rates[0].name if rates else "the learning rate"
            findings.append(
                Finding(
                    f"nuisance/{parameter.name}", "no conclusion", f"{reason}: which {parameter.name} is the best "
                    "cannot be concluded.", {f"values/{parameter.name}": len(parameter.levels)},
                    f"search {rate} for each {parameter.name}, with {FEWEST_RATES} values or more, none of the best at "
                    "the edge", "problem", where={"parameter": parameter.name},
                )
            )  # fmt: skip
    return findings


def _is_compared(parameter: Parameter) -> bool:
    named = parameter.kind == "category" or bool(SCIENTIFIC.search(parameter.name))
    return named and 2 <= len(parameter.levels) <= MOST_VALUES and not is_rate(parameter.name)


def _without_rate(parameter: Parameter) -> str | None:
    """Optimizers differ in the scale of their rates; that others have a rate at all is not known here."""
    if OPTIMIZER.search(parameter.name):
        return f"Every {parameter.name} had the same learning rate"
    return None


def _untuned(material: Material, parameter: Parameter, rate: Parameter) -> str | None:
    """Why the rate is not tuned for each value; None if it is."""
    by_value = [np.flatnonzero(parameter.codes == level) for level in range(len(parameter.levels))]
    fewest = [len(np.unique(rate.codes[rows])) for rows in by_value]
    if min(fewest) < FEWEST_RATES:
        label = parameter.labels[int(np.argmin(fewest))]
        return f"With {parameter.name} {label} {rate.name} has only {count(min(fewest), 'value')}"
    if parameter.kind != "category" or not np.isfinite(material.noise) or is_range(rate):
        return None
    best_value = int(parameter.codes[material.best])
    for level, rows in enumerate(by_value):
        side = _edge_of(material, rows, rate)
        if level != best_value and side is not None:
            return f"With {parameter.name} {parameter.labels[level]} the {side} {rate.name} is the best one"
    return None


def _edge_of(material: Material, rows: np.ndarray, rate: Parameter) -> str | None:
    """Side of the rates tried at which the best of some candidates clearly lies."""
    mean = material.mean
    levels = np.unique(rate.codes[rows])
    profile = np.array([np.nanmax(np.where(material.failed[at], np.nan, mean[at]), initial=-np.inf)
                        for level in levels for at in [rows[rate.codes[rows] == level]]])  # fmt: skip
    if not np.isfinite(profile).any():
        return None
    place = int(profile.argmax())
    for at, inner, side in ((0, 1, "smallest"), (len(levels) - 1, len(levels) - 2, "largest")):
        value = rate.levels[levels[at]]
        if place == at and not is_limit(rate.name, value, upper=side == "largest"):
            rise = profile[at] - profile[inner]
            if np.isfinite(rise) and rise >= RISE * np.sqrt(2) * material.noise:
                return side
    return None
