"""What a search found, candidate by candidate: scores in order, by fold and by fit time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import (
    COLOURS,
    DECADES_FOR_LOG,
    axes_with_legend_beside,
    entitle,
    legend_beside,
    new_axes,
    style_of,
)
from mlflow_hp.plots.search_style import (
    LONGEST_IN_LEGEND,
    legend_below,
    limits_of,
    lowest_shown,
    row_labels,
    say,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.significance import Winner

MOST_NAMED = 40
"""Up to so many candidates are drawn with their names."""
FEW_FOLDS = 8
"""Up to so many candidates are drawn as lines from fold to fold, more as boxes."""


class ScoresInfo(NamedTuple):
    """Candidates by mean score, the best first.

    Attributes
    ----------
    labels : list of str
        The candidates.
    mean, std : ndarray of shape (n,)
        Over the folds.
    group : ndarray of str, shape (n,)
        ``"best"``, ``"tied"`` (can't be told from it), ``"other"``, or ``"dropped"`` (earlier in a halving search).
    low : float
        The lower edge of the picture; who is below is drawn at it.
    scorer, title : str
        What the scores are, and what is left out.
    """

    labels: list[str]
    mean: np.ndarray
    std: np.ndarray
    group: np.ndarray
    low: float
    scorer: str
    title: str


def scores_info(results: SearchResults, winner: Winner) -> ScoresInfo:
    """The numbers of a picture of all candidates whose folds all succeeded, by rank."""
    chosen = _in_order(results)
    mean = results.mean[chosen]
    low = lowest_shown(mean)
    group = _groups(results, winner)[chosen]
    test = f" (p ≥ {winner.level:g}, Nadeau-Bengio, Holm)"
    said = [_count(int(np.sum(group == "tied")), "can't be told from the best", test)]
    said += _left_out(results, mean, low)
    labels, key = row_labels(results, chosen)
    if len(chosen) <= MOST_NAMED:
        said.append(key)
    return ScoresInfo(labels, mean, results.std[chosen], group, low, results.scorer, " · ".join(filter(None, said)))


def draw_scores(info: ScoresInfo, axes: Axes | None = None) -> Axes:
    """Mean with one standard deviation to each side: a row per candidate where they are few, else by rank."""
    n = len(info.mean)
    named = n <= MOST_NAMED
    if axes is None:
        longest = max(map(len, info.labels), default=0)
        axes = new_axes(6.0 + 0.075 * longest, max(2.6, 0.24 * n + 1.7)) if named else new_axes(9.0, 5.0)
    place, shown = np.arange(n), np.maximum(info.mean, info.low)
    for group, (colour, label) in GROUPS.items():
        chosen = info.group == group
        if not chosen.any():
            continue
        style: dict[str, Any] = {"color": colour, "linestyle": "none", "marker": "o", "label": label}
        style |= {"markersize": 5, "elinewidth": 1.3} if n <= 150 else {"markersize": 3, "elinewidth": 0.6}
        if named:
            axes.errorbar(shown[chosen], place[chosen], xerr=info.std[chosen], **style)
        else:
            axes.errorbar(place[chosen] + 1, shown[chosen], yerr=info.std[chosen], **style)
    limits = limits_of(info.mean, info.std, info.low)
    if named:
        axes.set_yticks(place, info.labels, fontsize=8)
        axes.set(xlabel=info.scorer, xlim=limits, ylim=(n - 0.4, -0.6))
    else:
        axes.set(xlabel="place", ylabel=info.scorer, ylim=limits, xlim=(0, n + 1))
    axes.grid(visible=True, alpha=0.25, axis="x" if named else "y")
    if axes.get_legend_handles_labels()[0]:
        legend_below(axes)
    say(axes, info.title)
    entitle(axes, f"{info.scorer} of the combinations")
    return axes


class TimeInfo(NamedTuple):
    """Score against time.

    Attributes
    ----------
    seconds, mean : ndarray of shape (n,)
        Fit time per fold and mean score.
    group : ndarray of str, shape (n,)
        As in `ScoresInfo`.
    front : ndarray of int
        The candidates that none beats in both, from the fastest to the best.
    marked : dict of str to int
        What to name in the legend -> candidate.
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
    """The numbers of a picture of score against fit time, with the Pareto front of those that can be compared."""
    known = np.isfinite(results.fit_seconds)
    chosen = _in_order(results)
    chosen = chosen[known[chosen]]
    mean, seconds = results.mean[chosen], results.fit_seconds[chosen]
    front = pareto_front(seconds, np.where(results.compared[chosen], mean, -np.inf))
    marked: dict[str, int] = {}
    for word, index in (("best", winner.best), ("cheapest within one standard error", winner.cheapest)):
        at = np.flatnonzero(chosen == index)
        if at.size and int(at[0]) not in marked.values():
            marked[f"{word}: {short(results.labels[index], LONGEST_IN_LEGEND)}"] = int(at[0])
    low = lowest_shown(mean)
    title = " · ".join(_left_out(results, mean, low))
    return TimeInfo(seconds, mean, _groups(results, winner)[chosen], front, marked, low, results.scorer, title)


def pareto_front(seconds: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Indices of those that no other beats with a better score in no more time, by time; all arrays of shape (n,)."""
    order = np.lexsort((-score, seconds))
    best_before = np.concatenate([[-np.inf], np.maximum.accumulate(score[order])[:-1]])[: len(order)]
    return order[score[order] > best_before]


def draw_time(info: TimeInfo, axes: Axes | None = None) -> Axes:
    """A point per candidate, the front as steps."""
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
    axes.set(xlabel="fit seconds per fold", ylabel=info.scorer, ylim=limits_of(info.mean, 0 * info.mean, info.low))
    axes.grid(visible=True, alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        legend_below(axes)
    say(axes, info.title)
    entitle(axes, f"{info.scorer} by fit time")
    return axes


class FoldsInfo(NamedTuple):
    """Scores by fold.

    Attributes
    ----------
    labels : list of str
        The candidates, the best first.
    scores : ndarray of shape (len(labels), n_splits)
        nan where a fold failed.
    scorer, title : str
        What the scores are, and who is left out.
    """

    labels: list[str]
    scores: np.ndarray
    scorer: str
    title: str


def folds_info(results: SearchResults) -> FoldsInfo:
    """The numbers of a picture by fold, of the best ``MOST_NAMED`` candidates."""
    ranked = np.argsort(results.ranks, kind="stable")
    ranked = ranked[np.isfinite(results.fold_scores[ranked]).any(axis=1)][:MOST_NAMED]
    labels, key = row_labels(results, ranked)
    n = len(results.candidates)
    said = [f"the best {len(ranked)} of {n:,}" if len(ranked) < n else "", key]
    return FoldsInfo(labels, results.fold_scores[ranked], results.scorer, " · ".join(filter(None, said)))


def draw_folds(info: FoldsInfo, axes: Axes | None = None) -> Axes:
    """A line per candidate from fold to fold where they are few, else a box of its quartiles with its folds on it."""
    from matplotlib.ticker import MaxNLocator

    n, n_splits = info.scores.shape
    longest = max(map(len, info.labels), default=0)
    lines = n <= FEW_FOLDS
    if axes is None:
        axes = axes_with_legend_beside(info.labels) if lines else new_axes(6.0 + 0.075 * longest, 0.24 * n + 1.2)
    if lines:
        for index, (label, scores) in enumerate(zip(info.labels, info.scores, strict=True)):
            axes.plot(np.arange(n_splits), scores, marker="o", label=label, linewidth=1.5, **style_of(index))
        axes.set(xlabel="fold", ylabel=info.scorer)
        axes.set_xlim(-0.3, n_splits - 0.7)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if n:
            legend_beside(axes)
    else:
        low, middle, high = np.nanquantile(info.scores, [0.25, 0.5, 0.75], axis=1)
        axes.barh(range(n), high - low, left=low, height=0.6, color="#E4E4E4")
        axes.plot(middle, range(n), "|", color=COLOURS[1], markersize=11, markeredgewidth=2, label="median")
        rows = np.broadcast_to(np.arange(n)[:, None], info.scores.shape)
        axes.plot(info.scores, rows, ".", color=COLOURS[0], markersize=5, alpha=0.7)
        axes.set_yticks(range(n), info.labels, fontsize=8)
        axes.set(xlabel=f"{info.scorer}, each fold", ylim=(n - 0.4, -0.6))
    axes.grid(visible=True, alpha=0.25, axis="both" if lines else "x")
    say(axes, info.title)
    entitle(axes, f"{info.scorer} by fold")
    return axes


GROUPS = {
    "dropped": ("#C8C8C8", "dropped earlier, scored with fewer resources"),
    "other": (COLOURS[7], "worse than the best"),
    "tied": (COLOURS[0], "can't be told from the best"),
    "best": (COLOURS[1], "best"),
}
"""Group -> colour and words, from back to front."""


def _in_order(results: SearchResults) -> np.ndarray:
    """The candidates of which no fold failed, the best first."""
    ranked = np.argsort(results.ranks, kind="stable")
    return np.asarray(ranked[np.isfinite(results.mean[ranked])])


def _groups(results: SearchResults, winner: Winner) -> np.ndarray:
    group = np.where(results.compared, "other", "dropped").astype("<U8")
    group[winner.tied] = "tied"
    group[winner.best] = "best"
    return group


def _left_out(results: SearchResults, mean: np.ndarray, low: float) -> list[str]:
    """In words: who failed, and who lies below the picture."""
    said = [_count(int(np.sum(mean < low)), "below the picture", ", drawn at its edge")]
    said.append(_count(int(np.isnan(results.mean).sum()), "with a failed fold", ", not drawn"))
    return [text for text in said if text]


def _count(n: int, what: str, more: str) -> str:
    return f"{n:,} {what}{more}" if n else ""
