"""A search that could not be followed, recorded from what it left: true scores, but no times of day."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.search.live.events import Fold, Planned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.search.live.observer import SearchFit


def follow_afterwards(fit: SearchFit, results: Mapping[str, Any], began: float) -> None:
    """Tell `fit` what ``cv_results_`` holds.

    Which combination was computed when is not known: each gets the times of the whole search and the tag
    ``mlflow_hp.recorded`` = ``afterwards``. A fold that failed has a score that is not finite, and no traceback.

    Parameters
    ----------
    fit : SearchFit
        That of the search.
    results : mapping
        Its ``cv_results_``.
    began : float
        When the search began, in seconds since the epoch.
    """
    now = time.time()
    splits = sorted({int(found[1]) for name in results if (found := re.match(r"split(\d+)_test_", name))})
    for candidate, params in enumerate(results["params"]):
        for split in splits:
            task = candidate * len(splits) + split
            fit.planned(Planned(task, candidate, split, 0, len(results["params"]), len(splits), params))
            test, train = (_scores(results, split, kind, candidate) for kind in ("test", "train"))
            fitting, scoring = (float(results[f"mean_{kind}_time"][candidate]) for kind in ("fit", "score"))
            error = None if np.isfinite(list(test.values())).all() else "the score is not finite; see the warnings"
            fit.ended(Fold(task, began, now, (), 0, test, train, fitting, scoring, error))
        fit.candidates[candidate].run.tags({"mlflow_hp.recorded": "afterwards"})
    fit.computed()


def _scores(results: Mapping[str, Any], split: int, kind: str, candidate: int) -> dict[str, float]:
    start = f"split{split}_{kind}_"
    return {name.removeprefix(start): float(results[name][candidate]) for name in results if name.startswith(start)}
