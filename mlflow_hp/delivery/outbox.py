"""Outbox of one search: its runs and their pending changes, in memory and in the journal."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from mlflow_hp.delivery.run_changes import RunChanges
from mlflow_hp.tracking.names import LONGEST_NAME
from mlflow_hp.tracking.params_and_tags import storable
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.tags import KEY_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mlflow_hp.delivery.run_changes import Change


class Outbox:
    """Runs of a search, and the order in which they are to be written.

    Parameters
    ----------
    header : mapping
        Header of the journal: ``run_id``, ``name`` and ``start`` of the parent, its ``experiment_id``, the ``common``
        tags of all its child runs, and ``key``, which is unique to the recording.
    append : callable, optional
        Appends a record to the journal, and returns its number, or None if that fails. Defaults to no journal.

    Attributes
    ----------
    runs : list of RunChanges
        Runs by number; the first is the parent.
    refusals : list of str
        Descriptions of what MLflow refused for its content, and where it is instead.
    problems : list of str
        Descriptions of other failures.
    """

    def __init__(
        self, header: Mapping[str, Any], append: Callable[[Mapping[str, Any]], int | None] = lambda _: None
    ) -> None:
        self.experiment_id = str(header["experiment_id"])
        self.common_tags: dict[str, str] = dict(header["common"])
        self.key = str(header["key"])
        self.refusals: list[str] = []
        self.problems: list[str] = []
        self.lock = threading.RLock()
        self._append = append
        self._queue: dict[RunChanges | Callable[[], Any], None] = {}
        self.runs = [RunChanges(self.note, self.lock, 0, header["run_id"], header["name"], header["start"])]

    @property
    def parent(self) -> RunChanges:
        """Parent run of the search."""
        return self.runs[0]

    def open_run(self, name: str, start: float, parent: RunChanges | None = None) -> RunChanges:
        """Add a new run that started at `start` seconds since the epoch.

        Parameters
        ----------
        name : str
            Name of the run.
        start : float
            Start in seconds since the epoch.
        parent : RunChanges, optional
            Run that it is nested in. Defaults to the parent of the search.
        """
        name = storable(masked(name))[:LONGEST_NAME]
        return self._add({"open": {"name": name, "start": start, "parent": (parent or self.parent).number}})

    def add_existing_run(self, run_id: str, name: str, start: float) -> RunChanges:
        """Add a run that MLflow has already, which is this recording's from now on."""
        run = self._add({"known": {"run_id": run_id, "name": name, "start": start}})
        run.write_verbatim({KEY_TAG: self.key_of(run)})
        return run

    def key_of(self, run: RunChanges) -> str:
        """Value of the tag that says whose a run is: the recording that created it or went on with it."""
        return f"{self.key}/{run.number}"

    def _add(self, change: Change) -> RunChanges:
        with self.lock:
            run = self.add_run_of(change)
            self.note(run, change)
            return run

    def add_run_of(self, change: Change) -> RunChanges:
        """Add the run of a change that opens one, without noting the change."""
        number = len(self.runs)
        if "open" in change:
            opened = change["open"]
            parent = self.runs[opened["parent"]]
            run = RunChanges(self.note, self.lock, number, None, opened["name"], opened["start"], parent)
        else:
            run = RunChanges(self.note, self.lock, number, **change["known"])
        self.runs.append(run)
        return run

    def note(self, run: RunChanges, change: Change) -> None:
        """Append a change of a run to the journal, apply it, and enqueue the run."""
        with self.lock:
            record = self._append({"run": run.number, **change})
            run.last_record = -1 if record is None else record
            run.apply(change)
            self.enqueue(run)

    def enqueue(self, task: RunChanges | Callable[[], Any]) -> None:
        """Enqueue a run to be written, or an action to be called."""
        with self.lock:
            self._queue.pop(task, None)
            self._queue[task] = None

    def take_all(self) -> list[RunChanges | Callable[[], Any]]:
        """Remove and return the whole queue."""
        with self.lock:
            tasks, self._queue = list(self._queue), {}
        return tasks

    def enqueue_first(self, runs: list[RunChanges]) -> None:
        """Enqueue runs before everything that was enqueued meanwhile."""
        with self.lock:
            self._queue = dict.fromkeys([*runs, *self._queue])

    def note_written(self, run: RunChanges) -> None:
        """Note in the journal that a run is written completely; enqueue it again if it has changed meanwhile."""
        with self.lock:
            if run.is_pending:
                self.enqueue(run)
            elif run.last_record >= 0:
                self._append({"run": run.number, "written": run.last_record})

    @property
    def messages(self) -> list[str]:
        """Messages for the user."""
        n = len(self.refusals)
        more = f", and {n - 1:,} more" if n > 1 else ""
        return [*self.problems, *([f"MLflow refuses {self.refusals[0]}{more}"] if n else [])]

    @property
    def is_pending(self) -> bool:
        """Whether something is still to be written."""
        with self.lock:
            return any(run.is_pending for run in self.runs)
