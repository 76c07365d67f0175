"""The best lies at the edge of the search space (playbook, "Identifying bad search space boundaries")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.analysis.review.effects import design, is_range, positions
from mlflow_hp.analysis.review.roles import is_budget, is_limit, is_share

if TYPE_CHECKING:
    from mlflow_hp.analysis.review.material import Material
    from mlflow_hp.analysis.search_space import Parameter

RISE = 2.5
"""Rise towards the edge, in standard errors, from which it is one."""
AT_EDGE = 0.5
"""Least share of the best candidates at the edge."""
MANY = 100.0
"""Standard errors from which their number says nothing more."""
OUTER = 0.2
"""Share of a range of drawn values that is its edge."""
FEWEST_LEVELS = 3
"""Fewest numbers tried that have an edge."""
FEWEST_NEAR = 5
"""Fewest candidates for that slope."""
NEAR = 0.5
"""Share of a range, from its edge, over which the slope towards the edge is taken."""


class Edge(NamedTuple):
    """Edge of a parameter's values at which the best lie.

    Attributes
    ----------
    name : str
        The parameter.
    is_upper : bool
        Whether it is the largest value.
    value : int or float
        The outermost value tried.
    rise : float
        Rise of the score towards it, in standard errors.
    """

    name: str
    is_upper: bool
    value: Any
    rise: float


def edges(material: Material) -> list[Edge]:
    """Find the edges at which the best candidates lie, of all numeric parameters with ``FEWEST_LEVELS`` values."""
    all_edges = (_edge(material, p) for p in material.parameters.values() if p.name not in material.idle)
    return [edge for edge in all_edges if edge is not None]


def edge_findings(material: Material) -> list[Finding]:
    """Report each edge of the space at which the best lie; that of the epochs is trained too short, or too long."""
    return [_finding(material, edge) for edge in edges(material)]


def _edge(material: Material, parameter: Parameter) -> Edge | None:
    if parameter.kind == "category" or len(parameter.levels) < FEWEST_LEVELS:
        return None
    place = positions(parameter)
    near = {
        False: place <= OUTER if is_range(parameter) else parameter.codes == 0,
        True: place >= 1 - OUTER if is_range(parameter) else parameter.codes == len(parameter.levels) - 1,
    }
    for is_upper, at_edge in near.items():
        value = parameter.levels[-1 if is_upper else 0]
        if not at_edge[material.best] or at_edge[material.top].mean() < AT_EDGE:
            continue
        if is_limit(parameter.name, value, upper=is_upper):
            continue
        if _next_failed(material, parameter, is_upper=is_upper):
            continue  # beyond lie those that failed
        rise = _rise(material, parameter, is_upper=is_upper)
        if rise >= RISE:
            return Edge(parameter.name, is_upper, value, rise)
    return None


def is_open(material: Material, parameter: Parameter, *, is_upper: bool) -> bool:
    """Whether values beyond the outermost one are worth a try: scores do not fall towards it, and none failed there."""
    outermost = len(parameter.levels) - 1 if is_upper else 0
    if is_limit(parameter.name, parameter.levels[outermost], upper=is_upper):
        return False
    if (material.failed & (parameter.codes == outermost)).any():
        return False
    return _rise(material, parameter, is_upper=is_upper) >= 0


def _next_failed(material: Material, parameter: Parameter, *, is_upper: bool) -> bool:
    """Whether candidates beyond the best's value failed: then it is no edge but the border of what works."""
    codes, best = parameter.codes, parameter.codes[material.best]
    beyond = codes > best if is_upper else codes < best
    return bool((beyond & material.failed).any())


def _rise(material: Material, parameter: Parameter, *, is_upper: bool) -> float:
    """Rise of the score towards the edge, in standard errors."""
    if not np.isfinite(material.noise):
        outermost = len(parameter.levels) - 1 if is_upper else 0
        return np.inf if (parameter.codes[material.top] == outermost).all() and material.top.size >= 3 else 0.0
    pairs = _pairs(material, parameter, is_upper=is_upper)
    if pairs.size:
        mean = material.mean
        better = pairs[np.argsort(-mean[pairs].sum(axis=1))][: max((len(pairs) + 1) // 2, 1)]
        rises = mean[better[:, 0]] - mean[better[:, 1]]
        return float(rises.mean() / max(material.noise * np.sqrt(2 / len(better)), 1e-15))
    return _slope(material, parameter, is_upper=is_upper)


def _pairs(material: Material, parameter: Parameter, *, is_upper: bool) -> np.ndarray:
    """Candidates at the edge and next to it that are alike in all else, shape (n, 2)."""
    if is_range(parameter):
        return np.zeros((0, 2), np.int64)
    last = len(parameter.levels) - 1
    outer, inner = (last, last - 1) if is_upper else (0, 1)
    others = [p.codes for p in material.parameters.values() if p.name != parameter.name]
    key = {row: tuple(int(codes[row]) for codes in others) for row in material.rows.tolist()}
    inside = {key[row]: row for row in key if parameter.codes[row] == inner}
    pairs = [(row, inside[key[row]]) for row in key if parameter.codes[row] == outer and key[row] in inside]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _slope(material: Material, parameter: Parameter, *, is_upper: bool) -> float:
    """Slope towards the edge over the range ``NEAR`` it, in standard errors; square in the other parameters."""
    place = positions(parameter)[material.rows]
    rows = material.rows[place >= 1 - NEAR if is_upper else place <= NEAR]
    rows = rows[: max((len(rows) + 1) // 2, FEWEST_NEAR)]
    others = [name for name in material.parameters if name != parameter.name]
    for names in (others, []):
        matrix, _ = design(material, rows, names)
        matrix = np.column_stack([matrix, positions(parameter)[rows] * (1 if is_upper else -1)])
        freedom = len(rows) - matrix.shape[1]
        if freedom >= 2:
            break
    else:
        return 0.0
    mean = material.mean[rows]
    coefficients, _, _, _ = np.linalg.lstsq(matrix, mean, rcond=None)
    residual = mean - matrix @ coefficients
    variance = max(float(residual @ residual) / freedom, material.noise**2)
    error = float(np.linalg.pinv(matrix.T @ matrix)[-1, -1] * variance) ** 0.5
    return float(coefficients[-1] / max(error, 1e-15))


def _finding(material: Material, edge: Edge) -> Finding:
    parameter = material.parameters[edge.name]
    label = parameter.labels[-1 if edge.is_upper else 0]
    side = "largest" if edge.is_upper else "smallest"
    new = beyond(parameter, is_upper=edge.is_upper)
    n_at = int((parameter.codes[material.top] == parameter.codes[material.best]).sum())
    evidence = {f"edge_rise/{edge.name}": edge.rise, "at_edge": n_at, "top": int(material.top.size)}
    far = f"{edge.rise:.1f} standard errors" if edge.rise < MANY else "in all of the best"
    change = (Change(edge.name, edge.value, new[-1] if edge.is_upper else new[0]),)
    values = ", ".join(f"{value:.4g}" for value in new)
    if is_budget(edge.name):
        verdict, name = ("trained too short", "too_short") if edge.is_upper else ("trained too long", "too_long")
    else:
        verdict, name = "best at the edge", "edge"
    text = f"The best lie at the {side} {edge.name} tried, {label}, and the scores still rise towards it ({far})."
    return Finding(
        f"{name}/{edge.name}", verdict, text, evidence, f"search {edge.name} at {values}", "problem",
        where={"parameter": edge.name}, change=change,
    )  # fmt: skip


def beyond(parameter: Parameter, *, is_upper: bool, n: int = 2) -> list[Any]:
    """Values around and beyond an edge: the one before it, it, and `n` further ones by the same step.

    Shares come halfway nearer to 1 with each; whole numbers stay whole; numbers that are positive stay so.

    Parameters
    ----------
    parameter : Parameter
        The numeric parameter.
    is_upper : bool
        Whether beyond the largest value.
    n : int
        How many further ones. Defaults to 2.

    Returns
    -------
    list of int or float
        Ascending.
    """
    levels = [float(level) for level in parameter.levels]
    outer, inner = (levels[-1], levels[-2]) if is_upper else (levels[0], levels[1])
    if is_range(parameter):
        low, high = levels[0], levels[-1]
        inner = (
            outer * (low / high) ** ((1 if is_upper else -1) / 4)
            if parameter.kind == "log"
            else outer - ((high - low) / 4 if is_upper else -(high - low) / 4)
        )
    whole = all(isinstance(level, (int, np.integer)) for level in parameter.levels)
    values = [inner, outer]
    for _ in range(n):
        last = values[-1]
        if is_share(parameter.name) and is_upper:
            following = 1 - (1 - last) / 2
        elif levels[0] > 0 and (parameter.kind == "log" or last + (outer - inner) <= 0):
            following = last * outer / inner
        else:
            following = max(last + outer - inner, 0.0) if levels[0] >= 0 else last + outer - inner
        values.append(following)
    rounded = [round(value) if whole else float(f"{value:.3g}") for value in values]
    rounded[:2] = [round(v) if whole else float(f"{v:.6g}") for v in values[:2]]
    return sorted({max(value, 1) if whole and levels[0] >= 1 else value for value in rounded})
