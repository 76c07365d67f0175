"""Recordings that a process left behind: MLflow gets what it lacks of them, and their runs their true ends."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp import journal, runs
from mlflow_hp.capture.layout import Layout, Rows
from mlflow_hp.errors import UserError
from mlflow_hp.history import (
    EPOCHS_FILE,
    STEPS_FILE,
    TrainingHistory,
    read_chunks,
    read_initial,
    sound_chunks,
    write_epochs,
)
from mlflow_hp.journal import Entries, JournalError, Record
from mlflow_hp.late_params import late_params
from mlflow_hp.points import StepPoints, epoch_points
from mlflow_hp.process import is_alive, is_here, this_process
from mlflow_hp.recording import HISTORY, being_recorded
from mlflow_hp.report import report_training
from mlflow_hp.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from mlflow_hp.history import Chunk
    from mlflow_hp.points import Points

CLAIM = "recovering"
"""File that says which process recovers a recording now."""


class Left(NamedTuple):
    """A recording that a process has left behind.

    Attributes
    ----------
    folder : Path
        Where it is on this machine.
    entries : Entries
        What its journal holds.
    """

    folder: Path
    entries: Entries

    @property
    def run_id(self) -> str:
        """The run that it belongs to."""
        return str(self.entries.head["run_id"])

    @property
    def tracking_uri(self) -> str:
        """Where that run is."""
        return str(self.entries.head["tracking_uri"])


class Recovered(NamedTuple):
    """What came of a recording that was left behind.

    Attributes
    ----------
    run_id : str
    n_steps : int
        Steps that MLflow has of this fit now.
    n_points : int
        Metric points that were sent for that.
    status : str
        How the run stands now.
    problems : list of str
        What was lost, and why.
    """

    run_id: str
    n_steps: int
    n_points: int
    status: str
    problems: list[str]


def left_behind(home: Path | None = None, on_unusable: Callable[[str], None] | None = None) -> Iterator[Left]:
    """The recordings below `home` whose process has ended, or has given them up; by default where recordings are kept.

    Parameters
    ----------
    home : Path, optional
    on_unusable : callable, optional
        Given a sentence about each from which nothing can be recovered.
    """
    for path in sorted((home or runs.local_home()).glob(f"*/*/{journal.FILE}")):
        try:
            left = Left(path.parent, journal.of_a_training(journal.read(path.parent)))
        except (JournalError, OSError) as error:
            if on_unusable is not None:
                on_unusable(str(error))
            continue
        if not _is_in_work(left):
            yield left


def _is_in_work(left: Left) -> bool:
    process = str(left.entries.head.get("process", ""))
    if process == this_process():
        return left.folder in being_recorded
    return not is_here(process) or is_alive(process)


def recover(left: Left, on_progress: Callable[[int], None] | None = None) -> Recovered | None:
    """Send what MLflow lacks of a recording, end its run, and remove it from this machine.

    Doing so again, after an interruption, changes nothing that is there.

    Parameters
    ----------
    left : Left
        One of `left_behind`.
    on_progress : callable, optional
        Given, some times a second, how many metric points have been sent.

    Returns
    -------
    Recovered or None
        None where another process recovers it now, or it was there already.

    Raises
    ------
    UserError
        Where the store doesn't answer, or doesn't have the run any more. The recording stays.
    """
    with _claimed(left.folder) as ours:
        if not ours:
            return None
        with _tracking(left.tracking_uri):
            found = None if _is_done(left.entries) else _bring(left, on_progress)
        runs.remove_local(left.folder)
        return found


def recover_quietly(on_problem: Callable[[str], object]) -> list[Recovered]:
    """Recover all that was left behind of runs of the tracking URI in force.

    Parameters
    ----------
    on_problem : callable
        Given a sentence about each that can't be recovered now.
    """
    uri, found = mlflow.get_tracking_uri(), []
    for left in [left for left in left_behind() if left.tracking_uri == uri]:
        try:
            found.append(recover(left))
        except Exception as error:  # noqa: BLE001 - the training to come is another matter
            on_problem(f"run {left.run_id} could not be recovered from {left.folder}: {error}")
    return [each for each in found if each is not None]


def _is_done(entries: Entries) -> bool:
    return any("done" in record for record in entries.records)


def _bring(left: Left, on_progress: Callable[[int], None] | None) -> Recovered:
    runs.ensure_reachable()
    client = mlflow.MlflowClient()
    try:
        run = client.get_run(left.run_id)
    except MlflowException as error:
        raise UserError(
            f"run {left.run_id} is not in {left.tracking_uri} any more ({error.message}); its record stays in "
            f"{left.folder}: remove that folder, or restore the run"
        ) from error
    at = _time_of_death(left.folder)
    problems = [left.entries.problem] if left.entries.problem else []
    n_chunks = _cut(left, problems)
    n_points = _send(left, run, n_chunks, on_progress)
    history = None
    if n_chunks:
        rows = [record["epoch"] for record in left.entries.records if "epoch" in record]
        write_epochs(left.folder / HISTORY / EPOCHS_FILE, rows)
        history = TrainingHistory.open(left.folder / HISTORY)
        runs.upload(left.run_id, left.folder / HISTORY, runs.training_path(left.entries.head["fit"]))
        if left.entries.head["report"]:
            try:
                report_training(run, history)
            except Exception as error:  # noqa: BLE001 - the record itself is there
                problems.append(f"there is no report: {type(error).__name__}: {error}")
    _tag(left, history, problems)
    status = run.info.status
    if status == "RUNNING":
        status = _ending(left.entries)
        client.set_terminated(left.run_id, status, end_time=max(at, run.info.start_time))
    _end_above(run, str(left.entries.head.get("process")), at)
    return Recovered(left.run_id, history.n_steps if history else 0, n_points, status, problems)


def _end_above(run: Any, process: str, at: int) -> None:
    """End, as killed, the runs above `run` that the process has left open too."""
    client = mlflow.MlflowClient()
    while (parent_id := run.data.tags.get("mlflow.parentRunId")) is not None:
        run = client.get_run(parent_id)
        if run.info.status == "RUNNING" and run.data.tags.get("mlflow_hp.process") == process:
            client.set_terminated(parent_id, "KILLED", end_time=max(at, run.info.start_time))


def _time_of_death(folder: Path) -> int:
    """When something was written last, in milliseconds since the epoch."""
    files = (folder / journal.FILE, folder / HISTORY / STEPS_FILE)
    return max(int(path.stat().st_mtime * 1000) for path in files if path.exists())


def _ended(entries: Entries) -> dict[str, Any] | None:
    """What the journal says of the end of the fit; None where it has none."""
    return next((record["ended"] for record in entries.records if "ended" in record), None)


def _ending(entries: Entries) -> str:
    """How a run has ended that nobody could end any more."""
    ended = _ended(entries)
    if ended is None:
        return "KILLED"
    return "FINISHED" if ended["whole"] else "FAILED"


def _cut(left: Left, problems: list[str]) -> int:
    """Cut the history behind the last chunk that is as it was written; gives how many chunks that leaves."""
    chunks = [record["chunk"] for record in left.entries.records if "chunk" in record]
    path = left.folder / HISTORY / STEPS_FILE
    n_whole = min(len(chunks), sound_chunks(path.parent))
    if n_whole < len(chunks):
        n_steps = sum(chunk["rows"] for chunk in chunks[n_whole:])
        problems.append(f"the last {n_steps} steps of the history are torn, altered or gone")
    if n_whole and (n_whole < len(chunks) or not _ended(left.entries)):
        os.truncate(path, chunks[n_whole - 1]["end"])
    return n_whole


def _send(left: Left, run: Any, n_chunks: int, on_progress: Callable[[int], None] | None) -> int:
    """Send what is not acknowledged, of the first `n_chunks`; gives how many metric points that were."""
    head, records, acknowledged, _ = left.entries
    folder = left.folder / HISTORY
    chunks = itertools.islice(read_chunks(folder), n_chunks) if n_chunks else iter(())
    points = StepPoints(_layout(folder), head["metrics_every"]) if n_chunks else None
    file = os.open(left.folder / journal.ACKNOWLEDGED_FILE, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        sender = Sender(left.run_id, on_acknowledged=lambda count: journal.acknowledge(file, count))
        for number, record in enumerate(records):
            known = number < acknowledged
            if "chunk" in record and points is not None:
                sender.submit(0, functools.partial(_next_points, points, chunks, known), number)
            elif "epoch" in record and not known:
                sender.submit(0, functools.partial(epoch_points, record["epoch"], record["time"]), number)
            elif "params" in record:  # they were to wait for the end of the run
                sender.do(functools.partial(_describe, run, record), number)
        sender.flush(lambda: on_progress and on_progress(sender.sent))
    finally:
        os.close(file)
    return sender.sent


def _describe(run: Any, record: Record) -> None:
    runs.log_once(run, tags=record["tags"])
    late_params.bring(run.info.run_id, record["params"], run.data.tags)


def _next_points(points: StepPoints, chunks: Iterator[Chunk], known: bool) -> Points:
    """The points of the next chunk that is whole; none where MLflow has them, or the history is cut off before it."""
    chunk = next(chunks, None)
    made = [] if chunk is None else points.of(Rows(*chunk))
    return [] if known else made


def _layout(folder: Path) -> Layout:
    history = TrainingHistory.open(folder)
    store: Any = history.recorded
    return Layout(dict.fromkeys(history.columns, ""), history.tensors, store, read_initial(folder))


def _tag(left: Left, history: TrainingHistory | None, problems: Sequence[str]) -> None:
    """Note on the run what a fit notes at its end, and that it was recovered."""
    head = left.entries.head
    tags = {"fits": str(head["fit"] + 1), "recovered": "\n".join(problems) or "all that was on disk"}
    if history is not None:
        tags["steps"] = str(history.meta["first_step"] + history.n_steps)
        if history.n_epochs:
            tags["epochs"] = str(int(history.epochs["epoch"][-1]) + 1)
    runs.set_tags(left.run_id, {f"mlflow_hp.{name}": value for name, value in tags.items()})


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[bool]:
    """Whether no other process recovers this recording; inside the block none does."""
    claim = folder / CLAIM
    with contextlib.suppress(OSError):
        holder = claim.read_text()
        if holder != this_process() and not is_alive(holder):
            claim.unlink()
    try:
        with claim.open("x") as file:
            file.write(this_process())
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        claim.unlink(missing_ok=True)


@contextlib.contextmanager
def _tracking(uri: str) -> Iterator[None]:
    """Have MLflow's tracking URI be `uri`."""
    before = mlflow.get_tracking_uri()
    if uri == before:
        yield
        return
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
