"""The cost surface with the path that descent took over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from mlflow_hp.plots.animation import write_gif
from mlflow_hp.plots.descent_paths import Counted, DrawnPath, drawn_path, leaves, most_height, reached
from mlflow_hp.plots.figure import (
    COLOURS,
    axes_with_legend_beside,
    entitle,
    figure_of,
    legend_beside,
    new_axes,
    style_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

GRID = 201
"""Points of the grid along each axis."""
LEVELS = 16
"""Contour lines."""
MARGIN = 0.15
"""Share of the width that is left free on each side of path and minimum."""
LOWEST_SHARE = 0.001
"""Share of a given window that lies below the lowest contour."""

Window = tuple[tuple[float, float], tuple[float, float]]
"""Lowest and highest w, lowest and highest b."""


class Surface(Protocol):
    """A cost over two parameters, with its minimum (w, b, cost)."""

    @property
    def minimum(self) -> tuple[float, float, float]:
        """Where the cost is lowest, and how low."""

    def cost(self, w: np.ndarray, b: np.ndarray, /) -> np.ndarray:
        """The cost at each (w, b)."""


class SurfaceInfo(NamedTuple):
    """What the picture shows.

    Attributes
    ----------
    w, b : ndarray of shape (GRID,)
        The axes of the grid.
    cost : ndarray of shape (GRID, GRID)
        J at (b[row], w[column]).
    levels : ndarray
        Contour levels, ascending: their distance above the minimum grows geometrically, so the valley shows.
    paths : dict of str to DrawnPath
        By label.
    minimum : tuple of float
        (w, b, cost) of the lowest point.
    labels : tuple of str
        Names of the two parameters.
    best : str
        Name of the minimum and of its height.
    counted : Counted
        How the points of a path are counted.
    title : str
        What the picture shows.
    """

    w: np.ndarray
    b: np.ndarray
    cost: np.ndarray
    levels: np.ndarray
    paths: dict[str, DrawnPath]
    minimum: tuple[float, float, float]
    labels: tuple[str, str]
    best: str
    counted: Counted
    title: str


def surface_info(
    surface: Surface,
    paths: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: tuple[str, str] = ("weight w", "bias b"),
    *,
    window: Window | None = None,
    best: str = "least squares, J",
    counted: Counted = Counted(),  # noqa: B008 - it doesn't change
    title: str = "descent on the cost surface",
) -> SurfaceInfo:
    """The numbers of the picture: a window, by default around paths and minimum, the surface there, and its levels.

    Parameters
    ----------
    surface : Surface
        The cost.
    paths : mapping of str to (ndarray, ndarray)
        Label -> (w, b), each (n_steps + 1,), row 0 before the first step. A path is followed until it is not finite,
        or higher than ``HIGHEST`` allows; beside others that stay, not much higher than they are.
    labels : tuple of str
        Names of the two axes.
    window : Window, optional
        What to show, whatever the paths do: they are followed as long as they are finite, out of it and back.
    best : str
        Name of the minimum and of its height, for the legend.
    counted : Counted
        How the points of a path are counted.
    title : str
        What the picture shows.
    """
    best_w, best_b, lowest = surface.minimum
    floats = {k: (np.asarray(w, np.float64).ravel(), np.asarray(b, np.float64).ravel()) for k, (w, b) in paths.items()}
    above = {label: _heights(surface, w, b) for label, (w, b) in floats.items()}
    most = most_height(above, lowest) if window is None else np.inf
    ends = {label: reached(heights, most) for label, heights in above.items()}
    if window is None:
        inside = [
            np.concatenate([[m], *(floats[k][i][: ends[k]] for k in paths)]) for i, m in enumerate((best_w, best_b))
        ]
        w, b = (_axis(values) for values in inside)
    else:
        w, b = (np.linspace(low, high, GRID) for low, high in window)
    drawn = {label: drawn_path(*floats[label], ends[label], w, b) for label in paths}
    cost = surface.cost(w[None, :], b[:, None])
    if window is None:
        heights = [float(above[label][: ends[label]].max()) for label in paths if ends[label]]
        top = max([*heights, 0.1 * (float(cost.max()) - lowest)])
        lines = np.geomspace(max(min(float(cost.min()) - lowest, top / 10), top / 1000), top * 1.5, LEVELS)
    else:
        lines = np.geomspace(np.quantile(cost, LOWEST_SHARE) - lowest, cost.max() - lowest, LEVELS)
    return SurfaceInfo(w, b, cost, lowest + lines, drawn, (best_w, best_b, lowest), labels, best, counted,
                       title)  # fmt: skip


def draw_surface(info: SurfaceInfo, axes: Axes | None = None) -> Axes:
    """Contours with their values, paths with start and end, and the minimum."""
    beside = len(info.paths) > 1
    if axes is None:
        axes = axes_with_legend_beside(list(info.paths), 8.0, 6.0) if beside else new_axes(9.0, 6.0)
    _contours(info, axes)
    if beside:
        for index, (label, path) in enumerate(info.paths.items()):
            style = style_of(index)
            axes.plot(path.w, path.b, linewidth=1.6, label=label, zorder=3, **style)
            axes.plot(path.w[:1], path.b[:1], "s", color="white", markeredgecolor="black", markersize=6, zorder=4)
            if not path.cut:
                axes.plot(path.w[-1:], path.b[-1:], "o", color=style["color"], markeredgecolor="black", markersize=7,
                          zorder=5)  # fmt: skip
        legend_beside(axes)
    else:
        for path in info.paths.values():
            _coloured_path(path, info.counted, axes)
        axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4)
    if leaving := [path for path in info.paths.values() if path.cut]:
        many = f"{len(leaving)} of {len(info.paths)} paths end outside the picture"
        one = "the path leaves the picture" + (
            f" {info.counted.said(leaves(leaving[0], info.w, info.b))}" if len(leaving[0].steps) > 1 else ""
        )
        axes.set_title(many if beside else one, fontsize=10, color=COLOURS[1])
    entitle(axes, info.title)
    return axes


def animate_surface(info: SurfaceInfo, file: Path, frames: int = 60, per_second: int = 15) -> None:
    """Write a GIF in which the paths grow over the surface; the last frame stays for two seconds.

    One path grows by as many steps in each frame. Several grow at once, faster and faster, so that the short ones
    are seen beside the long.
    """
    several = len(info.paths) > 1
    axes = axes_with_legend_beside(list(info.paths), 6.0, 5.0) if several else new_axes(7.0, 5.0)
    _contours(info, axes)
    entitle(axes, info.title)
    trails = []
    for index, (label, path) in enumerate(info.paths.items()):
        style = style_of(index) if several else {"color": COLOURS[1]}
        (line,) = axes.plot([], [], linewidth=1.5, label=label, animated=True, **style)
        (head,) = axes.plot([], [], "o", color=style["color"], markersize=7, animated=True)
        trails.append((path, line, head))
    said = axes.text(0.02, 0.97, "", transform=axes.transAxes, va="top", fontsize=10, animated=True,
                     bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8})  # fmt: skip
    if several:
        legend_beside(axes)

    def moves(reached: int) -> list[Artist]:
        for path, line, head in trails:
            end = int(np.searchsorted(path.steps, reached, side="right"))
            line.set_data(path.w[:end], path.b[:end])
            head.set_data(path.w[:end][-1:], path.b[:end][-1:])
        said.set_text(info.counted.said(reached))
        return [*(line for _, line, _ in trails), *(head for *_, head in trails), said]

    write_gif(axes, moves, _frames([path.steps for path in info.paths.values()], frames), file, per_second)


def _frames(steps: list[np.ndarray], frames: int) -> np.ndarray:
    """The step that each frame shows: evenly over a single path, over several more and more apart."""
    last = max((int(each[-1]) for each in steps if len(each)), default=0)
    if len(steps) == 1 and last:
        return steps[0][np.unique(np.linspace(0, len(steps[0]) - 1, min(frames, len(steps[0]))).astype(int))]
    return np.unique(np.round(np.geomspace(1, last + 1, frames)).astype(int)) - 1


def _heights(surface: Surface, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """J above the minimum along a path; infinite where it is not finite."""
    with np.errstate(all="ignore"):
        above = surface.cost(w, b) - surface.minimum[2]
    return np.where(np.isfinite(above), above, np.inf)


def _axis(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    width = (high - low) or max(abs(low), 1.0)
    return np.linspace(low - MARGIN * width, high + MARGIN * width, GRID)


def _contours(info: SurfaceInfo, axes: Axes) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.patheffects import withStroke

    above = np.maximum(info.cost - info.minimum[2], 1e-300)
    lowest, highest = info.levels[[0, -1]] - info.minimum[2]
    norm = LogNorm(lowest, highest * (highest / lowest))  # the lighter half of the colours: labels stay readable
    window = (info.w[0], info.w[-1], info.b[0], info.b[-1])
    axes.imshow(above, norm=norm, cmap="Blues", alpha=0.5, extent=window, origin="lower", aspect="auto", zorder=0)
    lines = axes.contour(info.w, info.b, info.cost, info.levels, colors="#4a6785", linewidths=0.8, zorder=1)
    for label in axes.clabel(lines, list(info.levels[::2]), fontsize=8, fmt=_short, colors="#1f3347"):
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    axes.plot(*info.minimum[:2], "*", color=COLOURS[4], markeredgecolor="black", markersize=15, zorder=5,
              label=f"{info.best} = {_short(info.minimum[2])}")  # fmt: skip
    axes.set(xlabel=info.labels[0], ylabel=info.labels[1], xlim=info.w[[0, -1]], ylim=info.b[[0, -1]])


def _coloured_path(path: DrawnPath, counted: Counted, axes: Axes) -> None:
    """The path coloured by step, with a colour bar, its start and its end."""
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import MaxNLocator

    points = np.column_stack([path.w, path.b])
    if len(points) > 2:
        segments = np.stack([points[:-1], points[1:]], axis=1)
        lines = LineCollection(
            list(segments), cmap="plasma", array=path.steps[1:] + counted.start, linewidths=2.0, zorder=3
        )
        axes.add_collection(lines)
        figure_of(axes).colorbar(lines, ax=axes, label=counted.unit, pad=0.02, ticks=MaxNLocator(integer=True))
    else:
        axes.plot(path.w, path.b, color=COLOURS[1], linewidth=2.0, zorder=3)
    axes.plot(path.w[:1], path.b[:1], "s", color="white", markeredgecolor="black", markersize=9, zorder=4,
              label="start")  # fmt: skip
    if not path.cut:
        axes.plot(path.w[-1:], path.b[-1:], "o", color=COLOURS[1], markeredgecolor="black", markersize=9, zorder=4,
                  label="end")  # fmt: skip


def _short(value: float) -> str:
    """Three digits, without an exponent where the number is of a usual size."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2g}"
