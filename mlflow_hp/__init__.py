"""See how hyperparameters steer the training of Keras models, in MLflow.

Public names are imported on first use: importing the package loads neither TensorFlow nor matplotlib.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlflow_hp._lazy import lazy_names

if TYPE_CHECKING:
    from mlflow_hp.autologging.api import autolog as autolog
    from mlflow_hp.compare.api import compare_runs as compare_runs
    from mlflow_hp.errors import RecordingWarning as RecordingWarning
    from mlflow_hp.errors import TrainingWarning as TrainingWarning
    from mlflow_hp.errors import UserError as UserError
    from mlflow_hp.history import TrainingHistory as TrainingHistory
    from mlflow_hp.history.load import load_history as load_history
    from mlflow_hp.history.load import load_snapshots as load_snapshots
    from mlflow_hp.improvement.api import improve as improve
    from mlflow_hp.search.adaptive.search_cv import AdaptiveSearchCV as AdaptiveSearchCV
    from mlflow_hp.search.atlas import atlas as atlas
    from mlflow_hp.search.record_search import record_search as record_search
    from mlflow_hp.search.trials.record_study import record_study as record_study
    from mlflow_hp.search.trials.record_tuner import record_tuner as record_tuner
    from mlflow_hp.training.callback import TrainingRecorder as TrainingRecorder
    from mlflow_hp.training.loss_barrier import barrier as barrier
    from mlflow_hp.training.run_diagnosis import diagnose as diagnose
    from mlflow_hp.training.step_recorder import record_steps as record_steps

    __version__: str

_MODULES = {
    "AdaptiveSearchCV": "search.adaptive.search_cv",
    "RecordingWarning": "errors",
    "TrainingHistory": "history",
    "TrainingRecorder": "training.callback",
    "TrainingWarning": "errors",
    "UserError": "errors",
    "atlas": "search.atlas",
    "autolog": "autologging.api",
    "barrier": "training.loss_barrier",
    "compare_runs": "compare.api",
    "diagnose": "training.run_diagnosis",
    "improve": "improvement.api",
    "load_history": "history.load",
    "load_snapshots": "history.load",
    "record_search": "search.record_search",
    "record_steps": "training.step_recorder",
    "record_study": "search.trials.record_study",
    "record_tuner": "search.trials.record_tuner",
}

__all__ = [
    "AdaptiveSearchCV",
    "RecordingWarning",
    "TrainingHistory",
    "TrainingRecorder",
    "TrainingWarning",
    "UserError",
    "atlas",
    "autolog",
    "barrier",
    "compare_runs",
    "diagnose",
    "improve",
    "load_history",
    "load_snapshots",
    "record_search",
    "record_steps",
    "record_study",
    "record_tuner",
]

_get, __dir__ = lazy_names(__name__, _MODULES)


def __getattr__(name: str) -> Any:
    return _version() if name == "__version__" else _get(name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mlflow-hp")
    except PackageNotFoundError:  # a checkout that is not installed
        return "0+unknown"
