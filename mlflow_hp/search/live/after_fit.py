"""Recording of a fit after its end, from ``cv_results_``: exact scores, but unknown start and end times."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.search.live.events import Fold, PlannedFit
from mlflow_hp.tracking.tags import RECORDED_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.search.live.observer import SearchFit


def record_after_fit(fit: SearchFit, results: Mapping[str, Any], started: float) -> None:
    """Pass ``cv_results_`` to the observer of a fit.

    Each candidate gets the start and end of the whole search, since its own are unknown, and the tag
    ``mlflow_hp.recorded`` = ``afterwards``. A failed fold has a score that is not finite, and no traceback.

    Parameters
    ----------
    fit : SearchFit
        Observer of the fit.
    results : mapping
        The search's ``cv_results_``.
    started : float
        Start of the search, in seconds since the epoch.
    """
    now = time.time()
    splits = sorted({int(match[1]) for name in results if (match := re.match(r"split(\d+)_test_", name))})
    for index, params in enumerate(results["params"]):
        for split in splits:
            if index in fit.candidates and split in fit.candidates[index].folds:
                continue  # it could be followed
            task = index * len(splits) + split
            fit.planned(PlannedFit(task, index, split, 0, len(results["params"]), len(splits), params))
            test, train = (_scores(results, split, kind, index) for kind in ("test", "train"))
            fit_seconds, score_seconds = (float(results[f"mean_{kind}_time"][index]) for kind in ("fit", "score"))
            error = None if np.isfinite(list(test.values())).all() else "the score is not finite; see the warnings"
            fit.ended(Fold(task, started, now, (), 0, test, train, fit_seconds, score_seconds, error))
        fit.candidates[index].run.set_tags({RECORDED_TAG: "afterwards"})
    fit.computed()


def _scores(results: Mapping[str, Any], split: int, kind: str, index: int) -> dict[str, float]:
    start = f"split{split}_{kind}_"
    return {name.removeprefix(start): float(results[name][index]) for name in results if name.startswith(start)}
