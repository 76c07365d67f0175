"""Figures without global state, and the colours and text handling that all plots share."""

from __future__ import annotations

import contextlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.plots.header import SUBTITLE_ID, TITLE_ID, add_header, has_header, set_header
from mlflow_hp.plots.ticks import round_ticks, whole_ticks
from mlflow_hp.plots.wording import MAX_LINE_LENGTH, capitalized, short

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
"""Okabe and Ito's palette, distinct for colour-blind readers; grey for the background."""
ORDER = (0, 1, 2, 3, 4, 6, 5)
"""Colours of lines by number: the light blue comes last, as it is the one nearest to another."""
DECADES_FOR_LOG = 2.0
"""Positive numbers that span more decades than this are drawn on a logarithmic axis."""
DECADES_FOR_SYMLOG = 6.0
"""Numbers of both signs whose largest is this many decades above most others are drawn on a symlog axis."""
MAX_DRAWN = 1e100
"""Larger values are not drawn: Matplotlib's ticks would overflow."""
TICK_LABEL_PREFIX = r"$\mathdefault"
"""Prefix of Matplotlib's own tick labels, which are formulas."""


def new_axes(width: float = 8.0, height: float = 5.0) -> Axes:
    """Create a figure of `width` by `height` inches below its header, and return its axes."""
    return new_panels(1, 1, width, height)[0]


def new_panels(rows: int, columns: int, width: float, height: float, *, sharex: bool = True) -> list[Axes]:
    """Create a figure of `width` by `height` inches with `rows` x `columns` axes, row by row, of equal ranges."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    add_header(figure)
    panels = list(figure.subplots(rows, columns, sharex=sharex, sharey=True, squeeze=False).ravel())
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return panels


def finish(axes: Axes, title: str) -> None:
    """Round the ticks of `axes`, and add a title to their figure.

    Figures that `new_axes` did not create keep their own title and ticks.
    """
    if has_header(axes.figure):
        round_ticks(axes)
        set_header(figure_of(axes), title=capitalized(title))


def add_subtitle(axes: Axes, subtitle: str) -> None:
    """Write `subtitle` in small print below the title of a figure that `new_axes` created; others stay as they are."""
    if has_header(axes.figure):
        set_header(figure_of(axes), subtitle=subtitle)


def add_note(axes: Axes, note: str) -> None:
    """Write a note on what is drawn and what is left out in small print below the title; above users' own axes."""
    if has_header(axes.figure):
        set_header(figure_of(axes), note=note)
    else:
        axes.set_title(note, fontsize=8, color="#555555", loc="left", wrap=True)


def save(axes: Axes, file: Path | str) -> Path:
    """Write the figure of `axes` to `file`, creating its folder if needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure, path = figure_of(axes), Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with literal_text(figure):
        if path.suffix == ".png":
            FigureCanvasAgg(figure).print_png(path)  # draws once; `savefig` twice, for the same layout
        else:
            figure.savefig(path)
    return path


@contextlib.contextmanager
def literal_text(figure: Figure) -> Iterator[None]:
    """Draw names in titles, labels and legends literally within the block, never as formulas."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        string = text.get_text()
        if text.get_gid() not in (TITLE_ID, SUBTITLE_ID) and not string.startswith(TICK_LABEL_PREFIX):
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
        if spans_decades(finite):
            axes.set_yscale("log")
    elif np.log10(sizes.max()) - np.log10(typical) > DECADES_FOR_SYMLOG:
        decades = np.log10(sizes.max()) - np.log10(typical)
        axes.set_yscale("symlog", linthresh=typical, linscale=decades / 8)  # wide enough to separate the labels near 0


def spans_decades(positive: np.ndarray) -> bool:
    """Whether positive, finite values span over ``DECADES_FOR_LOG`` decades."""
    return bool(np.log10(positive.max()) - np.log10(positive.min()) > DECADES_FOR_LOG)


def whole_numbers(axes: Axes) -> None:
    """Put the ticks of the x axis at whole numbers: steps, epochs, folds."""
    axes.xaxis.set_major_locator(whole_ticks())


def style_of(index: int) -> dict[str, Any]:
    """Colour and line style number `index` (0-based): the same in all plots, with 28 different ones."""
    return {"color": COLOURS[ORDER[index % 7]], "linestyle": ("-", "--", ":", "-.")[index // 7 % 4]}


def styles_of(labels: Collection[str], groups: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """Style of each label: of its number; where labels have `groups`, a line style per group, colours within it."""
    if not groups:
        return {label: style_of(index) for index, label in enumerate(labels)}
    names = list(dict.fromkeys(groups.get(label, "") for label in labels))
    members: dict[str, int] = dict.fromkeys(names, 0)
    styles = {}
    for label in labels:
        group = groups.get(label, "")
        styles[label] = style_of(7 * names.index(group) + members[group] % 7)
        members[group] += 1
    return styles


def axes_with_room_for_legend(labels: Collection[str], width: float = 8.0, height: float = 5.0) -> Axes:
    """Create axes with room on the right for a legend of `labels`, in letters of size 8."""
    longest = min(max(map(len, labels), default=0), MAX_LINE_LENGTH)
    return new_axes(width + 0.5 + 0.07 * longest, max(height, 0.18 * len(labels) + 0.6))


def legend_on_right(axes: Axes, header: str = "", family: str | None = None) -> None:
    """Put the legend to the right of the axes, below a `header`, in a font of `family`."""
    font: dict[str, Any] = {"size": 8 if family is None else 7, **({} if family is None else {"family": family})}
    title = {"title": header, "title_fontproperties": font | {"weight": "bold"}, "alignment": "right"} if header else {}
    axes.legend(frameon=False, prop=font, loc="center left", bbox_to_anchor=(1.02, 0.5), **title)


def legend_below(axes: Axes, size: float = 9) -> None:
    """Put the legend below the axes and their label, in letters of `size`."""
    axes.legend(frameon=False, fontsize=size, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=4)


def figure_of(axes: Axes) -> Figure:
    """Get the figure of `axes`."""
    from matplotlib.figure import Figure

    figure = axes.figure
    assert isinstance(figure, Figure)
    return figure
