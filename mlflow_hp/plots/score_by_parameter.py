"""Small multiples of a search: the score of each candidate by each parameter, on one score axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import COLOURS, add_note, finish, new_panels
from mlflow_hp.plots.search_style import MAX_VALUE_LENGTH, limits_of, lowest_shown, spread_in_words
from mlflow_hp.plots.ticks import round_ticks
from mlflow_hp.plots.wording import short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.search_space import Parameter

COLUMNS = 3
"""Panels in a row."""
MAX_BARS = 60
"""Up to this many candidates have error bars."""
MIN_GAP = 0.12
"""Least distance of values, as a share of their range, at which each has a tick."""
MAX_UPRIGHT_LETTERS = 24
"""Longer labels of a category axis, all together, are rotated."""


class ParametersInfo(NamedTuple):
    """Scores of candidates by each of several parameters.

    Attributes
    ----------
    parameters : list of Parameter
        Parameters, each with the value of every candidate.
    mean, std : ndarray of shape (n_candidates,)
        Mean and standard deviation over the folds; nan where a fold failed.
    low : float
        Lower edge of the plot, at which lower scores are drawn.
    best : int
        Index of the candidate with the best mean; -1 if all failed.
    n_splits : int
        Number of folds.
    scorer : str
        Name of the score.
    """

    parameters: list[Parameter]
    mean: np.ndarray
    std: np.ndarray
    low: float
    best: int
    n_splits: int
    scorer: str


def parameters_info(results: SearchResults, names: Sequence[str]) -> ParametersInfo:
    """Collect the scores of all candidates by the parameters `names`."""
    mean = results.mean
    chosen = np.where(results.compared, mean, -np.inf)
    best = int(np.argmax(chosen)) if np.isfinite(chosen).any() else -1
    return ParametersInfo([results.parameter(name) for name in names], mean, results.std, lowest_shown(mean), best,
                          results.fold_scores.shape[1], results.scorer)  # fmt: skip


def draw_parameters(info: ParametersInfo) -> Axes:
    """Draw a panel per parameter: a point per candidate with its spread over the folds; return the first panel."""
    n = len(info.parameters)
    columns = min(n, COLUMNS)
    rows = -(-n // columns)
    panels = new_panels(rows, columns, max(4.0, 3.2 * columns), 3.0 * rows, sharex=False)
    known = np.isfinite(info.mean)
    shown = np.maximum(info.mean, info.low)
    for index, (axes, parameter) in enumerate(zip(panels, info.parameters, strict=False)):
        x = parameter.numbers
        if known.sum() <= MAX_BARS and info.n_splits > 1:
            axes.errorbar(x[known], shown[known], yerr=info.std[known], linestyle="none", ecolor=COLOURS[5],
                          elinewidth=1.0, zorder=1)  # fmt: skip
        axes.plot(x[known], shown[known], "o", color=COLOURS[0], markersize=5 if len(x) <= MAX_BARS else 3,
                  alpha=0.8, zorder=2)  # fmt: skip
        if info.best >= 0:
            axes.plot(x[info.best], shown[info.best], "*", color=COLOURS[1], markeredgecolor="black", markersize=13,
                      zorder=3)  # fmt: skip
        _value_axis(axes, parameter)
        axes.set_xlabel(parameter.name)
        if index % columns == 0:
            axes.set_ylabel(info.scorer)
        axes.grid(visible=True, alpha=0.25)
    for axes in panels[n:]:
        axes.remove()
    panels[0].set_ylim(limits_of(info.mean[known], info.std[known], info.low))
    for axes in panels[:n]:
        round_ticks(axes)
    star = " · star: the best" if info.best >= 0 else ""
    add_note(panels[0], f"each point a candidate: {spread_in_words(info.n_splits)}{star}")
    finish(panels[0], f"{info.scorer} by each parameter")
    return panels[0]


def _value_axis(axes: Axes, parameter: Parameter) -> None:
    """Scale the x axis by the kind of the parameter, with a tick at each of few values."""
    n = len(parameter.levels)
    if parameter.kind == "category":
        labels = [short(label, MAX_VALUE_LENGTH) for label in parameter.labels]
        every = -(-n // 20)
        is_long = sum(len(label) + 2 for label in labels[::every]) > MAX_UPRIGHT_LETTERS
        axes.set_xticks(range(0, n, every), labels[::every], fontsize=8, rotation=40 if is_long else 0,
                        ha="right" if is_long else "center", rotation_mode="anchor")  # fmt: skip
        axes.set_xlim(-0.5, n - 0.5)
        return
    if parameter.kind == "log":
        axes.set_xscale("log")
    levels = np.array(parameter.levels, np.float64)
    at = np.log(levels) if parameter.kind == "log" else levels
    if not parameter.is_drawn and n > 1 and np.diff(at).min() >= MIN_GAP * np.ptp(at):
        axes.set_xticks(levels, parameter.labels)
        axes.minorticks_off()
