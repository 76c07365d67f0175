"""Animated GIFs: moving artists drawn over a fixed background."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.plots.figure import figure_of, literal_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

DOTS_PER_INCH = 90
BACKGROUND_COLOURS, MOVING_COLOURS = 96, 96
"""Colours in the palette that all frames share: with a palette per frame, the background would flicker."""
LAST_FRAME_MILLISECONDS = 2000


def write_gif(
    axes: Axes, move: Callable[[int], Sequence[Artist]], steps: Iterable[int], file: Path, per_second: int = 15
) -> None:
    """Write a GIF, creating the folder of `file` if needed.

    Parameters
    ----------
    axes : Axes
        Axes whose figure holds the background; the moving artists have to be ``animated``.
    move : callable
        Moves the artists to a step, and returns them from back to front.
    steps : iterable of int
        Step of each frame.
    file : Path
    per_second : int
        Frames per second. Defaults to 15.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    figure = figure_of(axes)
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(DOTS_PER_INCH)
    with literal_text(figure):
        canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    still = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    frames = []
    for step in steps:
        canvas.restore_region(background)
        for artist in move(step):
            axes.draw_artist(artist)
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))
    palette = Image.new("P", (1, 1))
    palette.putpalette(
        (still.quantize(BACKGROUND_COLOURS).getpalette() or [])[: 3 * BACKGROUND_COLOURS]
        + (frames[-1].quantize(MOVING_COLOURS, Image.Quantize.MAXCOVERAGE).getpalette() or [])[: 3 * MOVING_COLOURS]
    )
    images = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    file.parent.mkdir(parents=True, exist_ok=True)
    durations = [1000 // per_second] * (len(images) - 1) + [LAST_FRAME_MILLISECONDS]
    images[0].save(file, save_all=True, append_images=images[1:], duration=durations, loop=0)
