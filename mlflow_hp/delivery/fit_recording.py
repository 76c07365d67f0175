"""Recording of one fit: from the training loop to history and journal on disk, and from there to MLflow."""

from __future__ import annotations

import contextlib
import functools
import weakref
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import RunTag

from mlflow_hp._forks import only_in_this_process
from mlflow_hp.delivery import fit_numbers
from mlflow_hp.delivery.fit_history import HISTORY
from mlflow_hp.delivery.fit_numbers import FitNumbers
from mlflow_hp.delivery.fit_writer import FitWriter
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.metric_sender import MetricSender
from mlflow_hp.delivery.refused_items import RefusedItems
from mlflow_hp.delivery.spool import Spool
from mlflow_hp.terminal import count
from mlflow_hp.tracking import datasets, runs
from mlflow_hp.tracking.store_uri import absolute_uri
from mlflow_hp.tracking.tags import CLAIM_TAG, FITS_TAG, PROCESS_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from mlflow.entities import Param

    from mlflow_hp.delivery.batches import Item
    from mlflow_hp.delivery.metric_points import Points
    from mlflow_hp.delivery.metric_selection import MetricSelection
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.program import Program
    from mlflow_hp.history.step_record import Layout, Rows
    from mlflow_hp.tracking.datasets import DataSet


DATA_SETS = "the data sets"
"""Name of the data sets in messages."""


class FitRecording:
    """Takes the rows of one fit, keeps them on disk, and has their metrics sent to MLflow.

    Data is on disk before it is sent: the steps in a history, everything else in a journal.

    Parameters
    ----------
    run_id : str
        Id of the run.
    make_folder : callable
        Makes a new folder for history and journal, and returns it; raises OSError if that is impossible.
    meta : mapping
        Metadata of the training for the header of the history; read when it is opened.
    selection : MetricSelection
        Which metrics of steps are sent.
    header : mapping
        For the header of the journal: ``process`` and ``report``; and ``fit``, ``first_step`` and ``first_epoch``, the
        position of the fit in its run.
    on_trouble : callable
        Called with a message when disk or store fail, and when the store works again.

    Attributes
    ----------
    trouble : str or None
        Why the data on disk is incomplete.
    numbers : FitNumbers
        Position of the fit in its run, as far as it was known at the start.
    """

    def __init__(
        self,
        run_id: str,
        make_folder: Callable[[], Path],
        meta: Mapping[str, Any],
        selection: MetricSelection,
        header: Mapping[str, Any],
        on_trouble: Callable[[str], object],
    ) -> None:
        self.run_id = run_id
        self.trouble: str | None = None
        self.numbers = FitNumbers(header["fit"], header["first_step"], header["first_epoch"])
        self._on_trouble = on_trouble
        uri = absolute_uri(mlflow.get_tracking_uri())
        common = {"run_id": run_id, "tracking_uri": uri, **selection.header}
        consequence = "the history on disk is not complete, metrics alone go on to MLflow"
        self._spool = Spool(make_folder, {**common, **header}, self._note_trouble, consequence)
        self._refused = RefusedItems(self._spool.folder)
        self._sender = MetricSender(
            run_id, on_acknowledged=self._spool.acknowledge, on_trouble=on_trouble, set_aside=self._set_aside
        )
        self._writer = FitWriter(self._spool, self._sender, meta, selection, self._note_trouble)

    def describe(self, params: Mapping[str, Any], tags: Mapping[str, str], earlier: Sequence[str] = ()) -> None:
        """Write the `tags` that the run lacks, before all metrics, and keep `params` on disk; called before any rows.

        `earlier` has the folder names of earlier recordings of the run.
        """
        record = self._spool.append({"params": {k: str(v) for k, v in params.items()}, "tags": dict(tags)})
        self._sender.describe(lambda: self._claim(tags, earlier), record)

    def add_params(self, params: Mapping[str, Any]) -> None:
        """Keep further params on disk, for a recovery."""
        record = self._spool.append({"params": {k: str(v) for k, v in params.items()}, "tags": {}})
        self._sender.describe(lambda: (), record)

    def add_tags(self, tags: Mapping[str, str]) -> None:
        """Set further tags of the run."""
        record = self._spool.append({"params": {}, "tags": dict(tags)})
        self._sender.describe(lambda: [RunTag(*tag) for tag in tags.items()], record)

    def note_best(self, record: Mapping[str, Any]) -> None:
        """Keep the best epoch on disk, for a recovery."""
        self._spool.append({"best": dict(record)})

    def add_data_sets(self, data_sets: Mapping[str, DataSet]) -> None:
        """Log data sets by their context, now or in a recovery."""
        record = self._spool.append({"data_sets": {context: list(each) for context, each in data_sets.items()}})
        log = functools.partial(datasets.log, self.run_id, data_sets)
        self._sender.do_apart(DATA_SETS, lambda: log(self.fit), record)

    def _claim(self, tags: Mapping[str, str], earlier: Sequence[str]) -> Iterable[Param | RunTag]:
        """Items that the run lacks, with the tags by which it counts this fit, after those recorded meanwhile."""
        run = mlflow.MlflowClient().get_run(self.run_id)
        claim = self._spool.name
        self._writer.shift = fit_numbers.shift(self.numbers, run.data.tags, claim)
        if any(self.shift):
            self._spool.append({"shift": list(self.shift)})
        count = {FITS_TAG: str(self.fit + 1), CLAIM_TAG: " ".join([claim, *earlier])}
        process = {name: value for name, value in tags.items() if name == PROCESS_TAG}
        replaced = process | count | late_params.tag(self.run_id)
        return [*runs.items_once(run, tags=tags), *(RunTag(*tag) for tag in replaced.items())]

    @property
    def shift(self) -> FitNumbers:
        """Offset of `numbers` in MLflow, as other fits have taken them."""
        return self._writer.shift

    @property
    def fit(self) -> int:
        """Number (0-based) of the fit in its run, as in MLflow."""
        return self.numbers.fit + self.shift.fit

    @property
    def cadence(self) -> str:
        """The steps whose metrics are sent, in words; empty if no step was recorded."""
        return self._writer.cadence

    @property
    def batch_size(self) -> int:
        """Largest number of samples of a step so far."""
        return self._writer.batch_size

    def filter_epochs(self, select_points: Callable[[Points], Points], must_wait: Callable[[int], bool]) -> None:
        """Filter the points of epochs, in the sender's thread, before they are sent.

        Parameters
        ----------
        select_points : callable
            Returns the points of an epoch that are to be sent; may block.
        must_wait : callable
            Returns whether `select_points` would block, for the number of an epoch.
        """
        self._writer.select_points, self._writer.must_wait = select_points, must_wait

    def open(self, layout: Layout) -> None:
        """Begin the history, before any rows."""
        self._writer.open(layout)

    def add(self, rows: Rows) -> None:
        """Take the rows of consecutive steps; wait if the disk is behind."""
        self._writer.add(rows)

    def add_epoch(self, row: Mapping[str, float]) -> None:
        """Take an epoch's values: ``epoch`` (0-based), Keras' logs, ``seconds``."""
        self._writer.add_epoch(row)

    def set_program(self, program: Program) -> None:
        """Take the description of the program, which replaces an earlier one."""
        self._writer.set_program(program)

    def finish_history(self, *, is_complete: bool) -> TrainingHistory | None:
        """Write the rest to disk and return the history; None if no step was recorded.

        Parameters
        ----------
        is_complete : bool
            Whether the fit has reached its end, without an exception.
        """
        return self._writer.finish(is_complete=is_complete)

    def do(self, name: str, action: Callable[[], None], n_bytes: int = 0) -> None:
        """Call `action` after everything submitted before, with retries; as `MetricSender.do`."""
        self._sender.do(name, action, n_bytes)

    def hurry(self) -> None:
        """Send without pauses from now on; as `MetricSender.hurry`."""
        self._sender.hurry()

    def flush(self, on_progress: Callable[[], object] | None = None) -> bool:
        """Send the rest, for some seconds at most; as `MetricSender.flush`."""
        return self._sender.flush(on_progress)

    def wait(self) -> None:
        """Wait for the rest after a `flush` that did not suffice; as `MetricSender.wait`."""
        self._sender.wait()

    def close(self, *, all_sent: bool, history: TrainingHistory | None = None) -> None:
        """Close the journal, and leave the folder to a recovery unless all is sent.

        Parameters
        ----------
        all_sent : bool
            Whether MLflow has everything: then the folder is removed once `history` is no longer in use.
        history : TrainingHistory, optional
            History that is read from the folder on access. Defaults to None.
        """
        self._spool.close(all_sent=all_sent)
        if not all_sent:
            return
        if history is None:
            self._spool.remove()
        else:
            weakref.finalize(history, only_in_this_process(self._spool.remover()))

    @property
    def is_complete(self) -> bool:
        """Whether MLflow has everything."""
        return self._sender.is_complete

    @property
    def problems(self) -> list[str]:
        """Messages about data that MLflow lacks or refuses, as far as is known now."""
        sender, messages = self._sender, []
        if self.trouble is not None:
            messages.append(self.trouble)
        if self._refused:
            messages.append(self._refused.message(self.fit, sender.refusal))
        if sender.n_unreadable:
            messages.append(
                f"the disk does not give {count(sender.n_unreadable, 'chunk')} of steps: {sender.read_error}"
            )
        lacking = sender.failing | sender.undone
        messages += [f"MLflow lacks {name}; {self.recovery_hint}: {error}" for name, error in lacking.items()]
        if n_dropped := self._writer.n_dropped:
            messages.append(f"the disk failed, and memory was full: {count(n_dropped, 'metric point')} lost")
        return messages

    @property
    def recovery_hint(self) -> str:
        """Part of a message: the way to send the rest to MLflow later."""
        if self.folder is None:
            return "it is lost, as this machine could not keep it"
        return f"`mlflow-hp recover` brings it there from {self.folder}"

    def _set_aside(self, item: Item, reason: str) -> None:
        with contextlib.suppress(OSError):  # it is in memory, and becomes an artifact all the same
            self._refused.add(item, reason)

    def upload_refused(self) -> None:
        """Upload the refused items as an artifact."""
        self._refused.upload(self.run_id, self.fit)

    @property
    def folder(self) -> Path | None:
        """Folder of history and journal; None if it could not be made."""
        return self._spool.folder

    @property
    def history_folder(self) -> Path:
        """Folder of the history, which becomes an artifact."""
        assert self.folder is not None
        return self.folder / HISTORY

    @property
    def open_history_folder(self) -> Path | None:
        """Folder of the history while it is written; None if there is none yet."""
        folder = None if self.folder is None else self.folder / HISTORY
        return folder if folder is not None and folder.is_dir() else None

    @property
    def n_unsent(self) -> int:
        """Number of metric points that MLflow does not have yet."""
        return self._sender.n_submitted - self._sender.n_sent

    def _note_trouble(self, message: str) -> None:
        if self.trouble is None:
            self.trouble = message
            self._on_trouble(message)
