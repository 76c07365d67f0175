"""Write the rows and epochs of one fit to disk from a background thread, and submit their metrics to MLflow."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Any

from mlflow_hp.delivery.fit_history import HISTORY, FitHistory
from mlflow_hp.delivery.fit_numbers import FitNumbers
from mlflow_hp.delivery.metric_points import StepPoints, epoch_points
from mlflow_hp.history.program import Program
from mlflow_hp.history.step_record import Rows
from mlflow_hp.tracking.tags import EPOCHS_TAG, STEPS_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow_hp.delivery.metric_points import Points
    from mlflow_hp.delivery.metric_selection import MetricSelection
    from mlflow_hp.delivery.metric_sender import MetricSender
    from mlflow_hp.delivery.spool import Spool
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.step_record import Layout

CHUNKS_IN_MEMORY = 2
"""Chunks that may wait for the disk; then the training loop waits, too, so that memory stays bounded."""
BYTES_IN_MEMORY = 128 * 2**20
"""Size of the steps that may wait for MLflow in memory if the disk fails."""


class FitWriter:
    """Writes a history and a journal, and submits metrics that are made from the history when they are sent.

    If the disk fails, metrics are made at once, and sent without it, as far as memory allows.

    Parameters
    ----------
    spool : Spool
        Spool of the recording.
    sender : MetricSender
        Sender of the metrics.
    meta : mapping
        Metadata of the training for the header of the history; read when it is opened.
    selection : MetricSelection
        Which metrics of steps are sent.
    on_trouble : callable
        Called with a message when a part of the data is lost or its folder removed.

    Attributes
    ----------
    batch_size : int
        Largest number of samples of a step.
    n_dropped : int
        Number of metric points that were lost, as the disk failed and memory was full.
    select_points : callable
        Filter of an epoch's points; called in the sender's thread before they are sent.
    must_wait : callable
        Returns whether `select_points` would block, for the number of an epoch.
    """

    def __init__(
        self,
        spool: Spool,
        sender: MetricSender,
        meta: Mapping[str, Any],
        selection: MetricSelection,
        on_trouble: Callable[[str], object],
    ) -> None:
        self.batch_size = 0
        self.n_dropped = 0
        self.select_points: Callable[[Points], Points] = lambda points: points
        self.must_wait: Callable[[int], bool] = lambda _: False
        self._spool = spool
        self._sender = sender
        self._meta = meta
        self._selection = selection
        self._on_trouble = on_trouble
        self._shift = FitNumbers()
        self._history: FitHistory | None = None
        self._points: StepPoints | None = None
        self._early_epochs: list[dict[str, float]] = []
        self._n_bytes_held = 0
        self._program: Program | None = None
        self._queue: queue.Queue[Rows | Program | dict[str, Any] | None] = queue.Queue(CHUNKS_IN_MEMORY)
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-recording", daemon=True)
        self._thread.start()

    @property
    def cadence(self) -> str:
        """The steps whose metrics are sent, in words; empty if no step was recorded."""
        return "" if self._points is None else self._points.cadence

    @property
    def shift(self) -> FitNumbers:
        """Offset of the fit's numbers in MLflow, as other fits have taken them."""
        return self._shift

    @shift.setter
    def shift(self, shift: FitNumbers) -> None:
        self._shift = shift
        if self._points is not None:
            self._points.shift = shift.step

    def open(self, layout: Layout) -> None:
        """Begin the history, before any rows."""
        self._points = StepPoints(layout, self._selection)
        self._points.shift = self.shift.step
        if self._spool.trouble is not None:
            return
        assert self._spool.folder is not None
        try:
            self._history = FitHistory(self._spool.folder / HISTORY, layout, self._meta)
        except OSError as error:
            self._spool.give_up(error)

    def add(self, rows: Rows) -> None:
        """Take the rows of consecutive steps; wait if the disk is behind."""
        self.batch_size = max(self.batch_size, int(rows.columns["samples"].max()))
        self._queue.put(rows)

    def add_epoch(self, row: Mapping[str, float]) -> None:
        """Take an epoch's values: ``epoch`` (0-based), Keras' logs, ``seconds``."""
        self._queue.put({"epoch": dict(row), "time": round(time.time() * 1000)})

    def set_program(self, program: Program) -> None:
        """Take the description of the program, which replaces an earlier one."""
        self._queue.put(program)

    def finish(self, *, is_complete: bool) -> TrainingHistory | None:
        """Write the rest to disk and return the history; None if no step was recorded.

        Parameters
        ----------
        is_complete : bool
            Whether the fit has reached its end, without an exception.
        """
        self._queue.put(None)
        self._thread.join()
        record = self._spool.append_last({"ended": {"time": time.time(), "whole": is_complete}})
        if self._points is not None:
            self._sender.submit(0, self._points.rest, record)
        if self._history is None:
            return None
        history = self._history.finish()
        self._spool.sync()
        return history

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._write(item)
            except Exception as error:  # noqa: BLE001 - training continues, and so does sending
                self._spool.give_up(error)
                try:
                    self._submit_directly(item)
                except Exception as second_error:  # noqa: BLE001 - training waits until the queue is emptied
                    lost = f"{type(second_error).__name__}: {second_error}"
                    self._on_trouble(f"a part of the recorded data is lost: {lost}")

    def _write(self, item: Rows | Program | dict[str, Any]) -> None:
        if isinstance(item, Program):
            self._program = item
            self._write_program()
        elif self._spool.trouble is not None:
            self._submit_directly(item)
        elif isinstance(item, Rows):
            self._write_rows(item)
        else:
            self._write_epoch(item)

    def _write_rows(self, rows: Rows) -> None:
        history, points = self._history, self._points
        assert history is not None
        assert points is not None
        number = history.append(rows)
        self._append_epochs()
        self._write_program()
        record = self._spool.append({"chunk": {"rows": len(rows.columns["step"]), "end": history.n_bytes}})
        next_step = int(rows.columns["step"][-1]) + 1
        self._sender.submit(
            points.count(rows),
            lambda: points.convert(Rows(*history.chunk(number))),
            record,
            lambda: {STEPS_TAG: str(next_step + self.shift.step)},
        )

    def _write_program(self) -> None:
        """Write the description of the program, once there is a history."""
        if self._program is not None and self._history is not None:
            self._history.write_program(self._program)
            self._program = None

    def _write_epoch(self, item: dict[str, Any]) -> None:
        self._early_epochs.append(item["epoch"])
        self._append_epochs()
        self._submit_epoch(item, self._spool.append(item))
        if self._queue.empty():  # otherwise the next epoch syncs both: a slow disk must not delay training
            if self._history is not None:
                self._history.sync()
            self._spool.sync()

    def _append_epochs(self) -> None:
        """Append epochs to the history, including those that ended before the first rows."""
        while self._early_epochs and self._history is not None:
            self._history.append_epoch(self._early_epochs.pop(0), self._note_removal)

    def _note_removal(self, error: OSError) -> None:
        self._on_trouble(f"the folder of the recording was removed, metrics are still sent to MLflow: {error}")

    def _submit_epoch(self, item: dict[str, Any], record: int | None = None) -> None:
        row = item["epoch"]
        points = epoch_points(row, item["time"], metrics=self._selection.metrics)
        self._sender.submit(
            len(points),
            lambda: [
                (name, value, at, step + self.shift.epoch) for name, value, at, step in self.select_points(points)
            ],
            record,
            lambda: {EPOCHS_TAG: str(int(row["epoch"]) + 1 + self.shift.epoch)},
            lambda: self.must_wait(int(row["epoch"])),
        )

    def _submit_directly(self, item: Rows | Program | dict[str, Any]) -> None:
        """Submit the points of an item that is not on disk, unless memory is full."""
        if isinstance(item, Program):
            return
        if not isinstance(item, Rows):
            self._submit_epoch(item)
            return
        step_points = self._points
        assert step_points is not None
        n_bytes = sum(array.nbytes for arrays in item for array in arrays.values())
        if self._n_bytes_held + n_bytes > BYTES_IN_MEMORY:
            self.n_dropped += step_points.count(item)
            return
        self._n_bytes_held += n_bytes

        def make_points() -> Points:
            self._n_bytes_held -= n_bytes
            return step_points.convert(item)

        self._sender.submit(step_points.count(item), make_points)
