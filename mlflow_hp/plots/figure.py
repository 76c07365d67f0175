"""Figures without global state, and the colours that all pictures share."""

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
"""Okabe and Ito's, which stay apart for colour-blind readers; grey for what stands behind."""
DECADES_FOR_LOG = 2.0
"""Positive numbers that span more decades than this are drawn on a logarithmic axis."""
DECADES_FOR_SYMLOG = 6.0
"""Numbers of both signs of which the largest is so many decades above most others: logarithmic to both sides."""
LARGEST = 1e100
"""What is larger is not drawn: Matplotlib's ticks overflow beyond the largest float."""
LONGEST = 160
"""Letters of a line that are drawn."""
LONGEST_TITLE = 80
"""Letters of a title."""
MATPLOTLIBS_OWN = r"$\mathdefault"
"""How its tick labels that are formulas begin."""


_ours: weakref.WeakSet[object] = weakref.WeakSet()
"""Figures that `new_axes` has made."""


def new_axes(width: float = 8.0, height: float = 5.0) -> Axes:
    """The axes of a new figure, `width` by `height` inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    _ours.add(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def entitle(axes: Axes, title: str) -> None:
    """Write a title over the figure of `axes`, if `new_axes` has made it: who brings axes gives them their title."""
    if axes.figure in _ours:
        figure_of(axes).suptitle(short(title, LONGEST_TITLE), fontsize=11)


def save(axes: Axes, file: Path | str) -> Path:
    """Write the figure of `axes` to `file`, whose folder is made where it is missing."""
    from matplotlib.figure import Figure

    figure = axes.figure
    assert isinstance(figure, Figure)
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with names_as_they_are(figure):
        figure.savefig(path)
    return path


def short(text: str, longest: int = LONGEST) -> str:
    """At most `longest` letters, the middle left out; dollars are no formulas."""
    if len(text) > longest:
        head = (longest - 1) // 2
        text = f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"
    return re.sub(r"(?<!\\)\$", r"\\$", text)


@contextlib.contextmanager
def names_as_they_are(figure: Figure) -> Iterator[None]:
    """Have names in titles, labels and legends drawn in the block as they are, no formulas, whatever is in them."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        words = text.get_text()
        if not words.startswith(MATPLOTLIBS_OWN):
            text.set_text("\n".join(short(line) for line in words.split("\n")))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def log_if_wide(axes: Axes, values: np.ndarray) -> None:
    """A logarithmic y axis where all of `values` that are finite are positive and span over ``DECADES_FOR_LOG``.

    Where they have both signs and grow beyond ``DECADES_FOR_SYMLOG``, as a weight that diverges does, the axis is
    logarithmic to both sides.
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
        axes.set_yscale("symlog", linthresh=typical, linscale=decades / 8)  # so wide that labels beside 0 stay apart


def style_of(index: int) -> dict[str, Any]:
    """Colour and line style of the `index`-th of several: the same in all pictures, and 28 different ones."""
    return {"color": COLOURS[index % 7], "linestyle": ("-", "--", ":", "-.")[index // 7 % 4]}


def axes_with_legend_beside(labels: Collection[str], width: float = 8.0, height: float = 5.0) -> Axes:
    """The axes of a new figure that has room for a legend of `labels` on the right, in letters of size 8."""
    longest = min(max(map(len, labels), default=0), LONGEST)
    return new_axes(width + 0.5 + 0.07 * longest, max(height, 0.18 * len(labels) + 0.6))


def legend_beside(axes: Axes) -> None:
    """Put the legend on the right of the axes."""
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5))


def figure_of(axes: Axes) -> Figure:
    """The figure that holds `axes`."""
    from matplotlib.figure import Figure

    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure
