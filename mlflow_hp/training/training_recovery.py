"""Recovery of a training whose process died: send missing data to MLflow, and end the run with its true status."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import RunTag
from mlflow.utils.uri import is_local_uri

from mlflow_hp.delivery import fit_numbers, journal
from mlflow_hp.delivery.fit_history import HISTORY
from mlflow_hp.delivery.fit_numbers import FitNumbers
from mlflow_hp.delivery.fit_recording import DATA_SETS
from mlflow_hp.delivery.folder_lock import lock_holder
from mlflow_hp.delivery.journal import Entries, Journal
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.local_recording import LocalRecording, RecoveryResult
from mlflow_hp.delivery.metric_points import StepPoints, epoch_points
from mlflow_hp.delivery.metric_selection import MetricSelection
from mlflow_hp.delivery.metric_sender import MetricSender
from mlflow_hp.delivery.refused_items import RefusedItems
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
from mlflow_hp.history.unit_shares import without_unit_shares
from mlflow_hp.terminal import count
from mlflow_hp.tracking import datasets, runs
from mlflow_hp.tracking.artifact_paths import training_path
from mlflow_hp.tracking.nesting import ancestors
from mlflow_hp.tracking.tags import (
    BEST_BY_TAG,
    BEST_EPOCH_METRIC,
    CADENCE_TAG,
    CLAIM_TAG,
    EPOCHS_TAG,
    FITS_TAG,
    PROCESS_TAG,
    RECOVERED_TAG,
    STEPS_TAG,
)
from mlflow_hp.training.best_epoch import BestEpoch, Criterion, Monitors, best_by
from mlflow_hp.training.best_of_run import log_best
from mlflow_hp.training.report import TrainingReport

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from mlflow_hp.delivery.metric_points import Points
    from mlflow_hp.history import Chunk


def recover_training(
    recording: LocalRecording, run: Any, on_progress: Callable[[int], None] | None, in_use: Collection[str]
) -> RecoveryResult:
    """Send missing data of a training to MLflow, and end its run.

    Parameters
    ----------
    recording : LocalRecording
        The spool, which the caller has locked.
    run : mlflow.entities.Run
        Its run.
    on_progress : callable, optional
        Called several times a second with the number of metric points sent so far.
    in_use : collection of str
        Ids of runs in use, which are not ended.

    Raises
    ------
    Exception
        If MLflow does not accept the data now, or the disk fails.
    """
    client, header = mlflow.MlflowClient(), recording.entries.header
    end_time = _time_of_death(recording.folder)
    problems = [recording.entries.problem] if recording.entries.problem else []
    n_chunks = _truncate(recording, problems)
    shift = _shift(recording, run)
    refused = RefusedItems(recording.folder)
    n_points, cadence = _send(recording, run, n_chunks, shift, refused, on_progress)
    fit, history = header["fit"] + shift.fit, None
    if refused:
        refused.upload(recording.run_id, fit)
        problems.append(refused.message(fit))
    if n_chunks:
        rows = [record["epoch"] for record in recording.entries.records if "epoch" in record]
        write_epochs(recording.folder / HISTORY / EPOCHS_FILE, rows)
        history = TrainingHistory.open(recording.folder / HISTORY)
        runs.upload(recording.run_id, recording.folder / HISTORY, training_path(fit))
        if header["report"]:
            try:
                report = TrainingReport(recording.run_id, history, recording.folder / HISTORY)
                with contextlib.closing(report):
                    report.upload(cadence)
            except Exception as error:  # noqa: BLE001 - the record itself is complete
                problems.append(f"there is no report: {type(error).__name__}: {error}")
    _log_best(recording, run, shift)
    _tag(recording, history, shift, problems, cadence)
    is_used = _is_used(recording, run, in_use)
    params: dict[str, str] = {}
    for record in recording.entries.records:
        params |= record.get("params", {})
    if is_used:
        late_params.add(recording.run_id, params, run.data.tags)
    else:
        late_params.finish(recording.run_id, params, run.data.tags)
    status = run.info.status
    if status == "RUNNING" and not is_used:
        status = _final_status(recording.entries)
        client.set_terminated(recording.run_id, status, end_time=max(end_time, run.info.start_time))
    if recording.run_id not in in_use:
        _end_ancestors(run, recording.process or "", end_time)
    return RecoveryResult(recording.run_id, history.n_steps if history else 0, n_points, status, problems)


def _is_used(recording: LocalRecording, run: Any, in_use: Collection[str]) -> bool:
    """Whether another training uses the run now: in this process, another one, or on another machine."""
    if recording.run_id in in_use or run.data.tags.get(PROCESS_TAG, recording.process) != recording.process:
        return True
    others = (
        path.parent for path in recording.folder.parent.glob(f"*/{journal.FILE}") if path.parent != recording.folder
    )
    return any(
        lock_holder(folder) is not None and not LocalRecording(folder, journal.read(folder)).is_done
        for folder in others
    )


def _end_ancestors(run: Any, process: str, end_time: int) -> None:
    """End as KILLED the ancestors of `run` that the process has left open too."""
    client = mlflow.MlflowClient()
    for parent in ancestors(client, run):
        if parent.info.status == "RUNNING" and parent.data.tags.get(PROCESS_TAG) == process:
            client.set_terminated(parent.info.run_id, "KILLED", end_time=max(end_time, parent.info.start_time))


def _time_of_death(folder: Path) -> int:
    """Time of the last write, in milliseconds since the epoch."""
    files = (folder / journal.FILE, folder / HISTORY / STEPS_FILE)
    return max(int(path.stat().st_mtime * 1000) for path in files if path.exists())


def _ended(entries: Entries) -> dict[str, Any] | None:
    """The journal's record of the end of the fit; None if there is none."""
    return next((record["ended"] for record in entries.records if "ended" in record), None)


def _final_status(entries: Entries) -> str:
    """Final status of a run whose process died."""
    ended = _ended(entries)
    if ended is None:
        return "KILLED"
    return "FINISHED" if ended["whole"] else "FAILED"


def _truncate(recording: LocalRecording, problems: list[str]) -> int:
    """Truncate the history after its last intact chunk; return the number of chunks left."""
    chunks = [record["chunk"] for record in recording.entries.records if "chunk" in record]
    path = recording.folder / HISTORY / STEPS_FILE
    n_intact = min(len(chunks), sound_chunks(path.parent))
    if n_intact < len(chunks):
        n_steps = sum(chunk["rows"] for chunk in chunks[n_intact:])
        problems.append(f"incomplete, altered or missing: the last {count(n_steps, 'step')} of the history")
    if n_intact and (n_intact < len(chunks) or not _ended(recording.entries)):
        os.truncate(path, chunks[n_intact - 1]["end"])
    return n_intact


def _shift(recording: LocalRecording, run: Any) -> FitNumbers:
    """Offset of the fit's numbers in the run, where other fits may have used them; have the run count the fit."""
    noted = next((FitNumbers(*record["shift"]) for record in recording.entries.records if "shift" in record), None)
    if noted is not None or recording.entries.n_acknowledged:
        return noted or FitNumbers()
    header = recording.entries.header
    first = FitNumbers(header["fit"], header.get("first_step", 0), header.get("first_epoch", 0))
    shift = fit_numbers.shift(first, run.data.tags, recording.folder.name)
    with contextlib.closing(Journal.reopen(recording.folder)) as reopened:
        reopened.append({"shift": list(shift)})  # a recovery after an interruption uses the same
    tags = {FITS_TAG: str(max(first.fit + shift.fit + 1, fit_numbers.from_tags(run.data.tags).fit))}
    if recording.folder.name not in run.data.tags.get(CLAIM_TAG, "").split():
        tags[CLAIM_TAG] = recording.folder.name
    mlflow.MlflowClient().log_batch(recording.run_id, tags=[RunTag(*tag) for tag in tags.items()])
    return shift


def _send(
    recording: LocalRecording,
    run: Any,
    n_chunks: int,
    shift: FitNumbers,
    refused: RefusedItems,
    on_progress: Callable[[int], None] | None,
) -> tuple[int, str]:
    """Send the unacknowledged data, of the first `n_chunks` chunks; return how many points of which steps were sent."""
    header, records, n_acknowledged, _ = recording.entries
    folder = recording.folder / HISTORY
    chunks = itertools.islice(read_chunks(folder), n_chunks) if n_chunks else iter(())
    points = StepPoints(_layout(folder), MetricSelection.from_header(header)) if n_chunks else None
    with contextlib.closing(Journal.reopen(recording.folder)) as reopened:
        sender = MetricSender(recording.run_id, on_acknowledged=reopened.acknowledge, set_aside=refused.add)
        logged: dict[str, set[int]] = {}
        keeps_duplicates = is_local_uri(recording.tracking_uri)  # a file store; databases keep equal points once
        if points is not None:
            points.shift = shift.step

        def submit_steps(make_points: Callable[[], Points], number: int | None = None) -> None:
            if keeps_duplicates:
                make_points = functools.partial(_missing_points, recording.run_id, make_points, logged)
            sender.submit(0, make_points, number)

        for number, record in enumerate(records):
            is_acknowledged = number < n_acknowledged
            if "chunk" in record and points is not None:
                submit_steps(functools.partial(_next_points, points, chunks, is_acknowledged), number)
            elif "ended" in record and points is not None and not is_acknowledged:
                submit_steps(points.rest, number)
            elif "epoch" in record and not is_acknowledged:
                row, time = record["epoch"], record["time"]
                metrics = MetricSelection.from_header(header).metrics
                make_points = functools.partial(epoch_points, row, time, shift.epoch, metrics)
                sender.submit(0, functools.partial(_missing_points, recording.run_id, make_points, logged), number)
            elif "data_sets" in record and not is_acknowledged:
                fit = header["fit"] + shift.fit
                log = functools.partial(datasets.log, recording.run_id, record["data_sets"], fit)
                sender.do_apart(DATA_SETS, log, number)
            elif "params" in record and not is_acknowledged:
                sender.describe(functools.partial(runs.items_once, run, tags=record["tags"]), number)
        if points is not None and _ended(recording.entries) is None:
            submit_steps(points.rest)
        if not sender.flush(lambda: on_progress and on_progress(sender.n_sent)):
            sender.wait(lambda: on_progress and on_progress(sender.n_sent))
        if error := sender.read_error or next(iter(sender.undone.values()), None):
            raise error
    return sender.n_sent, "" if points is None else points.cadence


def _missing_points(run_id: str, make_points: Callable[[], Points], logged: dict[str, set[int]]) -> Points:
    """Points that the run lacks: those of an epoch may have been logged by the program, those of steps sent before."""
    points, client = make_points(), mlflow.MlflowClient()
    for name in {name for name, *_ in points} - logged.keys():
        logged[name] = {point.step for point in client.get_metric_history(run_id, name)}
    return [point for point in points if point[3] not in logged[point[0]]]


def _next_points(points: StepPoints, chunks: Iterator[Chunk], is_acknowledged: bool) -> Points:
    """Points of the next intact chunk; none if MLflow has them, or the history ends before it."""
    chunk = next(chunks, None)
    chunk_points = [] if chunk is None else points.convert(Rows(*chunk))
    return [] if is_acknowledged else chunk_points


def _layout(folder: Path) -> Layout:
    history = TrainingHistory.open(folder)
    store: Any = history.recorded
    return Layout(dict.fromkeys(history.columns, ""), history.tensors, store, read_initial(folder))


def _log_best(recording: LocalRecording, run: Any, shift: FitNumbers) -> None:
    """Log the best epoch: the one noted at the end of the fit; if it has none, that by the metric of earlier fits."""
    rows = [without_unit_shares(record["epoch"]) for record in recording.entries.records if "epoch" in record]
    best = next((BestEpoch.from_json(record["best"]) for record in recording.entries.records if "best" in record), None)
    by = Criterion.parse(run.data.tags.get(BEST_BY_TAG, ""))
    best = best or (best_by(rows, by) if by else None) or Monitors().best_epoch(rows, None)
    if best is None:
        return
    first, last = (int(rows[i]["epoch"]) + shift.epoch for i in (0, -1))
    logged = mlflow.MlflowClient().get_metric_history(recording.run_id, BEST_EPOCH_METRIC)
    if last not in {point.step for point in logged}:
        log_best(recording.run_id, best._replace(epoch=best.epoch + shift.epoch), first, last)


def _tag(
    recording: LocalRecording, history: TrainingHistory | None, shift: FitNumbers, problems: Sequence[str], cadence: str
) -> None:
    """Set the tags that a fit sets at its end, unless a later fit has, and the tag that it was recovered."""
    header = recording.entries.header
    counted = fit_numbers.from_tags(mlflow.MlflowClient().get_run(recording.run_id).data.tags)
    step = epoch = 0
    if history is not None:
        step = history.meta["first_step"] + shift.step + history.n_steps
        epoch = int(history.epochs["epoch"][-1]) + 1 + shift.epoch if history.n_epochs else 0
    after = FitNumbers(header["fit"] + shift.fit + 1, step, epoch)
    names = (FITS_TAG, STEPS_TAG, EPOCHS_TAG)
    tags = {name: str(new) for name, new, old in zip(names, after, counted, strict=True) if new > old}
    tags |= {CADENCE_TAG: cadence} if cadence else {}
    runs.set_tags(recording.run_id, {**tags, RECOVERED_TAG: "\n".join(problems) or "all that was on disk"})
