"""Which experiments the sender of a request may read: MLflow decides, this asks it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

Readable = Callable[[Iterable[str]], list[str]]
"""Leaves of experiments, by id, those of which the sender of the request may see the runs."""

ASKED_OF_MLFLOW = ("authenticate_request", "filter_experiment_ids", "sender_is_admin", "_authorize_bulk_in_experiments")
"""Functions of mlflow.server.auth."""


def everything(experiment_ids: Iterable[str]) -> list[str]:
    """All of them: the server has no authentication."""
    return list(experiment_ids)


def readable_by_sender(experiment_ids: Iterable[str]) -> list[str]:
    """Those that MLflow's basic authentication lets the sender read, and whose runs it lets them read.

    Grants, the default permission and admins are MLflow's affair. Its filter lets everything pass where nobody is
    logged in, which its hook before each request rules out; here it is ruled out once more.
    """
    from flask import abort
    from mlflow.server import auth
    from werkzeug.datastructures import Authorization

    if not isinstance(auth.authenticate_request(), Authorization):
        abort(401)
    may_list: list[str] = auth.filter_experiment_ids(list(experiment_ids))
    if not may_list or auth.sender_is_admin() or _may_read_runs(may_list):
        return may_list
    return [experiment_id for experiment_id in may_list if _may_read_runs([experiment_id])]


def _may_read_runs(experiment_ids: list[str]) -> bool:
    from mlflow.server import auth

    return bool(auth._authorize_bulk_in_experiments(experiment_ids, "run", "read"))
