"""Recording of a Keras model's training: the callback, one fit, the reader of its steps, the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.training.callback import TrainingRecorder as TrainingRecorder
    from mlflow_hp.training.dead_units import dead_shares as dead_shares
    from mlflow_hp.training.loss_landscape import landscape as landscape
    from mlflow_hp.training.report import Report as Report
    from mlflow_hp.training.report import training_pictures as training_pictures

_MODULES = {
    "Report": "report",
    "TrainingRecorder": "callback",
    "dead_shares": "dead_units",
    "landscape": "loss_landscape",
    "training_pictures": "report",
}

__all__ = [
    "Report",
    "TrainingRecorder",
    "dead_shares",
    "landscape",
    "training_pictures",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
