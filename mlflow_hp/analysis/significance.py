"""Significance of a search's winner: candidates not distinguishable from it, and the cheapest of these."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mlflow_hp.analysis.computed_once import computed_once
from mlflow_hp.analysis.fit_times import FASTER, fastest
from mlflow_hp.analysis.multiple_tests import holm

if TYPE_CHECKING:
    from mlflow_hp.analysis.search_results import SearchResults

LEVEL = 0.05
"""Level of significance."""
ROUNDING = 1e-12
"""Scores that differ by less than this share of the largest are equal."""


class Winner(NamedTuple):
    """The best candidate against all others.

    Attributes
    ----------
    best : int
        0-based index of the candidate with the best mean among the comparable ones.
    p_values : ndarray of shape (n_candidates,)
        Two-sided p-values of the difference to the best, before Holm's correction; nan for the best, for candidates
        that are not comparable, and with a single split.
    adjusted : ndarray of shape (n_candidates,)
        The same after Holm's correction over all candidates compared with the best.
    tied : ndarray of bool, shape (n_candidates,)
        The best and the candidates not distinguishable from it at `level`.
    cheapest : int
        The fastest to train of those `tied` that are within one `error` of the best; the best itself where none is
        clearly faster: significantly, by `fit_times.fastest`, where the times of the folds are known.
    level : float
        Level of significance.
    error : float
        Standard error of a difference to the best: the median over the tied candidates whose scores are not
        identical to its own; nan where nothing is compared.
    visible : float
        Smallest difference that is significant at this error; smaller ones stay unseen with so few folds.
    """

    best: int
    p_values: np.ndarray
    adjusted: np.ndarray
    tied: np.ndarray
    cheapest: int
    level: float
    error: float
    visible: float


@computed_once
def winner(results: SearchResults, test_to_train: float | None = None, level: float = LEVEL) -> Winner | None:
    """Compare the best candidate with all others over the folds; None if no candidate has all its scores.

    Holm's correction covers all candidates but the best. It guarantees that a candidate which truly is the best, or
    one of several, stays tied with probability at least 1 - `level`. As the data choose the best, *any* of many equal
    candidates is excluded more often than that. "Tied" does not mean "equal": with few folds even large differences
    are not significant, see `Winner.visible`. `Winner.cheapest` obeys the rule of one standard error (Breiman et al.,
    "Classification and Regression Trees", 1984), so that a bad candidate with widely scattered folds is never
    recommended for being cheap.

    Parameters
    ----------
    results : SearchResults
        Results of the search.
    test_to_train : float, optional
        Size of a test fold over size of a training fold. Defaults to that of k-fold, 1 / (n_splits - 1); give it for
        repeated or shuffled splits (1/9 for any number of repetitions of 10-fold).
    level : float
        Level of significance. Defaults to ``LEVEL``.
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
        p_values[rows[1:]], errors[rows[1:]] = p_values_against_first(results.fold_scores[rows], ratio)
        adjusted[rows[1:]] = holm(p_values[rows[1:]])
    best, error, visible = int(rows[0]), np.nan, np.nan
    tied = results.compared & ~(adjusted < level)
    if np.isfinite(errors).any():
        spreads = errors[tied & (errors > 0)]
        error = float(np.median(spreads)) if spreads.size else float(errors[rows[1]])
        visible = float(student.isf(level / 2 / (rows.size - 1), max(spreads.size, 1) * (n_splits - 1)) * error)
    near = tied & (results.mean >= results.mean[best] - (error if np.isfinite(error) else 0.0))
    if results.fit_times is not None:
        cheapest = fastest(results.fit_times, near, best, level)
    else:
        seconds = np.where(near & np.isfinite(results.fit_seconds), results.fit_seconds, np.inf)
        cheapest = int(np.argmin(seconds))
        cheapest = cheapest if seconds[cheapest] * FASTER < seconds[best] else best
    return Winner(best, p_values, adjusted, tied, cheapest, level, error, visible)


def p_values_against_first(scores: np.ndarray, test_to_train: float) -> tuple[np.ndarray, np.ndarray]:
    """P-values of each candidate's difference to the first, two-sided, paired over folds, corrected for overlap.

    The folds' training sets overlap. Their differences are therefore correlated, and an ordinary paired t-test is
    significant too often: the variance of the mean difference is (1 / n_splits + test_to_train) times that of one
    fold [1]_.

    With the few folds of a search, a pair alone estimates the variance of one fold's difference poorly. It is pooled
    over the candidates from the first down to the one compared (residuals of their scores after removing the means of
    candidates and folds), so that bad candidates do not disturb the comparison of good ones. Where the pair's own
    variance is larger, that is taken: a candidate that scatters more than the others must differ by more. For the
    second candidate this is the paired test of [1]_.

    Parameters
    ----------
    scores : ndarray of shape (n, n_splits)
        By mean, descending; at least two candidates and two folds.
    test_to_train : float
        Size of a test fold over size of a training fold; 0 gives an ordinary t-test.

    Returns
    -------
    p_values, errors : ndarray of shape (n - 1,)
        Of the second, the third, ...; p is 1 where all scores equal those of the first. `errors` are standard errors
        of the differences.

    References
    ----------
    .. [1] Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003.
    """
    from scipy.stats import t as student

    n, n_splits = scores.shape
    differences = scores[0] - scores[1:]
    differences[np.abs(differences) < ROUNDING * np.abs(scores[0]).max()] = 0.0
    centred = differences - differences.mean(axis=1, keepdims=True)
    n_pooled = np.arange(2, n + 1)  # includes the first, whose differences are zero
    pooled = np.cumsum((centred**2).sum(axis=1)) - (np.cumsum(centred, axis=0) ** 2).sum(axis=1) / n_pooled
    freedom = (n_pooled - 1) * (n_splits - 1)
    variance = np.maximum(2 * pooled / freedom, differences.var(axis=1, ddof=1))
    errors = np.sqrt((1 / n_splits + test_to_train) * variance)
    means = differences.mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(means == 0, 0.0, means / errors)
    return np.asarray(2 * student.sf(ratio, freedom)), errors
