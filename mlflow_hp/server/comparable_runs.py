"""Runs of an experiment whose descents can be drawn on the surface of one run."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from mlflow_hp.errors import UserError
from mlflow_hp.history import TrainingHistory, weight_snapshots
from mlflow_hp.run_page.descent import shared_with
from mlflow_hp.server.artifacts import is_on_this_machine
from mlflow_hp.server.recorded import history_folder
from mlflow_hp.tracking.tags import AUTHOR_TAG, DATA_DIGEST_TAG, PARENT_TAG, TENSORS_TAG, USER_TAG

if TYPE_CHECKING:
    from pathlib import Path

    from mlflow.entities import Run

    from mlflow_hp.server.source import ReadableSource

MAX_LOOKED_AT = 300
"""Newest runs of the experiment that are looked at."""
MAX_KNOWN = 4096
"""Histories of which it is remembered what they share."""


def comparable_runs(run: Run, source: ReadableSource) -> list[dict[str, Any]]:
    """Find the runs of the same experiment that have a descent to draw with that of a run.

    Parameters
    ----------
    run : mlflow.entities.Run
        A run that the sender may read.
    source : ReadableSource
        Runs that the sender may read.

    Returns
    -------
    list of dict
        ``id``, ``name``, ``author``, ``started`` (ms) and ``parent`` of each, the newest first; without the run itself.
        Linear regressions have the same data, other models the same shapes of their trainable tensors. Histories that
        another machine has are not downloaded to find out: there, runs with the tags of the same data and tensors are
        listed.
    """
    shared = _shared(run)
    if shared is None:
        return []
    others = source.search([run.info.experiment_id], "", MAX_LOOKED_AT)
    return [
        {
            "id": other.info.run_id,
            "name": other.info.run_name or other.info.run_id,
            "author": other.data.tags.get(AUTHOR_TAG) or other.data.tags.get(USER_TAG) or "unknown",
            "started": other.info.start_time,
            "parent": other.data.tags.get(PARENT_TAG),
        }
        for other in others
        if other.info.run_id != run.info.run_id and other.info.status != "RUNNING" and _shared(other) == shared
    ]


def _shared(run: Run) -> tuple[Any, ...] | None:
    if not is_on_this_machine(run):
        tags = (run.data.tags.get(TENSORS_TAG), run.data.tags.get(DATA_DIGEST_TAG))
        return tags if any(tags) else None
    folder = history_folder(run, 0)
    return None if folder is None else _shared_with(*folder)


@functools.lru_cache(maxsize=MAX_KNOWN)
def _shared_with(folder: Path, _size: int, _time: float) -> tuple[Any, ...] | None:
    try:
        history = TrainingHistory.open(folder)
    except (UserError, ValueError, OSError):
        return None
    return shared_with(history, has_snapshots=(folder / weight_snapshots.FILE).is_file())
