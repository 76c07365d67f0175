"""Helpers shared by the plots of a search: shortened names, limits of the score axis, note and legend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.search_space import ABSENT, value_text
from mlflow_hp.plots.figure import figure_of
from mlflow_hp.plots.wording import cut_middle, escaped, in_words, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults

FAR_BELOW = 10.0
"""Scores further below the median than this many times the distance from lower quartile to best are cut off."""
MAX_NAME_LENGTH = 60
"""Letters of a candidate's name in a row."""
MAX_LEGEND_LENGTH = 110
MAX_TABLE_LENGTH, MIN_COLUMN = 90, 9
"""Letters of a row of a table of candidates, and of a column at least."""
TABLE_FONT = "monospace"
MAX_VALUE_LENGTH = 24
"""Letters of a parameter's value."""


def legend_below(axes: Axes) -> None:
    """Put the legend below the axes, where it covers nothing; none if nothing drawn has a label."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure_of(axes).legend(handles, labels, frameon=False, fontsize=8, loc="outside lower center")


def lowest_shown(scores: np.ndarray) -> float:
    """Lower edge of a plot: the lowest score that is not far below most others."""
    finite = scores[np.isfinite(scores)]
    if not finite.size:
        return 0.0
    quartile, middle = np.quantile(finite, [0.25, 0.5])
    near = finite[finite >= middle - FAR_BELOW * (finite.max() - quartile)]
    return float(near.min() if finite.max() > quartile else finite.min())


def limits_of(mean: np.ndarray, std: np.ndarray, low: float) -> tuple[float, float]:
    """Limits of a score axis, with a margin; error bars that reach far below `low` are cut off."""
    if not mean.size:
        return 0.0, 1.0
    top = float((mean + std).max())
    span = top - low or abs(top) or 1.0
    reach = float(np.where(mean >= low, mean - std, low).min())
    return max(reach, low - 0.25 * span) - 0.04 * span, top + 0.04 * span


def row_labels(results: SearchResults, chosen: np.ndarray) -> tuple[list[str], str]:
    """Label the candidates `chosen`, a row each.

    Where labels are long, they are the columns of a table in letters of equal width, of the values only, and the second
    result is the table's header, with the parameters' names; else it is empty.
    """
    names = results.labels
    labels = [names[index] for index in chosen]
    if len(results.parameters) < 2 or max(map(len, labels), default=0) <= MAX_NAME_LENGTH:
        return [short(label, MAX_NAME_LENGTH) for label in labels], ""
    room = max(MIN_COLUMN, MAX_TABLE_LENGTH // len(results.parameters))
    columns = []
    for name in results.parameters:
        cells = [name, *(value_text(results.candidates[index].get(name, ABSENT)) for index in chosen)]
        cells = [cell if len(cell) <= room else cut_middle(cell, room) for cell in cells]
        width = max(map(len, cells))
        columns.append([cell.rjust(width) for cell in cells])
    header, *rows = ["  ".join(cells) for cells in zip(*columns, strict=True)]
    return [escaped(row) for row in rows], escaped(header)


def row_ticks(axes: Axes, labels: list[str], header: str) -> None:
    """Label rows 0, 1, ... from the top of the y axis, below the `header` of a table if there is one."""
    if not header:
        axes.set_yticks(range(len(labels)), [in_words(label) for label in labels], fontsize=8)
        return
    axes.set_yticks(range(-1, len(labels)), [header, *labels], fontsize=7.5, family=TABLE_FONT)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.yaxis.get_major_ticks()[0].tick1line.set_visible(False)


def row_limits(n: int, header: str) -> tuple[float, float]:
    """Limits of a y axis of `n` rows, with room for a header."""
    return n - 0.4, -1.6 if header else -0.6


def row_inches(labels: list[str], header: str) -> float:
    """Width of the labels of rows."""
    return 0.075 * max(map(len, [header, *labels]), default=0)


def spread_in_words(n_splits: int) -> str:
    """Meaning of a point and its error bar."""
    if n_splits < 2:
        return "on the only fold"
    return f"mean ± standard deviation over {n_splits} folds"


def format_value(value: float, span: float) -> str:
    """Format a value with enough digits to distinguish it from others within `span`."""
    if abs(value) >= 1e6 or not span > 0:
        return f"{value:.3g}"
    return f"{value:.{int(np.clip(2 - np.floor(np.log10(span)), 0, 6))}f}"
