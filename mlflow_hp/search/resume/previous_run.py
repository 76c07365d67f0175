"""The runs of a search that an earlier process recorded: read their finished folds, close those left open."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.delivery import journal
from mlflow_hp.delivery.folder_lock import lock_holder
from mlflow_hp.delivery.local_recording import LocalRecording
from mlflow_hp.delivery.search_sender import SEARCH_FOLDER_PREFIX
from mlflow_hp.tracking.home import local_home
from mlflow_hp.tracking.process_identity import is_alive, is_here, this_process
from mlflow_hp.tracking.tags import (
    CANDIDATE_TAG,
    ERROR_TAG,
    FIT_TAG,
    FOLD_TAG_PREFIX,
    PARENT_TAG,
    PROCESS_TAG,
    WERE_RUNNING_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import mlflow


_being_recorded: set[str] = set()


class FinishedFold(NamedTuple):
    """A fold that a process has finished, as a tag of its candidate's run holds it.

    Attributes
    ----------
    key : str
        Digest of everything that the result depends on.
    started, ended : float
        In seconds since the epoch.
    result : dict
        Result of scikit-learn's function.
    manifest_id : str
        Id of the manifest of what the fold loaded and read beyond the start of the search; empty for nothing.
    """

    key: str
    started: float
    ended: float
    result: dict[str, Any]
    manifest_id: str = ""

    def text(self) -> str:
        """JSON of the fold, with the exact floats."""
        return json.dumps(self, separators=(",", ":"))


class PreviousCandidate(NamedTuple):
    """Earlier run of a candidate, with its finished folds by split (0-based); `start` in seconds since the epoch."""

    run_id: str
    name: str
    start: float
    status: str
    folds: dict[int, FinishedFold]


class PreviousRun(NamedTuple):
    """The parent run of a search that an earlier process recorded.

    Attributes
    ----------
    run_id : str
    tags : dict of str to str
    candidates : dict of tuple of int to PreviousCandidate
        By number of the ``search.fit`` and index of the candidate (both 0-based).
    """

    run_id: str
    tags: dict[str, str]
    candidates: dict[tuple[int, int], PreviousCandidate]


def read(client: mlflow.MlflowClient, parent: mlflow.entities.Run) -> PreviousRun:
    """Read the candidates of a parent run."""
    candidates: dict[tuple[int, int], PreviousCandidate] = {}
    for run in below(client, parent):
        tags, info = run.data.tags, run.info
        if CANDIDATE_TAG not in tags:
            continue
        key = int(tags.get(FIT_TAG, 0)), int(tags[CANDIDATE_TAG])
        folds = {
            int(name.removeprefix(FOLD_TAG_PREFIX)): FinishedFold(*json.loads(tags[name]))
            for name in tags
            if name.startswith(FOLD_TAG_PREFIX)
        }
        if key not in candidates or len(folds) > len(candidates[key].folds):
            candidates[key] = PreviousCandidate(info.run_id, info.run_name, info.start_time / 1000, info.status, folds)
    return PreviousRun(parent.info.run_id, dict(parent.data.tags), candidates)


def is_recorded(run: mlflow.entities.Run) -> bool:
    """Whether this or another living process is recording a search into `run`.

    A folder of its spool on this machine is decisive: the holder of the lock lives, in whichever container or host.
    Without one, the process named by the run is checked, provided that it shares our process ids.
    """
    process = run.data.tags.get(PROCESS_TAG, "")
    if run.info.run_id in _being_recorded or any(map(is_recorded_at, folders(run.info.run_id))):
        return True
    return run.info.status == "RUNNING" and is_here(process) and process != this_process() and is_alive(process)


def folders(run_id: str, kind: str = f"{SEARCH_FOLDER_PREFIX}_*") -> list[Path]:
    """Spool folders on this machine of the searches (or of another `kind`) recorded into a run."""
    return [path.parent for path in (local_home() / run_id).glob(f"{kind}/{journal.FILE}")]


def is_recorded_at(folder: Path) -> bool:
    """Whether a process is recording into a spool folder now."""
    try:
        return lock_holder(folder) is not None and not LocalRecording(folder, journal.read(folder)).is_done
    except (OSError, journal.JournalError):
        return False  # removed in the meantime


@contextlib.contextmanager
def being_recorded(run_id: str) -> Iterator[None]:
    """Mark a run as being recorded by this process, for `is_recorded`."""
    _being_recorded.add(run_id)
    try:
        yield
    finally:
        _being_recorded.discard(run_id)


def claim(client: mlflow.MlflowClient, previous: PreviousRun) -> None:
    """Take over the parent run: close runs that the earlier process left open, delete tags about its end."""
    client.set_tag(previous.run_id, PROCESS_TAG, this_process())
    close_below(client, client.get_run(previous.run_id))
    for name in (ERROR_TAG, WERE_RUNNING_TAG):
        if name in previous.tags:
            client.delete_tag(previous.run_id, name)


def close_dead(client: mlflow.MlflowClient, experiment_id: str) -> None:
    """Close as KILLED the searches of an experiment whose process is known to have died, and the runs below them.

    Searches with a spool on this machine are left to `mlflow_hp.training.recovery`, which knows how and when they
    ended.
    """
    running = f"attributes.status = 'RUNNING' and tags.`{PROCESS_TAG}` LIKE '{{%'"
    for run in client.search_runs([experiment_id], running):
        process = run.data.tags[PROCESS_TAG]
        if is_here(process) and not is_alive(process) and not folders(run.info.run_id):
            close_below(client, run)
            client.set_terminated(run.info.run_id, "KILLED")


def close_below(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> None:
    """Close as KILLED the running runs below `run`, but never `run` itself."""
    seen, tree = {run.info.run_id}, [run]
    for parent in tree:  # grows in the loop
        for child in below(client, parent):
            if child.info.run_id not in seen and child.info.status != "FINISHED":
                seen.add(child.info.run_id)
                tree.append(child)
    for child in reversed(tree[1:]):
        if child.info.status == "RUNNING":
            client.set_terminated(child.info.run_id, "KILLED")


def below(client: mlflow.MlflowClient, run: mlflow.entities.Run) -> Iterator[mlflow.entities.Run]:
    """Yield the child runs of a run."""
    token = None
    while True:
        page = client.search_runs(
            [run.info.experiment_id], f"tags.`{PARENT_TAG}` = '{run.info.run_id}'", page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return
