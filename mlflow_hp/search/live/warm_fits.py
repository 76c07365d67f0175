"""Fit times of a search without each process's first fit of an architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.analysis.fit_times import FitTimes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.search.live.candidates import Candidate
    from mlflow_hp.search.live.events import Fold


def fit_times(candidates: Mapping[int, Candidate], n_candidates: int) -> FitTimes:
    """Collect the times of the folds that count; folds of an earlier process, whose first fits are unknown, do not.

    Parameters
    ----------
    candidates : mapping of int to Candidate
        By index in ``cv_results_``.
    n_candidates : int
        Number of rows of ``cv_results_``.
    """
    first: dict[tuple[str, str], Fold] = {}
    folds = [fold for candidate in candidates.values() for fold in candidate.folds.values()]
    for fold in sorted(folds, key=lambda fold: fold.started):
        if fold.workload is not None:
            first.setdefault((fold.workload.process, fold.workload.architecture), fold)
    cold = {fold.task for fold in first.values()}
    mean, std = np.full(n_candidates, np.nan), np.full(n_candidates, np.nan)
    n = np.zeros(n_candidates, np.int64)
    costs: list[str | None] = [None] * n_candidates
    for index, candidate in candidates.items():
        warm = [fold for fold in candidate.folds.values() if fold.workload is not None and fold.task not in cold]
        seconds = [fold.fit_seconds for fold in warm if fold.trained_by not in cold]
        if seconds:
            mean[index], std[index], n[index] = np.mean(seconds), np.std(seconds), len(seconds)
        of_all = {fold.workload.cost if fold.workload is not None else None for fold in candidate.folds.values()}
        costs[index] = of_all.pop() if len(of_all) == 1 else None
    return FitTimes(mean, std, n, costs)
