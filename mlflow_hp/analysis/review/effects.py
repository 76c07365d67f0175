"""Parameters without effect, and parameters that act only together.

Playbook, "Extracting insight from experimental results" and "Identifying scientific, nuisance and fixed
hyperparameters": what has no effect is fixed; what interacts is searched together.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Change, Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.analysis.review.material import Material
    from mlflow_hp.analysis.search_space import Parameter

SMALL = 0.33
"""Effect, its error included, over that of the strongest parameter, below which a parameter has none."""
ERRORS = 2.0
"""Standard errors that are added to an effect before it is called none."""
NOTHING = 0.02
"""Level above which the variation over a parameter's values is what the folds explain."""
MOST_LEVELS = 6
"""Values up to which each is a group of its own; others are put into ``BINS`` groups."""
BINS = 3
MOST_LISTED, UNEVEN = 8, 0.5
"""Numbers up to which they are a list, and unevenness of their steps from which more of them are draws."""
VISIBLE = 3.0
"""Standard errors from which an effect is one, however small."""
MOST_EMPTY = 0.25
"""Share of the pairs of values that may be missing in a grid."""
CROSSING = 3.5
"""Standard errors by which each of two values has to win where the other loses, for an interaction."""
LEVEL = 0.005
"""Level of an interaction in a fitted surface, over all pairs."""
MOVE = 0.3
"""Share of a range by which a parameter's optimum has to move with another parameter."""
BETTER = 2 / 3
"""Share of the candidates, the better ones, in which effects are measured: in the others, everything is bad."""
TINY = 1e-12
"""Effects below this are rounding errors."""
FREEDOM = 4
"""Fewest candidates beyond the number of terms of a surface."""


class Interaction(NamedTuple):
    """Two parameters of which the best value of one depends on the other."""

    first: str
    second: str
    strength: float
    """In standard errors."""


def is_range(parameter: Parameter) -> bool:
    """Whether the values of a parameter are numbers drawn from a range: many, few of them shared, not evenly spaced."""
    if parameter.kind == "category" or len(parameter.levels) <= MOST_LISTED:
        return False
    steps = np.diff(np.unique(positions(parameter)))
    return 2 * len(parameter.levels) > len(parameter.codes) and float(np.ptp(steps)) > UNEVEN * float(steps.mean())


def positions(parameter: Parameter) -> np.ndarray:
    """Place of each candidate between a parameter's smallest value, 0, and its largest, 1, on its scale."""
    numbers = parameter.numbers
    numbers = np.log(numbers) if parameter.kind == "log" else numbers
    return np.asarray((numbers - numbers.min()) / max(float(np.ptp(numbers)), 1e-300))


def design(material: Material, rows: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """Terms of a quadratic surface without products.

    Returns
    -------
    matrix : ndarray of shape (n, n_terms)
        A constant; place (-1 to 1) and its square of each number; indicators of each category but one.
    columns : dict of str to tuple of int
        Columns of place and square of each numeric parameter.
    """
    terms, columns = [np.ones(len(rows))], {}
    for name in names:
        parameter = material.parameters[name]
        if parameter.kind == "category":
            present = np.unique(parameter.codes[rows])
            terms += [(parameter.codes[rows] == level).astype(float) for level in present[1:]]
        else:
            place = 2 * positions(parameter)[rows] - 1
            columns[name] = (len(terms), len(terms) + 1)
            terms += [place, place**2]
    return np.stack(terms, axis=1), columns


def without_effect(material: Material) -> list[str]:
    """Names of the parameters whose effect among the better candidates is none, others having one."""
    if len(material.parameters) < 2 or not np.isfinite(material.noise):
        return []
    measured = {name: _effect(material, name) for name in material.parameters}
    effects = {name: effect for name, effect in measured.items() if effect is not None}
    if len(effects) < len(measured):
        return []
    names = []
    for name, (size, error) in effects.items():
        strongest = max(other_size for other, (other_size, _) in effects.items() if other != name)
        is_small = size + ERRORS * error <= SMALL * strongest and size <= VISIBLE * error
        if is_small and not _acts_in_places(material, name):
            names.append(name)
    return names


def effect_findings(material: Material) -> list[Finding]:
    """Report each parameter without an effect on the better candidates."""
    return [_idle_finding(material, name) for name in material.idle]


def _idle_finding(material: Material, name: str) -> Finding:
    parameter = material.parameters[name]
    size, error = _effect(material, name) or (0.0, 0.0)
    size = size if size > TINY else 0.0
    text = (
        f"Among the better candidates the values of {name} differ by {size:.2g} (standard error {error:.2g}): no more "
        "than the folds explain, and little next to the other parameters."
    )
    advice = f"leave {name} at {parameter.labels[parameter.codes[material.best]]}"
    evidence = {f"effect/{name}": size, f"effect_error/{name}": error}
    change = (Change(name, None, material.level(name)),)
    where = {"parameter": name}
    return Finding(f"no_effect/{name}", "without effect", text, evidence, advice, "hint", where=where, change=change)


def interactions(material: Material) -> list[Interaction]:
    """Find the pairs of parameters of which the best value of one depends on that of the other."""
    if not np.isfinite(material.noise):
        return []
    pairs = []
    combinations = list(itertools.combinations(material.parameters, 2))
    for first, second in combinations:
        level = LEVEL / len(combinations)
        strength = _crossing(material, first, second, level)
        strength = _product(material, first, second, level) if strength is None else strength
        if strength >= CROSSING:
            pairs.append(Interaction(first, second, strength))
    return sorted(pairs, key=lambda pair: -pair.strength)


def interaction_findings(material: Material) -> list[Finding]:
    """Report each pair of parameters that act only together."""
    return [
        Finding(
            f"interaction/{pair.first}/{pair.second}",
            "act together",
            f"Which {pair.first} is the best depends on {pair.second} (by {pair.strength:.1f} standard errors).",
            {f"interaction/{pair.first}/{pair.second}": pair.strength},
            f"search {pair.first} and {pair.second} together, and judge neither alone",
            "hint",
            where={"parameter": pair.first, "with": pair.second},
        )
        for pair in material.interactions
    ]


def groups(parameter: Parameter) -> np.ndarray:
    """Group of each candidate, (n_candidates,): its level, or of many its third of them."""
    if len(parameter.levels) <= MOST_LEVELS:
        return parameter.codes
    return np.asarray(np.minimum(parameter.codes * BINS // len(parameter.levels), BINS - 1))


def _better(material: Material, name: str) -> np.ndarray:
    """Rows of the better candidates, chosen by all parameters but `name` where they come in a grid."""
    cells = _cells(material, name)
    if not cells:
        return material.rows
    mean = material.mean
    ordered = sorted(cells, key=lambda rows: -mean[rows].mean())
    return np.concatenate(ordered[: max((len(ordered) + 1) // 2, 1)])


def _cells(material: Material, name: str) -> list[np.ndarray]:
    """Candidates that differ in `name` alone and have all of its values; empty unless they come in a grid."""
    parameter = material.parameters[name]
    others = [p.codes for p in material.parameters.values() if p.name != name]
    by_key: dict[tuple[int, ...], list[int]] = {}
    for row in material.rows.tolist():
        by_key.setdefault(tuple(int(codes[row]) for codes in others), []).append(row)
    n_levels = len(np.unique(parameter.codes[material.rows]))
    cells = [np.array(rows) for rows in by_key.values() if len(rows) == n_levels]
    return cells if n_levels > 1 and len(cells) >= 2 and 2 * len(cells) >= len(by_key) else []


def _effect(material: Material, name: str) -> tuple[float, float] | None:
    """Difference of the best and the worst group of a parameter, and its standard error; no products of parameters."""
    rows = _better(material, name)
    terms, own = [np.ones(len(rows))], []
    for other, parameter in material.parameters.items():
        group = groups(parameter)[rows]
        if other == name or parameter.kind == "category":
            present = np.unique(group)
            columns = [(group == level).astype(float) for level in present[1:]]
        else:
            place = 2 * positions(parameter)[rows] - 1
            columns = [place, place**2]
        if other == name:
            own = list(range(len(terms), len(terms) + len(columns)))
        terms += columns
    matrix = np.stack(terms, axis=1)
    if len(rows) - matrix.shape[1] < 1 or not own:
        return None
    y = material.mean[rows]
    coefficients, _, rank, _ = np.linalg.lstsq(matrix, y, rcond=None)
    residual = y - matrix @ coefficients
    cells = _cells(material, name)
    variance = material.noise**2
    if not cells:
        variance = max(variance, float(residual @ residual) / max(len(rows) - rank, 1))
    covariance = np.linalg.pinv(matrix.T @ matrix) * variance
    levels = np.concatenate([[0.0], coefficients[own]])
    high, low = int(levels.argmax()), int(levels.argmin())
    contrast = np.zeros(matrix.shape[1])
    for sign, level in ((1.0, high), (-1.0, low)):
        if level:
            contrast[own[level - 1]] += sign
    return float(np.ptp(levels)), float(np.sqrt(contrast @ covariance @ contrast))


def _acts_in_places(material: Material, name: str) -> bool:
    """Whether the scores vary with a parameter more than by noise where all else is the same."""
    from scipy.stats import chi2

    cells = _cells(material, name)
    if not cells:
        return any(name in (pair.first, pair.second) for pair in material.interactions)
    mean = material.mean
    within = sum(float(((mean[rows] - mean[rows].mean()) ** 2).sum()) for rows in cells)
    freedom = sum(len(rows) - 1 for rows in cells)
    return bool(chi2.sf(within / material.noise**2, freedom) < NOTHING)


def _crossing(material: Material, first: str, second: str, level: float) -> float | None:
    """Standard errors by which the best value of `first` changes with `second`; None unless they come in a grid.

    0 unless it is significant at `level` over all that could have been chosen.
    """
    from scipy.stats import norm

    a, b = material.parameters[first], material.parameters[second]
    if is_range(a) or is_range(b):
        return None
    others = [p.codes for p in material.parameters.values() if p.name not in (first, second)]
    shape = (len(a.levels), len(b.levels))
    blocks: dict[tuple[int, ...], np.ndarray] = {}
    for row in material.rows.tolist():
        table = blocks.setdefault(tuple(int(codes[row]) for codes in others), np.full(shape, np.nan))
        table[a.codes[row], b.codes[row]] = material.mean[row]
    tables = np.stack(list(blocks.values()))
    n = np.isfinite(tables).sum(axis=0)
    if (n == 0).mean() > MOST_EMPTY:
        return None
    centred = tables - np.nanmean(tables, axis=(1, 2), keepdims=True)  # cells that failed must not count for others
    table = np.where(n > 0, np.nansum(centred, axis=0) / np.maximum(n, 1), -np.inf)
    strongest = 0.0
    for one, other in itertools.combinations(range(shape[1]), 2):
        x, y = int(table[:, one].argmax()), int(table[:, other].argmax())
        wins = (tables[:, x, one] - tables[:, y, one], tables[:, y, other] - tables[:, x, other])
        pairs = [win[np.isfinite(win)] for win in wins]
        if x == y or not all(map(len, pairs)):
            continue
        strengths = [float(pair.mean() / max(material.noise * np.sqrt(2 / len(pair)), 1e-15)) for pair in pairs]
        strongest = max(strongest, min(strengths))
    n_choices = math.comb(shape[0], 2) * math.comb(shape[1], 2)
    return strongest if strongest >= norm.isf(level / n_choices) else 0.0


def _product(material: Material, first: str, second: str, level: float) -> float:
    """Size of the product of two parameters in a quadratic surface through the better candidates, in errors.

    0 unless it is significant at `level`, and moves the optimum of a number by ``MOVE`` of its range or more.
    """
    from scipy.stats import norm
    from scipy.stats import t as student

    rows = material.rows[: max(int(np.ceil(BETTER * material.rows.size)), FREEDOM)]
    matrix, columns = design(material, rows, list(material.parameters))
    products = _products(material, rows, first, second)
    whole = np.column_stack([matrix, products])
    freedom = len(rows) - whole.shape[1]
    if freedom < FREEDOM:
        return 0.0
    y = material.mean[rows]
    coefficients, _, _, _ = np.linalg.lstsq(whole, y, rcond=None)
    residual = y - whole @ coefficients
    variance = max(float(residual @ residual) / freedom, material.noise**2)
    errors = np.sqrt(np.diag(np.linalg.pinv(whole.T @ whole)) * variance)[matrix.shape[1] :]
    ratios = np.abs(coefficients[matrix.shape[1] :]) / np.maximum(errors, 1e-15)
    if not ratios.size:
        return 0.0
    largest = int(ratios.argmax())
    p = 2 * float(student.sf(ratios[largest], freedom)) * ratios.size
    size = abs(float(coefficients[matrix.shape[1] + largest]))
    bends = [-float(coefficients[columns[name][1]]) for name in (first, second) if name in columns]
    moves = [size / bend / 2 for bend in bends if bend > 0]  # on a range of -1 to 1, between the ends of the other
    if p > level or (bends and not any(move >= MOVE for move in moves)):
        return 0.0
    return float(norm.isf(max(p, 1e-300) / 2))


def _products(material: Material, rows: np.ndarray, first: str, second: str) -> np.ndarray:
    """Products of the terms of first order of two parameters."""
    terms = []
    for name in (first, second):
        parameter = material.parameters[name]
        if parameter.kind == "category":
            present = np.unique(parameter.codes[rows])
            terms.append([(parameter.codes[rows] == level).astype(float) for level in present[1:]])
        else:
            terms.append([2 * positions(parameter)[rows] - 1])
    return np.stack([x * y for x in terms[0] for y in terms[1]] or [np.zeros(len(rows))], axis=1)
