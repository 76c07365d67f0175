"""Loading of recorded trainings from MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.history import weight_snapshots
from mlflow_hp.history.training_history import TrainingHistory
from mlflow_hp.tracking.artifact_paths import training_path
from mlflow_hp.tracking.server_health import ensure_reachable

if TYPE_CHECKING:
    from mlflow_hp.history.weight_snapshots import Snapshots


def load_history(run_id: str, tracking_uri: str | None = None, *, fit: int = 0) -> TrainingHistory:
    """Load the recorded training of a run.

    Parameters
    ----------
    run_id : str
        Id of a run with a recorded training.
    tracking_uri : str, optional
        Tracking store of the run. Defaults to the current tracking URI.
    fit : int
        Which fit (0-based), for a run that was recorded during several. Defaults to 0.

    Returns
    -------
    TrainingHistory
        Read lazily: the weights of a tensor are loaded on access.

    Raises
    ------
    UserError
        If the store does not answer, or the run does not exist or has no such history.

    Examples
    --------
    >>> import keras, mlflow, mlflow_hp, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="dense")])
    >>> model.compile("sgd", "mse")
    >>> x = np.linspace(0, 1, 8)[:, None]
    >>> with mlflow.start_run() as run:
    ...     _ = model.fit(x, 2 * x, batch_size=4, epochs=3, verbose=0, callbacks=[mlflow_hp.TrainingRecorder()])
    >>> history = mlflow_hp.load_history(run.info.run_id)
    >>> history.steps["batch_loss"].shape, history.weights("dense/kernel").shape
    ((6,), (7, 1, 1))
    """
    path = training_path(fit)
    recorder = "mlflow_hp.TrainingRecorder()"
    return TrainingHistory.open(_download(run_id, path, tracking_uri, "training history", recorder))


def load_snapshots(run_id: str, tracking_uri: str | None = None, *, fit: int = 0) -> Snapshots:
    """Load the snapshots of the weights of a run's training.

    Parameters
    ----------
    run_id : str
        Id of a run that was recorded with ``snapshot_megabytes``.
    tracking_uri : str, optional
        Tracking store of the run. Defaults to the current tracking URI.
    fit : int
        Which fit (0-based), for a run that was recorded during several. Defaults to 0.

    Returns
    -------
    Snapshots
        The path for `mlflow_hp.training.landscape`.

    Raises
    ------
    UserError
        If the store does not answer, or the run does not exist or has no snapshots.

    Examples
    --------
    >>> import keras, mlflow, mlflow_hp, numpy as np
    >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, name="dense")])
    >>> model.compile("sgd", "mse")
    >>> recorder = mlflow_hp.TrainingRecorder(report=False, snapshot_megabytes=1)
    >>> with mlflow.start_run() as run:
    ...     _ = model.fit(np.ones((8, 1)), np.ones((8, 1)), batch_size=4, verbose=0, callbacks=[recorder])
    >>> snapshots = mlflow_hp.load_snapshots(run.info.run_id)
    >>> snapshots.steps, snapshots.tensors["dense/kernel"].shape
    (array([0, 1, 2]), (3, 1, 1))
    """
    path = f"{training_path(fit)}/{weight_snapshots.FILE}"
    recorder = "mlflow_hp.TrainingRecorder(snapshot_megabytes=64)"
    return weight_snapshots.load(_download(run_id, path, tracking_uri, "snapshots of the weights", recorder))


def existing_run(run_id: str, tracking_uri: str | None = None) -> Any:
    """Return a run.

    Raises
    ------
    UserError
        If the store does not answer, or the run does not exist.
    """
    ensure_reachable(tracking_uri)
    try:
        return mlflow.MlflowClient(tracking_uri).get_run(run_id)
    except MlflowException as error:
        raise UserError(f"run {run_id!r}: {error.message}; check the id and tracking_uri=") from error


def _download(run_id: str, path: str, tracking_uri: str | None, kind: str, recorder: str) -> str:
    """Download the artifact `path` of a run and return its local path; an error names the `recorder` that writes it."""
    existing_run(run_id, tracking_uri)
    try:
        return mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, tracking_uri=tracking_uri)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"run {run_id} holds no {kind} at {path!r} ({error}); a run gets it from "
            f"`model.fit(..., callbacks=[{recorder}])`"
        ) from error
