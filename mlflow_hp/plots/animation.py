"""Animations: what moves, drawn over what stands still."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.plots.figure import figure_of, names_as_they_are

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

DOTS_PER_INCH = 90
COLOURS_STILL, COLOURS_MOVING = 96, 96
"""Of the palette, which all frames share: with one each, what stands still would flicker."""
HELD_MILLISECONDS = 2000
"""How long the last frame stays."""


def write_gif(
    axes: Axes, moves: Callable[[int], Sequence[Artist]], reached: Iterable[int], file: Path, per_second: int = 15
) -> None:
    """Write a GIF to `file`, whose folder is made where it is missing.

    Parameters
    ----------
    axes : Axes
        What stands still is drawn in its figure once; what moves has to be ``animated``.
    moves : callable
        Brings the moving artists to where they are at one of `reached`, and gives them from back to front.
    reached : iterable of int
        A frame each.
    file : Path
        Where to.
    per_second : int
        Frames in a second.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure = figure_of(axes)
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DOTS_PER_INCH)
    with names_as_they_are(figure):
        canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    still = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    frames = []
    for each in reached:
        canvas.restore_region(background)
        for artist in moves(each):
            axes.draw_artist(artist)
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    palette = Image.new("P", (1, 1))
    palette.putpalette(
        (still.quantize(COLOURS_STILL).getpalette() or [])[: 3 * COLOURS_STILL]
        + (frames[-1].quantize(COLOURS_MOVING, Image.Quantize.MAXCOVERAGE).getpalette() or [])[: 3 * COLOURS_MOVING]
    )
    images = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    file.parent.mkdir(parents=True, exist_ok=True)
    durations = [1000 // per_second] * (len(images) - 1) + [HELD_MILLISECONDS]
    images[0].save(file, save_all=True, append_images=images[1:], duration=durations, loop=0)
