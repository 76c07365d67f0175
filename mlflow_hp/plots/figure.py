"""Figures without global state, and the colours and text handling that all plots share."""

from __future__ import annotations

import contextlib
import re
import warnings
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
"""Okabe and Ito's palette, distinct for colour-blind readers; grey for the background."""
DECADES_FOR_LOG = 2.0
"""Positive numbers that span more decades than this are drawn on a logarithmic axis."""
DECADES_FOR_SYMLOG = 6.0
"""Numbers of both signs whose largest is this many decades above most others are drawn on a symlog axis."""
MAX_DRAWN = 1e100
"""Larger values are not drawn: Matplotlib's ticks would overflow."""
MAX_LINE_LENGTH = 160
"""Letters of a line of text."""
MAX_TITLE_LENGTH = 80
"""Letters of a title."""
TICK_LABEL_PREFIX = r"$\mathdefault"
"""Prefix of Matplotlib's own tick labels, which are formulas."""


_new_figures: weakref.WeakSet[object] = weakref.WeakSet()
"""Figures that `new_axes` created."""


def new_axes(width: float = 8.0, height: float = 5.0) -> Axes:
    """Create a figure of `width` by `height` inches, and return its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    _new_figures.add(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def add_title(axes: Axes, title: str) -> None:
    """Add a title to the figure of `axes`, if `new_axes` created it; users' own axes keep their own title."""
    if axes.figure in _new_figures:
        figure_of(axes).suptitle(short(title, MAX_TITLE_LENGTH), fontsize=11)


def save(axes: Axes, file: Path | str) -> Path:
    """Write the figure of `axes` to `file`, creating its folder if needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure, path = figure_of(axes), Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with literal_text(figure):
        if path.suffix == ".png":
            FigureCanvasAgg(figure).print_png(
                path
            )  # draws once; `savefig` draws twice, for a layout that stays the same
        else:
            figure.savefig(path)
    return path


def short(text: str, max_length: int = MAX_LINE_LENGTH) -> str:
    """Shorten `text` to `max_length` letters by cutting its middle, and escape dollar signs, which begin formulas."""
    if len(text) > max_length:
        head = (max_length - 1) // 2
        text = f"{text[:head]}…{text[len(text) - (max_length - 1 - head) :]}"
    return re.sub(r"(?<!\\)\$", r"\\$", text)


@contextlib.contextmanager
def literal_text(figure: Figure) -> Iterator[None]:
    """Draw names in titles, labels and legends literally within the block, never as formulas."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        string = text.get_text()
        if not string.startswith(TICK_LABEL_PREFIX):
            text.set_text("\n".join(short(line) for line in string.split("\n")))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def log_if_wide(axes: Axes, values: np.ndarray) -> None:
    """Make the y axis logarithmic if the finite `values` are positive and span over ``DECADES_FOR_LOG`` decades.

    Values of both signs that span over ``DECADES_FOR_SYMLOG``, such as a diverging weight, get a symlog axis.
    """
    finite = values[np.isfinite(values)]
    sizes = np.abs(finite[finite != 0])
    if not sizes.size:
        return
    typical = float(np.quantile(sizes, 0.1))
    if finite.min() > 0:
        if np.log10(sizes.max()) - np.log10(sizes.min()) > DECADES_FOR_LOG:
            axes.set_yscale("log")
    elif np.log10(sizes.max()) - np.log10(typical) > DECADES_FOR_SYMLOG:
        decades = np.log10(sizes.max()) - np.log10(typical)
        axes.set_yscale("symlog", linthresh=typical, linscale=decades / 8)  # wide enough to separate the labels near 0


def whole_numbers(axes: Axes) -> None:
    """Put the ticks of the x axis at whole numbers: steps, epochs, folds."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def style_of(index: int) -> dict[str, Any]:
    """Colour and line style number `index` (0-based): the same in all plots, with 28 different ones."""
    return {"color": COLOURS[index % 7], "linestyle": ("-", "--", ":", "-.")[index // 7 % 4]}


def axes_with_room_for_legend(labels: Collection[str], width: float = 8.0, height: float = 5.0) -> Axes:
    """Create axes with room on the right for a legend of `labels`, in letters of size 8."""
    longest = min(max(map(len, labels), default=0), MAX_LINE_LENGTH)
    return new_axes(width + 0.5 + 0.07 * longest, max(height, 0.18 * len(labels) + 0.6))


def legend_on_right(axes: Axes) -> None:
    """Put the legend to the right of the axes."""
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))


def figure_of(axes: Axes) -> Figure:
    """Get the figure of `axes`."""
    from matplotlib.figure import Figure

    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure
