"""Evidence that all rules of the review share: which candidates failed, which are the best, how large the noise is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.analysis.significance import winner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.analysis.review.effects import Interaction
    from mlflow_hp.analysis.search_results import SearchResults
    from mlflow_hp.analysis.search_space import Parameter
    from mlflow_hp.analysis.significance import Winner

FEWEST = 3
"""Candidates with all their scores from which a search can be reviewed."""
TOP_SHARE = 0.25
"""Largest share of the candidates that counts as the best ones (playbook, "Identifying bad search space boundaries":
look at all of the best trials, not at one)."""
DIVERGED = 10.0
"""Distance of a candidate below the median, over the larger of the sizes of the median and of the best score, from
which it has diverged; scores without a lower bound, such as errors and R2, come so far."""


class Material(NamedTuple):
    """A search as the rules see it.

    Attributes
    ----------
    results : SearchResults
        The search.
    failed : ndarray of bool, shape (n_candidates,)
        Candidates that failed, diverged or are no better than chance.
    rows : ndarray of int
        The others that have all scores, the best first.
    top : ndarray of int
        The first of `rows`: those within one standard error of the best, at most ``TOP_SHARE`` of all.
    mean : ndarray of shape (n_candidates,)
        Mean scores.
    winner : Winner
        The best against the others.
    noise : float
        Standard deviation of a mean score that other folds and other training sets would give, without what all
        candidates share; nan for a single split.
    parameters : dict of str to Parameter
        The parameters that vary.
    curves : mapping of int to sequence of mapping
        Candidate -> for each fold, values by epoch of each metric.
    test_to_train : float
        Size of a test fold over size of a training fold.
    idle : tuple of str
        Parameters without effect. Defaults to none.
    interactions : tuple of Interaction
        Parameters that act only together. Defaults to none.
    """

    results: SearchResults
    failed: np.ndarray
    rows: np.ndarray
    top: np.ndarray
    mean: np.ndarray
    winner: Winner
    noise: float
    parameters: dict[str, Parameter]
    curves: Mapping[int, Sequence[Mapping[str, np.ndarray]]]
    test_to_train: float
    idle: tuple[str, ...] = ()
    interactions: tuple[Interaction, ...] = ()

    @property
    def best(self) -> int:
        """0-based index of the best candidate."""
        return self.winner.best

    def level(self, name: str) -> Any:
        """Return the best candidate's value of a parameter."""
        parameter = self.parameters[name]
        return parameter.levels[parameter.codes[self.best]]


def material(
    results: SearchResults,
    failed: np.ndarray | None = None,
    curves: Mapping[int, Sequence[Mapping[str, np.ndarray]]] | None = None,
    test_to_train: float | None = None,
    chance: float | None = None,
) -> Material | None:
    """Collect the evidence; None for fewer than ``FEWEST`` candidates that can be compared.

    Parameters
    ----------
    results : SearchResults
        The search.
    failed : ndarray of bool, shape (n_candidates,), optional
        Which of those without a score failed; the others were given up. Defaults to all whose folds were computed.
    curves : mapping, optional
        As in `Material`. Defaults to none.
    test_to_train : float, optional
        As in `Material`. Defaults to that of k-fold.
    chance : float, optional
        Score of guessing. Defaults to finding it from candidates with the same scores.
    """
    missing = ~np.isfinite(results.mean)
    bad = (missing & ~results.is_skipped if failed is None else missing & failed) | _collapsed(results, chance)
    rows = np.flatnonzero(results.compared & ~bad)
    best = winner(results, test_to_train)
    if best is None or rows.size < FEWEST:
        return None
    rows = rows[np.argsort(-results.mean[rows], kind="stable")]
    n_splits = results.fold_scores.shape[1]
    ratio = 1 / max(n_splits - 1, 1) if test_to_train is None else test_to_train
    noise = _noise(results.fold_scores[rows], ratio)
    near = results.mean[rows] >= results.mean[rows[0]] - (np.sqrt(2) * noise if np.isfinite(noise) else 0)
    n_top = max(int(near.sum()), 1 if np.isfinite(noise) else 3)
    top = rows[: min(n_top, max(int(TOP_SHARE * rows.size), 3))]
    parameters = {name: results.parameter(name) for name in results.parameters}
    return Material(results, bad, rows, top, results.mean, best, noise, parameters, curves or {}, ratio)


def _noise(scores: np.ndarray, ratio: float) -> float:
    """Standard deviation of a mean, from the residuals of the better half (Nadeau and Bengio's variance, as above)."""
    distinct = scores[np.sort(np.unique(scores, axis=0, return_index=True)[1])]
    better = distinct[: max(len(distinct) // 2, 2)]
    n, n_splits = better.shape
    if n_splits < 2 or n < 2:
        return np.nan
    residuals = better - better.mean(axis=1, keepdims=True) - better.mean(axis=0) + better.mean()
    variance = (residuals**2).sum() / ((n - 1) * (n_splits - 1))
    return float(np.sqrt(variance * (1 / n_splits + ratio)))


def _collapsed(results: SearchResults, chance: float | None) -> np.ndarray:
    """Candidates no better than chance: by its score, by equal lowest scores, or far below all the others."""
    mean = np.where(np.isfinite(results.mean), results.mean, np.inf)
    known = np.isfinite(results.mean)
    bad = np.zeros(len(mean), bool)
    if known.sum() < FEWEST:
        return bad
    if chance is not None:
        spread = np.nan_to_num(results.std) / np.sqrt(results.fold_scores.shape[1])
        bad |= known & (mean <= chance + 2 * spread)
    best, median = float(mean[known].max()), float(np.median(mean[known]))
    if results.fold_scores.shape[1] > 1:
        bad |= _constant(results.fold_scores, mean, known)
    return bad | (known & (median - mean > DIVERGED * max(abs(best), abs(median))))


def _constant(scores: np.ndarray, mean: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Candidates with the same lowest scores, of a constant prediction, unless better ones are equal, too."""
    lowest = known & (scores == scores[int(mean.argmin())]).all(axis=1)
    others = scores[known & ~lowest]
    is_usual = len(np.unique(others, axis=0)) < len(others)  # a parameter without effect makes equal scores
    return lowest & (lowest.sum() > 1 and len(others) > 0 and not is_usual)
