"""Experiments that the sender of a request may read; MLflow's authentication decides."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mlflow_hp._compat.mlflow import MAY_READ_RUNS, may_read_runs

ReadFilter = Callable[[Iterable[str]], list[str]]
"""Reduces experiment ids to those whose runs the sender of the request may see."""

AUTH_FUNCTIONS = ("authenticate_request", "filter_experiment_ids", "sender_is_admin", MAY_READ_RUNS.name)
"""Functions of mlflow.server.auth that decide."""


def allow_all(experiment_ids: Iterable[str]) -> list[str]:
    """Keep all: the server has no authentication."""
    return list(experiment_ids)


def readable_by_sender(experiment_ids: Iterable[str]) -> list[str]:
    """Keep the experiments that MLflow's basic authentication lets the sender read, runs included.

    MLflow knows grants, default permission and admins. Its filter passes everything if no one is logged in; its hook
    before each request rules that out, and this function checks it again.
    """
    from flask import abort
    from mlflow.server import auth
    from werkzeug.datastructures import Authorization

    if not isinstance(auth.authenticate_request(), Authorization):
        abort(401)
    may_list: list[str] = auth.filter_experiment_ids(list(experiment_ids))
    if not may_list or auth.sender_is_admin() or may_read_runs(may_list):
        return may_list
    return [experiment_id for experiment_id in may_list if may_read_runs([experiment_id])]
