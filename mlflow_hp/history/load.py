"""A training of a run, loaded back from MLflow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.history import weight_snapshots
from mlflow_hp.history.reader import TrainingHistory
from mlflow_hp.tracking.runs import training_path
from mlflow_hp.tracking.server_health import ensure_reachable

if TYPE_CHECKING:
    from mlflow_hp.history.weight_snapshots import Snapshots


def load_history(run_id: str, tracking_uri: str | None = None, *, fit: int = 0) -> TrainingHistory:
    """The recorded training of a run.

    Parameters
    ----------
    run_id : str
        A run with a recorded training.
    tracking_uri : str, optional
        Where the run is; by default the tracking URI in force.
    fit : int
        Which fit (0-based), for a run that was recorded during several.

    Returns
    -------
    TrainingHistory
        Read lazily: the weights of a tensor are loaded when they are asked for.

    Raises
    ------
    UserError
        Where the store doesn't answer, there is no such run, or it holds no such history.
    """
    path = training_path(fit)
    return TrainingHistory.open(_download(run_id, path, tracking_uri, "training history", "TrainingRecorder()"))


def load_snapshots(run_id: str, tracking_uri: str | None = None, *, fit: int = 0) -> Snapshots:
    """The snapshots of the weights of a run's training; parameters and errors as of `load_history`.

    Returns
    -------
    Snapshots
        What `mlflow_hp.training.landscape` takes.
    """
    path = f"{training_path(fit)}/{weight_snapshots.FILE}"
    how = "TrainingRecorder(snapshot_megabytes=64)"
    return weight_snapshots.load(_download(run_id, path, tracking_uri, "snapshots of the weights", how))


def _download(run_id: str, path: str, tracking_uri: str | None, what: str, how: str) -> str:
    """Where the artifact `path` of a run is on this machine now; an error says what is missing and how to get it."""
    ensure_reachable(tracking_uri)
    try:
        mlflow.MlflowClient(tracking_uri).get_run(run_id)
    except MlflowException as error:
        raise UserError(f"run {run_id!r}: {error.message}; check the id and tracking_uri=") from error
    try:
        return mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, tracking_uri=tracking_uri)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"run {run_id} holds no {what} at {path!r} ({error}); a run gets one from "
            f"`model.fit(..., callbacks=[mlflow_hp.{how}])`"
        ) from error
