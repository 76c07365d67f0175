"""The cost surface with the path that descent took over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from mlflow_hp.plots.figure import COLOURS, axes_with_legend_beside, figure_of, legend_beside, new_axes, style_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes

GRID = 201
"""Points of the grid along each axis."""
LEVELS = 16
"""Contour lines."""
MARGIN = 0.15
"""Share of the width that is left free on each side of path and minimum."""
MOST_POINTS = 4000
"""Points of a path that are drawn; a longer one is thinned evenly."""
HIGHEST = 100.0
"""A path is drawn up to this many times the height above the minimum, of the highest start or of J* itself."""


class Surface(Protocol):
    """A cost over two parameters, with its minimum (w, b, cost)."""

    @property
    def minimum(self) -> tuple[float, float, float]:
        """Where the cost is lowest, and how low."""

    def cost(self, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        """The cost at each (w, b)."""


class DrawnPath(NamedTuple):
    """One path as it is drawn: steps (n,), w (n,), b (n,), and whether it leaves the window.

    The last point of one that leaves is just outside, on its way out.
    """

    steps: np.ndarray
    w: np.ndarray
    b: np.ndarray
    cut: bool


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
    """

    w: np.ndarray
    b: np.ndarray
    cost: np.ndarray
    levels: np.ndarray
    paths: dict[str, DrawnPath]
    minimum: tuple[float, float, float]
    labels: tuple[str, str]


def surface_info(
    surface: Surface,
    paths: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: tuple[str, str] = ("weight w", "bias b"),
) -> SurfaceInfo:
    """The numbers of the picture: a window around paths and minimum, the surface there, and its levels.

    Parameters
    ----------
    surface : Surface
        The cost.
    paths : mapping of str to (ndarray, ndarray)
        Label -> (w, b), each (n_steps + 1,), row 0 before the first step. A path is followed until it is not finite,
        or higher than ``HIGHEST`` allows; beside others that stay, not much higher than they are.
    labels : tuple of str
        Names of the two axes.
    """
    best_w, best_b, best = surface.minimum
    floats = {k: (np.asarray(w, np.float64).ravel(), np.asarray(b, np.float64).ravel()) for k, (w, b) in paths.items()}
    above = {label: _heights(surface, w, b) for label, (w, b) in floats.items()}
    start = max((float(heights[0]) for heights in above.values() if np.isfinite(heights[0])), default=0.0)
    most = HIGHEST * max(start, best) or np.inf
    stay = [float(heights.max()) for heights in above.values() if heights.max() <= most]
    if stay and len(stay) < len(paths):
        most = 2 * max(*stay, start)
    ends = {label: _end(heights, most) for label, heights in above.items()}
    w, b = (
        _axis(np.concatenate([[m], *(floats[k][i][: ends[k]] for k in paths)])) for i, m in enumerate((best_w, best_b))
    )
    drawn = {label: _drawn(fw, fb, ends[label], (np.ptp(w), np.ptp(b))) for label, (fw, fb) in floats.items()}
    cost = surface.cost(w[None, :], b[:, None])
    heights = [float(above[label][: ends[label]].max()) for label in paths if ends[label]]
    top = max([*heights, 0.1 * (float(cost.max()) - best)])
    bottom = max(min(float(cost.min()) - best, top / 10), top / 1000)
    levels = best + np.geomspace(bottom, top * 1.5, LEVELS)
    return SurfaceInfo(w, b, cost, levels, drawn, (best_w, best_b, best), labels)


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
            _coloured_path(path, axes)
        axes.legend(frameon=False, fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4)
    if leaving := [path for path in info.paths.values() if path.cut]:
        many = f"{len(leaving)} of {len(info.paths)} paths leave the picture"
        one = "the path leaves the picture" + (
            f" at step {leaving[0].steps[-1] - 1}" if len(leaving[0].steps) > 1 else ""
        )
        axes.set_title(many if beside else one, fontsize=10, color=COLOURS[1])
    return axes


def animate_surface(info: SurfaceInfo, file: Path, frames: int = 60, per_second: int = 15) -> None:
    """Write a GIF in which the (single) path grows over the surface; the last frame stays for two seconds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    axes = new_axes(7.0, 5.0)
    figure = figure_of(axes)
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(90)
    _contours(info, axes)
    path = next(iter(info.paths.values()))
    (line,) = axes.plot([], [], color=COLOURS[1], linewidth=1.5, animated=True)
    (head,) = axes.plot([], [], "o", color=COLOURS[1], markersize=7, animated=True)
    said = axes.text(0.02, 0.97, "", transform=axes.transAxes, va="top", fontsize=10, animated=True,
                     bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8})  # fmt: skip
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    images = []
    for end in np.unique(np.linspace(1, len(path.w), min(frames, len(path.w))).astype(int)):
        line.set_data(path.w[:end], path.b[:end])
        head.set_data(path.w[end - 1 : end], path.b[end - 1 : end])
        taken = path.steps[end - 1]
        said.set_text("before the first step" if taken == 0 else f"after step {taken - 1}")
        canvas.restore_region(background)
        for artist in (line, head, said):
            axes.draw_artist(artist)
        images.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB").quantize(64))
    file.parent.mkdir(parents=True, exist_ok=True)
    durations = [1000 // per_second] * (len(images) - 1) + [2000]
    images[0].save(file, save_all=True, append_images=images[1:], duration=durations, loop=0)


def _heights(surface: Surface, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """J above the minimum along a path; infinite where it is not finite."""
    with np.errstate(all="ignore"):
        above = surface.cost(w, b) - surface.minimum[2]
    return np.where(np.isfinite(above), above, np.inf)


def _end(heights: np.ndarray, most: float) -> int:
    """How many points a path has before the first that is higher than `most`; its start counts wherever it is."""
    inside = np.isfinite(heights) & (heights <= most)
    inside[0] = np.isfinite(heights[0])
    return len(heights) if inside.all() else int(np.argmin(inside))


def _drawn(w: np.ndarray, b: np.ndarray, end: int, window: tuple[float, float]) -> DrawnPath:
    """The first `end` points of a path, thinned, and the next, shortened to be just outside the window."""
    steps = np.unique(np.linspace(0, end - 1, min(end, MOST_POINTS)).astype(int)) if end else np.zeros(0, int)
    cut = end < len(w)
    drawn_w, drawn_b = w[steps], b[steps]
    if end and cut and np.isfinite([w[end], b[end]]).all():
        towards = np.array([w[end] / 2 - w[end - 1] / 2, b[end] / 2 - b[end - 1] / 2])  # halves: no overflow
        towards *= min(2.0, 2 / float((np.abs(towards) / window).max()))
        steps = np.append(steps, end)
        drawn_w, drawn_b = np.append(drawn_w, w[end - 1] + towards[0]), np.append(drawn_b, b[end - 1] + towards[1])
    return DrawnPath(steps, drawn_w, drawn_b, cut)


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
              label=f"least squares, J = {_short(info.minimum[2])}")  # fmt: skip
    axes.set(xlabel=info.labels[0], ylabel=info.labels[1], xlim=info.w[[0, -1]], ylim=info.b[[0, -1]])


def _coloured_path(path: DrawnPath, axes: Axes) -> None:
    """The path coloured by step, with a colour bar, its start and its end."""
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import MaxNLocator

    points = np.column_stack([path.w, path.b])
    if len(points) > 2:
        segments = np.stack([points[:-1], points[1:]], axis=1)
        lines = LineCollection(list(segments), cmap="plasma", array=path.steps[1:] - 1, linewidths=2.0, zorder=3)
        axes.add_collection(lines)
        figure_of(axes).colorbar(lines, ax=axes, label="step", pad=0.02, ticks=MaxNLocator(integer=True))
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
