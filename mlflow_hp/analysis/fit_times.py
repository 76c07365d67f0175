"""Comparison of the fit times of candidates: only of those that need not cost the same, and with a test."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlflow_hp.analysis.multiple_tests import holm

FASTER = 1.05
"""Least ratio of times that counts as a difference."""


class FitTimes(NamedTuple):
    """Fit times of candidates over their folds.

    Attributes
    ----------
    mean, std : ndarray of shape (n_candidates,)
        Mean and standard deviation (divisor n) in seconds; nan if unknown.
    n : ndarray of int, shape (n_candidates,)
        Number of folds that count: each process's first fit of an architecture does not.
    costs : list of str or None
        Texts that are equal for candidates of equal architecture, batch size and epochs; None if unknown.
    """

    mean: np.ndarray
    std: np.ndarray
    n: np.ndarray
    costs: list[str | None]

    def of(self, rows: np.ndarray) -> FitTimes:
        """Times of some candidates, by index."""
        return FitTimes(self.mean[rows], self.std[rows], self.n[rows], [self.costs[row] for row in rows])


def fastest(times: FitTimes, near: np.ndarray, best: int, level: float) -> int:
    """Index of the candidate that trains fastest of those significantly faster than the best; else that of the best.

    Candidates of equal architecture, batch size and epochs are not compared: their times differ by chance. The others
    are, by Welch's one-sided t-test [1]_ with Holm's correction over them.

    Parameters
    ----------
    times : FitTimes
    near : ndarray of bool, shape (n_candidates,)
        Candidates that may be chosen.
    best : int
        0-based index of the best candidate.
    level : float
        Level of significance.

    References
    ----------
    .. [1] Welch, "The generalization of 'Student's' problem when several different population variances are
       involved", Biometrika 34, 1947.
    """
    from scipy.stats import ttest_ind_from_stats

    others = np.flatnonzero(near & (times.n > 1) & np.isfinite(times.mean))
    own = times.costs[best]
    others = np.array([i for i in others if i != best and (own is None or times.costs[i] != own)], np.int64)
    if not others.size or times.n[best] < 2:
        return best
    sample_std = times.std * np.sqrt(times.n / np.maximum(times.n - 1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values = ttest_ind_from_stats(
            times.mean[others], sample_std[others], times.n[others],
            times.mean[best], sample_std[best], times.n[best], equal_var=False, alternative="less",
        ).pvalue  # fmt: skip
    significant = holm(np.nan_to_num(p_values, nan=1.0)) < level
    faster = others[significant & (times.mean[others] * FASTER < times.mean[best])]
    return int(faster[np.argmin(times.mean[faster])]) if faster.size else best
