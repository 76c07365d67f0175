"""What a search found, parameter by parameter: parallel coordinates, score by one of them, what matters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import COLOURS, entitle, new_axes
from mlflow_hp.plots.search_style import LONGEST, LONGEST_VALUE, digits_of, legend_below, lowest_shown, short

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.search_space import Parameter

MOST_LEVELS = 12
"""Axes of no more distinct values than this have a tick at each, and spread their lines a little."""
MANY = 50
"""... where there are more candidates than this, ..."""
SPREAD = 0.06
"""... over this share of the axis."""


class ParallelAxis(NamedTuple):
    """One axis: its name, the candidates' heights (n,) in 0..1, and where which tick stands."""

    name: str
    heights: np.ndarray
    ticks: dict[str, float]


class ParallelInfo(NamedTuple):
    """Parallel coordinates.

    Attributes
    ----------
    axes : list of ParallelAxis
        The parameters, then the score.
    score : ndarray of shape (n,)
        The candidates' mean scores, from the lowest to the best; those that failed first, as nan.
    low : float
        The score from which downward all have one colour and the lowest height.
    scorer, title : str
        What the scores are, and who failed.
    """

    axes: list[ParallelAxis]
    score: np.ndarray
    low: float
    scorer: str
    title: str


def parallel_info(results: SearchResults) -> ParallelInfo:
    """The numbers of parallel coordinates over all parameters that vary."""
    order = np.argsort(np.where(np.isnan(results.mean), -np.inf, results.mean), kind="stable")
    score = results.mean[order]
    low = lowest_shown(score)
    found = [_parallel_axis(results.parameter(name), order) for name in results.parameters]
    if len(order) > MANY:
        found = [axis._replace(heights=_spread(axis)) for axis in found]
    finite = score[np.isfinite(score)]
    top = float(finite.max()) if finite.size else low + 1.0
    span = top - low or 1.0
    ticks = {digits_of(low + share * span, span): share for share in (0.0, 0.25, 0.5, 0.75, 1.0)}
    found.append(ParallelAxis(results.scorer, np.clip((score - low) / span, 0.0, 1.0), ticks))
    said = []
    if n_failed := int(np.isnan(score).sum()):
        said.append(f"{n_failed:,} failed: grey, without a score")
    if n_below := int((score < low).sum()):
        said.append(f"{n_below:,} below the picture, drawn at its edge")
    if results.iterations is not None:
        said.append("each as scored last: dropped early, with fewer resources")
    return ParallelInfo(found, score, low, results.scorer, " · ".join(said))


def draw_parallel(info: ParallelInfo, axes: Axes | None = None) -> Axes:
    """A line per candidate, the best on top, coloured by its score, which the last axis shows."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize

    n_axes = len(info.axes)
    axes = new_axes(1.0 + 2.2 * n_axes, 5.5) if axes is None else axes
    heights = np.stack([axis.heights for axis in info.axes], axis=1)
    places = np.broadcast_to(np.arange(n_axes, dtype=float), heights.shape)
    lines = np.stack([places, heights], axis=2)
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
    for place, axis in enumerate(info.axes):
        axes.axvline(place, color="black", linewidth=0.9, zorder=3)
        for label, height in axis.ticks.items():
            axes.text(place + 0.03, height, short(label, LONGEST_VALUE - 6), fontsize=7.5, va="center", zorder=5,
                      bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8})  # fmt: skip
    names = [short(axis.name, LONGEST).replace("__", "__\n") for axis in info.axes[:-1]] + [info.scorer]
    axes.set_xticks(range(n_axes), names, fontsize=9)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.set(xlim=(-0.25, n_axes - 0.65), ylim=(-0.05, 1.05))
    if info.title:
        axes.set_xlabel(info.title, fontsize=8, color="#555555", loc="left")
    entitle(axes, f"{info.scorer} of the combinations, by their parameters")
    return axes


class ParameterInfo(NamedTuple):
    """Score by one parameter of numbers: values, mean and std (n,) by value, and whether the axis is logarithmic."""

    name: str
    values: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    log: bool
    scorer: str


def parameter_info(results: SearchResults, name: str) -> ParameterInfo:
    """The numbers of a picture of the score by parameter `name`, of candidates that did not fail."""
    parameter = results.parameter(name)
    whole = np.isfinite(results.mean)
    order = np.argsort(parameter.numbers[whole], kind="stable")
    values, mean, std = (array[whole][order] for array in (parameter.numbers, results.mean, results.std))
    return ParameterInfo(name, values, mean, std, parameter.kind == "log", results.scorer)


def draw_parameter(info: ParameterInfo, axes: Axes | None = None) -> Axes:
    """The mean as a line, one standard deviation over the folds to each side as a band."""
    axes = new_axes() if axes is None else axes
    axes.fill_between(info.values, info.mean - info.std, info.mean + info.std, color=COLOURS[0], alpha=0.2,
                      label="one standard deviation over the folds")  # fmt: skip
    axes.plot(info.values, info.mean, "o-", color=COLOURS[0], markersize=4, label="mean")
    if info.mean.size:
        best = int(np.argmax(info.mean))
        axes.plot(info.values[best], info.mean[best], "o", color=COLOURS[1], label="best")
    if info.log:
        axes.set_xscale("log")
    axes.set(xlabel=info.name, ylabel=info.scorer)
    axes.grid(visible=True, alpha=0.25)
    axes.legend(frameon=False, fontsize=8)
    entitle(axes, f"{info.scorer} by {info.name}")
    return axes


class ImportanceInfo(NamedTuple):
    """What matters: parameters from the most to the least important, their shares, and exact ones where known.

    Attributes
    ----------
    names : list of str
        The parameters.
    shares : ndarray of shape (n,)
        Of PED-ANOVA, summing to 1.
    exact : ndarray of shape (n,), or None
        Shares of the variance of the mean scores, on a full grid; what is missing to 1 is what they do together.
    """

    names: list[str]
    shares: np.ndarray
    exact: np.ndarray | None


def importance_info(importance: Mapping[str, float], exact: Mapping[str, float] | None = None) -> ImportanceInfo:
    """The numbers of the picture from those of ``mlflow_hp.analysis.importance``."""
    names = sorted(importance, key=lambda name: -importance[name])
    shares = np.array([importance[name] for name in names])
    return ImportanceInfo(names, shares, None if exact is None else np.array([exact[name] for name in names]))


def draw_importance(info: ImportanceInfo, axes: Axes | None = None) -> Axes:
    """A bar per parameter, and a second one for the exact share."""
    n = len(info.names)
    longest = max((len(short(name, LONGEST)) for name in info.names), default=0)
    axes = new_axes(6.0 + 0.075 * longest, max(2.4, 0.5 * n + 1.6)) if axes is None else axes
    rows, height = np.arange(n), 0.6 if info.exact is None else 0.36
    bars = [("being among the best (PED-ANOVA)", info.shares, COLOURS[0])]
    if info.exact is not None:
        together = f"variance of all scores (exact; {max(0.0, 1 - info.exact.sum()):.0%} belong to parameters together)"
        bars.append((together, info.exact, COLOURS[4]))
    for index, (label, values, colour) in enumerate(bars):
        drawn = axes.barh(rows + index * (height + 0.02), values, height, color=colour, label=label)
        axes.bar_label(drawn, [f"{value:.0%}" for value in values], padding=3, fontsize=8)
    axes.set_yticks(rows + (len(bars) - 1) * height / 2, [short(name, LONGEST) for name in info.names])
    axes.set(xlabel="share", xlim=(0, 1.1))
    axes.invert_yaxis()
    legend_below(axes)
    entitle(axes, "importance of the parameters")
    return axes


def _parallel_axis(parameter: Parameter, order: np.ndarray) -> ParallelAxis:
    """Heights in 0..1: evenly spaced categories, or numbers on their axis with at most nine ticks."""
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
    if n <= MOST_LEVELS:
        ticks_at = dict(zip(parameter.labels, heights.tolist(), strict=True))
        ticks_at = _apart(ticks_at)
    else:
        at = np.linspace(low, high, 5)
        ticks_at = {f"{np.exp(t) if parameter.kind == 'log' else t:.3g}": float((t - low) / span) for t in at}
    return ParallelAxis(parameter.name, heights[parameter.codes[order]], ticks_at)


def _spread(axis: ParallelAxis) -> np.ndarray:
    """Heights moved a little up or down where many lines would meet at a few of them, so that they can be told."""
    if len(np.unique(axis.heights)) > MOST_LEVELS:
        return axis.heights
    golden = (np.arange(len(axis.heights)) * 0.6180339887498949) % 1  # even, whatever the number of lines
    return np.asarray(axis.heights + SPREAD * (golden - 0.5))


def _apart(ticks: dict[str, float], least: float = 0.045) -> dict[str, float]:
    """Those ticks, ascending, that stand apart from the one below, the last in any case."""
    kept: dict[str, float] = {}
    for label, height in ticks.items():
        while kept and height == 1.0 and height - list(kept.values())[-1] < least and len(kept) > 1:
            kept.popitem()
        if not kept or height - list(kept.values())[-1] >= least or height == 1.0:
            kept[label] = height
    return kept
