"""A search whose process died, or whose server was away at its end: MLflow gets what it lacks, and the true end."""

from __future__ import annotations

import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.delivery import journal
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.left_behind import Recovered
from mlflow_hp.delivery.outbox import Outbox, reason
from mlflow_hp.delivery.search_spool import REPORT
from mlflow_hp.errors import UserError
from mlflow_hp.search.live.candidates import ERROR_FILE
from mlflow_hp.search.records import of_a_search
from mlflow_hp.search.resume.previous_run import PROCESS, below, folders, is_recorded_at
from mlflow_hp.tracking.params_and_tags import storable
from mlflow_hp.tracking.process_identity import is_alive, is_here
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.server_health import ensure_reachable
from mlflow_hp.training import recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from mlflow_hp.delivery.journal import Entries
    from mlflow_hp.delivery.left_behind import Left

RECOVERED = "mlflow_hp.recovered"
"""The tag that says what was lost of a recording."""
PATIENCE_SECONDS = 10.0
"""How long a store that takes nothing is tried."""
PAUSE_SECONDS = 1.0


def bring(
    left: Left,
    run: Any = None,  # noqa: ARG001 - as for a training
    on_progress: Callable[[int], None] | None = None,
    in_use: Collection[str] = (),
) -> Recovered:
    """Write to MLflow what it lacks of a search, and end what the search could not end.

    Doing so again, after an interruption, changes nothing that is there. The caller holds the lock of the folder, and
    has MLflow's tracking URI be that of the journal.

    Parameters
    ----------
    left : Left
        What is left of the search.
    on_progress : callable, optional
        Given, from time to time, how many metric points have been written.
    in_use : collection of str
        Ids of runs that go on now: they are not ended.

    Returns
    -------
    Recovered
        ``n_steps`` is 0.

    Raises
    ------
    UserError
        Where MLflow does not answer, or does not take all: then the record stays, and can be brought later.
    JournalError
        Where the journal is of no search.
    """
    entries = of_a_search(left.entries)
    head, run_id = entries.head, entries.head["run_id"]
    ensure_reachable(head["tracking_uri"])
    client = mlflow.MlflowClient(head["tracking_uri"])
    parent = _parent(client, left.folder, head)
    box = _Replayed(entries, client, left.folder)
    died_at = _time_of_death(left.folder)
    problems = [entries.problem] if entries.problem else []
    ended = next((record["ended"] for record in entries.records if "ended" in record), None)
    box.is_in_charge = parent.data.tags.get(PROCESS) in (None, head["process"], head["before"])
    if box.is_in_charge:
        others = (folder for folder in folders(run_id, "*") if folder != left.folder)
        _end(box, parent, ended, died_at, is_used=run_id in in_use or any(map(is_recorded_at, others)))
    elif n_repeated := _drop_repeated(box, client, parent):
        problems.append(f"{n_repeated} combinations are left out, which were computed again in the resumed search")
    n_points = box.n_points
    _write(box, left.folder, on_progress)
    problems += box.said
    client.set_tag(run_id, RECOVERED, storable(masked("\n".join(problems)))[:5000] or "all that was on disk")
    now = client.get_run(run_id)
    if now.info.status != "RUNNING":
        late_params.finish(run_id, {}, now.data.tags)
    return Recovered(run_id, 0, n_points, now.info.status, problems)


class _Replayed(Outbox):
    """The runs of a journal, with what MLflow has not acknowledged of them."""

    def __init__(self, entries: Entries, client: mlflow.MlflowClient, folder: Path) -> None:
        super().__init__(entries.head, client, entries.head["tracking_uri"])
        self._folder = folder
        written = {record["run"]: record["written"] for record in entries.records if "written" in record}
        for number, record in enumerate(entries.records):
            if "run" not in record:
                continue
            run = self.runs[record["run"]] if record["run"] < len(self.runs) else self.made_by(record)
            run.apply(record, is_written=number <= written.get(run.number, -1))
        for run in self.runs:
            run.may_be_there = run.run_id is None
            if run.is_pending:
                self.put(run)
        self.n_points = sum(run.n_points for run in self.runs)

    @property
    def report_folder(self) -> Path:
        return self._folder / REPORT


def _parent(client: mlflow.MlflowClient, folder: Path, head: Mapping[str, Any]) -> mlflow.entities.Run:
    run_id = head["run_id"]
    stays = f"its record stays in {folder}; `mlflow-hp recover --discard {run_id}` gives it up"
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UserError(f"run {run_id} can't be had from {head['tracking_uri']} ({reason(error)}); {stays}") from error
    if run.info.lifecycle_stage == "deleted":
        raise UserError(f"run {run_id} is deleted: `mlflow runs restore --run-id {run_id}` brings it back; {stays}")
    return run


def _time_of_death(folder: Path) -> float:
    """When something was recorded last, in seconds since the epoch."""
    return (folder / journal.FILE).stat().st_mtime


def _end(
    box: _Replayed, parent: mlflow.entities.Run, ended: Mapping[str, Any] | None, died_at: float, *, is_used: bool
) -> None:
    """End what the search left open, as it would have done itself; but not a parent that is used by others."""
    for run in box.runs[1:]:
        if run.is_open:
            run.end("FAILED" if ERROR_FILE in run.seen_texts else "KILLED", died_at)
    process = str(parent.data.tags.get(PROCESS, ""))
    if ended is None:
        box.parent.tags({"mlflow_hp.running": "0"})
    is_dead = ended is None or (is_here(process) and not is_alive(process))
    if is_dead and not is_used and parent.info.status == "RUNNING" and not box.parent.has_ended:
        status, at = ("KILLED", died_at) if ended is None else (ended["status"], ended["time"])
        box.parent.end(status, at)


def _drop_repeated(box: _Replayed, client: mlflow.MlflowClient, parent: mlflow.entities.Run) -> int:
    """Leave out the runs that MLflow has not got, of combinations that a later process has run again; how many."""
    places = {_place(run.data.tags) for run in below(client, parent)}
    for run in box.runs:
        is_repeated = run.run_id is None and _place(run.waiting_tags) in places
        run.is_dropped = is_repeated or (run.parent is not None and run.parent.is_dropped)
    return sum(run.is_dropped and run.parent is box.parent for run in box.runs)


def _place(tags: Mapping[str, str]) -> tuple[str, str] | None:
    if "mlflow_hp.candidate" not in tags:
        return None
    return tags.get("mlflow_hp.fit", "0"), tags["mlflow_hp.candidate"]


def _write(box: _Replayed, folder: Path, on_progress: Callable[[int], None] | None) -> None:
    """Write all that waits, again where the store fails for a moment."""
    total, least, since = box.n_points, float("inf"), time.monotonic()
    while box.is_pending:
        box.write()
        n_points = sum(run.n_points for run in box.runs)
        n_waiting = n_points + sum(run.is_pending for run in box.runs)
        if n_waiting < least:
            least, since = n_waiting, time.monotonic()
        if on_progress is not None:
            on_progress(total - n_points)
        if n_waiting and time.monotonic() - since > PATIENCE_SECONDS:
            raise UserError(_lacking(box, folder)) from box.error
        if box.error is not None:
            time.sleep(PAUSE_SECONDS)


def _lacking(box: _Replayed, folder: Path) -> str:
    waiting = [run for run in box.runs if run.is_pending]
    why = reason(box.error) if box.error is not None else "it does not say why"
    return (
        f"MLflow does not take all of the search of run {box.parent.run_id}: {len(waiting)} of its {len(box.runs)} "
        f"runs wait, such as {waiting[0].name!r:.200} ({why}); its record stays in {folder}; `mlflow runs restore` "
        f"brings back a run that was deleted, `mlflow-hp recover --discard {box.parent.run_id}` gives the record up"
    )


KINDS = MappingProxyType({**recovery.KINDS, "search": bring})
"""How each kind of recording is brought to MLflow."""
