"""Log of a loss barrier in both of its runs, where their pages find it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp._notice import warn
from mlflow_hp.errors import UserError
from mlflow_hp.tracking.artifact_paths import barrier_path

if TYPE_CHECKING:
    from mlflow_hp.analysis.surfaces.barrier import Barrier
    from mlflow_hp.history import Snapshots


def ensure_loggable(run_a: str | Snapshots, run_b: str | Snapshots) -> None:
    """Raise if a barrier between these cannot be logged, before it is computed.

    Raises
    ------
    UserError
        If one is no id of a run, or both are the same.
    """
    if not (isinstance(run_a, str) and isinstance(run_b, str)):
        raise UserError(
            "log=True needs the ids of two runs, to log to; snapshots belong to none: give ids, or log=False"
        )
    if run_a == run_b:
        raise UserError(f"log=True: run_a and run_b are both {run_a!r}; give two runs, or log=False")


def log_barrier(between: Barrier, run_ids: tuple[str, str], tracking_uri: str | None = None) -> None:
    """Log a barrier to both runs as ``barriers/<id of the other run>.json``, replacing an earlier one.

    A run that cannot be written, as one of a colleague's, causes a warning.

    Parameters
    ----------
    between : Barrier
        Losses between the ends of the two runs.
    run_ids : tuple of str
        Ids of the runs, that of the first end first.
    tracking_uri : str, optional
        Tracking store of the runs. Defaults to the current tracking URI.
    """
    content = between.to_dict() | {"run_ids": list(run_ids)}
    client = mlflow.MlflowClient(tracking_uri)
    for run_id, other in (run_ids, run_ids[::-1]):
        try:
            client.log_dict(run_id, content, barrier_path(other))
        except (OSError, MlflowException) as error:
            warn(f"the barrier could not be logged to run {run_id} ({type(error).__name__}: {error}); it is returned")
