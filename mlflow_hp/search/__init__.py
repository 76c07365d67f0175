"""Live recording of scikit-learn's searches; users call `mlflow_hp.record_search`.

``live`` records the fits, ``resume`` reuses those of an earlier process, ``speedups`` saves time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.search.adaptive.budget import budget_seconds as budget_seconds
    from mlflow_hp.search.grid_file import read_space as read_space
    from mlflow_hp.search.report import result_sentence as result_sentence
    from mlflow_hp.search.report import search_sentences as search_sentences
    from mlflow_hp.search.run_review import review_run as review_run

_MODULES = {
    "budget_seconds": "adaptive.budget",
    "read_space": "grid_file",
    "result_sentence": "report",
    "review_run": "run_review",
    "search_sentences": "report",
}

__all__ = [
    "budget_seconds",
    "read_space",
    "result_sentence",
    "review_run",
    "search_sentences",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
