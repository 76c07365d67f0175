"""Recording of a Keras model's training: the callback, one fit, the reader of its steps, the report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.training.best_epoch import BestEpoch as BestEpoch
    from mlflow_hp.training.callback import TrainingRecorder as TrainingRecorder
    from mlflow_hp.training.dead_units import dead_shares as dead_shares
    from mlflow_hp.training.dead_units import saturated_shares as saturated_shares
    from mlflow_hp.training.landscape_log import log_landscape as log_landscape
    from mlflow_hp.training.loss_landscape import landscape as landscape
    from mlflow_hp.training.overview import add_overview as add_overview
    from mlflow_hp.training.report import Report as Report
    from mlflow_hp.training.report import training_pictures as training_pictures
    from mlflow_hp.training.run_account import account_lines as account_lines
    from mlflow_hp.training.run_account import describe_run as describe_run
    from mlflow_hp.training.settings_text import settings_in_words as settings_in_words
    from mlflow_hp.training.spectrum import HessianSpectrum as HessianSpectrum
    from mlflow_hp.training.spectrum import hessian_spectrum as hessian_spectrum
    from mlflow_hp.training.step_recorder import StepRecorder as StepRecorder
    from mlflow_hp.training.step_recorder import record_steps as record_steps
    from mlflow_hp.training.training_page import add_training_page as add_training_page

_MODULES = {
    "BestEpoch": "best_epoch",
    "HessianSpectrum": "spectrum",
    "Report": "report",
    "StepRecorder": "step_recorder",
    "TrainingRecorder": "callback",
    "account_lines": "run_account",
    "add_overview": "overview",
    "add_training_page": "training_page",
    "dead_shares": "dead_units",
    "hessian_spectrum": "spectrum",
    "describe_run": "run_account",
    "landscape": "loss_landscape",
    "log_landscape": "landscape_log",
    "record_steps": "step_recorder",
    "saturated_shares": "dead_units",
    "settings_in_words": "settings_text",
    "training_pictures": "report",
}

__all__ = [
    "BestEpoch",
    "HessianSpectrum",
    "Report",
    "StepRecorder",
    "TrainingRecorder",
    "account_lines",
    "add_overview",
    "add_training_page",
    "dead_shares",
    "describe_run",
    "hessian_spectrum",
    "landscape",
    "log_landscape",
    "record_steps",
    "saturated_shares",
    "settings_in_words",
    "training_pictures",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
