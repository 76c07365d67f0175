"""The loss of a network on a plane through its weight space, with the paths that descent took."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.plots.descent_paths import MOST_POINTS
from mlflow_hp.plots.figure import (
    COLOURS,
    axes_with_legend_beside,
    entitle,
    figure_of,
    legend_beside,
    new_axes,
    style_of,
)
from mlflow_hp.plots.surface import LEVELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.surfaces.plane import Landscape

VALLEY = 0.02
"""Share of the grid that lies below the lowest contour."""


class PlanePath(NamedTuple):
    """One path as it is drawn, up to its last finite point: steps (n,), a (n,), b (n,), and whether more followed."""

    steps: np.ndarray
    a: np.ndarray
    b: np.ndarray
    cut: bool


class LandscapeInfo(NamedTuple):
    """What the picture shows.

    Attributes
    ----------
    a, b : ndarray of shape (n,)
        The axes of the grid.
    loss : ndarray of shape (len(b), len(a))
        Loss at (b[row], a[column]); nan where it is not finite.
    levels : ndarray
        Contour levels, ascending: their distance above the lowest loss grows geometrically. None where it is flat.
    lowest : float
        The lowest loss of the grid.
    paths : dict of str to PlanePath
        By label.
    labels : tuple of str
        What the two axes say.
    title : str
        What the picture is made of: steps shown, samples, points computed.
    """

    a: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    levels: np.ndarray
    lowest: float
    paths: dict[str, PlanePath]
    labels: tuple[str, str]
    title: str


def landscape_info(landscape: Landscape) -> LandscapeInfo:
    """The numbers of the picture: contour levels, paths thinned evenly to what can be seen, and the words."""
    loss = np.where(np.isfinite(landscape.loss), landscape.loss, np.nan)
    lowest = float(np.nanmin(loss)) if np.isfinite(loss).any() else 0.0
    above = (loss - lowest)[loss > lowest]
    levels = np.zeros(0)
    if above.size:
        top = float(above.max())
        bottom = min(max(float(np.quantile(above, VALLEY)), 1e-6 * top), top / 10)
        levels = lowest + np.geomspace(bottom, top, LEVELS)
    paths = {label: _drawn(path, landscape.steps[label]) for label, path in landscape.paths.items()}
    if landscape.held is None:
        labels = ("random direction 1", "random direction 2")
    else:
        whose = "path's" if len(paths) == 1 else "paths'"
        shares = [_percent(share) for share in landscape.held]
        labels = (
            f"1st principal direction ({shares[0]} of the {whose} variance)",
            f"2nd principal direction ({shares[1]})",
        )
    title = f"path: {landscape.thinning} · loss over {landscape.n_samples:,} samples"
    if landscape.evaluated < loss.size:
        title += f" · {landscape.evaluated:,} of {loss.size:,} points computed, the others interpolated"
    if np.isnan(loss).any():
        title += " · grey: not finite"
    return LandscapeInfo(landscape.a, landscape.b, loss, levels, lowest, paths, labels, title)


def draw_landscape(info: LandscapeInfo, axes: Axes | None = None) -> Axes:
    """Contours with their values, and paths with start (square) and end (circle)."""
    beside = len(info.paths) > 1
    if axes is None:
        axes = axes_with_legend_beside(list(info.paths), 8.0, 6.0) if beside else new_axes(9.0, 6.0)
    _contours(info, axes)
    for index, (label, path) in enumerate(info.paths.items()):
        if beside:
            axes.plot(path.a, path.b, linewidth=1.6, label=label, zorder=3, **style_of(index))
        else:
            _by_step(path, axes)
        size, colour = (6, style_of(index)["color"]) if beside else (9, COLOURS[1])
        start, end = ("_start", "_end") if beside else ("start", "end")  # an underscore keeps it out of the legend
        axes.plot(path.a[:1], path.b[:1], "s", color="white", markeredgecolor="black", markersize=size, zorder=4,
                  label=start)  # fmt: skip
        if not path.cut:
            axes.plot(path.a[-1:], path.b[-1:], "o", color=colour, markeredgecolor="black", markersize=size + 1,
                      zorder=5, label=end)  # fmt: skip
    if beside:
        legend_beside(axes)
    elif info.paths:
        axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    axes.set_title(info.title, fontsize=8, color="#555555", loc="left")
    entitle(axes, "loss around the trained weights")
    return axes


def _drawn(path: np.ndarray, steps: np.ndarray) -> PlanePath:
    """The points before the first that is not finite, thinned evenly with both ends."""
    finite = np.isfinite(path).all(axis=1)
    end = len(path) if finite.all() else int(np.argmin(finite))
    chosen = np.unique(np.linspace(0, end - 1, min(end, MOST_POINTS)).astype(int)) if end else np.zeros(0, int)
    return PlanePath(steps[chosen], path[chosen, 0], path[chosen, 1], end < len(path))


def _percent(share: float) -> str:
    """A share as a percentage, with as many digits as tell it from 0 % and 100 %."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %" if 0 < percent < 1 or 99 < percent < 100 else f"{percent:.0f} %"


def _contours(info: LandscapeInfo, axes: Axes) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm
    from matplotlib.patheffects import withStroke

    window = (info.a[0], info.a[-1], info.b[0], info.b[-1])
    axes.set(xlabel=info.labels[0], ylabel=info.labels[1], xlim=window[:2], ylim=window[2:])
    if not info.levels.size:
        return
    lowest, highest = info.levels[[0, -1]] - info.lowest
    norm = LogNorm(lowest, highest * (highest / lowest))  # the lighter half of the colours: labels stay readable
    above = np.ma.masked_invalid(np.maximum(info.loss - info.lowest, 1e-300))
    colours = colormaps["Blues"].with_extremes(bad="#a0a0a0")
    axes.imshow(above, norm=norm, cmap=colours, alpha=0.5, extent=window, origin="lower", aspect="auto", zorder=0,
                interpolation="bilinear")  # fmt: skip
    lines = axes.contour(info.a, info.b, info.loss, info.levels, colors="#4a6785", linewidths=0.8, zorder=1)
    digits = _digits(info.levels[::2])
    labels = axes.clabel(lines, list(info.levels[::2]), fontsize=8, fmt=f"%.{digits}g", colors="#1f3347")
    for label in labels:
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def _digits(levels: np.ndarray) -> int:
    """Three, or as many as tell the levels apart."""
    return next((n for n in range(3, 9) if len({f"{level:.{n}g}" for level in levels}) == len(levels)), 9)


def _by_step(path: PlanePath, axes: Axes) -> None:
    """The path coloured by how many steps were taken, with a colour bar."""
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import MaxNLocator

    points = np.column_stack([path.a, path.b])
    if len(points) > 2:
        segments = np.stack([points[:-1], points[1:]], axis=1)
        lines = LineCollection(list(segments), cmap="plasma", array=path.steps[1:], linewidths=2.0, zorder=3)
        axes.add_collection(lines)
        figure_of(axes).colorbar(lines, ax=axes, label="steps taken", pad=0.02, ticks=MaxNLocator(integer=True))
    else:
        axes.plot(path.a, path.b, color=COLOURS[1], linewidth=2.0, zorder=3)
