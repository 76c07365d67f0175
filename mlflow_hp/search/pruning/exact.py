"""Exact pruning: a candidate loses its other folds if even perfect scores there could not make it the best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.search.pruning.judgement import Judgement

if TYPE_CHECKING:
    from collections.abc import Mapping

ROUNDING = 1e-9
"""Share of a mean, or of 1, by which it has to be better: more than sums of scores are rounded."""


class ExactRule:
    """Rule by which the best candidate is that of the whole search.

    Parameters
    ----------
    bound : float
        Largest possible score.
    judges_estimators : bool
        Whether the bound holds whatever estimators a candidate's parameters contain. Defaults to True.
    """

    def __init__(self, bound: float, *, judges_estimators: bool = True) -> None:
        self.bound = bound
        self._judges_estimators = judges_estimators

    def cannot_judge(self, params: Mapping[str, Any]) -> str | None:
        """Say why candidates like the one with these parameters cannot be judged; None if they can."""
        if not self._judges_estimators and any(hasattr(value, "fit") for value in params.values()):
            return "the search varies estimators, whose own scores may be of any size; name a scorer"
        return None

    def judge(self, scores: np.ndarray, n_best: int = 1) -> Judgement:
        """Judge candidates.

        Parameters
        ----------
        scores : ndarray of shape (n_candidates, n_splits)
            Scores; nan where unknown.
        n_best : int
            Number of candidates that must not be pruned: those that a halving search keeps. Defaults to 1.

        Returns
        -------
        Judgement
            Promising is who can reach most.
        """
        reachable = np.average(np.where(np.isfinite(scores), scores, self.bound), axis=1)
        complete = np.sort(reachable[np.isfinite(scores).all(axis=1)])
        to_reach = complete[-n_best] if len(complete) >= n_best else -np.inf
        margin = ROUNDING * max(1.0, abs(to_reach)) if np.isfinite(to_reach) else 0.0
        best = "the best" if n_best == 1 else f"the best {n_best}"
        return Judgement(
            reachable,
            reachable < to_reach - margin,
            lambda index: f"its mean can reach at most {reachable[index]:.6g}, {best} reach {to_reach:.6g}",
        )
