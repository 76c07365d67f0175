"""The paths of descents over each other on the surface that they have in common."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis.surfaces.beale import BealeSurface
from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
from mlflow_hp.compare import figures
from mlflow_hp.compare.formatting import count
from mlflow_hp.compare.section import Section
from mlflow_hp.plots.surface import Surface, surface_info

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.colors import Colouring
    from mlflow_hp.compare.comparability import Group
    from mlflow_hp.compare.run_summary import RunFacts
    from mlflow_hp.compare.source import Source
    from mlflow_hp.plots.surface import SurfaceInfo

PATHS = 20
"""Paths that are drawn, the best."""
POINTS = 1500
"""Points of a path that are drawn; a longer one is thinned evenly."""
WHOLE = 50_000
"""Points of a path that are read: a longer one is left out."""
GRID_STEP = 2
"""Of the grid that pictures have, every second point each way: contours need no more."""
SURFACE = ("surface/w", "surface/b", "surface/J", "surface/variance_x", "surface/mean_x")
"""Metrics with which a linear regression says its cost surface: its minimum, and the moments of the feature."""
BEALE = ("x", "y", "f", "distance")
BEALE_WINDOW = 4.5


class Plane(NamedTuple):
    """Where descents take place.

    Attributes
    ----------
    surface : Surface
    metrics : tuple of str
        Those that hold the two coordinates of each run's path, by step.
    labels : tuple of str
    best : str
        What the minimum is called.
    window : tuple or None
        What is shown; None for what minimum and paths need.
    """

    surface: Surface
    metrics: tuple[str, str]
    labels: tuple[str, str]
    best: str
    window: Any


def descents_sections(group: Group, key: str, source: Source, colouring: Colouring) -> list[Section]:
    """A figure for each surface that at least one run of the group descended on; runs in order, so the best."""
    by_surface: dict[tuple[Any, ...], list[RunFacts]] = {}
    for run in group.runs:
        if (known := _surface_of(run)) is not None:
            by_surface.setdefault(known, []).append(run)
    found = []
    for index, (known, runs) in enumerate(by_surface.items()):
        section = _section(known, runs, source, colouring, f"{key}-{index + 1}")
        found += [section] if section is not None else []
    return found


def surface_numbers(surface: LinearRegressionSurface) -> dict[str, float]:
    """What a run has to log, as metrics, for its descent to be drawn on the surface that others share."""
    best, mean = surface.minimum, surface.hessian[0, 1] / 2
    variance = surface.eigenvalues.prod() / 4  # the determinant of the Hessian is 4 var(x)
    return dict(zip(SURFACE, (best.w, best.b, best.cost, float(variance), float(mean)), strict=True))


def linear_regression(w: float, b: float, cost: float, variance: float, mean: float) -> LinearRegressionSurface:
    """The surface with this minimum, of a feature with this variance and mean: by four points that have all of that.

    A linear regression's cost depends on its data by their moments alone.
    """
    spread, residual = math.sqrt(variance), math.sqrt(max(cost, 0.0))
    x = mean + spread * np.array([-1.0, -1.0, 1.0, 1.0])
    return LinearRegressionSurface(x, w * x + b + residual * np.array([-1.0, 1.0, -1.0, 1.0]))


def _surface_of(run: RunFacts) -> tuple[Any, ...] | None:
    """What a run's surface is known by: the same for runs on the same one."""
    if all(name in run.metrics for name in SURFACE):
        names = sorted(name for name in run.metrics if name.startswith("weights/"))
        # 12 digits: the same data make the same moments, but for the last bits on another machine
        numbers = tuple(float(f"{run.metrics[name]:.12g}") for name in SURFACE)
        return (*numbers, *names) if len(names) == len(SURFACE) - 3 and numbers[3] > 0 else None
    beale = run.tag("experiment") == "beale" and all(name in run.metrics for name in BEALE)
    return ("beale",) if beale else None


def _plane(known: tuple[Any, ...]) -> Plane:
    if known == ("beale",):
        window = ((-BEALE_WINDOW, BEALE_WINDOW),) * 2
        return Plane(BealeSurface(), ("x", "y"), ("x", "y"), "minimum (3, 0.5), f", window)
    bias, weight = sorted(known[-2:], key=lambda name: not name.endswith("bias"))
    surface = linear_regression(*known[: len(SURFACE)])
    return Plane(surface, (weight, bias), ("weight w", "bias b"), "least squares, J", None)


def _section(
    known: tuple[Any, ...], runs: Sequence[RunFacts], source: Source, colouring: Colouring, key: str
) -> Section | None:
    plane, chosen = _plane(known), runs[:PATHS]
    ids = [run.run_id for run in chosen]
    both = [source.points(ids, metric, WHOLE // 2) for metric in plane.metrics]
    paths = {}
    for run_id in ids:
        points = [each[run_id] for each in both if run_id in each]
        if len(points) == 2 and all(p.n == len(p.steps) for p in points):
            steps, here, there = np.intersect1d(points[0].steps, points[1].steps, return_indices=True)
            even = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), POINTS)).astype(int))
            paths[run_id] = (points[0].values[here][even], points[1].values[there][even])
    paths = {run_id: path for run_id, path in paths.items() if len(path[0]) and np.isfinite(path[0][0] + path[1][0])}
    if not paths:
        return None
    info = surface_info(plane.surface, paths, plane.labels, window=plane.window, best=plane.best)
    drawn = [run for run in chosen if run.run_id in paths]
    where = "Beale's function" if known == ("beale",) else "the exact cost surface of the same data"
    words = [said := f"{count(len(drawn), 'descent')} on {where}."]
    if len(runs) > len(drawn):
        words.append(f"{len(runs) - len(drawn)} more are not drawn: the best {PATHS} are whose path is in MLflow.")
    if leaving := [run.name for run in drawn if info.paths[run.run_id].cut]:
        words.append(f"{len(leaving)} of them {'ends' if len(leaving) == 1 else 'end'} outside the picture.")
    return Section(key, "Descents on one surface", 3, words, None, _figure(info, drawn, colouring), said)


def _figure(info: SurfaceInfo, runs: Sequence[RunFacts], colouring: Colouring) -> dict[str, Any]:
    """Contours of the logarithm of the height above the minimum, and the paths."""
    every = slice(None, None, GRID_STEP)
    above = np.maximum(info.cost[every, every] - info.minimum[2], info.levels[0] - info.minimum[2])
    with np.errstate(divide="ignore"):
        height = np.log10(above)
    contours: dict[str, Any] = {
        "type": "contour",
        "x": [float(f"{v:.6g}") for v in info.w[every]],
        "y": [float(f"{v:.6g}") for v in info.b[every]],
        "z": [[float(f"{v:.4g}") if math.isfinite(v) else None for v in row] for row in height],
        "ncontours": 24,
        "colorscale": [[0, "rgba(0,114,178,0.6)"], [1, "rgba(0,114,178,0.03)"]],
        "contours": {"coloring": "heatmap"},
        "line": {"width": 0.6, "color": "rgba(90,130,160,0.7)"},
        "colorbar": {"title": {"text": "log10 of the height<br>above the minimum", "side": "right"}, "thickness": 12},
        "hovertemplate": "(%{x}, %{y})<extra></extra>",
        "showlegend": False,
    }
    data = [contours]
    for run in runs:
        path = info.paths[run.run_id]
        name = figures.text(f"{run.name}, {run.author}", 90).replace("%{", "% {")
        own = colouring.of(run)
        n = len(path.w)
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [float(f"{v:.7g}") for v in path.w],
                "y": [float(f"{v:.7g}") for v in path.b],
                "marker": {
                    "size": [8, *[0] * (n - 2), 10][:n] if not path.cut else [8, *[0] * (n - 1)],
                    "symbol": ["square-open", *["circle"] * (n - 1)],
                    "color": own["line"]["color"],
                    "opacity": 1,
                },
                "hovertemplate": "(%{x}, %{y})<extra>" + name + "</extra>",
                **own,
            }
        )
    w, b, lowest = info.minimum
    star = {"size": 14, "symbol": "star", "color": "#E69F00", "line": {"width": 1, "color": "#555555"}}
    named = f"{info.best} = {lowest:.4g}"
    data.append({"type": "scatter", "mode": "markers", "x": [w], "y": [b], "name": named, "marker": star})
    x, y = (
        {"title": {"text": figures.text(label)}, "range": [float(ends[0]), float(ends[-1])]}
        for label, ends in zip(info.labels, (info.w, info.b), strict=True)
    )
    return figures.figure(data, x, y, height=520)
