"""MLflow's stack of active runs: the one place that touches it."""

from __future__ import annotations

import contextlib
import threading
from typing import Any

import mlflow


def leave(run_id: str, status: str) -> None:
    """Have a run not be active in this thread any more, without a word to the store, which may not answer.

    Where this version of MLflow keeps its active runs elsewhere, `mlflow.end_run` does it: it waits for the store.

    Parameters
    ----------
    run_id : str
        The run.
    status : str
        How it has ended.
    """
    try:
        from mlflow.tracking import fluent

        stack, latest = fluent._active_run_stack.get(), fluent._last_active_run_id
        if all(run.info.run_id != run_id for run in stack):
            return
        fluent.MLFLOW_RUN_ID.unset()
        latest.set(run_id)
        stack[:] = [run for run in stack if run.info.run_id != run_id]
        monitor = fluent.run_id_to_system_metrics_monitor.pop(run_id, None)
        if monitor is not None:
            threading.Thread(target=_finish, args=(monitor,), name="mlflow_hp-monitor", daemon=True).start()
    except Exception:  # noqa: BLE001 - another version of MLflow's
        active = mlflow.active_run()
        if active is not None and active.info.run_id == run_id:
            with contextlib.suppress(Exception):
                mlflow.end_run(status)


def _finish(monitor: Any) -> None:
    with contextlib.suppress(Exception):
        monitor.finish()
