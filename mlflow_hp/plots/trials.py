"""Plot of trials in their order: the score of each, and the best so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.plots.figure import COLOURS, add_note, finish, new_axes, whole_numbers
from mlflow_hp.plots.search_style import lowest_shown
from mlflow_hp.plots.wording import capitalized, in_words
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from mlflow_hp.analysis.search_results import SearchResults


class TrialsInfo(NamedTuple):
    """Trials in their order.

    Attributes
    ----------
    numbers : ndarray of int, shape (n_trials,)
        Numbers of the trials (0-based).
    scores, best_so_far : ndarray of shape (n_trials,)
        Mean score of each, nan without one; and the best up to it.
    low : float
        Lower edge of the plot, at which lower scores are drawn.
    scorer : str
        Name of the score.
    n_without : int
        Number of trials without a score.
    """

    numbers: np.ndarray
    scores: np.ndarray
    best_so_far: np.ndarray
    low: float
    scorer: str
    n_without: int


def trials_info(numbers: Sequence[int], results: SearchResults) -> TrialsInfo:
    """Compute the plot of trials; `numbers` are those of the candidates of `results`, at least one with a score."""
    scores = results.mean
    best = np.fmax.accumulate(scores)
    finite = scores[np.isfinite(scores)]
    return TrialsInfo(
        np.asarray(numbers), scores, best, lowest_shown(finite), results.scorer, int(np.isnan(scores).sum())
    )


def draw_trials_in_order(info: TrialsInfo, axes: Axes | None = None) -> Axes:
    """Draw the scores of trials by number, and the best so far as a line.

    Parameters
    ----------
    info : TrialsInfo
        What to draw.
    axes : Axes, optional
        Where to draw. Defaults to new axes.

    Returns
    -------
    Axes
        The axes.
    """
    axes = new_axes() if axes is None else axes
    has_score = np.isfinite(info.scores)
    shown = np.maximum(info.scores[has_score], info.low)
    below = info.scores[has_score] < info.low
    numbers = info.numbers[has_score]
    axes.plot(numbers[~below], shown[~below], "o", color=COLOURS[0], alpha=0.6, label="trial")
    if below.any():
        axes.plot(numbers[below], shown[below], "v", color=COLOURS[0], alpha=0.6, label="trial below the plot")
    axes.step(info.numbers, info.best_so_far, where="post", color=COLOURS[1], label="best so far")
    axes.set_xlabel("Trial (0-based)")
    axes.set_ylabel(capitalized(in_words(info.scorer)))
    whole_numbers(axes)
    axes.legend(loc="lower right")
    if info.n_without:
        add_note(axes, f"{count(info.n_without, 'trial')} without a score: pruned or failed")
    finish(axes, "Score by trial")
    return axes
