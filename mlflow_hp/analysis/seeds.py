"""Luck in the scores of a search: variance over seeds, apart from that over folds and candidates."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class VarianceComponents(NamedTuple):
    """Variance of a single score of a search, by its sources; each is at least 0.

    Attributes
    ----------
    candidate : float
        Differences between candidates.
    fold : float
        Differences between folds, the same for all candidates.
    candidate_and_fold : float
        Differences of a candidate from fold to fold, beyond those of all candidates.
    seed : float
        Differences from seed to seed, with the same candidate and fold.
    """

    candidate: float
    fold: float
    candidate_and_fold: float
    seed: float


def variance_components(scores: np.ndarray) -> VarianceComponents:
    """Estimate the variance components of scores by the mean squares of a two-way layout with repetitions [1]_.

    Parameters
    ----------
    scores : ndarray of shape (n_candidates, n_splits, n_seeds)
        Finite scores; at least two of each.

    Returns
    -------
    VarianceComponents
        The variances; negative estimates are set to 0.

    References
    ----------
    .. [1] Searle, Casella and McCulloch, "Variance Components", Wiley, 1992, chapter 4.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.analysis.seeds import variance_components
    >>> scores = np.array([[[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    >>> variance_components(scores)
    VarianceComponents(candidate=0.5, fold=0.0, candidate_and_fold=0.0, seed=0.0)
    """
    n_candidates, n_splits, n_seeds = scores.shape
    cells, mean = scores.mean(axis=2), scores.mean()
    rows, columns = cells.mean(axis=1), cells.mean(axis=0)
    of_candidates = n_splits * n_seeds * np.sum((rows - mean) ** 2) / (n_candidates - 1)
    of_folds = n_candidates * n_seeds * np.sum((columns - mean) ** 2) / (n_splits - 1)
    interaction = cells - rows[:, None] - columns + mean
    of_both = n_seeds * np.sum(interaction**2) / ((n_candidates - 1) * (n_splits - 1))
    of_seeds = np.sum((scores - cells[..., None]) ** 2) / (n_candidates * n_splits * (n_seeds - 1))
    return VarianceComponents(
        max(0.0, float(of_candidates - of_both) / (n_splits * n_seeds)),
        max(0.0, float(of_folds - of_both) / (n_candidates * n_seeds)),
        max(0.0, float(of_both - of_seeds) / n_seeds),
        float(of_seeds),
    )


def seed_std(scores: np.ndarray) -> float:
    """Standard deviation over seeds: of the mean variance of scores of shape (n_splits, n_seeds), divisor n - 1."""
    return float(np.sqrt(np.var(scores, axis=1, ddof=1).mean()))
