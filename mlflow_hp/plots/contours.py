"""Contours of a cost surface, and a single path over it coloured by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.plots.figure import COLOURS, figure_of
from mlflow_hp.plots.ticks import tick_text, whole_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.plots.descent_paths import DrawnPath, StepNumbering
    from mlflow_hp.plots.surface import SurfaceInfo


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
    for label in axes.clabel(lines, list(info.levels[::2]), fontsize=8, fmt=tick_text, colors="#1f3347"):
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    axes.plot(*info.minimum[:2], "*", color=COLOURS[4], markeredgecolor="black", markersize=15, zorder=5,
              label=f"{info.best} = {_value(info.minimum[2])}")  # fmt: skip
    axes.set(xlabel=info.labels[0], ylabel=info.labels[1], xlim=info.w[[0, -1]], ylim=info.b[[0, -1]])


def coloured_path(path: DrawnPath, numbering: StepNumbering, axes: Axes) -> None:
    """Draw a path coloured by step, with a colour bar, its start and its end."""
    from matplotlib.collections import LineCollection

    points = np.column_stack([path.w, path.b])
    if len(points) > 2:
        segments = np.stack([points[:-1], points[1:]], axis=1)
        lines = LineCollection(
            list(segments), cmap="plasma", array=path.steps[1:] + numbering.start, linewidths=2.0, zorder=3
        )
        axes.add_collection(lines)
        figure_of(axes).colorbar(
            lines,
            ax=axes,
            label=numbering.unit,
            pad=0.02,
            ticks=whole_ticks(),
        )
    else:
        axes.plot(path.w, path.b, color=COLOURS[1], linewidth=2.0, zorder=3)
    axes.plot(path.w[:1], path.b[:1], "s", color="white", markeredgecolor="black", markersize=9, zorder=4,
              label="start")  # fmt: skip
    if not path.cut:
        axes.plot(path.w[-1:], path.b[-1:], "o", color=COLOURS[1], markeredgecolor="black", markersize=8, zorder=6,
                  label="end")  # fmt: skip


def _value(value: float) -> str:
    """Format to three digits, without an exponent for numbers of common size."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.2g}"
