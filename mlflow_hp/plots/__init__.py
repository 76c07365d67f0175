"""Pictures: each is made in two steps, numbers first, then drawn on the Axes given.

Public: the modules `classification`, `surface` and `training`, and what draws a network's loss landscape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import handed_on

if TYPE_CHECKING:
    from mlflow_hp.plots import classification as classification
    from mlflow_hp.plots import surface as surface
    from mlflow_hp.plots import training as training
    from mlflow_hp.plots.landscape import draw_landscape as draw_landscape
    from mlflow_hp.plots.landscape import landscape_info as landscape_info
    from mlflow_hp.plots.surface import SurfaceInfo as SurfaceInfo

_HOMES = {
    "SurfaceInfo": "surface",
    "classification": "classification",
    "draw_landscape": "landscape",
    "landscape_info": "landscape",
    "surface": "surface",
    "training": "training",
}

__all__ = [
    "SurfaceInfo",
    "classification",
    "draw_landscape",
    "landscape_info",
    "surface",
    "training",
]

__getattr__, __dir__ = handed_on(__name__, _HOMES)
