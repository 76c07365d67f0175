"""Judgement of a rule of pruning on the candidates of a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


class Judgement(NamedTuple):
    """Judgement on candidates by the scores of the folds that have ended.

    Attributes
    ----------
    promise : ndarray of shape (n_candidates,)
        The larger, the earlier the candidate gets its next fold.
    is_hopeless : ndarray of bool, shape (n_candidates,)
        Whether it loses its other folds.
    reason : callable
        Describes why, by the index of the candidate (0-based).
    """

    promise: np.ndarray
    is_hopeless: np.ndarray
    reason: Callable[[int], str]
