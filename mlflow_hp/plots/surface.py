"""Cost surface over two parameters, with paths of gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from mlflow_hp.plots.contours import coloured_path
from mlflow_hp.plots.contours import draw_contours as draw_contours  # noqa: PLC0414 - public here
from mlflow_hp.plots.descent_paths import DrawnPath, StepNumbering, drawn_path, leaving_step, max_height, n_points_below
from mlflow_hp.plots.figure import (
    COLOURS,
    axes_with_room_for_legend,
    finish,
    legend_below,
    legend_on_right,
    new_axes,
    styles_of,
)
from mlflow_hp.plots.panel_grid import outer_labels, panel_grid, title_panel
from mlflow_hp.plots.ticks import rounded
from mlflow_hp.plots.wording import capitalized, in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

GRID = 201
"""Points of the grid along each axis."""
LEVELS = 16
"""Contour lines."""
MARGIN = 0.15
"""Free share of the width on each side of paths and minimum."""
LINE_WIDTH, WIDER = 1.5, 0.45
"""Width of a line in points; and of the paths in a panel, what each next one is wider by."""
MAX_WIDER = 7
"""Up to this many paths in a panel differ in width."""
OTHER_GROUP = "others"
"""Title of the panel of paths that have no group."""
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
        Contour levels, ascending, round numbers about geometrically spaced above the minimum, so that the valley shows.
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
    groups : dict of str to str, optional
        Label -> group of each path; each group has a panel of its own. Defaults to None, for one picture of all.

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
    groups: dict[str, str] | None = None


def surface_info(
    surface: Surface,
    paths: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: tuple[str, str] = ("weight w", "bias b"),
    *,
    window: Window | None = None,
    best: str = "least squares, J",
    numbering: StepNumbering = StepNumbering(),  # noqa: B008 - immutable
    title: str = "descent on the cost surface",
    groups: Mapping[str, str] | None = None,
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
    groups : mapping of str to str, optional
        Label -> group of each path, such as a family of methods, as in `SurfaceInfo`. Defaults to None.

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
    return SurfaceInfo(w, b, cost, rounded(lowest + lines), drawn, (best_w, best_b, lowest), labels, best, numbering,
                       title, dict(groups) if groups else None)  # fmt: skip


def draw_surface(info: SurfaceInfo, axes: Axes | None = None) -> Axes:
    """Draw contours with their values, paths with start and end, and the minimum.

    Where the paths have groups, and no `axes` are given, each group is drawn in a panel of its own.

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
    if info.groups and axes is None:
        return _draw_groups(info)
    several = len(info.paths) > 1
    if axes is None:
        axes = axes_with_room_for_legend(list(info.paths), 8.0, 6.0) if several else new_axes(9.0, 6.0)
    draw_contours(info, axes)
    if several:
        _draw_paths(info, axes)
        legend_on_right(axes)
    else:
        for path in info.paths.values():
            coloured_path(path, info.numbering, axes)
        legend_below(axes)
        if leaving := [path for path in info.paths.values() if path.cut]:
            note = "the path leaves the plot"
            if len(leaving[0].steps) > 1:
                note += f" {info.numbering.describe(leaving_step(leaving[0], info.w, info.b))}"
            axes.set_title(note, fontsize=10, color=COLOURS[1])
    finish(axes, info.title)
    return axes


def _draw_groups(info: SurfaceInfo) -> Axes:
    """Draw the paths of each group in a panel of its own, over the same surface."""
    assert info.groups is not None
    members: dict[str, dict[str, DrawnPath]] = {}
    for label, path in info.paths.items():
        members.setdefault(info.groups.get(label, OTHER_GROUP), {})[label] = path
    panels = panel_grid(len(members), 5.2, 4.6, most_columns=2)
    for axes, (group, paths) in zip(panels, members.items(), strict=True):
        draw_contours(info, axes)
        _draw_paths(info._replace(paths=paths, groups=None), axes, WIDER if len(paths) <= MAX_WIDER else 0.0)
        legend_below(axes, 8)
        title_panel(axes, capitalized(group))
    outer_labels(panels)
    finish(panels[0], info.title)
    return panels[0]


def _draw_paths(info: SurfaceInfo, axes: Axes, wider: float = 0.0) -> None:
    """Draw several paths with their starts (squares) and ends (circles), and count those that end outside.

    The first is on top. Each next one is wider by `wider` points: it shows at the sides where paths coincide.
    """
    styles = styles_of(list(info.paths), info.groups)
    for index, (label, path) in enumerate(info.paths.items()):
        style = styles[label]
        axes.plot(
            path.w,
            path.b,
            linewidth=LINE_WIDTH + wider * index,
            label=in_words(label),
            zorder=4 - (index + 1) / (len(info.paths) + 1),
            **style,
        )
        axes.plot(path.w[:1], path.b[:1], "s", color="white", markeredgecolor="black", markersize=6, zorder=4)
        if not path.cut:
            axes.plot(path.w[-1:], path.b[-1:], "o", color=style["color"], markeredgecolor="black", markersize=7,
                      zorder=5)  # fmt: skip
    if n_leaving := sum(path.cut for path in info.paths.values()):
        axes.set_title(f"{n_leaving} of {len(info.paths)} paths end outside the plot", fontsize=10, color=COLOURS[1])


def _heights(surface: Surface, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cost above the minimum along a path; infinite where it is not finite."""
    with np.errstate(all="ignore"):
        above = surface.cost(w, b) - surface.minimum[2]
    return np.where(np.isfinite(above), above, np.inf)


def _axis(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    width = (high - low) or max(abs(low), 1.0)
    return np.linspace(low - MARGIN * width, high + MARGIN * width, GRID)
