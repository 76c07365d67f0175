"""Is the winner of a search real? Which candidates can't be told from it, and which of these is the cheapest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from mlflow_hp.analysis.search_results import SearchResults

LEVEL = 0.05
"""A candidate is told from the best where a difference so large or larger would be rarer than this by chance."""
ROUNDING = 1e-12
"""Scores that differ by less than this share of the largest are equal."""
FASTER = 1.05
"""Who trains faster by less than this factor is as fast."""


class Winner(NamedTuple):
    """What can be said about the best candidate.

    Attributes
    ----------
    best : int
        0-based index of the candidate with the best mean among those that can be compared.
    p_values : ndarray of shape (n_candidates,)
        Of the difference to the best, two-sided, before Holm's correction; nan for the best, for who can't be
        compared, and where there is a single split.
    adjusted : ndarray of shape (n_candidates,)
        The same after Holm's correction over all that are compared with the best.
    tied : ndarray of bool, shape (n_candidates,)
        The best and those that can't be told from it at `level`.
    cheapest : int
        Who trains fastest of those `tied` that are no further than one `error` below the best; the best where none
        is clearly faster than it.
    level : float
        The level of significance.
    error : float
        Standard error of a difference to the best, the median over those tied with it whose scores are not the same;
        nan where nothing is compared.
    visible : float
        The difference that would have shown at this error; what is smaller stays unseen with so few folds.
    """

    best: int
    p_values: np.ndarray
    adjusted: np.ndarray
    tied: np.ndarray
    cheapest: int
    level: float
    error: float
    visible: float


def winner(results: SearchResults, test_to_train: float | None = None, level: float = LEVEL) -> Winner | None:
    """Compare the best candidate with each other one over the folds; None where no candidate has all its scores.

    Holm's correction is over all candidates but the best. What it promises is that a candidate which truly is the
    best, or one of several, stays among the tied with a chance of at least 1 - `level`. As the data name the best,
    that *any* of many equal ones is left out happens more often. "Can't be told" is not "equal": with few folds even
    large differences can't be told, see `Winner.visible`. So that a bad candidate whose folds scatter widely is never
    advised for being cheap, `Winner.cheapest` obeys the rule of one standard error (Breiman et al., "Classification
    and Regression Trees", 1984).

    Parameters
    ----------
    results : SearchResults
        The search.
    test_to_train : float, optional
        Size of a test fold over size of a training fold. By default that of k-fold, 1 / (n_splits - 1); say it for
        repeated or shuffled splits (1/9 for any number of repetitions of 10-fold).
    level : float
        Level of significance.
    """
    from scipy.stats import t as student

    if not results.compared.any():
        return None
    rows = np.flatnonzero(results.compared)
    rows = rows[np.argsort(-results.mean[rows], kind="stable")]
    n_candidates, n_splits = results.fold_scores.shape
    p_values, adjusted = np.full(n_candidates, np.nan), np.full(n_candidates, np.nan)
    errors = np.full(n_candidates, np.nan)
    if n_splits > 1 and rows.size > 1:
        ratio = 1 / (n_splits - 1) if test_to_train is None else test_to_train
        p_values[rows[1:]], errors[rows[1:]] = told_from_first(results.fold_scores[rows], ratio)
        adjusted[rows[1:]] = holm(p_values[rows[1:]])
    best, error, visible = int(rows[0]), np.nan, np.nan
    tied = results.compared & ~(adjusted < level)
    if np.isfinite(errors).any():
        like = errors[tied & (errors > 0)]
        error = float(np.median(like)) if like.size else float(errors[rows[1]])
        visible = float(student.isf(level / 2 / (rows.size - 1), max(like.size, 1) * (n_splits - 1)) * error)
    near = tied & (results.mean >= results.mean[best] - (error if np.isfinite(error) else 0.0))
    seconds = np.where(near & np.isfinite(results.fit_seconds), results.fit_seconds, np.inf)
    cheapest = int(np.argmin(seconds))
    if not seconds[cheapest] * FASTER < seconds[best]:
        cheapest = best
    return Winner(best, p_values, adjusted, tied, cheapest, level, error, visible)


def told_from_first(scores: np.ndarray, test_to_train: float) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided p of each candidate's difference to the first, paired over folds, with Nadeau and Bengio's variance.

    The folds' training sets overlap, so that their differences are correlated and an ordinary paired t-test finds
    too much: the variance of the mean difference is (1 / n_splits + test_to_train) times that of one fold [1]_.

    The variance of one fold's difference is, with the few folds of a search, poorly known from a pair alone. It is
    pooled over the candidates from the first down to the one that is compared (what is left of their scores when
    the means of candidates and folds are taken off), so that the worst can't disturb the best; or, where it is larger,
    the pair's own: who scatters more than the others is not told too easily. For the second candidate this is the
    paired test of [1]_.

    Parameters
    ----------
    scores : ndarray of shape (n, n_splits)
        By mean, descending; at least two candidates and two folds.
    test_to_train : float
        Size of a test fold over size of a training fold; 0 gives an ordinary t-test.

    Returns
    -------
    p_values, errors : ndarray of shape (n - 1,)
        Of the second, the third, ...; p is 1 where all scores are those of the first. Standard errors of the
        differences.

    References
    ----------
    .. [1] Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003.
    """
    from scipy.stats import t as student

    n, n_splits = scores.shape
    differences = scores[0] - scores[1:]
    differences[np.abs(differences) < ROUNDING * np.abs(scores[0]).max()] = 0.0
    centred = differences - differences.mean(axis=1, keepdims=True)
    n_pooled = np.arange(2, n + 1)  # the first is the zero line, and one of those pooled
    pooled = np.cumsum((centred**2).sum(axis=1)) - (np.cumsum(centred, axis=0) ** 2).sum(axis=1) / n_pooled
    freedom = (n_pooled - 1) * (n_splits - 1)
    variance = np.maximum(2 * pooled / freedom, differences.var(axis=1, ddof=1))
    errors = np.sqrt((1 / n_splits + test_to_train) * variance)
    means = differences.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(means == 0, 0.0, means / errors)
    return np.asarray(2 * student.sf(ratio, freedom)), errors


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of p-values, shape (n,): the k-th smallest times n - k + 1, never descending."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    return np.minimum(adjusted, 1.0)
