"""Searches of scikit-learn, recorded live; `mlflow_hp.record_search` is what users call.

``live`` records the fits, ``resume`` knows those of an earlier process again, ``speedups`` saves time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import handed_on

if TYPE_CHECKING:
    from mlflow_hp.search.report import search_sentences as search_sentences

_HOMES = {
    "search_sentences": "report",
}

__all__ = [
    "search_sentences",
]

__getattr__, __dir__ = handed_on(__name__, _HOMES)
