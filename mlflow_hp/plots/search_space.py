"""Plots of a search by parameter: parallel coordinates, score by one parameter, importance."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import COLOURS, add_note, finish, new_axes
from mlflow_hp.plots.search_style import (
    MAX_NAME_LENGTH,
    MAX_VALUE_LENGTH,
    legend_below,
    lowest_shown,
)
from mlflow_hp.plots.ticks import round_values, tick_text
from mlflow_hp.plots.wording import short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.search_space import Parameter

MAX_LEVELS = 12
"""An axis with at most this many distinct values has a tick at each."""
MIN_SPREAD = 50
"""With more candidates than this, the lines that meet at one of these ticks are spread ..."""
SPREAD = 0.06
"""... over this share of the axis."""


class ParallelAxis(NamedTuple):
    """One axis: its name, heights of the candidates (n_candidates,) in 0..1, and tick label -> height."""

    name: str
    heights: np.ndarray
    ticks: dict[str, float]


class ParallelInfo(NamedTuple):
    """Parallel coordinates.

    Attributes
    ----------
    axes : list of ParallelAxis
        Axes of the parameters, then of the score.
    score : ndarray of shape (n_candidates,)
        Mean scores, from the lowest to the best; failed candidates first, as nan.
    low : float
        Lower end of the colour scale and of the score's axis.
    scorer, title : str
        Name of the score, and a note on failed candidates.
    """

    axes: list[ParallelAxis]
    score: np.ndarray
    low: float
    scorer: str
    title: str


def parallel_info(results: SearchResults) -> ParallelInfo:
    """Compute parallel coordinates over all parameters that vary."""
    order = np.argsort(np.where(np.isnan(results.mean), -np.inf, results.mean), kind="stable")
    score = results.mean[order]
    low = lowest_shown(score)
    axes = [_parallel_axis(results.parameter(name), order) for name in results.parameters]
    if len(order) > MIN_SPREAD:
        axes = [axis._replace(heights=_spread(axis)) for axis in axes]
    finite = score[np.isfinite(score)]
    top = float(finite.max()) if finite.size else low + 1.0
    span = top - low or 1.0
    ticks = {tick_text(value): float((value - low) / span) for value in round_values(low, low + span)}
    axes.append(ParallelAxis(results.scorer, np.clip((score - low) / span, 0.0, 1.0), ticks))
    notes = []
    n_skipped = int(results.is_skipped.sum())
    if n_failed := int(np.isnan(score).sum()) - n_skipped:
        notes.append(f"{n_failed:,} failed: grey, without a score")
    if n_skipped:
        notes.append(f"{n_skipped:,} not computed in every fold: grey, without a score")
    if n_below := int((score < low).sum()):
        notes.append(f"{n_below:,} below the plot, drawn at its edge")
    if results.iterations is not None:
        notes.append("last score of each: candidates dropped early had fewer resources")
    return ParallelInfo(axes, score, low, results.scorer, " · ".join(notes))


def draw_parallel(info: ParallelInfo, axes: Axes | None = None) -> Axes:
    """Draw a line per candidate, coloured by score, the best on top; the last axis is the score."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    n_axes = len(info.axes)
    axes = new_axes(1.0 + 2.2 * n_axes, 5.5) if axes is None else axes
    heights = np.stack([axis.heights for axis in info.axes], axis=1)
    x = np.broadcast_to(np.arange(n_axes, dtype=float), heights.shape)
    lines = np.stack([x, heights], axis=2)
    finite = info.score[np.isfinite(info.score)]
    scale = Normalize(info.low, float(finite.max()) if finite.size and finite.max() > info.low else info.low + 1)
    colours = ScalarMappable(scale, "viridis")
    n = len(info.score)
    alpha = 0.85 if n <= 30 else 0.6 if n <= 150 else 0.35
    failed = np.isnan(info.score)
    axes.add_collection(LineCollection(list(lines[failed][:, :-1]), colors=COLOURS[7], linewidths=0.7, alpha=0.5))
    axes.add_collection(
        LineCollection(list(lines[~failed]), colors=colours.to_rgba(info.score[~failed], alpha=alpha), linewidths=1.4)
    )
    if finite.size:
        axes.add_collection(LineCollection([lines[-1]], colors=COLOURS[1], linewidths=2.4, label="best"))
        legend_below(axes)
    for position, axis in enumerate(info.axes):
        axes.axvline(position, color="black", linewidth=0.9, zorder=3)
        for label, height in axis.ticks.items():
            axes.text(position + 0.03, height, short(label, MAX_VALUE_LENGTH - 6), fontsize=7.5, va="center", zorder=5,
                      bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8})  # fmt: skip
    names = [short(axis.name, MAX_NAME_LENGTH).replace("__", "__\n") for axis in info.axes[:-1]] + [info.scorer]
    axes.set_xticks(range(n_axes), names, fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set(xlim=(-0.25, n_axes - 0.65), ylim=(-0.05, 1.05))
    add_note(axes, info.title)
    finish(axes, f"{info.scorer} of the candidates, by their parameters")
    return axes


class ParameterInfo(NamedTuple):
    """Score by one numeric parameter: values, mean and std (n_candidates,), and whether the axis is logarithmic.

    `n_splits` is the number of folds; 0 if unknown.
    """

    name: str
    values: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    log: bool
    scorer: str
    n_splits: int = 0


def parameter_info(results: SearchResults, name: str) -> ParameterInfo:
    """Compute the score by parameter `name`, over candidates that did not fail."""
    parameter = results.parameter(name)
    succeeded = np.isfinite(results.mean)
    order = np.argsort(parameter.numbers[succeeded], kind="stable")
    values, mean, std = (array[succeeded][order] for array in (parameter.numbers, results.mean, results.std))
    return ParameterInfo(name, values, mean, std, parameter.kind == "log", results.scorer,
                         results.fold_scores.shape[1])  # fmt: skip


def draw_parameter(info: ParameterInfo, axes: Axes | None = None) -> Axes:
    """Draw the mean as a line, and one standard deviation over the folds as a band."""
    axes = new_axes() if axes is None else axes
    folds = f"the {info.n_splits} folds" if info.n_splits else "the folds"
    if info.n_splits != 1:
        axes.fill_between(info.values, info.mean - info.std, info.mean + info.std, color=COLOURS[0], alpha=0.2,
                          label=f"± one standard deviation over {folds}")  # fmt: skip
    label = "the only fold" if info.n_splits == 1 else f"mean over {folds}"
    axes.plot(info.values, info.mean, "o-", color=COLOURS[0], markersize=4, label=label)
    if info.mean.size:
        best = int(np.argmax(info.mean))
        axes.plot(info.values[best], info.mean[best], "o", color=COLOURS[1], label="best")
    if info.log:
        axes.set_xscale("log")
    axes.set(xlabel=info.name, ylabel=info.scorer)
    axes.grid(visible=True, alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    finish(axes, f"{info.scorer} by {info.name}")
    return axes


class ImportanceInfo(NamedTuple):
    """Importance of parameters, from the most to the least important.

    Attributes
    ----------
    names : list of str
        Names of the parameters.
    shares : ndarray of shape (n_parameters,)
        Shares by PED-ANOVA; they sum to 1.
    exact : ndarray of shape (n_parameters,), or None
        Exact shares of the variance of the mean scores on a full grid; the rest to 1 is due to interactions.
    """

    names: list[str]
    shares: np.ndarray
    exact: np.ndarray | None


def importance_info(importance: Mapping[str, float], exact: Mapping[str, float] | None = None) -> ImportanceInfo:
    """Sort the results of ``mlflow_hp.analysis.importance``."""
    names = sorted(importance, key=lambda name: -importance[name])
    shares = np.array([importance[name] for name in names])
    return ImportanceInfo(names, shares, None if exact is None else np.array([exact[name] for name in names]))


def draw_importance(info: ImportanceInfo, axes: Axes | None = None) -> Axes:
    """Draw a bar per parameter, and a second one for the exact share if there is one."""
    n = len(info.names)
    longest = max((len(short(name, MAX_NAME_LENGTH)) for name in info.names), default=0)
    axes = new_axes(6.0 + 0.075 * longest, max(2.4, 0.5 * n + 1.6)) if axes is None else axes
    rows, height = np.arange(n), 0.6 if info.exact is None else 0.36
    bars = [("being among the best (PED-ANOVA)", info.shares, COLOURS[0])]
    if info.exact is not None:
        interactions = f"{max(0.0, 1 - info.exact.sum()):.0%}"
        bars.append((f"variance of all scores (exact; interactions {interactions})", info.exact, COLOURS[4]))
    for index, (label, values, colour) in enumerate(bars):
        drawn = axes.barh(rows + index * (height + 0.02), values, height, color=colour, label=label)
        axes.bar_label(drawn, [f"{value:.0%}" for value in values], padding=3, fontsize=8)
    axes.set_yticks(rows + (len(bars) - 1) * height / 2, [short(name, MAX_NAME_LENGTH) for name in info.names])
    axes.set(xlabel="share", xlim=(0, 1.1))
    axes.invert_yaxis()
    legend_below(axes)
    finish(axes, "importance of the parameters")
    return axes


def _parallel_axis(parameter: Parameter, order: np.ndarray) -> ParallelAxis:
    """Place candidates on an axis: categories evenly spaced, numbers by value."""
    n = len(parameter.levels)
    if parameter.kind == "category":
        heights = np.arange(n) / max(n - 1, 1)
        ticks = range(0, n, -(-n // 20))
        return ParallelAxis(parameter.name, heights[parameter.codes[order]],
                            {parameter.labels[tick]: float(heights[tick]) for tick in ticks})  # fmt: skip
    levels = np.array(parameter.levels, np.float64)
    scaled = np.log(levels) if parameter.kind == "log" else levels
    low, high = float(scaled[0]), float(scaled[-1])
    span = high - low or 1.0
    heights = (scaled - low) / span
    if n <= MAX_LEVELS and not parameter.is_drawn:
        tick_heights = _without_overlap(dict(zip(parameter.labels, heights.tolist(), strict=True)))
    else:
        is_log = parameter.kind == "log"
        values = round_values(float(levels[0]), float(levels[-1]), log=is_log)
        at = (np.log(values) if is_log else values) - low
        tick_heights = {tick_text(value): float(height / span) for value, height in zip(values, at, strict=True)}
    return ParallelAxis(parameter.name, heights[parameter.codes[order]], tick_heights)


def _spread(axis: ParallelAxis) -> np.ndarray:
    """Move heights slightly up or down, so that lines through the same value stay distinct."""
    if len(np.unique(axis.heights)) > MAX_LEVELS:
        return axis.heights
    golden = (np.arange(len(axis.heights)) * 0.6180339887498949) % 1  # evenly spread for any number of lines
    return np.asarray(axis.heights + SPREAD * (golden - 0.5))


def _without_overlap(ticks: dict[str, float], min_gap: float = 0.045) -> dict[str, float]:
    """Drop ticks, which are ascending, that would overlap the one below; the last one stays."""
    distinct: dict[str, float] = {}
    for label, height in ticks.items():
        while distinct and height == 1.0 and height - list(distinct.values())[-1] < min_gap and len(distinct) > 1:
            distinct.popitem()
        if not distinct or height - list(distinct.values())[-1] >= min_gap or height == 1.0:
            distinct[label] = height
    return distinct
