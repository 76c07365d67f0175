"""Plots of a search by candidate: scores in order, by fold and by fit time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import (
    COLOURS,
    DECADES_FOR_LOG,
    add_note,
    axes_with_room_for_legend,
    finish,
    legend_on_right,
    new_axes,
    style_of,
    whole_numbers,
)
from mlflow_hp.plots.search_style import (
    MAX_LEGEND_LENGTH,
    TABLE_FONT,
    legend_below,
    limits_of,
    lowest_shown,
    row_inches,
    row_labels,
    row_limits,
    row_ticks,
    spread_in_words,
)
from mlflow_hp.plots.wording import in_words, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.significance import Winner

MAX_NAMED = 50
"""Up to this many candidates are drawn with their names."""
MAX_LINES = 8
"""Up to this many candidates are drawn as lines from fold to fold, more as boxes."""


class ScoresInfo(NamedTuple):
    """Candidates by mean score, the best first.

    Attributes
    ----------
    labels : list of str
        Labels of the candidates.
    mean, std : ndarray of shape (n_candidates,)
        Mean and standard deviation over the folds.
    group : ndarray of str, shape (n_candidates,)
        ``"best"``, ``"tied"`` (not significantly worse), ``"other"``, or ``"dropped"`` (early in a halving search).
    low : float
        Lower edge of the plot, at which lower scores are drawn.
    scorer, title : str
        Name of the score, and a note on what is left out.
    header : str
        Header of the table that the labels are, as by `row_labels`. Defaults to none.
    n_splits : int
        Number of folds. Defaults to 0, unknown.
    """

    labels: list[str]
    mean: np.ndarray
    std: np.ndarray
    group: np.ndarray
    low: float
    scorer: str
    title: str
    header: str = ""
    n_splits: int = 0


def scores_info(results: SearchResults, winner: Winner) -> ScoresInfo:
    """Compute the scores of all candidates without a failed fold, by rank."""
    chosen = _in_order(results)
    mean = results.mean[chosen]
    low = lowest_shown(mean)
    group = _groups(results, winner)[chosen]
    test = f" (p ≥ {winner.level:g}, Nadeau-Bengio, Holm)"
    notes = [_count(int(np.sum(group == "tied")), "not significantly worse than the best", test)]
    notes += _left_out(results, mean, low)
    labels, header = row_labels(results, chosen)
    return ScoresInfo(labels, mean, results.std[chosen], group, low, results.scorer, " · ".join(filter(None, notes)),
                      header, results.fold_scores.shape[1])  # fmt: skip


def draw_scores(info: ScoresInfo, axes: Axes | None = None) -> Axes:
    """Draw mean and standard deviation, in a row per candidate if there are few, else by rank."""
    n = len(info.mean)
    named = n <= MAX_NAMED
    if axes is None:
        wide = 6.0 + row_inches(info.labels, info.header)
        axes = new_axes(wide, max(2.6, 0.24 * n + 1.7)) if named else new_axes(9.0, 5.0)
    rank, shown = np.arange(n), np.maximum(info.mean, info.low)
    for group, (colour, label) in GROUPS.items():
        chosen = info.group == group
        if not chosen.any():
            continue
        style: dict[str, Any] = {"color": colour, "linestyle": "none", "marker": "o", "label": label}
        style |= {"markersize": 5, "elinewidth": 1.3} if n <= 150 else {"markersize": 3, "elinewidth": 0.6}
        if named:
            axes.errorbar(shown[chosen], rank[chosen], xerr=info.std[chosen], **style)
        else:
            axes.errorbar(rank[chosen] + 1, shown[chosen], yerr=info.std[chosen], **style)
    limits = limits_of(info.mean, info.std, info.low)
    score = f"{info.scorer}: {spread_in_words(info.n_splits)}" if info.n_splits else f"{info.scorer}, mean ± std"
    if named:
        row_ticks(axes, info.labels, info.header)
        axes.set(xlabel=score, xlim=limits, ylim=row_limits(n, info.header))
    else:
        axes.set(xlabel="rank (1: the best)", ylabel=score, ylim=limits, xlim=(0, n + 1))
    axes.grid(visible=True, alpha=0.25, axis="x" if named else "y")
    legend_below(axes)
    add_note(axes, info.title)
    finish(axes, f"{info.scorer} of each candidate, the best first")
    return axes


class TimeInfo(NamedTuple):
    """Score against fit time.

    Attributes
    ----------
    seconds, mean : ndarray of shape (n_candidates,)
        Fit time per fold, and mean score.
    group : ndarray of str, shape (n_candidates,)
        As in `ScoresInfo`.
    front : ndarray of int
        Indices of the Pareto front, from the fastest to the best.
    marked : dict of str to int
        Label in the legend -> index of the candidate.
    low : float
        As in `ScoresInfo`.
    scorer, title : str
        As in `ScoresInfo`.
    """

    seconds: np.ndarray
    mean: np.ndarray
    group: np.ndarray
    front: np.ndarray
    marked: dict[str, int]
    low: float
    scorer: str
    title: str


def time_info(results: SearchResults, winner: Winner) -> TimeInfo:
    """Compute score against fit time, with the Pareto front of the candidates fitted with the same resources."""
    fit_seconds = results.fit_seconds if results.fit_times is None else results.fit_times.mean
    chosen = _in_order(results)
    chosen = chosen[np.isfinite(fit_seconds[chosen])]
    mean, seconds = results.mean[chosen], fit_seconds[chosen]
    front = pareto_front(seconds, np.where(results.compared[chosen], mean, -np.inf))
    marked: dict[str, int] = {}
    for word, index in (("best", winner.best), ("cheapest within one standard error", winner.cheapest)):
        at = np.flatnonzero(chosen == index)
        if at.size and int(at[0]) not in marked.values():
            marked[f"{word}: {short(in_words(results.labels[index]), MAX_LEGEND_LENGTH)}"] = int(at[0])
    low = lowest_shown(mean)
    title = " · ".join(_left_out(results, mean, low))
    return TimeInfo(seconds, mean, _groups(results, winner)[chosen], front, marked, low, results.scorer, title)


def pareto_front(seconds: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Indices, by time, of those for which no other has a better score in no more time; arrays of shape (n,)."""
    order = np.lexsort((-score, seconds))
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(score[order])[:-1]])[: len(order)]
    return order[score[order] > best_before]


def draw_time(info: TimeInfo, axes: Axes | None = None) -> Axes:
    """Draw a point per candidate, and the Pareto front as steps."""
    axes = new_axes(9.0, 5.5) if axes is None else axes
    shown = np.maximum(info.mean, info.low)
    size = 26 if len(shown) <= 150 else 10
    for group, (colour, label) in GROUPS.items():
        chosen = info.group == group
        if chosen.any() and group != "best":
            axes.scatter(info.seconds[chosen], shown[chosen], s=size, color=colour, label=label, zorder=3)
    if info.front.size:
        axes.plot(info.seconds[info.front], shown[info.front], drawstyle="steps-post", color=COLOURS[2], marker="o",
                  markersize=4, linewidth=1.3, zorder=2, label="Pareto front: none is better and faster")  # fmt: skip
    for (label, index), marker, colour in zip(info.marked.items(), "*D", (COLOURS[1], COLOURS[4]), strict=False):
        axes.plot(info.seconds[index], shown[index], marker, color=colour, markeredgecolor="black", zorder=5,
                  markersize=14 if marker == "*" else 9, linestyle="none", label=label)  # fmt: skip
    seconds = info.seconds
    if seconds.size and seconds.min() > 0 and np.log10(seconds.max() / seconds.min()) > DECADES_FOR_LOG / 2:
        axes.set_xscale("log")
    axes.set(
        xlabel="fit time per fold (seconds)",
        ylabel=f"{info.scorer}, mean over the folds",
        ylim=limits_of(info.mean, 0 * info.mean, info.low),
    )
    axes.grid(visible=True, alpha=0.25)
    legend_below(axes)
    add_note(axes, info.title)
    finish(axes, f"{info.scorer} by fit time")
    return axes


class FoldsInfo(NamedTuple):
    """Scores by fold.

    Attributes
    ----------
    labels : list of str
        Labels of the candidates, the best first.
    scores : ndarray of shape (n_candidates, n_splits)
        Scores; nan where a fold failed.
    scorer, title : str
        Name of the score, and a note on what is left out.
    header : str
        As in `ScoresInfo`. Defaults to none.
    """

    labels: list[str]
    scores: np.ndarray
    scorer: str
    title: str
    header: str = ""


def folds_info(results: SearchResults) -> FoldsInfo:
    """Compute the scores by fold of the best ``MAX_NAMED`` candidates."""
    ranked = np.argsort(results.ranks, kind="stable")
    ranked = ranked[np.isfinite(results.fold_scores[ranked]).any(axis=1)][:MAX_NAMED]
    labels, header = row_labels(results, ranked)
    n = len(results.candidates)
    note = f"the best {len(ranked)} of {n:,}" if len(ranked) < n else ""
    return FoldsInfo(labels, results.fold_scores[ranked], results.scorer, note, header)


def draw_folds(info: FoldsInfo, axes: Axes | None = None) -> Axes:
    """Draw a line per candidate from fold to fold if there are few, else a box of quartiles with its folds."""
    n, n_splits = info.scores.shape
    lines = n <= MAX_LINES
    if axes is None:
        wide = 6.0 + row_inches(info.labels, info.header)
        axes = axes_with_room_for_legend([info.header, *info.labels]) if lines else new_axes(wide, 0.24 * n + 1.2)
    if lines:
        for index, (label, scores) in enumerate(zip(info.labels, info.scores, strict=True)):
            axes.plot(
                np.arange(n_splits),
                scores,
                marker="o",
                label=label if info.header else in_words(label),
                linewidth=1.5,
                **style_of(index),
            )
        axes.set(xlabel="fold (0: the first)", ylabel=info.scorer)
        axes.set_xlim(-0.3, n_splits - 0.7)
        whole_numbers(axes)
        if n:
            legend_on_right(axes, info.header, TABLE_FONT if info.header else None)
    else:
        low, middle, high = np.nanquantile(info.scores, [0.25, 0.5, 0.75], axis=1)
        axes.barh(range(n), high - low, left=low, height=0.6, color="#E4E4E4")
        axes.plot(middle, range(n), "|", color=COLOURS[1], markersize=11, markeredgewidth=2, label="median")
        rows = np.broadcast_to(np.arange(n)[:, None], info.scores.shape)
        axes.plot(info.scores, rows, ".", color=COLOURS[0], markersize=5, alpha=0.7)
        row_ticks(axes, info.labels, info.header)
        note = "dots: the folds, bar: median, box: quartiles"
        axes.set(xlabel=f"{info.scorer} ({note})", ylim=row_limits(n, info.header))
    axes.grid(visible=True, alpha=0.25, axis="both" if lines else "x")
    add_note(axes, info.title)
    finish(axes, f"{info.scorer} by fold")
    return axes


GROUPS = {
    "dropped": ("#C8C8C8", "dropped earlier, scored with fewer resources"),
    "other": (COLOURS[7], "significantly worse than the best"),
    "tied": (COLOURS[0], "not significantly worse than the best"),
    "best": (COLOURS[1], "best"),
}
"""Group -> colour and label, from back to front."""


def _in_order(results: SearchResults) -> np.ndarray:
    """Indices of the candidates without a failed fold, the best first."""
    ranked = np.argsort(results.ranks, kind="stable")
    return np.asarray(ranked[np.isfinite(results.mean[ranked])])


def _groups(results: SearchResults, winner: Winner) -> np.ndarray:
    group = np.where(results.compared, "other", "dropped").astype("<U8")
    group[winner.tied] = "tied"
    group[winner.best] = "best"
    return group


def _left_out(results: SearchResults, mean: np.ndarray, low: float) -> list[str]:
    """Notes on candidates that failed, or lie below the plot."""
    notes = [_count(int(np.sum(mean < low)), "below the plot", ", drawn at its edge")]
    notes.append(_count(int((np.isnan(results.mean) & ~results.is_skipped).sum()), "with a failed fold", ", not drawn"))
    notes.append(_count(int(results.is_skipped.sum()), "not computed in every fold", ", not drawn"))
    return [note for note in notes if note]


def _count(n: int, description: str, suffix: str) -> str:
    return f"{n:,} {description}{suffix}" if n else ""
