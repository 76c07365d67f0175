"""A search in a process of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SEARCH = """
import os, sys, time
import mlflow, mlflow_hp, numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV


class Slow(RandomForestClassifier):
    def fit(self, x, y):
        time.sleep(pause)
        return super().fit(x, y)


uri, how, results = sys.argv[1:4]
n_combinations, pause, n_jobs = int(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6])
mlflow.set_tracking_uri(uri); mlflow.set_experiment("faults")
grid = {"random_state": list(range(n_combinations))}
search = GridSearchCV(Slow(n_estimators=5), grid, cv=3, n_jobs=n_jobs, refit=False)
if how == "alone":
    search.fit(*load_digits(return_X_y=True))
else:
    with mlflow_hp.record_search(search, progress=False, report=False, resume=how == "resume") as recording:
        print(recording.run_id, flush=True)
        search.fit(*load_digits(return_X_y=True))
np.save(results, np.array([v for k, v in sorted(search.cv_results_.items()) if "test_score" in k]))
"""


def search_command(
    uri: str, how: str, results: Path, n: int, pause: float, n_jobs: int, *, warnings: str = "ignore"
) -> list[str]:
    """The command of a search over `n` combinations, `how`: "alone", "new" or "resume"; its scores go to `results`."""
    return [sys.executable, "-W", warnings, "-c", SEARCH, uri, how, str(results), str(n), str(pause), str(n_jobs)]
