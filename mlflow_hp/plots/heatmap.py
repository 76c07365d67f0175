"""Heatmap of a search: mean score by two parameters, numeric or categorical."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import COLOURS, add_note, figure_of, finish, new_axes
from mlflow_hp.plots.search_style import MAX_VALUE_LENGTH, format_value, lowest_shown
from mlflow_hp.plots.ticks import round_edges, tick_text
from mlflow_hp.plots.wording import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.search_space import Parameter

MAX_LEVELS = 12
"""A numeric parameter with more distinct values is divided into intervals."""
INTERVALS = 8
"""Largest number of intervals, between round numbers and of about equal width on the parameter's axis."""
MIN_CELLS = 4
MIN_SHARE_FILLED = 0.7
"""Least number of cells with a candidate, and their share of all, for which a heatmap is worth its paper."""
MAX_WRITTEN = 15
"""Up to this many rows and columns, values are written into the cells."""
CROSS = "\N{MULTIPLICATION SIGN}"
GREY = "#DDDDDD"
"""Colour of a cell in which all candidates failed."""


class Cells(NamedTuple):
    """One axis of a heatmap: its name, cell of each candidate (n_candidates,), number of cells, ticks and labels."""

    name: str
    cell: np.ndarray
    n: int
    ticks: np.ndarray
    labels: list[str]


class HeatmapInfo(NamedTuple):
    """Mean score by two parameters.

    Attributes
    ----------
    x, y : Cells
        The axes.
    score : ndarray of shape (y.n, x.n)
        Mean score of the candidates in each cell; nan where there are none, or all failed.
    counts : ndarray of int, shape (y.n, x.n)
        Number of candidates in each cell, including failed ones.
    best : tuple of int
        Row and column of the best cell.
    low : float
        Lower end of the colour scale.
    scorer, title : str
        Name of the score, and a note on what it is averaged over.
    """

    x: Cells
    y: Cells
    score: np.ndarray
    counts: np.ndarray
    best: tuple[int, int]
    low: float
    scorer: str
    title: str


def heatmap_info(results: SearchResults, x: str, y: str) -> HeatmapInfo:
    """Compute the heatmap over parameters `x` and `y`, averaged over all others."""
    across, up = _cells(results.parameter(x)), _cells(results.parameter(y))
    mean = results.mean
    succeeded = np.isfinite(mean)
    count, good, total = (np.zeros((up.n, across.n)) for _ in range(3))
    np.add.at(count, (up.cell, across.cell), 1)
    np.add.at(good, (up.cell[succeeded], across.cell[succeeded]), 1)
    np.add.at(total, (up.cell[succeeded], across.cell[succeeded]), mean[succeeded])
    score = np.where(good > 0, total / np.maximum(good, 1), np.nan)
    best = np.unravel_index(np.argmax(np.where(good > 0, score, -np.inf)), score.shape)
    title = []
    others = [name for name in results.parameters if name not in (x, y)]
    if count.max() > 1:
        over = f" (over {', '.join(others)})" if others else ""
        title.append(f"mean of the candidates in a cell{over}: {good[good > 0].min():.0f} to {good.max():.0f}"
                     if succeeded.any() else "no candidate succeeded")  # fmt: skip
    if not succeeded.all():
        title.append(f"{CROSS}: {'not computed in every fold' if results.is_skipped.any() else 'failed'}")
    if results.iterations is not None:
        title.append("last score of each: candidates dropped early had fewer resources")
    return HeatmapInfo(across, up, score, count.astype(int), (int(best[0]), int(best[1])),
                       lowest_shown(score[np.isfinite(score)]), results.scorer, " · ".join(title))  # fmt: skip


def is_filled(info: HeatmapInfo) -> bool:
    """Whether candidates fill a heatmap: two rows and columns at least, most of the cells, and four of them."""
    filled = info.counts > 0
    return bool(min(filled.shape) > 1 and filled.sum() >= MIN_CELLS and filled.mean() >= MIN_SHARE_FILLED)


def draw_heatmap(info: HeatmapInfo, axes: Axes | None = None) -> Axes:
    """Draw coloured cells with a frame around the best one; cells without a candidate are white."""
    from matplotlib.patches import Rectangle

    rows, columns = info.score.shape
    longest = max(len(short(label, MAX_VALUE_LENGTH)) for label in info.y.labels)
    rotated = columns * 0.8 < 0.09 * sum(len(short(label, MAX_VALUE_LENGTH)) + 1 for label in info.x.labels)
    if axes is None:
        width = min(14.0, max(4.5, 0.75 * columns + 2.2)) + 0.07 * longest
        axes = new_axes(width, min(12.0, max(3.2, 0.5 * rows + 1.6)) + (1.0 if rotated else 0.0))
    axes.spines[["top", "right"]].set_visible(True)
    top = float(np.nanmax(info.score)) if np.isfinite(info.score).any() else 1.0
    image = axes.imshow(info.score, origin="lower", aspect="auto", cmap="viridis", vmin=info.low, vmax=top)
    clipped = bool((info.score < info.low).any())
    figure_of(axes).colorbar(image, ax=axes, label=info.scorer, extend="min" if clipped else "neither")
    written = rows <= MAX_WRITTEN and columns <= MAX_WRITTEN
    middle = info.low + 0.6 * (top - info.low)
    for row, column in np.argwhere(info.counts > 0):
        value = info.score[row, column]
        if np.isnan(value):
            axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=GREY))
            axes.text(column, row, CROSS, ha="center", va="center", color="black")
        elif written:
            axes.text(column, row, format_value(value, top - info.low), ha="center", va="center", fontsize=8,
                      color="black" if value > middle else "white")  # fmt: skip
    if np.isfinite(info.score).any():
        row, column = info.best
        axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=COLOURS[1], linewidth=2.5))
    size = 9 if max(rows, columns) <= 25 else 6
    rotation: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if rotated else {}
    axes.set_xticks(
        info.x.ticks, [short(label, MAX_VALUE_LENGTH) for label in info.x.labels], fontsize=size, **rotation
    )
    axes.set_yticks(info.y.ticks, [short(label, MAX_VALUE_LENGTH) for label in info.y.labels], fontsize=size)
    axes.set(xlabel=info.x.name, ylabel=info.y.name)
    add_note(axes, info.title)
    finish(axes, f"{info.scorer} by {info.x.name} and {info.y.name}")
    return axes


def _cells(parameter: Parameter) -> Cells:
    """Divide a parameter into a cell per level, or per interval if it has many, or a value of each candidate's own."""
    n = len(parameter.levels)
    if parameter.kind == "category" or (n <= MAX_LEVELS and not parameter.is_drawn):
        return Cells(parameter.name, parameter.codes, n, np.arange(n, dtype=float), parameter.labels)
    values = parameter.numbers
    edges = round_edges(float(values.min()), float(values.max()), INTERVALS, log=parameter.kind == "log")
    last = len(edges) - 2
    cell = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, last)
    return Cells(parameter.name, cell, last + 1, np.arange(last + 2) - 0.5, [tick_text(edge) for edge in edges])
