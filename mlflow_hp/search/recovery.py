"""Recovery of a search whose process died, or whose server did not answer at its end, from its spool."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.uri import is_local_uri

from mlflow_hp.delivery import journal
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.local_recording import RecoveryResult
from mlflow_hp.delivery.outbox import Outbox
from mlflow_hp.delivery.patience import Patience
from mlflow_hp.delivery.retry import Retry
from mlflow_hp.delivery.run_writer import RunWriter
from mlflow_hp.delivery.search_sender import REPORT
from mlflow_hp.errors import UserError
from mlflow_hp.search.journal_validation import validated
from mlflow_hp.search.resume.previous_run import below, folders, is_recorded_at
from mlflow_hp.terminal import count
from mlflow_hp.tracking.artifact_paths import TRACEBACK_FILE
from mlflow_hp.tracking.params_and_tags import storable
from mlflow_hp.tracking.process_identity import is_alive, is_here
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.server_health import ensure_reachable, reason
from mlflow_hp.tracking.tags import CANDIDATE_TAG, FIT_TAG, KEY_TAG, PROCESS_TAG, RECOVERED_TAG, RUNNING_TAG
from mlflow_hp.training import recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from mlflow_hp.delivery.journal import Entries
    from mlflow_hp.delivery.local_recording import LocalRecording

PATIENCE_SECONDS = 10.0
"""Time without progress after which recovery gives up."""
PAUSE_SECONDS = 1.0


def recover_search(
    recording: LocalRecording,
    run: Any = None,  # noqa: ARG001 - as for a training
    on_progress: Callable[[int], None] | None = None,
    in_use: Collection[str] = (),
) -> RecoveryResult:
    """Write to MLflow whatever it lacks of a search, and end the runs that the search left open.

    Idempotent: it can be repeated after an interruption. The caller holds the lock of the folder, and has set MLflow's
    tracking URI to that of the journal.

    Parameters
    ----------
    recording : LocalRecording
        The spool of the search.
    run : optional
        Unused; the recovery of a training takes it.
    on_progress : callable, optional
        Called from time to time with the number of metric points written so far.
    in_use : collection of str
        Ids of runs in use, which are not ended. Defaults to none.

    Returns
    -------
    RecoveryResult
        ``n_steps`` is 0.

    Raises
    ------
    UserError
        If MLflow does not answer, or does not accept everything. The spool stays and can be recovered later.
    JournalError
        If the journal is not that of a search.
    """
    entries = validated(recording.entries)
    header, run_id = entries.header, entries.header["run_id"]
    ensure_reachable(header["tracking_uri"])
    client = mlflow.MlflowClient(header["tracking_uri"])
    parent = _parent(client, recording.folder, header)
    outbox = _Replayed(entries, client, recording.folder)
    died_at = _time_of_death(recording.folder)
    problems = [entries.problem] if entries.problem else []
    ended = next((record["ended"] for record in entries.records if "ended" in record), None)
    is_own = parent.data.tags.get(PROCESS_TAG) in (None, header["process"], header["before"])
    n_repeated = 0 if is_own else _give_up_others(outbox, client, parent)
    _end_candidates(outbox, died_at)
    if is_own:
        others = (folder for folder in folders(run_id, "*") if folder != recording.folder)
        _end_parent(outbox, parent, ended, died_at, is_used=run_id in in_use or any(map(is_recorded_at, others)))
    if n_repeated:
        problems.append(f"{count(n_repeated, 'candidate')} left out: computed again in the resumed search")
    n_points = outbox.n_points
    _write(outbox, recording.folder, on_progress)
    problems += outbox.messages
    client.set_tag(run_id, RECOVERED_TAG, storable(masked("\n".join(problems)))[:5000] or "all that was on disk")
    now = client.get_run(run_id)
    if now.info.status != "RUNNING":
        late_params.finish(run_id, {}, now.data.tags)
    return RecoveryResult(run_id, 0, n_points - outbox.n_skipped_points, now.info.status, problems)


class _Replayed(Outbox):
    """The runs of a journal, with the parts that MLflow has not acknowledged."""

    def __init__(self, entries: Entries, client: mlflow.MlflowClient, folder: Path) -> None:
        super().__init__(entries.header)
        self._retry = Retry()
        patience = Patience(lambda: self.error is not None)
        uri = entries.header["tracking_uri"]
        self._writer = RunWriter(
            self, client, uri, self._retry, patience, lambda: folder / REPORT, skips_logged_points=is_local_uri(uri)
        )
        written = {record["run"]: record["written"] for record in entries.records if "written" in record}
        for number, record in enumerate(entries.records):
            if "run" not in record:
                continue
            run = self.runs[record["run"]] if record["run"] < len(self.runs) else self.add_run_of(record)
            run.apply(record, is_written=number <= written.get(run.number, -1))
        for run in self.runs:
            run.may_exist = run.run_id is None
            if run.is_pending:
                self.enqueue(run)
        self.n_points = sum(run.n_points for run in self.runs)

    @property
    def n_skipped_points(self) -> int:
        """Number of those points that MLflow had already."""
        return self._writer.n_skipped_points

    @property
    def error(self) -> Exception | None:
        """Why the last attempt to write failed; None if it did not."""
        return self._retry.error

    def write(self) -> None:
        """Try to write all that waits."""
        try:
            self._writer.write_due(at_once=True)
        except Exception as error:  # noqa: BLE001 - told if it stays so
            self._retry.note_failure(error)


def _parent(client: mlflow.MlflowClient, folder: Path, header: Mapping[str, Any]) -> mlflow.entities.Run:
    run_id = header["run_id"]
    stays = f"its record stays in {folder}; `mlflow-hp recover --discard {run_id}` discards it"
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UserError(f"{header['tracking_uri']} does not return run {run_id} ({reason(error)}); {stays}") from error
    if run.info.lifecycle_stage == "deleted":
        raise UserError(f"run {run_id} is deleted: `mlflow runs restore --run-id {run_id}` restores it; {stays}")
    return run


def _time_of_death(folder: Path) -> float:
    """Time of the last record, in seconds since the epoch."""
    return (folder / journal.FILE).stat().st_mtime


def _end_candidates(outbox: _Replayed, died_at: float) -> None:
    """End the runs that the search left open, as it would have itself."""
    for run in outbox.runs[1:]:
        if run.is_open:
            run.end("FAILED" if TRACEBACK_FILE in run.artifact_paths else "KILLED", died_at)


def _end_parent(
    outbox: _Replayed, parent: mlflow.entities.Run, ended: Mapping[str, Any] | None, died_at: float, *, is_used: bool
) -> None:
    """End the parent, as the search would have itself; not one that others use."""
    process = str(parent.data.tags.get(PROCESS_TAG, ""))
    if ended is None:
        outbox.parent.set_tags({RUNNING_TAG: "0"})
    is_dead = ended is None or (is_here(process) and not is_alive(process))
    if is_dead and not is_used and parent.info.status == "RUNNING" and outbox.parent.pending.end is None:
        status, end_time = ("KILLED", died_at) if ended is None else (ended["status"], ended["time"])
        outbox.parent.end(status, end_time)


def _give_up_others(outbox: _Replayed, client: mlflow.MlflowClient, parent: mlflow.entities.Run) -> int:
    """Leave to other processes, which record into the parent as well, what is theirs.

    That is the end of the parent, and of runs that they go on with; runs missing in MLflow whose candidates they have
    computed again are dropped.

    Returns
    -------
    int
        Number of dropped candidates.
    """
    outbox.parent.owns_status = False
    tags = {run.info.run_id: run.data.tags for run in below(client, parent)}
    candidates = {_candidate_key(each) for each in tags.values()}
    for run in outbox.runs[1:]:
        if run.run_id in tags:
            run.owns_status = tags[run.run_id].get(KEY_TAG) == outbox.key_of(run)
        is_repeated = run.run_id is None and _candidate_key(run.pending.tags) in candidates
        run.is_dropped = is_repeated or (run.parent is not None and run.parent.is_dropped)
    return sum(run.is_dropped and run.parent is outbox.parent for run in outbox.runs)


def _candidate_key(tags: Mapping[str, str]) -> tuple[str, str] | None:
    if CANDIDATE_TAG not in tags:
        return None
    return tags.get(FIT_TAG, "0"), tags[CANDIDATE_TAG]


def _write(outbox: _Replayed, folder: Path, on_progress: Callable[[int], None] | None) -> None:
    """Write everything that waits, retrying while the store makes progress."""
    total, fewest, since = outbox.n_points, float("inf"), time.monotonic()
    while outbox.is_pending:
        outbox.write()
        n_points = sum(run.n_points for run in outbox.runs)
        n_waiting = n_points + sum(run.is_pending for run in outbox.runs)
        if n_waiting < fewest:
            fewest, since = n_waiting, time.monotonic()
        if on_progress is not None:
            on_progress(total - n_points)
        if n_waiting and time.monotonic() - since > PATIENCE_SECONDS:
            raise UserError(_incomplete(outbox, folder)) from outbox.error
        if outbox.error is not None:
            time.sleep(PAUSE_SECONDS)


def _incomplete(outbox: _Replayed, folder: Path) -> str:
    waiting = [run for run in outbox.runs if run.is_pending]
    cause = reason(outbox.error) if outbox.error is not None else "without a reason"
    return (
        f"MLflow does not accept all of the search of run {outbox.parent.run_id}: {len(waiting)} of "
        f"{count(len(outbox.runs), 'run')} waiting, such as {waiting[0].name!r:.200} ({cause}); its record stays in "
        f"{folder}; "
        f"`mlflow runs restore` restores a deleted run, `mlflow-hp recover --discard {outbox.parent.run_id}` discards "
        "the record"
    )


KINDS = MappingProxyType({**recovery.KINDS, "search": recover_search})
"""Kind of recording -> function that recovers it."""
