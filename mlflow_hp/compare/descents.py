"""Paths of gradient descents on the cost surface that they share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis.downsampling import downsample
from mlflow_hp.analysis.surfaces.beale import BealeSurface
from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
from mlflow_hp.compare import figures
from mlflow_hp.compare.formatting import count, with_author
from mlflow_hp.compare.section import Section
from mlflow_hp.plots.surface import Surface, surface_info
from mlflow_hp.tracking.tags import BEALE_METRICS, EXPERIMENT_TAG, SURFACE_METRICS, WEIGHTS_METRIC_PREFIX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.compare.colors import Colouring
    from mlflow_hp.compare.comparability import RunGroup
    from mlflow_hp.compare.run_summary import RunFacts
    from mlflow_hp.compare.source import RunSource
    from mlflow_hp.plots.surface import SurfaceInfo

MAX_PATHS = 20
"""Paths that are drawn, those of the best runs."""
MAX_POINTS = 1500
"""Points of a path that are drawn; a longer one is downsampled."""
MAX_POINTS_READ = 50_000
"""A path with more points is left out."""
GRID_STEP = 2
"""Every second point of the grid is drawn along each axis, which is enough for contours."""
BEALE_WINDOW = 4.5


class SharedSurface(NamedTuple):
    """Cost surface that several runs descend on.

    Attributes
    ----------
    surface : Surface
    metrics : tuple of str
        Metrics that hold the two coordinates of each run's path by step.
    labels : tuple of str
        Labels of the two axes.
    best : str
        Name of the minimum.
    window : tuple or None
        Visible range; None for one that fits minimum and paths.
    """

    surface: Surface
    metrics: tuple[str, str]
    labels: tuple[str, str]
    best: str
    window: Any


def descents_sections(group: RunGroup, key: str, source: RunSource, colouring: Colouring) -> list[Section]:
    """Draw each surface that a run of the group descended on, with the paths of its best runs."""
    by_surface: dict[tuple[Any, ...], list[RunFacts]] = {}
    for run in group.runs:
        if (surface_id := _surface_id(run)) is not None:
            by_surface.setdefault(surface_id, []).append(run)
    sections = []
    for index, (surface_id, runs) in enumerate(by_surface.items()):
        section = _section(surface_id, runs, source, colouring, f"{key}-{index + 1}")
        sections += [section] if section is not None else []
    return sections


def surface_numbers(surface: LinearRegressionSurface) -> dict[str, float]:
    """Compute the metrics that a run logs so that its descent can be drawn on a shared surface.

    Parameters
    ----------
    surface : LinearRegressionSurface
        Cost surface of the training data.

    Returns
    -------
    dict of str to float
        Values by name.

    Examples
    --------
    >>> from mlflow_hp.analysis import LinearRegressionSurface
    >>> from mlflow_hp.compare import surface_numbers
    >>> numbers = surface_numbers(LinearRegressionSurface([0.0, 1.0, 2.0], [1.0, 3.0, 5.0]))
    >>> all(isinstance(value, float) for value in numbers.values())
    True
    """
    best, mean = surface.minimum, surface.hessian[0, 1] / 2
    variance = surface.eigenvalues.prod() / 4  # the determinant of the Hessian is 4 var(x)
    return dict(zip(SURFACE_METRICS, (best.w, best.b, best.cost, float(variance), float(mean)), strict=True))


def linear_regression(w: float, b: float, cost: float, variance: float, mean: float) -> LinearRegressionSurface:
    """Rebuild a cost surface from its minimum and the variance and mean of the feature.

    The cost of a linear regression depends only on the moments of its data, so four points with these moments do.
    """
    spread, residual = math.sqrt(variance), math.sqrt(max(cost, 0.0))
    x = mean + spread * np.array([-1.0, -1.0, 1.0, 1.0])
    return LinearRegressionSurface(x, w * x + b + residual * np.array([-1.0, 1.0, -1.0, 1.0]))


def _surface_id(run: RunFacts) -> tuple[Any, ...] | None:
    """Identify a run's surface, so that runs on the same one are drawn together; None if it has none."""
    if all(name in run.metrics for name in SURFACE_METRICS):
        names = sorted(name for name in run.metrics if name.startswith(WEIGHTS_METRIC_PREFIX))
        # 12 digits: on another machine, the moments of the same data may differ in the last bits
        numbers = tuple(float(f"{run.metrics[name]:.12g}") for name in SURFACE_METRICS)
        return (*numbers, *names) if len(names) == len(SURFACE_METRICS) - 3 and numbers[3] > 0 else None
    beale = run.tag(EXPERIMENT_TAG) == "beale" and all(name in run.metrics for name in BEALE_METRICS)
    return ("beale",) if beale else None


def _shared_surface(surface_id: tuple[Any, ...]) -> SharedSurface:
    if surface_id == ("beale",):
        window = ((-BEALE_WINDOW, BEALE_WINDOW),) * 2
        return SharedSurface(BealeSurface(), ("x", "y"), ("x", "y"), "minimum (3, 0.5), f", window)
    bias, weight = sorted(surface_id[-2:], key=lambda name: not name.endswith("bias"))
    surface = linear_regression(*surface_id[: len(SURFACE_METRICS)])
    return SharedSurface(surface, (weight, bias), ("weight w", "bias b"), "least squares, J", None)


def _section(
    surface_id: tuple[Any, ...], runs: Sequence[RunFacts], source: RunSource, colouring: Colouring, key: str
) -> Section | None:
    shared, best = _shared_surface(surface_id), runs[:MAX_PATHS]
    ids = [run.run_id for run in best]
    coordinates = [source.points(ids, metric, MAX_POINTS_READ // 2) for metric in shared.metrics]
    paths = {}
    for run_id in ids:
        points = [histories[run_id] for histories in coordinates if run_id in histories]
        if len(points) == 2 and all(p.n == len(p.steps) for p in points):
            steps, first, second = np.intersect1d(points[0].steps, points[1].steps, return_indices=True)
            path = points[0].values[first], points[1].values[second]
            index = downsample(steps, *path, buckets=MAX_POINTS // 4)
            paths[run_id] = (path[0][index], path[1][index])
    paths = {run_id: path for run_id, path in paths.items() if len(path[0]) and np.isfinite(path[0][0] + path[1][0])}
    if not paths:
        return None
    info = surface_info(shared.surface, paths, shared.labels, window=shared.window, best=shared.best)
    drawn = [run for run in best if run.run_id in paths]
    where = "Beale's function" if surface_id == ("beale",) else "the exact cost surface of the same data"
    alt = f"{count(len(drawn), 'descent')} on {where}."
    words = [alt]
    if len(runs) > len(drawn):
        words.append(
            f"{len(runs) - len(drawn)} more are not drawn: only the best {MAX_PATHS}, if MLflow has their path."
        )
    if leaving := [run.name for run in drawn if info.paths[run.run_id].cut]:
        words.append(f"{len(leaving)} of them {'ends' if len(leaving) == 1 else 'end'} outside the plot.")
    return Section(key, "Descents on one surface", 3, words, None, _figure(info, drawn, colouring), alt)


def _figure(info: SurfaceInfo, runs: Sequence[RunFacts], colouring: Colouring) -> dict[str, Any]:
    """Draw contours of the logarithm of the height above the minimum, and the paths."""
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
        name = figures.text(with_author(run, runs, ", "), 90).replace("%{", "% {")
        style = colouring.of(run)
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
                    "color": style["line"]["color"],
                    "opacity": 1,
                },
                "hovertemplate": "(%{x}, %{y})<extra>" + name + "</extra>",
                **style,
            }
        )
    w, b, lowest = info.minimum
    star = {"size": 14, "symbol": "star", "color": "#E69F00", "line": {"width": 1, "color": "#555555"}}
    label = f"{info.best} = {lowest:.4g}"
    data.append({"type": "scatter", "mode": "markers", "x": [w], "y": [b], "name": label, "marker": star})
    x, y = (
        {"title": {"text": figures.text(label)}, "range": [float(ends[0]), float(ends[-1])]}
        for label, ends in zip(info.labels, (info.w, info.b), strict=True)
    )
    return figures.figure(data, x, y, height=520)
