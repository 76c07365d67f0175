"""Pruning by a test: a candidate loses its other folds if it is significantly worse than the best so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.search.pruning.judgement import Judgement

if TYPE_CHECKING:
    from collections.abc import Mapping

LEVEL = 0.1
"""Level of significance, one-sided, of each test: the largest that kept the bar in replays (``benchmarks.search``)."""
MIN_FREEDOM = 1
"""Least degrees of freedom of the pooled variance."""


class PairedTestRule:
    """Race of the candidates, fold by fold, against the best that has all its folds [1]_, [2]_.

    The differences to it over the folds that both have are tested by a one-sided t-test with the correction of Nadeau
    and Bengio for overlapping training sets [3]_. Their variance is pooled over all candidates with two folds or more;
    if that of the candidate's own differences is larger, it is taken.

    Parameters
    ----------
    level : float
        Level of significance. Defaults to ``LEVEL``.

    References
    ----------
    .. [1] Maron and Moore, "The Racing Algorithm", Artificial Intelligence Review 11, 1997.
    .. [2] Birattari et al., "A Racing Algorithm for Configuring Metaheuristics", GECCO 2002.
    .. [3] Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 52, 2003.
    """

    def __init__(self, level: float = LEVEL) -> None:
        self.level = level

    def cannot_judge(self, params: Mapping[str, Any]) -> str | None:  # noqa: ARG002
        """Say why candidates like the one with these parameters cannot be judged: all can."""
        return None

    def judge(self, scores: np.ndarray, n_best: int = 1) -> Judgement:
        """Judge candidates.

        Parameters
        ----------
        scores : ndarray of shape (n_candidates, n_splits)
            Scores; nan where unknown.
        n_best : int
            Number of candidates that must stay: the worst of them is the one to compare with. Defaults to 1.

        Returns
        -------
        Judgement
            Promising is who is better on the same folds. While fewer than `n_best` have all folds, those that have
            most of them go on.
        """
        from scipy.stats import t as student

        is_known = np.isfinite(scores)
        n_known = is_known.sum(axis=1)
        n_splits = scores.shape[1]
        complete = np.flatnonzero(n_known == n_splits)
        if len(complete) < n_best:
            mean = np.nanmean(np.where(is_known, scores, np.nan), axis=1)
            spread = np.ptp(mean[n_known > 0]) if n_known.any() else 0.0
            promise = np.where(n_known == 0, np.inf, np.nan_to_num(mean) + (spread + 1) * n_known)
            return Judgement(promise, np.zeros(len(scores), bool), lambda _: "")
        best = complete[np.argsort(-scores[complete].mean(axis=1), kind="stable")[n_best - 1]]
        worse_by = np.where(is_known, scores[best] - scores, np.nan)
        mean = np.nanmean(worse_by, axis=1)
        squares = np.nansum((worse_by - mean[:, None]) ** 2, axis=1)
        several = (n_known > 1) & (np.arange(len(scores)) != best)
        freedom = int((n_known[several] - 1).sum())
        promise = np.where(n_known == 0, np.inf, -mean)
        if freedom < MIN_FREEDOM:
            return Judgement(promise, np.zeros(len(scores), bool), lambda _: "")
        pooled = squares[several].sum() / freedom
        variance = np.maximum(pooled, np.where(n_known > 1, squares / np.maximum(n_known - 1, 1), 0.0))
        error = np.sqrt(variance * (1 / np.maximum(n_known, 1) + 1 / max(n_splits - 1, 1)))
        p_value = student.sf(np.where(error > 0, mean / error, np.where(mean > 0, np.inf, 0.0)), freedom)
        is_hopeless = (n_known > 0) & (p_value < self.level)
        return Judgement(
            promise,
            is_hopeless,
            lambda index: f"worse than the best so far by {mean[index]:.3g} on the same folds (p={p_value[index]:.2g})",
        )
