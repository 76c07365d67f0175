"""Name of a run, for titles."""

from __future__ import annotations

import contextlib

import mlflow

from mlflow_hp.tracking.server_health import ensure_reachable, within

SECONDS_TO_ANSWER = 2.0
"""Longest wait for MLflow: a title is worth no more."""


def run_name(run_id: str) -> str:
    """Name of the run; the one that it was started with if MLflow does not answer, or empty if that is unknown."""
    with contextlib.suppress(Exception):
        ensure_reachable()
        run = within(SECONDS_TO_ANSWER, lambda: mlflow.MlflowClient().get_run(run_id))
        return str(run.info.run_name or "")
    active = mlflow.active_run()
    return str(active.info.run_name or "") if active is not None and active.info.run_id == run_id else ""
