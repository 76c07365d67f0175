"""Nested runs: the ancestors of a run, also if the tags of parents form a circle or name missing runs."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from mlflow.entities import LifecycleStage
from mlflow.exceptions import MlflowException

from mlflow_hp.tracking.tags import PARENT_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import mlflow

DEEPEST = 100
"""Most levels of nesting that are followed."""
_UNREADABLE_STATUSES = (400, 403, 404)


def ancestors(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> Iterator[mlflow.entities.Run]:
    """Iterate over the runs that `run` is nested in, nearest first, each once.

    The parent is a tag, which anyone may set to any value: the iteration ends at a run that it has already returned,
    at one that is missing, deleted or unreadable, and after `DEEPEST` levels.

    Parameters
    ----------
    client : MlflowClient
        Client of the run's store.
    run : Run
        The nested run.

    Returns
    -------
    iterator of Run
        Parent, grandparent, ...

    Raises
    ------
    MlflowException
        If the store does not answer.
    """
    return chain(run, functools.partial(_readable, client))


def chain(run: mlflow.entities.Run, find: Callable[[str], mlflow.entities.Run | None]) -> Iterator[mlflow.entities.Run]:
    """Iterate over `ancestors` that `find` looks up.

    Parameters
    ----------
    run : Run
        The nested run.
    find : callable
        Id -> run, or None to end the iteration.

    Yields
    ------
    Run
        Parent, grandparent, ...
    """
    visited = {run.info.run_id}
    for _ in range(DEEPEST):
        parent_id = run.data.tags.get(PARENT_TAG)
        parent = find(parent_id) if parent_id and parent_id not in visited else None
        if parent is None:
            return
        run = parent
        visited.add(run.info.run_id)
        yield run


def _readable(client: mlflow.MlflowClient, run_id: str) -> mlflow.entities.Run | None:
    """Get a run; None if it is missing, deleted or unreadable."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.get_http_status_code() in _UNREADABLE_STATUSES:
            return None
        raise
    return None if run.info.lifecycle_stage == LifecycleStage.DELETED else run
