"""One fit's record on its way: from the training loop to history and journal on disk, and from there to MLflow."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Metric, RunTag

from mlflow_hp._forks import only_here
from mlflow_hp.delivery import fit_numbers
from mlflow_hp.delivery.fit_numbers import FitNumbers
from mlflow_hp.delivery.folder_lock import FolderLock
from mlflow_hp.delivery.journal import Journal
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.metric_points import StepPoints, epoch_points
from mlflow_hp.delivery.metric_sender import Sender
from mlflow_hp.history import EPOCHS_FILE, STEPS_FILE, HistoryWriter, TrainingHistory, write_epochs
from mlflow_hp.history.step_record import Rows
from mlflow_hp.tracking import runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from mlflow.entities import Param

    from mlflow_hp.delivery.metric_points import Points
    from mlflow_hp.history.step_record import Layout

HISTORY = "history"
"""The folder of the history, beside the journal."""
CHUNKS_IN_MEMORY = 2
"""Chunks that may wait for the disk; then the training loop waits too, so that memory stays bounded."""
BYTES_IN_MEMORY = 128 * 2**20
"""Steps that may wait for MLflow in memory, where the disk takes nothing."""
REFUSED = "refused.jsonl"
"""File, and artifact, of what MLflow refuses: a line of JSON for each metric, param or tag, and why."""


class Recording:
    """Takes the rows of one fit, keeps them on disk, and has their metrics sent to MLflow.

    What is to reach MLflow is on disk first: the steps in a history, the rest and what belongs together in a journal.
    Metrics are made from the history when it is their turn, not kept in memory until then. Where the disk fails, they
    are made at once, and go on to MLflow.

    Parameters
    ----------
    run_id : str
        The run.
    folder : Path or None
        Where history and journal are written; None where there is no place.
    meta : mapping
        What is known of the training, for the head of the history; read when it is opened.
    metrics_every : int
        Every how many steps MLflow gets metrics.
    head : mapping
        For the journal: whose it is, and with ``fit``, ``first_step`` and ``first_epoch`` where in its run it stands.
    on_trouble : callable
        Given a sentence where disk or store fail, and where the store is back.

    Attributes
    ----------
    trouble : str or None
        Why the disk does not have everything.
    batch_size : int
        Most samples of a step.
    n_dropped : int
        Metric points of steps that neither disk nor memory had room for.
    numbers : FitNumbers
        Where in its run the fit stands, as far as was known at its start.
    shift : FitNumbers
        How far that is moved in MLflow, where others had counted before.
    choose : callable
        Gives those of an epoch's points that are to be sent; called from the sender's thread at their turn.
    has_to_wait : callable
        Whether `choose` would have to wait, for the epoch of this number.
    """

    def __init__(
        self,
        run_id: str,
        folder: Path | None,
        meta: Mapping[str, Any],
        metrics_every: int,
        head: Mapping[str, Any],
        on_trouble: Callable[[str], None],
    ) -> None:
        self.run_id = run_id
        self.folder = folder
        self.trouble: str | None = None
        self.batch_size = 0
        self.n_dropped = 0
        self.numbers = FitNumbers(head["fit"], head["first_step"], head["first_epoch"])
        self.choose: Callable[[Points], Points] = lambda points: points
        self.has_to_wait: Callable[[int], bool] = lambda _: False
        self._meta = meta
        self._every = metrics_every
        self._on_trouble = on_trouble
        self._writer: HistoryWriter | None = None
        self._points: StepPoints | None = None
        self._epochs: list[dict[str, float]] = []
        self._all_epochs: list[dict[str, float]] = []
        self.shift = FitNumbers()
        self._bytes_held = 0
        self._on_disk = True
        self._journal: Journal | None = None
        self._lock: FolderLock | None = None
        self._refused: list[str] = []
        self._sender = Sender(
            run_id, on_acknowledged=self._acknowledge, on_trouble=on_trouble, set_aside=self._set_aside
        )
        try:
            if folder is None:
                raise FileNotFoundError("there is no folder for it")
            uri = runs.absolute_uri(mlflow.get_tracking_uri())
            own = {"run_id": run_id, "tracking_uri": uri, "metrics_every": metrics_every}
            self._lock = FolderLock(folder)  # first: a folder with a journal and no lock is left behind
            self._journal = Journal(folder, {**own, **head})
        except OSError as error:
            self._give_up_disk(error)
        self._queue: queue.Queue[Rows | dict[str, Any] | None] = queue.Queue(CHUNKS_IN_MEMORY)
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-recording", daemon=True)
        self._thread.start()

    def describe(self, params: Mapping[str, Any], tags: Mapping[str, str], before: Sequence[str] = ()) -> None:
        """Have `tags` logged that the run lacks, ahead of all metrics, and keep `params` on disk; before any rows.

        `before` names the folders of recordings of the run that come before this one.
        """
        record = self._note({"params": {k: str(v) for k, v in params.items()}, "tags": dict(tags)})
        self._sender.describe(lambda: self._claim(tags, before), record)

    def _claim(self, tags: Mapping[str, str], before: Sequence[str]) -> Iterable[Param | RunTag]:
        """What the run lacks; and have it count this fit, behind those that others have recorded meanwhile."""
        run = mlflow.MlflowClient().get_run(self.run_id)
        claim = self.folder.name if self.folder is not None else ""
        self.shift = fit_numbers.shift(self.numbers, run.data.tags, claim)
        if any(self.shift):
            self._note({"shift": list(self.shift)})
        if self._points is not None:
            self._points.shift = self.shift.step
        counted = {fit_numbers.FITS: str(self.fit + 1), fit_numbers.CLAIM: " ".join([claim, *before])}
        own = {name: value for name, value in tags.items() if name == runs.PROCESS_TAG}
        ours = own | counted | late_params.tag(self.run_id)
        return [*runs.items_once(run, tags=tags), *(RunTag(*tag) for tag in ours.items())]

    @property
    def fit(self) -> int:
        """The number (0-based) of the fit in its run, as MLflow counts it."""
        return self.numbers.fit + self.shift.fit

    def open(self, layout: Layout) -> None:
        """Begin the history; before any rows."""
        self._points = StepPoints(layout, self._every)
        self._points.shift = self.shift.step
        if not self._on_disk:
            return
        try:
            self._writer = HistoryWriter(
                self.history_folder,
                columns=layout.columns,
                tensors=layout.tensors,
                weights=layout.store,
                initial=layout.initial,
                meta=self._meta,
            )
        except OSError as error:
            self._give_up_disk(error)

    def add(self, rows: Rows) -> None:
        """Take the rows of consecutive steps; waits where the disk is behind."""
        self.batch_size = max(self.batch_size, int(rows.columns["samples"].max()))
        self._queue.put(rows)

    def add_epoch(self, row: Mapping[str, float]) -> None:
        """Take an epoch's values: ``epoch`` (0-based), Keras' logs, ``seconds``."""
        self._queue.put({"epoch": dict(row), "time": round(time.time() * 1000)})

    def finish_history(self, *, whole: bool) -> TrainingHistory | None:
        """Write what is left to disk and give the history; None where no step was recorded.

        Parameters
        ----------
        whole : bool
            Whether the fit has come to its end, and was not left by an exception.
        """
        self._queue.put(None)
        self._thread.join()
        self._note({"ended": {"time": time.time(), "whole": whole}})
        if self._writer is None:
            return None
        self._writer.close()
        if not (self.history_folder / STEPS_FILE).exists():  # somebody has removed the folder
            self._writer.restore()
            write_epochs(self.history_folder / EPOCHS_FILE, self._all_epochs)
        self._sync()
        return TrainingHistory.open(self.history_folder)

    def do(self, what: str, action: Callable[[], None], n_bytes: int = 0) -> None:
        """Have `action` bring something else to MLflow, behind all that there is: tried again where that fails."""
        self._sender.do(what, action, n_bytes)

    def flush(self, on_progress: Callable[[], object] | None = None) -> bool:
        """Bring what is left to MLflow, as far as seconds are enough; as `Sender.flush`."""
        return self._sender.flush(on_progress)

    def wait(self) -> None:
        """Wait for what is left behind a `flush` that was not enough; as `Sender.wait`."""
        self._sender.wait()

    def close(self, *, all_sent: bool, history: TrainingHistory | None = None) -> None:
        """Close the journal, and leave what is on disk to be recovered.

        Parameters
        ----------
        all_sent : bool
            Whether MLflow has everything: then the folder is removed as soon as nobody reads `history` any more.
        history : TrainingHistory, optional
            What is read lazily from there.
        """
        if all_sent:
            self._note({"done": time.time()})
        if self._journal is not None:
            self._journal.close()
        if self._lock is None or self.folder is None:
            return
        if not all_sent:
            self._lock.release()
        elif history is None:
            _remove(self.folder, self._lock)
        else:
            weakref.finalize(history, only_here(_remove), self.folder, self._lock)

    @property
    def is_complete(self) -> bool:
        """Whether MLflow has all of it."""
        return self._sender.complete

    @property
    def problems(self) -> list[str]:
        """What is not in MLflow as it should be, as far as is known now, in sentences."""
        sender, sentences = self._sender, []
        if self.trouble is not None:
            sentences.append(self.trouble)
        if sender.n_refused:
            where = f"{runs.training_path(self.fit)}/{REFUSED}"
            what = f"{sender.n_refused:,} metrics, params or tags"
            sentences.append(f"MLflow refuses {what}, which are in the artifact {where}: {sender.refusal}")
        if sender.n_unreadable:
            sentences.append(f"{sender.n_unreadable} chunks of steps can't be read from the disk: {sender.unreadable}")
        sentences += [f"MLflow lacks {what}; {self.later}: {error}" for what, error in sender.undone.items()]
        if self.n_dropped:
            sentences.append(f"{self.n_dropped:,} metric points are lost: no disk, and memory was full")
        return sentences

    @property
    def later(self) -> str:
        """How the rest is brought to MLflow later."""
        return f"`mlflow-hp recover` brings it there from {self.folder}"

    def _set_aside(self, item: Metric | Param | RunTag, reason: str) -> None:
        """Keep what MLflow refuses, on disk where there is one."""
        self._refused.append(refused_line(item, reason))
        with contextlib.suppress(OSError):
            if self.folder is not None:
                with (self.folder / REFUSED).open("a", encoding="utf-8") as file:
                    file.write(self._refused[-1])

    def upload_refused(self) -> None:
        """Bring what MLflow refuses to its artifact."""
        if self._refused:
            path = f"{runs.training_path(self.fit)}/{REFUSED}"
            mlflow.MlflowClient().log_text(self.run_id, "".join(self._refused), path)

    @property
    def history_folder(self) -> Path:
        """Where the history is: what becomes an artifact."""
        assert self.folder is not None
        return self.folder / HISTORY

    @property
    def unsent(self) -> int:
        """Metric points that MLflow does not have yet."""
        return self._sender.submitted - self._sender.sent

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write(item)
            except Exception as error:  # noqa: BLE001 - training goes on, and so does what MLflow takes directly
                self._give_up_disk(error)
                try:
                    self._pass_on(item)
                except Exception as another:  # noqa: BLE001 - the queue is emptied all the same: training waits for it
                    self._tell_trouble(f"a part of the record is lost: {type(another).__name__}: {another}")

    def _write(self, item: Rows | dict[str, Any]) -> None:
        if not self._on_disk:
            self._pass_on(item)
        elif isinstance(item, Rows):
            self._write_rows(item)
        else:
            self._write_epoch(item)

    def _write_rows(self, rows: Rows) -> None:
        assert self._writer is not None
        assert self._journal is not None
        index = self._writer.append(rows.columns, rows.weights)
        self._append_epochs()
        chunk = {"rows": len(rows.columns["step"]), "end": self._writer.end}
        record = self._journal.append({"chunk": chunk})
        writer, points = self._writer, self._points
        assert points is not None
        end = int(rows.columns["step"][-1]) + 1
        self._sender.submit(
            points.count(rows),
            lambda: points.of(Rows(*writer.chunk(index))),
            record,
            lambda: {fit_numbers.STEPS: str(end + self.shift.step)},
        )

    def _write_epoch(self, item: dict[str, Any]) -> None:
        assert self._journal is not None
        self._epochs.append(item["epoch"])
        self._append_epochs()
        self._submit_epoch(item, self._journal.append(item))
        if self._queue.empty():  # else the next one syncs for both: a slow disk must not hold up training
            self._sync()

    def _append_epochs(self) -> None:
        """Append the epochs to the history; those that ended before the first rows came had to wait."""
        while self._epochs and self._writer is not None:
            self._all_epochs.append(self._epochs.pop(0))
            try:
                self._writer.append_epoch(self._all_epochs[-1])
            except FileNotFoundError as error:  # what is open goes on, and is put back in the end
                self._tell_trouble(f"the folder of the record was removed, metrics go on to MLflow: {error}")

    def _submit_epoch(self, item: dict[str, Any], record: int | None = None) -> None:
        row, at = item["epoch"], item["time"]
        self._sender.submit(
            len(epoch_points(row, at)),
            lambda: [
                (name, value, at, step + self.shift.epoch)
                for name, value, at, step in self.choose(epoch_points(row, at))
            ],
            record,
            lambda: {fit_numbers.EPOCHS: str(int(row["epoch"]) + 1 + self.shift.epoch)},
            lambda: self.has_to_wait(int(row["epoch"])),
        )

    def _sync(self) -> None:
        """Have the disk itself hold what the operating system has."""
        with contextlib.suppress(OSError):  # a file system that can't
            if self._writer is not None:
                with (self.history_folder / STEPS_FILE).open("rb", buffering=0) as steps:
                    os.fsync(steps.fileno())
            if self._journal is not None:
                os.fsync(self._journal.fileno())

    def _note(self, record: Mapping[str, Any]) -> int | None:
        """Append to the journal where there is one; gives the record's number."""
        try:
            return None if self._journal is None else self._journal.append(record)
        except OSError as error:
            self._give_up_disk(error)
            return None

    def _acknowledge(self, count: int) -> None:
        if self._journal is not None:
            self._journal.acknowledge(count)

    def _give_up_disk(self, error: Exception) -> None:
        """Go on without the disk; what it has stays readable."""
        self._tell_trouble(f"the history on disk is not complete, metrics alone go on to MLflow: {error}")
        self._on_disk = False

    def _tell_trouble(self, sentence: str) -> None:
        if self.trouble is None:
            self.trouble = sentence
            self._on_trouble(sentence)

    def _pass_on(self, item: Rows | dict[str, Any]) -> None:
        """Have the points of what the disk did not take sent, as far as there is room in memory."""
        if not isinstance(item, Rows):
            self._submit_epoch(item)
            return
        step_points = self._points
        assert step_points is not None
        size = sum(array.nbytes for part in item for array in part.values())
        if self._bytes_held + size > BYTES_IN_MEMORY:
            self.n_dropped += step_points.count(item)
            return
        self._bytes_held += size

        def make_points() -> Points:
            self._bytes_held -= size
            return step_points.of(item)

        self._sender.submit(step_points.count(item), make_points)


def refused_line(item: Metric | Param | RunTag, reason: str) -> str:
    """A line of `REFUSED`."""
    kind = {Metric: "metric", RunTag: "tag"}.get(type(item), "param")
    return json.dumps({kind: dict(item), "reason": reason}) + "\n"


def _remove(folder: Path, lock: FolderLock) -> None:
    """Remove the folder of a recording that MLflow has."""
    runs.remove_local(folder)
    lock.release()
