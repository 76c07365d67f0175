"""Page next to MLflow's own UI that compares runs while they train: ``mlflow server --app-name mlflow-hp``.

Public: the applications behind ``mlflow-hp`` and ``mlflow-hp-basic-auth``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.server.app import create_app as create_app
    from mlflow_hp.server.app import create_app_with_basic_auth as create_app_with_basic_auth

_MODULES = {
    "create_app": "app",
    "create_app_with_basic_auth": "app",
}

__all__ = [
    "create_app",
    "create_app_with_basic_auth",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
