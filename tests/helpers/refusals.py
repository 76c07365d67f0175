"""Errors of MLflow's client: recorded, or raised on purpose."""

from __future__ import annotations

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError


def refusals(monkeypatch, name="log_batch"):
    """List of the errors that calls of the client's method `name` raise from now on."""
    real, errors = getattr(mlflow.MlflowClient, name), []

    def call(self, *arguments, **named):
        try:
            return real(self, *arguments, **named)
        except MlflowException as error:
            errors.append(error)
            raise

    monkeypatch.setattr(mlflow.MlflowClient, name, call)
    return errors


def upload_failing_for(run_id, upload):
    """Make a replacement of `upload` that fails for one run."""

    def upload_or_fail(uploaded_run_id, *arguments):
        if uploaded_run_id == run_id:
            raise UserError("the artifact store is gone")
        upload(uploaded_run_id, *arguments)

    return upload_or_fail
