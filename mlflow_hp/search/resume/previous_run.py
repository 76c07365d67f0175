"""What an earlier process has left of a search in MLflow, and the runs that it left open."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.delivery import journal
from mlflow_hp.delivery.folder_lock import held_by
from mlflow_hp.delivery.left_behind import Left
from mlflow_hp.delivery.search_spool import PREFIX
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.process_identity import is_alive, is_here, this_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import mlflow

FOLD = "mlflow_hp.fold_"
"""Begins the names of the tags that hold finished folds."""
PROCESS = "mlflow_hp.process"
"""The tag with the process that records, or recorded, a search."""

_being_recorded: set[str] = set()


class Kept(NamedTuple):
    """A fold that has been computed.

    Attributes
    ----------
    key : str
        What its result follows from.
    started, ended : float
        In seconds since the epoch.
    result : dict
        What scikit-learn's function returned, less what tells of a failure.
    seen : str
        Id of the manifest of what was loaded and read for it beyond what the search began with; empty for nothing.
    """

    key: str
    started: float
    ended: float
    result: dict[str, Any]
    seen: str = ""

    def text(self) -> str:
        """As a tag holds it, with every bit of the numbers."""
        return json.dumps(self, separators=(",", ":"))


class Child(NamedTuple):
    """The run of a combination, with its finished folds by number (0-based); `start` in seconds since the epoch."""

    run_id: str
    name: str
    start: float
    status: str
    folds: dict[int, Kept]


class Past(NamedTuple):
    """What an earlier process has left of a search.

    Attributes
    ----------
    run_id : str
        The parent run.
    tags : dict
        The parent's.
    children : dict
        By number of the ``search.fit`` and of the combination (both 0-based).
    """

    run_id: str
    tags: dict[str, str]
    children: dict[tuple[int, int], Child]


def read(client: mlflow.MlflowClient, parent: mlflow.entities.Run) -> Past:
    """What there is below a parent run."""
    children: dict[tuple[int, int], Child] = {}
    for run in below(client, parent):
        tags, info = run.data.tags, run.info
        if "mlflow_hp.candidate" not in tags:
            continue
        place = int(tags.get("mlflow_hp.fit", 0)), int(tags["mlflow_hp.candidate"])
        folds = {int(name.removeprefix(FOLD)): Kept(*json.loads(tags[name])) for name in tags if name.startswith(FOLD)}
        if place not in children or len(folds) > len(children[place].folds):
            children[place] = Child(info.run_id, info.run_name, info.start_time / 1000, info.status, folds)
    return Past(parent.info.run_id, dict(parent.data.tags), children)


def is_recorded(run: mlflow.entities.Run) -> bool:
    """Whether a search is being recorded into `run`, by this process or one of which it is known that it lives.

    Its folder tells, where it is on this machine: whoever holds its lock lives, in any container and on any host. Else
    the process does that the run names, where it shares our process ids.
    """
    process = run.data.tags.get(PROCESS, "")
    if run.info.run_id in _being_recorded or any(map(is_recorded_at, folders(run.info.run_id))):
        return True
    return run.info.status == "RUNNING" and is_here(process) and process != this_process() and is_alive(process)


def folders(run_id: str, kind: str = f"{PREFIX}_*") -> list[Path]:
    """Where this machine keeps what is on its way to MLflow of the searches, or else, recorded into a run."""
    return [path.parent for path in (runs.local_home() / run_id).glob(f"{kind}/{journal.FILE}")]


def is_recorded_at(folder: Path) -> bool:
    """Whether somebody records into a folder now."""
    try:
        return held_by(folder) is not None and not Left(folder, journal.read(folder)).is_done
    except (OSError, journal.JournalError):
        return False  # it is gone


@contextlib.contextmanager
def being_recorded(run_id: str) -> Iterator[None]:
    """Have it known in this process that a search is being recorded into a run."""
    _being_recorded.add(run_id)
    try:
        yield
    finally:
        _being_recorded.discard(run_id)


def claim(client: mlflow.MlflowClient, past: Past) -> None:
    """Have the parent be this process's: close what the earlier one left open, take back what it said of its end."""
    client.set_tag(past.run_id, PROCESS, this_process())
    close_below(client, client.get_run(past.run_id))
    for name in ("mlflow_hp.error", "mlflow_hp.were_running"):
        if name in past.tags:
            client.delete_tag(past.run_id, name)


def close_dead(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Close, as killed, the searches of an experiment, and the runs below them, whose process is known to have died.

    Those of which a record is on this machine are left to `mlflow_hp.training.recovery`, which knows how they ended
    and when.
    """
    running = f"attributes.status = 'RUNNING' and tags.`{PROCESS}` LIKE '{{%'"
    for run in client.search_runs([experiment_id], running):
        process = run.data.tags[PROCESS]
        if is_here(process) and not is_alive(process) and not folders(run.info.run_id):
            close_below(client, run)
            client.set_terminated(run.info.run_id, "KILLED")


def close_below(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> None:
    """Close, as killed, the runs below `run` that are running, but never `run` itself."""
    seen, wanted = {run.info.run_id}, [run]
    for parent in wanted:  # which grows
        for child in below(client, parent):
            if child.info.run_id not in seen and child.info.status != "FINISHED":
                seen.add(child.info.run_id)
                wanted.append(child)
    for child in reversed(wanted[1:]):
        if child.info.status == "RUNNING":
            client.set_terminated(child.info.run_id, "KILLED")


def below(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> Iterator[mlflow.entities.Run]:
    """The runs below a run."""
    token = None
    while True:
        page = client.search_runs(
            [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'", page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
