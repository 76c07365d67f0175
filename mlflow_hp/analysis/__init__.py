"""Numbers only: what a training shows, cost surfaces, what a search measured and which of it is significant.

Nothing here draws, and nothing here asks MLflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import handed_on

if TYPE_CHECKING:
    from mlflow_hp.analysis import diagnosis as diagnosis
    from mlflow_hp.analysis.diagnosis import Finding as Finding
    from mlflow_hp.analysis.search_results import SearchResults as SearchResults
    from mlflow_hp.analysis.search_results import from_cv_results as from_cv_results
    from mlflow_hp.analysis.surfaces.beale import BealeSurface as BealeSurface
    from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface as LinearRegressionSurface

_HOMES = {
    "BealeSurface": "surfaces.beale",
    "Finding": "diagnosis",
    "LinearRegressionSurface": "surfaces.linear_regression",
    "SearchResults": "search_results",
    "diagnosis": "diagnosis",
    "from_cv_results": "search_results",
}

__all__ = [
    "BealeSurface",
    "Finding",
    "LinearRegressionSurface",
    "SearchResults",
    "diagnosis",
    "from_cv_results",
]

__getattr__, __dir__ = handed_on(__name__, _HOMES)
