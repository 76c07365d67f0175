"""Cost surface over two parameters, with paths of gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from mlflow_hp.plots.descent_paths import DrawnPath, StepNumbering, drawn_path, leaving_step, max_height, n_points_below
from mlflow_hp.plots.figure import (
    COLOURS,
    add_title,
    axes_with_room_for_legend,
    figure_of,
    legend_on_right,
    new_axes,
    style_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

GRID = 201
"""Points of the grid along each axis."""
LEVELS = 16
"""Contour lines."""
MARGIN = 0.15
"""Free share of the width on each side of paths and minimum."""
LOWEST_SHARE = 0.001
"""Share of a fixed window that lies below the lowest contour."""

Window = tuple[tuple[float, float], tuple[float, float]]
"""Lowest and highest w, lowest and highest b."""


class Surface(Protocol):
    """Cost function of two parameters, with its minimum (w, b, cost)."""

    @property
    def minimum(self) -> tuple[float, float, float]:
        """Position and cost of the minimum."""

    def cost(self, w: np.ndarray, b: np.ndarray, /) -> np.ndarray:
        """Cost at each (w, b).

        Parameters
        ----------
        w : ndarray
            First parameter.
        b : ndarray
            Second parameter.

        Returns
        -------
        ndarray
            The costs.
        """


class SurfaceInfo(NamedTuple):
    """Numbers and texts of a plot of a cost surface.

    Attributes
    ----------
    w, b : ndarray of shape (GRID,)
        Axes of the grid.
    cost : ndarray of shape (GRID, GRID)
        Cost J at (b[row], w[column]).
    levels : ndarray
        Contour levels, ascending, geometrically spaced above the minimum, so that the valley shows.
    paths : dict of str to DrawnPath
        Paths by label.
    minimum : tuple of float
        (w, b, cost) of the lowest point.
    labels : tuple of str
        Names of the two parameters.
    best : str
        Label of the minimum.
    numbering : StepNumbering
        How the points of a path are numbered.
    title : str
        Title of the figure.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.analysis import LinearRegressionSurface
    >>> from mlflow_hp.plots import surface
    >>> cost = LinearRegressionSurface([0.0, 1.0, 2.0], [1.0, 3.0, 5.0])
    >>> info = surface.surface_info(cost, {"path": (np.array([0.0, 1.0, 2.0]), np.array([0.0, 0.5, 1.0]))})
    >>> info.minimum
    (2.0, 1.0, 0.0)
    >>> surface.draw_surface(info).figure.savefig("surface.png")
    """

    w: np.ndarray
    b: np.ndarray
    cost: np.ndarray
    levels: np.ndarray
    paths: dict[str, DrawnPath]
    minimum: tuple[float, float, float]
    labels: tuple[str, str]
    best: str
    numbering: StepNumbering
    title: str


def surface_info(
    surface: Surface,
    paths: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: tuple[str, str] = ("weight w", "bias b"),
    *,
    window: Window | None = None,
    best: str = "least squares, J",
    numbering: StepNumbering = StepNumbering(),  # noqa: B008 - immutable
    title: str = "descent on the cost surface",
) -> SurfaceInfo:
    """Compute the visible window, the surface on a grid, and its contour levels.

    Parameters
    ----------
    surface : Surface
        Cost function.
    paths : mapping of str to (ndarray, ndarray)
        Label -> (w, b), each (n_steps + 1,), row 0 before the first step. A path is drawn until it is not finite, or
        higher than ``MAX_HEIGHT_RATIO`` allows; next to paths that stay low, not much higher than those.
    labels : tuple of str
        Names of the two axes. Defaults to weight and bias.
    window : Window, optional
        Visible range; paths are then drawn as long as they are finite, also out of it and back. Defaults to a range
        around paths and minimum.
    best : str
        Label of the minimum in the legend. Defaults to least squares.
    numbering : StepNumbering
        How the points of a path are numbered. Defaults to steps, with -1 before the first.
    title : str
        Title of the figure. Defaults to ``"descent on the cost surface"``.

    Returns
    -------
    SurfaceInfo
        Numbers for `draw_surface`.
    """
    best_w, best_b, lowest = surface.minimum
    floats = {k: (np.asarray(w, np.float64).ravel(), np.asarray(b, np.float64).ravel()) for k, (w, b) in paths.items()}
    above = {label: _heights(surface, w, b) for label, (w, b) in floats.items()}
    limit = max_height(above, lowest) if window is None else np.inf
    ends = {label: n_points_below(heights, limit) for label, heights in above.items()}
    if window is None:
        visible = [
            np.concatenate([[m], *(floats[k][i][: ends[k]] for k in paths)]) for i, m in enumerate((best_w, best_b))
        ]
        w, b = (_axis(values) for values in visible)
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
    return SurfaceInfo(w, b, cost, lowest + lines, drawn, (best_w, best_b, lowest), labels, best, numbering,
                       title)  # fmt: skip


def draw_surface(info: SurfaceInfo, axes: Axes | None = None) -> Axes:
    """Draw contours with their values, paths with start and end, and the minimum.

    Parameters
    ----------
    info : SurfaceInfo
        Numbers to draw.
    axes : Axes, optional
        Axes to draw on. Defaults to those of a new figure.

    Returns
    -------
    Axes
        Axes with the picture.
    """
    several = len(info.paths) > 1
    if axes is None:
        axes = axes_with_room_for_legend(list(info.paths), 8.0, 6.0) if several else new_axes(9.0, 6.0)
    draw_contours(info, axes)
    if several:
        for index, (label, path) in enumerate(info.paths.items()):
            style = style_of(index)
            axes.plot(
                path.w, path.b, linewidth=1.6, label=label, zorder=4 - (index + 1) / (len(info.paths) + 1), **style
            )
            axes.plot(path.w[:1], path.b[:1], "s", color="white", markeredgecolor="black", markersize=6, zorder=4)
            if not path.cut:
                axes.plot(path.w[-1:], path.b[-1:], "o", color=style["color"], markeredgecolor="black", markersize=7,
                          zorder=5)  # fmt: skip
        legend_on_right(axes)
    else:
        for path in info.paths.values():
            _coloured_path(path, info.numbering, axes)
        axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4)
    if leaving := [path for path in info.paths.values() if path.cut]:
        if several:
            note = f"{len(leaving)} of {len(info.paths)} paths end outside the plot"
        else:
            note = "the path leaves the plot"
            if len(leaving[0].steps) > 1:
                note += f" {info.numbering.describe(leaving_step(leaving[0], info.w, info.b))}"
        axes.set_title(note, fontsize=10, color=COLOURS[1])
    add_title(axes, info.title)
    return axes


def draw_contours(info: SurfaceInfo, axes: Axes) -> None:
    """Draw the surface in colours, its contours with their values, and the minimum, without paths.

    Parameters
    ----------
    info : SurfaceInfo
        Numbers to draw.
    axes : Axes
        Axes to draw on.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patheffects import withStroke

    above = np.maximum(info.cost - info.minimum[2], 1e-300)
    lowest, highest = info.levels[[0, -1]] - info.minimum[2]
    norm = LogNorm(lowest, highest * (highest / lowest))  # the lighter half of the colours keeps labels readable
    window = (info.w[0], info.w[-1], info.b[0], info.b[-1])
    axes.imshow(above, norm=norm, cmap="Blues", alpha=0.5, extent=window, origin="lower", aspect="auto", zorder=0)
    lines = axes.contour(info.w, info.b, info.cost, info.levels, colors="#4a6785", linewidths=0.8, zorder=1)
    for label in axes.clabel(lines, list(info.levels[::2]), fontsize=8, fmt=_short, colors="#1f3347"):
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    axes.plot(*info.minimum[:2], "*", color=COLOURS[4], markeredgecolor="black", markersize=15, zorder=5,
              label=f"{info.best} = {_short(info.minimum[2])}")  # fmt: skip
    axes.set(xlabel=info.labels[0], ylabel=info.labels[1], xlim=info.w[[0, -1]], ylim=info.b[[0, -1]])


def _heights(surface: Surface, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cost above the minimum along a path; infinite where it is not finite."""
    with np.errstate(all="ignore"):
        above = surface.cost(w, b) - surface.minimum[2]
    return np.where(np.isfinite(above), above, np.inf)


def _axis(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    width = (high - low) or max(abs(low), 1.0)
    return np.linspace(low - MARGIN * width, high + MARGIN * width, GRID)


def _coloured_path(path: DrawnPath, numbering: StepNumbering, axes: Axes) -> None:
    """Draw a path coloured by step, with a colour bar, its start and its end."""
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import MaxNLocator

    points = np.column_stack([path.w, path.b])
    if len(points) > 2:
        segments = np.stack([points[:-1], points[1:]], axis=1)
        lines = LineCollection(
            list(segments), cmap="plasma", array=path.steps[1:] + numbering.start, linewidths=2.0, zorder=3
        )
        axes.add_collection(lines)
        figure_of(axes).colorbar(lines, ax=axes, label=numbering.unit, pad=0.02, ticks=MaxNLocator(integer=True))
    else:
        axes.plot(path.w, path.b, color=COLOURS[1], linewidth=2.0, zorder=3)
    axes.plot(path.w[:1], path.b[:1], "s", color="white", markeredgecolor="black", markersize=9, zorder=4,
              label="start")  # fmt: skip
    if not path.cut:
        axes.plot(path.w[-1:], path.b[-1:], "o", color=COLOURS[1], markeredgecolor="black", markersize=9, zorder=4,
                  label="end")  # fmt: skip


def _short(value: float) -> str:
    """Format to three digits, without an exponent for numbers of common size."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2g}"
