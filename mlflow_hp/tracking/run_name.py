"""Name of a run, for titles."""

from __future__ import annotations

import contextlib

import mlflow

from mlflow_hp.tracking import runs


def run_name(run_id: str) -> str:
    """Name of the run; empty if MLflow does not answer, since only titles need it."""
    active = mlflow.active_run()
    if active is not None and active.info.run_id == run_id:
        return str(active.info.run_name or "")
    with contextlib.suppress(Exception):
        run = runs.find_run(run_id)
        return "" if run is None else str(run.info.run_name or "")
    return ""
