"""Plots in two steps: an ``..._info`` function computes the numbers, a ``draw_...`` function draws them on Axes.

Public: the modules `classification`, `gradients`, `panels`, `range_test`, `regression_line`, `surface`,
`surface_animation` and `training`, and the drawing of a network's loss landscape and of the loss between two ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.plots import classification as classification
    from mlflow_hp.plots import gradients as gradients
    from mlflow_hp.plots import panels as panels
    from mlflow_hp.plots import range_test as range_test
    from mlflow_hp.plots import regression_line as regression_line
    from mlflow_hp.plots import surface as surface
    from mlflow_hp.plots import surface_animation as surface_animation
    from mlflow_hp.plots import training as training
    from mlflow_hp.plots.barrier import barrier_info as barrier_info
    from mlflow_hp.plots.barrier import draw_barrier as draw_barrier
    from mlflow_hp.plots.landscape import draw_landscape as draw_landscape
    from mlflow_hp.plots.landscape import landscape_info as landscape_info
    from mlflow_hp.plots.surface import SurfaceInfo as SurfaceInfo

_MODULES = {
    "SurfaceInfo": "surface",
    "barrier_info": "barrier",
    "classification": "classification",
    "draw_barrier": "barrier",
    "draw_landscape": "landscape",
    "gradients": "gradients",
    "landscape_info": "landscape",
    "panels": "panels",
    "range_test": "range_test",
    "regression_line": "regression_line",
    "surface": "surface",
    "surface_animation": "surface_animation",
    "training": "training",
}

__all__ = [
    "SurfaceInfo",
    "barrier_info",
    "classification",
    "draw_barrier",
    "draw_landscape",
    "gradients",
    "landscape_info",
    "panels",
    "range_test",
    "regression_line",
    "surface",
    "surface_animation",
    "training",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
