"""Live recording of scikit-learn's searches; users call `mlflow_hp.record_search`.

``live`` records the fits, ``resume`` reuses those of an earlier process, ``speedups`` saves time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.search.adaptive.budget import budget_seconds as budget_seconds
    from mlflow_hp.search.report import result_sentence as result_sentence
    from mlflow_hp.search.report import search_sentences as search_sentences

_MODULES = {
    "budget_seconds": "adaptive.budget",
    "result_sentence": "report",
    "search_sentences": "report",
}

__all__ = [
    "budget_seconds",
    "result_sentence",
    "search_sentences",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
