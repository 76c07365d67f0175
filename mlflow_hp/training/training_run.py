"""Run that is started for a training for which none is active."""

from __future__ import annotations

from mlflow_hp._notice import warn
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.own_run import OwnRun
from mlflow_hp.tracking.server_health import reason


def start_training_run() -> OwnRun | None:
    """Start a run for a training; warn, and return None, if that fails: the training goes on."""
    try:
        return OwnRun(runs.run_tags("training"))
    except Exception as error:  # noqa: BLE001
        warn(f"a training is not recorded: no run is active, and none can be started: {reason(error)}")
        return None
