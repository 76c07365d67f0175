"""Animation of descent paths over a cost surface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.plots.animation import write_gif
from mlflow_hp.plots.figure import (
    COLOURS,
    add_subtitle,
    axes_with_room_for_legend,
    finish,
    legend_below,
    legend_on_right,
    new_axes,
    styles_of,
)
from mlflow_hp.plots.surface import draw_contours
from mlflow_hp.plots.wording import in_words

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.artist import Artist

    from mlflow_hp.plots.surface import SurfaceInfo


def animate_surface(
    info: SurfaceInfo, file: Path, frames: int = 60, per_second: int = 15, *, subtitle: str = ""
) -> None:
    """Write a GIF in which the paths grow over the surface; the last frame stays for two seconds.

    A single path grows at a constant rate. Several grow at once and accelerate, so that short paths can be seen next
    to long ones.

    Parameters
    ----------
    info : SurfaceInfo
        Numbers to draw.
    file : Path
        File to write.
    frames : int
        Most frames. Defaults to 60.
    per_second : int
        Frames per second. Defaults to 15.
    subtitle : str
        Small print below the title, such as that of `Report.subtitle`. Defaults to ``""``.
    """
    several = len(info.paths) > 1
    axes = axes_with_room_for_legend(list(info.paths), 6.0, 5.0) if several else new_axes(7.0, 5.0)
    draw_contours(info, axes)
    finish(axes, info.title)
    add_subtitle(axes, subtitle)
    if not several:
        legend_below(axes)  # of the minimum: the path is the only one
    trails = []
    styles = styles_of(list(info.paths), info.groups)
    for label, path in info.paths.items():
        style = styles[label] if several else {"color": COLOURS[1]}
        (line,) = axes.plot([], [], linewidth=1.5, label=in_words(label), animated=True, **style)
        (head,) = axes.plot([], [], "o", color=style["color"], markersize=7, animated=True)
        trails.append((path, line, head))
    text = axes.text(0.02, 0.97, "", transform=axes.transAxes, va="top", fontsize=10, animated=True,
                     bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8})  # fmt: skip
    if several:
        legend_on_right(axes)

    def move(step: int) -> list[Artist]:
        for path, line, head in trails:
            end = int(np.searchsorted(path.steps, step, side="right"))
            line.set_data(path.w[:end], path.b[:end])
            head.set_data(path.w[:end][-1:], path.b[:end][-1:])
        text.set_text(info.numbering.describe(step))
        return [*(line for _, line, _ in trails), *(head for *_, head in trails), text]

    write_gif(axes, move, _frames([path.steps for path in info.paths.values()], frames), file, per_second)


def _frames(steps: list[np.ndarray], frames: int) -> np.ndarray:
    """Step of each frame: evenly spaced for a single path, geometrically for several."""
    last = max((int(each[-1]) for each in steps if len(each)), default=0)
    if len(steps) == 1 and last:
        return steps[0][np.unique(np.linspace(0, len(steps[0]) - 1, min(frames, len(steps[0]))).astype(int))]
    return np.unique(np.round(np.geomspace(1, last + 1, frames)).astype(int)) - 1
