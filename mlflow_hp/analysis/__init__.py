"""Numbers only: diagnosis of trainings, cost surfaces, results of searches and their significance.

Nothing in this package draws or calls MLflow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.analysis import diagnosis as diagnosis
    from mlflow_hp.analysis import review as review
    from mlflow_hp.analysis.diagnosis import Finding as Finding
    from mlflow_hp.analysis.downsampling import downsample as downsample
    from mlflow_hp.analysis.search_results import SearchResults as SearchResults
    from mlflow_hp.analysis.search_results import from_cv_results as from_cv_results
    from mlflow_hp.analysis.smoothing import window_width as window_width
    from mlflow_hp.analysis.surfaces.beale import BealeSurface as BealeSurface
    from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface as LinearRegressionSurface

_MODULES = {
    "BealeSurface": "surfaces.beale",
    "Finding": "diagnosis",
    "LinearRegressionSurface": "surfaces.linear_regression",
    "SearchResults": "search_results",
    "diagnosis": "diagnosis",
    "downsample": "downsampling",
    "from_cv_results": "search_results",
    "review": "review",
    "window_width": "smoothing",
}

__all__ = [
    "BealeSurface",
    "Finding",
    "LinearRegressionSurface",
    "SearchResults",
    "diagnosis",
    "downsample",
    "from_cv_results",
    "review",
    "window_width",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
