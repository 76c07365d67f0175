"""Grid of panels in one figure: their titles, and labels at the outer ones only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlflow_hp.plots.figure import new_panels
from mlflow_hp.plots.wording import in_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes


def panel_grid(n: int, width: float, height: float, most_columns: int = 3) -> list[Axes]:
    """Create a figure with `n` panels of `width` by `height` inches and equal ranges, row by row."""
    columns = 2 if n == 4 else min(n, most_columns)
    rows = math.ceil(n / columns)
    panels = new_panels(rows, columns, width * columns, height * rows)
    for axes in panels[n:]:
        axes.remove()
    return panels[:n]


def title_panel(axes: Axes, title: str) -> None:
    """Write the title of a panel on its left; the note that stands there in a large picture moves into a corner."""
    note = axes.title
    text, colour = note.get_text(), note.get_color()
    axes.set_title("")
    if text:
        axes.text(0.02, 0.02, text, transform=axes.transAxes, color=colour, fontsize=8, zorder=6,
                  bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.5})  # fmt: skip
    axes.set_title(in_words(title), loc="left", fontsize=9.5, fontweight="bold", wrap=True)


def outer_labels(panels: Sequence[Axes]) -> None:
    """Keep the labels of axes at the outer panels only; the lowest of each column has those of the x axis."""
    lowest: dict[int, Axes] = {}
    for axes in panels:
        place = axes.get_subplotspec()
        assert place is not None
        lowest[place.colspan.start] = axes
        if place.colspan.start:
            axes.set_ylabel("")
            axes.tick_params(labelleft=False)
    for axes in panels:
        if axes not in lowest.values():
            axes.set_xlabel("")
        axes.tick_params(labelbottom=axes in lowest.values())
