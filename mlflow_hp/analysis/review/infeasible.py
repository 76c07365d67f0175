"""Regions of the space that cannot be trained in (playbook, "Choosing the search space": infeasible points)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Change, Finding
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.analysis.review.material import Material
    from mlflow_hp.analysis.search_space import Parameter

FEWEST_FAILED = 2
"""Failed candidates from which a region is seen."""
PURITY = 0.75
"""Least share of failed candidates in the region, and least share of the failed that are in it."""
MOST_CUTS = 100
"""Places at which a range is cut, at most."""
LEVEL = 0.1
"""Largest probability that failures at random lie so (Fisher's exact test, one-sided)."""


class Region(NamedTuple):
    """Values of a parameter at which candidates fail.

    Attributes
    ----------
    name : str
        The parameter.
    codes : tuple of int
        Levels at which they fail; of a number all from one on.
    is_upper : bool or None
        Whether these are the largest; None for a category.
    n_failed, n : int
        Failed candidates, and all, in the region.
    is_next_to_best : bool
        Whether the best has the value next to it.
    """

    name: str
    codes: tuple[int, ...]
    is_upper: bool | None
    n_failed: int
    n: int
    is_next_to_best: bool


def regions(material: Material) -> list[Region]:
    """Find the regions where candidates fail: at most one for each parameter, the purest first."""
    if material.failed.sum() < FEWEST_FAILED or material.failed.all():
        return []
    judged = material.failed | np.isin(np.arange(len(material.failed)), material.rows)
    candidates = []
    for parameter in material.parameters.values():
        scored = [region for region in _splits(material, parameter, judged) if region is not None]
        if scored:
            candidates.append(max(scored, key=lambda pair: pair[0]))
    candidates.sort(key=lambda pair: -pair[0])
    return [region for _, region in candidates]


def infeasible_findings(material: Material) -> list[Finding]:
    """Report each region in which candidates fail."""
    return [_finding(material, region) for region in regions(material)]


def _splits(material: Material, parameter: Parameter, judged: np.ndarray) -> list[tuple[float, Region] | None]:
    """Each way to cut off values at an end, or one category, with its purity."""
    n_levels = len(parameter.levels)
    cuts: list[tuple[tuple[int, ...], bool | None]]
    if parameter.kind == "category":
        cuts = [((level,), None) for level in range(n_levels)]
    else:
        at_failed = np.unique(parameter.codes[material.failed])
        ends = at_failed[np.unique(np.linspace(0, len(at_failed) - 1, MOST_CUTS).round().astype(int))].tolist()
        cuts = [(tuple(range(start, n_levels)), True) for start in ends if start > 0]
        cuts += [(tuple(range(stop + 1)), False) for stop in ends if stop < n_levels - 1]
    return [_judged(material, parameter, judged, codes, is_upper=is_upper) for codes, is_upper in cuts]


def _judged(
    material: Material, parameter: Parameter, judged: np.ndarray, codes: tuple[int, ...], *, is_upper: bool | None
) -> tuple[float, Region] | None:
    from scipy.stats import hypergeom

    inside = np.isin(parameter.codes, codes) & judged
    n, n_failed, n_all = int(inside.sum()), int((inside & material.failed).sum()), int(material.failed.sum())
    if n_failed < FEWEST_FAILED or n_failed < PURITY * n or n_failed < PURITY * n_all:
        return None
    if hypergeom.sf(n_failed - 1, int(judged.sum()), n_all, n) > LEVEL:
        return None
    best = int(parameter.codes[material.best])
    if best in codes:
        return None
    neighbours = {codes[0] - 1, codes[-1] + 1}
    next_to = is_upper is not None and (
        best in neighbours or any(int(parameter.codes[row]) in neighbours for row in material.top)
    )
    quality = n_failed / n + n_failed / n_all - n / len(judged) * 1e-3
    return quality, Region(parameter.name, codes, is_upper, n_failed, n, bool(next_to))


def _finding(material: Material, region: Region) -> Finding:
    parameter = material.parameters[region.name]
    label = parameter.labels[region.codes[0] if region.is_upper is not False else region.codes[-1]]
    where = {True: f"of {label} or more", False: f"of {label} or less", None: f"= {label}"}[region.is_upper]
    name = region.name
    text = (
        f"{count(region.n_failed, 'candidate')} of {region.n} with {name} {where} failed, diverged or learned nothing, "
        f"and few or none elsewhere."
    )
    if region.is_next_to_best:
        text += " The best stand next to them: how far one may go there is not known."
    keep = [p for code, p in enumerate(parameter.levels) if code not in region.codes]
    bound = None if region.is_upper is None else keep[-1] if region.is_upper else keep[0]
    advice = {
        True: f"search {name} below {label}, finely next to it (a warm-up or clipped gradients allow more)",
        False: f"search {name} above {label}",
        None: f"leave {name} = {label} out",
    }[region.is_upper]
    return Finding(
        f"infeasible/{name}", "infeasible region", text,
        {f"failed_inside/{name}": region.n_failed, f"inside/{name}": region.n},
        advice, "problem" if region.is_next_to_best else "hint",
        where={"parameter": name}, change=() if bound is None else (Change(name, None, bound),),
    )  # fmt: skip
