"""See how hyperparameters steer the training of Keras models, in MLflow.

The public names are handed on when they are first used, so that importing the package loads neither TensorFlow
nor matplotlib.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_hp.compare.record import compare_runs as compare_runs
    from mlflow_hp.errors import UserError as UserError
    from mlflow_hp.history import TrainingHistory as TrainingHistory
    from mlflow_hp.recorder import TrainingRecorder as TrainingRecorder
    from mlflow_hp.runs import load_history as load_history
    from mlflow_hp.runs import load_snapshots as load_snapshots
    from mlflow_hp.search.record import record_search as record_search

_HOMES = {
    "TrainingHistory": "mlflow_hp.history",
    "TrainingRecorder": "mlflow_hp.recorder",
    "UserError": "mlflow_hp.errors",
    "compare_runs": "mlflow_hp.compare.record",
    "load_history": "mlflow_hp.runs",
    "load_snapshots": "mlflow_hp.runs",
    "record_search": "mlflow_hp.search.record",
}

__all__ = [
    "TrainingHistory",
    "TrainingRecorder",
    "UserError",
    "compare_runs",
    "load_history",
    "load_snapshots",
    "record_search",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
