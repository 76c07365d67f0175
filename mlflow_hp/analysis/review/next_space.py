"""The next search space: all proposals of a review together, as plain values."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis.review.edges import beyond, edges, is_open
from mlflow_hp.analysis.review.effects import is_range, positions
from mlflow_hp.analysis.review.infeasible import regions
from mlflow_hp.analysis.review.nuisance import FEWEST_RATES
from mlflow_hp.analysis.review.roles import is_budget, is_rate
from mlflow_hp.analysis.search_space import ABSENT, identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.analysis.diagnosis.finding import Finding
    from mlflow_hp.analysis.review.edges import Edge
    from mlflow_hp.analysis.review.infeasible import Region
    from mlflow_hp.analysis.review.material import Material
    from mlflow_hp.analysis.search_space import Parameter

MARGIN = 0.125
"""Share of a range that a new range goes beyond the best candidates at each side."""
RATE_STEP = 10.0
"""Ratio of learning rates that are added."""
FEWEST_COMBINATIONS = 4
"""Combinations that are allowed after however small a search."""


class NextSpace(NamedTuple):
    """Next search space.

    Attributes
    ----------
    space : dict of str to list or dict
        Parameter -> its values, or ``{"low": ..., "high": ..., "log": ...}`` of a range.
    remarks : list of str
        What could not be written, in sentences.
    """

    space: dict[str, Any]
    remarks: list[str]


def next_space(material: Material, findings: Sequence[Finding], fixed: Mapping[str, Any]) -> NextSpace | None:
    """Combine all proposals; None if no parameter is left that can be written.

    Lists have at most as many combinations as the search had candidates, or ``FEWEST_RATES`` for each value compared.

    Parameters
    ----------
    material : Material
        The search.
    findings : sequence of Finding
        Those of the rules.
    fixed : mapping
        Further parameters of the estimator that no candidate sets.
    """
    at_edges = {edge.name: edge for edge in edges(material)}
    cut = {region.name: region for region in regions(material)[:1]}
    idle = set(material.idle)
    together = {name for pair in material.interactions for name in (pair.first, pair.second)}
    best = material.results.candidates[material.best]
    space: dict[str, Any] = {}
    remarks = []
    for name, value in best.items():
        values = [value]
        if name in material.parameters:
            parameter = material.parameters[name]
            values = _values(material, parameter, at_edges, cut, idle, together)
        plain = values if isinstance(values, dict) else [_plain(each) for each in values if each is not ABSENT]
        if isinstance(plain, list) and any(each is _UNKNOWN for each in plain):
            remarks.append(f"{name} is not in the next space: its values are no numbers or texts. Give it yourself.")
        else:
            space[name] = plain
    _tune_rate(material, space, findings, fixed)
    _lengthen(space, findings, fixed)
    if not any(isinstance(values, dict) for values in space.values()):
        compared = [len(space.get(name, ())) for name in _compared(findings)]
        n_most = max(len(material.results.candidates), FEWEST_RATES * max(compared, default=1), FEWEST_COMBINATIONS)
        _limit(material, space, n_most, at_edges)
    return NextSpace(space, remarks) if space else None


def n_combinations(space: Mapping[str, Any]) -> float:
    """Count the combinations of a space.

    Parameters
    ----------
    space : mapping of str to list or mapping
        As in `Review`.

    Returns
    -------
    float
        Their number; infinite if it has a range.
    """
    if any(isinstance(values, dict) for values in space.values()):
        return math.inf
    return math.prod(len(values) for values in space.values())


def _values(
    material: Material, parameter: Parameter, at_edges: Mapping[str, Edge], cut: Mapping[str, Region],
    idle: set[str], together: set[str],
) -> Any:  # fmt: skip
    """New values of a parameter that varied."""
    name, best = parameter.name, material.level(parameter.name)
    if name in idle and name not in at_edges:
        cheapest = material.winner.cheapest
        row = cheapest if cheapest in material.rows else material.best
        return [parameter.levels[parameter.codes[row]]]
    if name in at_edges:
        values = beyond(parameter, is_upper=at_edges[name].is_upper)
        return _range(parameter, values[0], values[-1]) if is_range(parameter) else values
    if parameter.kind == "category":
        rows = material.rows[: max(len(material.rows) // 2, 1)] if name in together else material.top
        codes = sorted({int(parameter.codes[row]) for row in rows})
        return [parameter.levels[code] for code in codes if name not in cut or code not in cut[name].codes]
    if is_range(parameter):
        return _narrowed(material, parameter, cut.get(name))
    return _finer(material, parameter, best, cut.get(name))


def _finer(material: Material, parameter: Parameter, best: Any, region: Region | None) -> list[Any]:
    """Return the best value between two that lie halfway to its neighbours; with a cut, none beyond it.

    Of the outermost value, the neighbour is the next one beyond it, where that is worth a try.
    """
    levels = parameter.levels
    place = next(code for code, level in enumerate(levels) if identity(level) == identity(best))
    neighbours = [levels[code] for code in (place - 1, place + 1) if 0 <= code < len(levels)]
    for is_upper, outermost in ((False, 0), (True, len(levels) - 1)):
        if place == outermost and is_open(material, parameter, is_upper=is_upper):
            neighbours.append(beyond(parameter, is_upper=is_upper, n=1)[-1 if is_upper else 0])
    values = [best]
    for neighbour in neighbours:
        low, high = sorted((float(neighbour), float(best)))
        middle = math.sqrt(low * high) if parameter.kind == "log" else (low + high) / 2
        values.append(_as(parameter, middle))
    if region is not None and region.is_upper is not None:
        first = levels[region.codes[0] if region.is_upper else region.codes[-1]]
        values = [value for value in values if (value < first) == region.is_upper]
    distinct = {identity(value): value for value in values}
    return sorted(distinct.values(), key=float)


def _narrowed(material: Material, parameter: Parameter, region: Region | None) -> dict[str, Any]:
    """Range of the best candidates with a margin, inside the earlier one and clear of what failed."""
    place = positions(parameter)
    rows = material.rows[: max(material.top.size, 3)]
    allowed = (0.0, 1.0)
    if region is not None and region.is_upper is not None:
        outside = place[~np.isin(parameter.codes, region.codes)]
        allowed = (0.0, float(outside.max())) if region.is_upper else (float(outside.min()), 1.0)
    low = max(float(place[rows].min()) - MARGIN, allowed[0])
    high = min(float(place[rows].max()) + MARGIN, allowed[1])
    return _range(parameter, *(_as(parameter, _number(parameter, each)) for each in (low, high)))


def _number(parameter: Parameter, place: float) -> float:
    """Return the number at a place between the smallest, 0, and the largest, 1."""
    low, high = float(parameter.levels[0]), float(parameter.levels[-1])
    return low * (high / low) ** place if parameter.kind == "log" else low + (high - low) * place


def _range(parameter: Parameter, low: Any, high: Any) -> Any:
    """Range as a dict; a single value as a list."""
    low, high = _plain(low), _plain(high)
    if not low < high:
        return [low]
    is_log = parameter.kind == "log" and low > 0 and not isinstance(low, int)
    return {"low": low, "high": high, **({"log": True} if is_log else {})}


def _as(parameter: Parameter, value: float) -> int | float:
    """Whole where all values of the parameter are, else three digits."""
    if all(isinstance(level, (int, np.integer)) for level in parameter.levels):
        return round(value)
    return float(f"{value:.3g}")


def _compared(findings: Sequence[Finding]) -> list[str]:
    """Names of the parameters for whose values the rate was not tuned."""
    return [finding.where["parameter"] for finding in findings if finding.name.startswith("nuisance/")]


def _tune_rate(
    material: Material, space: dict[str, Any], findings: Sequence[Finding], fixed: Mapping[str, Any]
) -> None:
    """Add learning rates where a comparison lacks them, with the values that are compared."""
    compared = _compared(findings)
    if not compared:
        return
    used = {**fixed, **material.results.candidates[material.best]}
    known = {name: value for name, value in used.items() if is_rate(name)}
    for name, value in known.items():
        has = space.get(name, [value])
        if isinstance(value, (int, float)) and value > 0 and isinstance(has, list) and len(has) < FEWEST_RATES:
            steps = (1 / RATE_STEP, 1, RATE_STEP)
            space[name] = [float(f"{value * step:.3g}") for step in steps]
    for name in compared:
        values = [_plain(level) for level in material.parameters[name].levels]
        if name in space and _UNKNOWN not in values:
            space[name] = values


def _lengthen(space: dict[str, Any], findings: Sequence[Finding], fixed: Mapping[str, Any]) -> None:
    """Apply what the curves say about the epochs."""
    names = [name for name in (*space, *fixed) if is_budget(name) and name.endswith("epochs")]
    for finding in findings:
        if finding.name in ("too_short", "too_long") and names:
            space[names[0]] = [finding.change[0].new]


def _limit(material: Material, space: dict[str, Any], most: int, at_edges: Mapping[str, Edge]) -> None:
    """Leave out values that are the farthest from the best until there are at most `most` combinations."""
    best = material.results.candidates[material.best]
    while n_combinations(space) > most:
        longest = max(len(values) for values in space.values())
        name = max(space, key=lambda each: (len(space[each]) == longest, each not in at_edges))
        values = space[name]
        numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        if name in at_edges and numeric:
            values.pop(0 if at_edges[name].is_upper and len(values) > 2 else -1)
        elif name in best and len(values) > 1:
            values.remove(next(value for value in reversed(values) if value != _plain(best[name])))
        else:
            values.pop()


_UNKNOWN = object()


def _plain(value: Any) -> Any:
    """Value as YAML and JSON have it; ``_UNKNOWN`` for others."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (tuple, list)):
        inner = [_plain(each) for each in value]
        return _UNKNOWN if _UNKNOWN in inner else inner
    return _UNKNOWN
