"""One fit's record on its way: from the training loop to history and journal on disk, and from there to MLflow."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from mlflow_hp.capture.layout import Rows
from mlflow_hp.history import STEPS_FILE, HistoryWriter, TrainingHistory
from mlflow_hp.journal import Journal
from mlflow_hp.points import StepPoints, epoch_points
from mlflow_hp.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlflow_hp.capture.layout import Layout
    from mlflow_hp.points import Points

HISTORY = "history"
"""The folder of the history, beside the journal."""
CHUNKS_IN_MEMORY = 2
"""Chunks that may wait for the disk; then the training loop waits too, so that memory stays bounded."""
BYTES_IN_MEMORY = 128 * 2**20
"""Steps that may wait for MLflow in memory, where the disk takes nothing."""

being_recorded: set[Path | None] = set()
"""The folders in which this process records."""


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
        For the journal: whose it is.
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
    choose : callable
        Gives those of an epoch's points that are to be sent; called from the sender's thread at their turn.
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
        self.folder = folder
        self.trouble: str | None = None
        self.batch_size = 0
        self.n_dropped = 0
        self.choose: Callable[[Points], Points] = lambda points: points
        self._meta = meta
        self._every = metrics_every
        self._on_trouble = on_trouble
        self._writer: HistoryWriter | None = None
        self._epochs: list[dict[str, float]] = []
        self._bytes_held = 0
        self._on_disk = True
        self._journal: Journal | None = None
        self._sender = Sender(run_id, on_acknowledged=self._acknowledge, on_trouble=on_trouble)
        try:
            if folder is None:
                raise FileNotFoundError("there is no folder for it")
            own = {"run_id": run_id, "tracking_uri": self._sender.tracking_uri, "metrics_every": metrics_every}
            self._journal = Journal(folder, {**own, **head})
            being_recorded.add(folder)
        except OSError as error:
            self._give_up_disk(error)
        self._queue: queue.Queue[Rows | dict[str, Any] | None] = queue.Queue(CHUNKS_IN_MEMORY)
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-recording", daemon=True)
        self._thread.start()

    def describe(self, params: Mapping[str, Any], tags: Mapping[str, str], log: Callable[[], None]) -> None:
        """Have `log` log `params` and `tags`, in the background and ahead of all metrics; before any rows."""
        self._sender.do(log, self._note({"params": {k: str(v) for k, v in params.items()}, "tags": dict(tags)}))

    def open(self, layout: Layout) -> None:
        """Begin the history; before any rows."""
        self._points = StepPoints(layout, self._every)
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
        self._sync()
        return TrainingHistory.open(self.history_folder)

    def flush(self, on_progress: Callable[[], object] | None = None) -> None:
        """Send what is left to MLflow. Raises where MLflow didn't take all."""
        self._sender.flush(on_progress)

    def close(self, *, all_sent: bool) -> None:
        """Close the journal; with `all_sent`, MLflow has everything, and nobody needs to recover it."""
        if all_sent:
            self._note({"done": time.time()})
        if self._journal is not None:
            self._journal.close()
        being_recorded.discard(self.folder)

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
                self._pass_on(item)

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
        self._sender.submit(points.count(rows), lambda: points.of(Rows(*writer.chunk(index))), record)

    def _write_epoch(self, item: dict[str, Any]) -> None:
        assert self._journal is not None
        self._epochs.append(item["epoch"])
        self._append_epochs()
        record = self._journal.append(item)
        points = epoch_points(item["epoch"], item["time"])
        self._sender.submit(len(points), lambda: self.choose(points), record)
        if self._queue.empty():  # else the next one syncs for both: a slow disk must not hold up training
            self._sync()

    def _append_epochs(self) -> None:
        """Append the epochs to the history; those that ended before the first rows came had to wait."""
        while self._epochs and self._writer is not None:
            self._writer.append_epoch(self._epochs.pop(0))

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
        if self.trouble is None:
            self.trouble = f"the history on disk is not complete, metrics alone go on to MLflow: {error}"
            self._on_trouble(self.trouble)
        self._on_disk = False

    def _pass_on(self, item: Rows | dict[str, Any]) -> None:
        """Have the points of what the disk did not take sent, as far as there is room in memory."""
        if not isinstance(item, Rows):
            points = epoch_points(item["epoch"], item["time"])
            self._sender.submit(len(points), lambda: self.choose(points))
            return
        size = sum(array.nbytes for part in item for array in part.values())
        if self._bytes_held + size > BYTES_IN_MEMORY:
            self.n_dropped += self._points.count(item)
            return
        self._bytes_held += size

        def make_points() -> Points:
            self._bytes_held -= size
            return self._points.of(item)

        self._sender.submit(self._points.count(item), make_points)
