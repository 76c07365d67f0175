"""A training that a process left behind: MLflow gets what it lacks of it, and its run its true end."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import RunTag

from mlflow_hp.delivery import fit_numbers, journal
from mlflow_hp.delivery.fit_numbers import FitNumbers
from mlflow_hp.delivery.folder_lock import held_by
from mlflow_hp.delivery.journal import Entries, Journal
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.left_behind import Left, Recovered
from mlflow_hp.delivery.metric_points import StepPoints, epoch_points
from mlflow_hp.delivery.metric_sender import Sender
from mlflow_hp.delivery.spool import HISTORY, REFUSED, refused_line
from mlflow_hp.history import (
    EPOCHS_FILE,
    STEPS_FILE,
    TrainingHistory,
    read_chunks,
    read_initial,
    sound_chunks,
    write_epochs,
)
from mlflow_hp.history.step_record import Layout, Rows
from mlflow_hp.tracking import runs
from mlflow_hp.training.report import TrainingReport

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from mlflow_hp.delivery.metric_points import Points
    from mlflow_hp.delivery.metric_sender import Item
    from mlflow_hp.history import Chunk


def bring(left: Left, run: Any, on_progress: Callable[[int], None] | None, in_use: Collection[str]) -> Recovered:
    """Send what MLflow lacks of a training, and end its run.

    Parameters
    ----------
    left : Left
        The folder's lock is ours.
    run : mlflow.entities.Run
        Its run.
    on_progress : callable, optional
        Given, some times a second, how many metric points have been sent.
    in_use : collection of str
        Ids of runs that go on now: they are not ended.

    Raises
    ------
    Exception
        Where MLflow does not take it now, or the disk does not give it.
    """
    client, head = mlflow.MlflowClient(), left.entries.head
    at = _time_of_death(left.folder)
    problems = [left.entries.problem] if left.entries.problem else []
    n_chunks = _cut(left, problems)
    shift = _shift(left, run)
    n_points = _send(left, run, n_chunks, shift, on_progress)
    fit, history = head["fit"] + shift.fit, None
    if (refused := left.folder / REFUSED).exists():
        n_refused = len(refused.read_text(encoding="utf-8").splitlines())
        where = runs.training_path(fit)
        client.log_artifact(left.run_id, str(refused), where)
        problems.append(f"MLflow refuses {n_refused:,} metrics, params or tags, which are in {where}/{REFUSED}")
    if n_chunks:
        rows = [record["epoch"] for record in left.entries.records if "epoch" in record]
        write_epochs(left.folder / HISTORY / EPOCHS_FILE, rows)
        history = TrainingHistory.open(left.folder / HISTORY)
        runs.upload(left.run_id, left.folder / HISTORY, runs.training_path(fit))
        if head["report"]:
            try:
                with contextlib.closing(TrainingReport(left.run_id, history)) as report:
                    report.bring()
            except Exception as error:  # noqa: BLE001 - the record itself is there
                problems.append(f"there is no report: {type(error).__name__}: {error}")
    _tag(left, history, shift, problems)
    goes_on = _goes_on(left, run, in_use)
    params: dict[str, str] = next((record["params"] for record in left.entries.records if "params" in record), {})
    if goes_on:
        late_params.add(left.run_id, params, run.data.tags)
    else:
        late_params.finish(left.run_id, params, run.data.tags)
    status = run.info.status
    if status == "RUNNING" and not goes_on:
        status = _ending(left.entries)
        client.set_terminated(left.run_id, status, end_time=max(at, run.info.start_time))
    if left.run_id not in in_use:
        _end_above(run, left.process or "", at)
    return Recovered(left.run_id, history.n_steps if history else 0, n_points, status, problems)


def _goes_on(left: Left, run: Any, in_use: Collection[str]) -> bool:
    """Whether somebody else trains in the run now: here, in a process of this machine, or on another."""
    if left.run_id in in_use or run.data.tags.get(runs.PROCESS_TAG, left.process) != left.process:
        return True
    others = (path.parent for path in left.folder.parent.glob(f"*/{journal.FILE}") if path.parent != left.folder)
    return any(held_by(folder) is not None and not Left(folder, journal.read(folder)).is_done for folder in others)


def _end_above(run: Any, process: str, at: int) -> None:
    """End, as killed, the runs above `run` that the process has left open too."""
    client = mlflow.MlflowClient()
    for above in runs.ancestors(client, run):
        if above.info.status == "RUNNING" and above.data.tags.get("mlflow_hp.process") == process:
            client.set_terminated(above.info.run_id, "KILLED", end_time=max(at, above.info.start_time))


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


def _shift(left: Left, run: Any) -> FitNumbers:
    """How far the numbers of the fit are moved; have the run count it, where it does not yet."""
    known = next((FitNumbers(*record["shift"]) for record in left.entries.records if "shift" in record), None)
    if known is not None or left.entries.acknowledged:
        return known or FitNumbers()
    head = left.entries.head
    ours = FitNumbers(head["fit"], head.get("first_step", 0), head.get("first_epoch", 0))
    shift = fit_numbers.shift(ours, run.data.tags, left.folder.name)
    with contextlib.closing(Journal.reopen(left.folder)) as reopened:  # an interrupted recovery goes on with the same
        reopened.append({"shift": list(shift)})
    counted = {fit_numbers.FITS: str(max(ours.fit + shift.fit + 1, fit_numbers.from_tags(run.data.tags).fit))}
    if left.folder.name not in run.data.tags.get(fit_numbers.CLAIM, "").split():
        counted[fit_numbers.CLAIM] = left.folder.name
    mlflow.MlflowClient().log_batch(left.run_id, tags=[RunTag(*tag) for tag in counted.items()])
    return shift


def _send(
    left: Left,
    run: Any,
    n_chunks: int,
    shift: FitNumbers,
    on_progress: Callable[[int], None] | None,
) -> int:
    """Send what is not acknowledged, of the first `n_chunks`; gives how many metric points that were."""
    head, records, acknowledged, _ = left.entries
    folder = left.folder / HISTORY
    chunks = itertools.islice(read_chunks(folder), n_chunks) if n_chunks else iter(())
    points = StepPoints(_layout(folder), head["metrics_every"]) if n_chunks else None
    with contextlib.closing(Journal.reopen(left.folder)) as reopened:
        sender = Sender(
            left.run_id, on_acknowledged=reopened.acknowledge, set_aside=functools.partial(_set_aside, left.folder)
        )
        logged: dict[str, set[int]] = {}
        if points is not None:
            points.shift = shift.step
        for number, record in enumerate(records):
            known = number < acknowledged
            if "chunk" in record and points is not None:
                sender.submit(0, functools.partial(_next_points, points, chunks, known), number)
            elif "epoch" in record and not known:
                row, time = record["epoch"], record["time"]
                made = functools.partial(epoch_points, row, time, shift.epoch)
                sender.submit(0, functools.partial(_lacking, left.run_id, made, logged), number)
            elif "params" in record and not known:
                sender.describe(functools.partial(runs.items_once, run, tags=record["tags"]), number)
        if not sender.flush(lambda: on_progress and on_progress(sender.sent)):
            sender.wait(lambda: on_progress and on_progress(sender.sent))
        if error := sender.unreadable or next(iter(sender.undone.values()), None):
            raise error
    return sender.sent


def _lacking(run_id: str, make_points: Callable[[], Points], logged: dict[str, set[int]]) -> Points:
    """The points of an epoch that the run lacks: the program may have logged some itself, at another moment."""
    points, client = make_points(), mlflow.MlflowClient()
    for name in {name for name, *_ in points} - logged.keys():
        logged[name] = {point.step for point in client.get_metric_history(run_id, name)}
    return [point for point in points if point[3] not in logged[point[0]]]


def _set_aside(folder: Path, item: Item, reason: str) -> None:
    with (folder / REFUSED).open("a", encoding="utf-8") as file:
        file.write(refused_line(item, reason))


def _next_points(points: StepPoints, chunks: Iterator[Chunk], known: bool) -> Points:
    """The points of the next chunk that is whole; none where MLflow has them, or the history is cut off before it."""
    chunk = next(chunks, None)
    made = [] if chunk is None else points.of(Rows(*chunk))
    return [] if known else made


def _layout(folder: Path) -> Layout:
    history = TrainingHistory.open(folder)
    store: Any = history.recorded
    return Layout(dict.fromkeys(history.columns, ""), history.tensors, store, read_initial(folder))


def _tag(left: Left, history: TrainingHistory | None, shift: FitNumbers, problems: Sequence[str]) -> None:
    """Note on the run what a fit notes at its end, where no later one has, and that it was recovered."""
    head, counted = left.entries.head, fit_numbers.from_tags(mlflow.MlflowClient().get_run(left.run_id).data.tags)
    step = epoch = 0
    if history is not None:
        step = history.meta["first_step"] + shift.step + history.n_steps
        epoch = int(history.epochs["epoch"][-1]) + 1 + shift.epoch if history.n_epochs else 0
    after = FitNumbers(head["fit"] + shift.fit + 1, step, epoch)
    names = (fit_numbers.FITS, fit_numbers.STEPS, fit_numbers.EPOCHS)
    tags = {name: str(now) for name, now, then in zip(names, after, counted, strict=True) if now > then}
    runs.set_tags(left.run_id, {**tags, "mlflow_hp.recovered": "\n".join(problems) or "all that was on disk"})
