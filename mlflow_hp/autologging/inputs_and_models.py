"""What autologging logs on request next to a record: the data of a search, and trained models."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from importlib import metadata
from typing import TYPE_CHECKING, Any

import keras
import mlflow

from mlflow_hp._compat.mlflow import autologging_setting
from mlflow_hp._compat.private_name import warn_once
from mlflow_hp._notice import warn
from mlflow_hp.tracking import datasets, runs
from mlflow_hp.tracking.random_names import names_drawn_apart
from mlflow_hp.tracking.server_health import ensure_reachable, reason
from mlflow_hp.tracking.tags import RECORDING_ERROR_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OF_KERAS, OF_SKLEARN = ("keras", "tensorflow"), ("sklearn",)
"""Names of the integrations of Keras and scikit-learn in MLflow's own autologging."""
PACKAGES = ("mlflow", "keras", "tensorflow", "scikit-learn", "scikeras", "numpy")
"""Packages whose versions a logged model names as its requirements."""


def log_data_of_search(run_id: str, fit: Callable[..., Any], search: Any, *arguments: Any, **named: Any) -> None:
    """Log the data of a search that is about to be fitted, unless MLflow's own autologging does.

    Parameters
    ----------
    run_id : str
        Id of the run of the search.
    fit : callable
        The method that is called with `search` and the other arguments.
    search : BaseSearchCV
        The search.
    *arguments, **named : object
        Further arguments of `fit`.
    """
    if autologging_setting("sklearn", "log_datasets"):
        return
    given = inspect.signature(fit).bind(search, *arguments, **named).arguments
    data_set = datasets.describe(given.get("X"), given.get("y"))
    if data_set is not None:
        datasets.log(run_id, {"training": data_set}, 0)


def warn_of_mlflows_candidates() -> None:
    """Warn once if MLflow's own autologging adds runs of candidates to those of a search that is recorded."""
    is_on = autologging_setting("sklearn", "disable") is False
    if is_on and autologging_setting("sklearn", "max_tuning_runs") != 0:
        warn_once(
            "MLflow's own autologging of scikit-learn adds runs of the best candidates to a search, whose candidates "
            "have runs already; turn that off by mlflow.sklearn.autolog(max_tuning_runs=0)"
        )


@contextlib.contextmanager
def log_afterwards(fitted: Any, run_id: str) -> Iterator[None]:
    """Log a model that is trained inside the block, or the best estimator of a search; warn if that is impossible.

    Parameters
    ----------
    fitted : keras.Model or BaseSearchCV
        Trained inside the block; a search without ``best_estimator_`` has no model.
    run_id : str
        Id of the run, which is active.

    Yields
    ------
    None
        Nothing.
    """
    yield
    is_model = isinstance(fitted, keras.Model)
    estimator = fitted if is_model else getattr(fitted, "best_estimator_", None)
    integrations = OF_KERAS if is_model else OF_SKLEARN
    if estimator is None or any(autologging_setting(each, "log_models") for each in integrations):
        return
    try:
        ensure_reachable()
        with names_drawn_apart(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's advice on the call below
            _log(estimator, is_model)
    except Exception as error:  # noqa: BLE001 - the training has ended well
        problem = f"run {run_id} lacks the trained model: {reason(error)}"
        warn(problem)
        with contextlib.suppress(Exception):
            earlier = mlflow.MlflowClient().get_run(run_id).data.tags.get(RECORDING_ERROR_TAG)
            runs.set_tags(run_id, {RECORDING_ERROR_TAG: "\n".join(filter(None, (earlier, problem)))})


def _log(estimator: Any, is_model: bool) -> None:
    requirements = []
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            requirements.append(f"{name}=={metadata.version(name)}")
    if is_model:
        signature = None
        with contextlib.suppress(Exception):  # of inputs or outputs that MLflow cannot describe
            signature = mlflow.keras.utils.get_model_signature(estimator)
        mlflow.keras.log_model(estimator, name="model", signature=signature, pip_requirements=requirements)
    else:
        mlflow.sklearn.log_model(
            estimator, name="model", serialization_format="cloudpickle", pip_requirements=requirements
        )
