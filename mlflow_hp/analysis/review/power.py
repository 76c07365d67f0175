"""Number of folds that it takes to tell the best candidate.

Playbook, "Determining whether to adopt a training pipeline change": a difference within the trial variance is none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.diagnosis.finding import Finding
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from mlflow_hp.analysis.review.material import Material

UNTOLD = 0.5
"""Share of the others not distinguishable from the best, above which folds are too few."""
LEVEL = 0.05
"""Level of the comparison (two-sided)."""
POWER = 0.8
"""Probability to see the difference."""
MOST_SPLITS = 200
"""Splits beyond which more of them are no advice."""


def splits_needed(difference: float, fold_noise: float, n_splits: int, test_to_train: float) -> int | None:
    """Smallest number of splits, of the same sizes, that shows a difference of means with probability ``POWER``.

    The variance of a difference is ``2 * fold_noise**2 * (1 / n + test_to_train)`` (Nadeau and Bengio 2003): the second
    term stays with any number of splits, since all train on the same data.

    Parameters
    ----------
    difference : float
        Difference of two means.
    fold_noise : float
        Standard deviation of a candidate's score from fold to fold, without what all candidates share.
    n_splits : int
        Splits now; their number is a multiple of it.
    test_to_train : float
        Size of a test fold over size of a training fold.

    Returns
    -------
    int or None
        None if no number of up to ``MOST_SPLITS`` is enough.
    """
    from scipy.stats import norm

    z = float(norm.isf(LEVEL / 2) + norm.isf(1 - POWER))
    room = (difference / z) ** 2 / (2 * fold_noise**2) - test_to_train if fold_noise > 0 else math.inf
    if room <= 1 / MOST_SPLITS:
        return None
    return int(math.ceil(1 / room / n_splits) * n_splits) if math.isfinite(room) else n_splits


def power_findings(material: Material) -> list[Finding]:
    """Report whether the folds are too few to tell the best from most of the others, and how many it takes."""
    n_splits = material.results.fold_scores.shape[1]
    others = np.array([row for row in material.rows if row != material.best])
    if n_splits < 2:
        text = "Each candidate was scored on a single split, which cannot show whether the best is better than others."
        return [Finding("power", "a single split", text, {"splits": 1}, "score on 5 folds or more", "problem")]
    tied = others[material.winner.tied[others]]
    share = len(tied) / len(others)
    if share <= UNTOLD:
        return []
    mean = material.mean
    difference = float(mean[material.best] - np.median(mean[tied]))
    fold_noise = material.noise / np.sqrt(1 / n_splits + material.test_to_train)
    needed = splits_needed(difference, fold_noise, n_splits, material.test_to_train)
    text = (
        f"{len(tied)} of {count(len(others), 'other candidate')} cannot be distinguished from the best by "
        f"{count(n_splits, 'fold')}; half of "
        f"them are within {difference:.2g} of it."
    )
    if needed is None or needed <= n_splits:
        advice = "take the cheapest of them, or more data: " + (
            "no number of repeated folds of these data would show such a difference"
            if needed is None
            else f"{count(n_splits, 'fold')} show a difference of that size only between two candidates alone"
        )
    else:
        advice = (
            f"score the best ones again on {needed} splits ({count(n_splits, 'fold')}, repeated "
            f"{needed // n_splits} times): they show a difference of that size with a probability of {POWER:.0%}"
        )
    evidence = {"tied": len(tied), "tied_share": share, "splits_needed": needed, "difference_to_tied": difference}
    return [Finding("power", "the best is not known", text, evidence, advice, "hint")]
