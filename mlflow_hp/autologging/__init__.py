"""Autologging: one line records every training and every search of a program.

Public: `autolog`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.autologging.api import autolog as autolog

_MODULES = {"autolog": "api"}

__all__ = ["autolog"]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
