"""Recovery of the recordings that earlier processes left behind, at the beginning of a training."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import mlflow

from mlflow_hp._notice import log, warn
from mlflow_hp.delivery.patience import PATIENCE_SECONDS
from mlflow_hp.terminal import count
from mlflow_hp.tracking.server_health import within
from mlflow_hp.training.recovery import recover_quietly

if TYPE_CHECKING:
    from mlflow_hp.delivery.local_recording import RecoveryResult


def recover_earlier(run_id: str) -> None:
    """Send the spools of earlier processes to MLflow; continues next to the training if it takes long.

    Parameters
    ----------
    run_id : str
        Id of the run of the training, which is not ended; nor is the active run.
    """
    active = mlflow.active_run()
    in_use = {run_id} if active is None else {run_id, active.info.run_id}
    with contextlib.suppress(TimeoutError):
        within(PATIENCE_SECONDS, lambda: recover_quietly(warn, _log_recovered, in_use))


def _log_recovered(recovered: RecoveryResult) -> None:
    lost = f"; {'; '.join(recovered.problems)}" if recovered.problems else ""
    n_steps, run_id = recovered.n_steps, recovered.run_id
    log(f"recovered {count(n_steps, 'step')} of run {run_id}, which is {recovered.status} now{lost}", name=__name__)
