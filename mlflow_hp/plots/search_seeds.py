"""Plot of a search with several seeds: what of the differences is the candidate, what is luck."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import COLOURS, add_note, finish, legend_below, new_axes
from mlflow_hp.plots.search import MAX_NAMED
from mlflow_hp.plots.search_style import row_inches, row_labels, row_limits, row_ticks
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults


class SeedsInfo(NamedTuple):
    """Scores by seed.

    Attributes
    ----------
    labels : list of str
        Labels of the candidates, the best first.
    by_seed : ndarray of shape (n_candidates, n_seeds)
        Mean score over the folds with each seed.
    by_fold : ndarray of shape (n_candidates, n_splits)
        Mean score over the seeds on each fold.
    scorer, note : str
        Name of the score, and a note on what is left out.
    header : str
        Header of the table that the labels are. Defaults to none.
    """

    labels: list[str]
    by_seed: np.ndarray
    by_fold: np.ndarray
    scorer: str
    note: str
    header: str = ""


def seeds_info(results: SearchResults) -> SeedsInfo:
    """Compute the scores by seed and by fold of the best ``MAX_NAMED`` candidates."""
    assert results.seed_scores is not None
    ranked = np.argsort(results.ranks, kind="stable")
    ranked = ranked[np.isfinite(results.seed_scores[ranked]).all(axis=(1, 2))][:MAX_NAMED]
    labels, header = row_labels(results, ranked)
    n = len(results.candidates)
    note = f"the best {len(ranked)} of {n:,}" if len(ranked) < n else ""
    scores = results.seed_scores[ranked]
    return SeedsInfo(labels, scores.mean(axis=1), scores.mean(axis=2), results.scorer, note, header)


def draw_seeds(info: SeedsInfo, axes: Axes | None = None) -> Axes:
    """Draw a row per candidate: a point for each seed, above it a tick for each fold, and the mean."""
    n = len(info.labels)
    axes = new_axes(6.0 + row_inches(info.labels, info.header), max(2.6, 0.3 * n + 1.7)) if axes is None else axes
    rows = np.arange(n)
    styles = (
        (info.by_fold, -0.18, "|", "black", f"fold (mean over {count(info.by_seed.shape[1], 'seed')})"),
        (info.by_seed, 0.12, "o", COLOURS[0], f"seed (mean over {count(info.by_fold.shape[1], 'fold')})"),
    )
    for scores, offset, marker, colour, label in styles:
        places = np.broadcast_to(rows[:, None] + offset, scores.shape)
        axes.plot(scores.ravel(), places.ravel(), marker, color=colour, markersize=6, alpha=0.7, label=label)
    axes.plot(info.by_seed.mean(axis=1), rows, "d", color=COLOURS[1], markersize=6, label="mean")
    row_ticks(axes, info.labels, info.header)
    axes.set(xlabel=info.scorer, ylim=row_limits(n, info.header))
    axes.grid(visible=True, alpha=0.25, axis="x")
    legend_below(axes)
    add_note(axes, info.note)
    finish(axes, f"{info.scorer} by seed and by fold")
    return axes
