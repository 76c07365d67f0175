"""Plot of an atlas: how descents end over two hyperparameters, their loss, and the valley of the lowest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.atlas import OUTCOMES
from mlflow_hp.plots.figure import add_note, figure_of, finish, new_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.atlas import Atlas, Valley

OUTCOME_COLOURS = ("#56B4E9", "#009E73", "#E69F00", "#D55E00")
"""Colours of crawls, good, oscillates, diverges."""

MOST = 100.0
"""Ratio of the largest loss to the lowest that colours tell apart."""


class AtlasInfo(NamedTuple):
    """Map of descents.

    Attributes
    ----------
    x, y : ndarray of shape (n_x,), (n_y,)
        Values of the axes.
    names : tuple of str
        Names of the axes.
    outcomes : ndarray of int, shape (n_y, n_x)
        Outcome of most seeds.
    loss : ndarray of shape (n_y, n_x)
        Mean loss; nan where a descent diverged.
    loss_name : str
    valley : ndarray of shape (n_y,)
        Best x for each y; nan if unknown.
    line : ndarray of shape (n_y,)
        Fitted best x; nan if there is no fit.
    note : str
        The exponent in words.
    """

    x: np.ndarray
    y: np.ndarray
    names: tuple[str, str]
    outcomes: np.ndarray
    loss: np.ndarray
    loss_name: str
    valley: np.ndarray
    line: np.ndarray
    note: str


def atlas_info(atlas: Atlas, valley: Valley) -> AtlasInfo:
    """Compute what is drawn of an atlas and its valley."""
    loss = atlas.mean_loss
    loss[~np.isfinite(loss)] = np.nan
    with np.errstate(invalid="ignore"):
        line = valley.factor * atlas.y**valley.slope if math.isfinite(valley.slope) else np.full(len(atlas.y), np.nan)
    note = f"{atlas.loss.shape[2]} seeds at each point · {valley.words}"
    return AtlasInfo(atlas.x, atlas.y, (atlas.x_name, atlas.y_name), atlas.usual_outcomes, loss, atlas.loss_name,
                     valley.best, line, note)  # fmt: skip


def draw_atlas(info: AtlasInfo) -> Axes:
    """Draw the outcomes on the left, the loss on the right, with the valley and its fit in both."""
    from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
    from matplotlib.patches import Patch

    left, right = new_panels(1, 2, 11.0, 4.6)
    figure = figure_of(left)
    figure.set_layout_engine("constrained", wspace=0.08)  # the last label and the first
    cells = _edges(info.x), _edges(info.y)
    colours = BoundaryNorm(np.arange(-0.5, len(OUTCOMES)), len(OUTCOMES))
    left.pcolormesh(*cells, info.outcomes, cmap=ListedColormap(OUTCOME_COLOURS), norm=colours)
    finite = info.loss[np.isfinite(info.loss)]
    is_log = bool(finite.size) and 0 < finite.min() < finite.max()
    norm = LogNorm(finite.min(), min(finite.max(), MOST * finite.min())) if is_log else None
    mesh = right.pcolormesh(*cells, info.loss, cmap="viridis_r", norm=norm)
    right.set_facecolor("#DDDDDD")
    figure.colorbar(mesh, ax=right, label=f"{info.loss_name} (grey: a seed diverged)", extend="max" if is_log else None)
    for axes in (left, right):
        if np.isfinite(info.valley).any():
            axes.plot(
                info.valley, info.y, "o", color="white", markeredgecolor="black", markersize=5, label="lowest loss"
            )
        if np.isfinite(info.line).any():
            axes.plot(info.line, info.y, "--", color="black", linewidth=1.3, label="fitted power law")
        for name, values, scale, label in zip("xy", (info.x, info.y), (axes.set_xscale, axes.set_yscale), info.names,
                                              strict=True):  # fmt: skip
            if values[0] > 0 and values[-1] > 8 * values[0]:
                scale("log", base=2 if label == "batch_size" else 10)
            axes.set(**{f"{name}lim": (_edges(values)[0], _edges(values)[-1])})
        axes.set_xlabel(info.names[0])
        axes.grid(visible=False)
    left.set_ylabel(info.names[1])
    if info.names[1] == "batch_size" and left.get_yscale() == "log":
        left.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    handles, labels = left.get_legend_handles_labels()
    patches = [Patch(color=colour, label=name) for name, colour in zip(OUTCOMES, OUTCOME_COLOURS, strict=True)]
    figure.legend(handles=[*patches, *handles], labels=[*OUTCOMES, *labels], loc="outside lower center", ncols=6,
                  frameon=False, fontsize=9)  # fmt: skip
    add_note(left, info.note)
    finish(left, f"How trainings end over {info.names[0]} and {info.names[1]}")
    return left


def _edges(values: np.ndarray) -> np.ndarray:
    """Edges of cells around ascending values, halfway between them, in logarithms if they span a factor of 8."""
    is_log = values[0] > 0 and values[-1] > 8 * values[0]
    places = np.log(values) if is_log else values
    middles = (places[1:] + places[:-1]) / 2
    edges = np.concatenate([[2 * places[0] - middles[0]], middles, [2 * places[-1] - middles[-1]]])
    return np.asarray(np.exp(edges) if is_log else edges)
