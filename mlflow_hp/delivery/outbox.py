"""The runs of one search on their way to MLflow: what is to be written is collected, in memory and in the journal."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from mlflow_hp.delivery.pending_run import GivenUpError, Run
from mlflow_hp.tracking.names import LONGEST_NAME
from mlflow_hp.tracking.params_and_tags import storable
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.server_health import ensure_reachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import mlflow

    from mlflow_hp.delivery.run_changes import Change, Changes


READILY_SECONDS = 3.0
"""A store that needs longer for a run, of some calls, does not take it readily."""


class Outbox:
    """Runs, and what is to be written of them.

    Parameters
    ----------
    head : mapping
        The head of the journal: ``run_id``, ``name``, ``start`` of the parent, its ``experiment_id``, the tags
        ``common`` to all runs below it, and ``key``, which no other recording has.
    client : MlflowClient
        Of MLflow's store.

    Attributes
    ----------
    runs : list of Run
        By number; the first is the parent.
    error : Exception or None
        Why the last attempt to write failed; None where it did not.
    refusals : list of str
        What MLflow refused for what it is, and where it is instead.
    busy_seconds, good_seconds : float
        How long it has written, and how much of that into a store that took it readily.
    is_in_charge : bool
        Whether the runs' states are its to be written.
    """

    def __init__(self, head: Mapping[str, Any], client: mlflow.MlflowClient, tracking_uri: str) -> None:
        self.tracking_uri = tracking_uri
        self.experiment_id = str(head["experiment_id"])
        self.common: dict[str, str] = dict(head["common"])
        self.key = str(head["key"])
        self.error: Exception | None = None
        self.refusals: list[str] = []
        self._said: list[str] = []
        self.busy_seconds = self.good_seconds = 0.0
        self.is_in_charge = True
        self.lock = threading.RLock()
        self._client = client
        self._dirty: dict[Run | Callable[[], Any], None] = {}
        self.runs = [Run(self, 0, head["run_id"], head["name"], head["start"])]

    @property
    def parent(self) -> Run:
        """The run below which the others are."""
        return self.runs[0]

    def open(self, name: str, start: float, parent: Run | None = None) -> Run:
        """A new run below `parent`, by default the outbox's, that started at `start` seconds since the epoch."""
        name = storable(masked(name))[:LONGEST_NAME]
        return self._add({"open": {"name": name, "start": start, "parent": (parent or self.parent).number}})

    def known(self, run_id: str, name: str, start: float) -> Run:
        """A run that is there already."""
        return self._add({"known": {"run_id": run_id, "name": name, "start": start}})

    def _add(self, change: Change) -> Run:
        with self.lock:
            run = self.made_by(change)
            self.note(run, change)
            return run

    def made_by(self, change: Change) -> Run:
        """The new run that a change tells of."""
        number = len(self.runs)
        if "open" in change:
            made = change["open"]
            run = Run(self, number, None, made["name"], made["start"], self.runs[made["parent"]])
        else:
            run = Run(self, number, **change["known"])
        self.runs.append(run)
        return run

    def note(self, run: Changes, change: Change) -> None:
        """Take a change to a run, after all that was noted before."""
        with self.lock:
            run.last = self.append({"run": run.number, **change})
            run.apply(change)
            self.put(self.runs[run.number])

    def put(self, item: Run | Callable[[], Any]) -> None:
        """Have a run written, or an action done, after what was put before."""
        with self.lock:
            self._dirty.pop(item, None)
            self._dirty[item] = None

    def append(self, record: Mapping[str, Any]) -> int:  # noqa: ARG002
        """Append a record to the journal, where there is one; gives its number, -1 where it can't be."""
        return -1

    @property
    def said(self) -> list[str]:
        """What the user should know."""
        n = len(self.refusals)
        more = f"; so it does {n - 1:,} others" if n > 1 else ""
        return [*self._said, *([f"MLflow refuses {self.refusals[0]}{more}"] if n else [])]

    def go_on_or_raise(self) -> None:
        """Raise `GivenUpError` where nobody waits any more."""

    @property
    def report_folder(self) -> Path | None:
        """Where the files of the report are."""
        return None

    @property
    def is_pending(self) -> bool:
        """Whether something is still to be written."""
        with self.lock:
            return any(run.is_pending for run in self.runs)

    def write(self) -> bool:
        """Try to write all that waits; gives whether some of it was, or nothing waited."""
        with self.lock:
            waiting, self._dirty = list(self._dirty), {}
        if not waiting:
            return True
        self.error, away, n_written = None, None, 0
        try:
            ensure_reachable(self.tracking_uri)
        except Exception as error:  # noqa: BLE001 - it may be back at the next attempt
            self.error = away = error
        failed: list[Run] = []
        for item in waiting:
            began = time.perf_counter()
            if not isinstance(item, Run):
                self._do(item)
                continue
            if self.error is not None and self.error is away:
                failed.append(item)
                continue
            try:
                self.go_on_or_raise()
                item.write(self._client)
                self._tell_journal(item)
                n_written += 1
                if (took := time.perf_counter() - began) < READILY_SECONDS:
                    self.good_seconds += took
            except GivenUpError:
                failed.append(item)
            except Exception as error:  # noqa: BLE001 - the recording tells it
                failed.append(item)
                self.error = error
            self.busy_seconds += time.perf_counter() - began
        with self.lock:
            self._dirty = dict.fromkeys([*failed, *self._dirty])
        return n_written > 0

    def _do(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - the search goes on
            self._said.append(f"{type(error).__name__}: {error}")

    def _tell_journal(self, run: Run) -> None:
        """Have the journal know that all of a run is written that it holds."""
        with self.lock:
            if run.is_pending:
                self.put(run)
            elif run.last >= 0:
                self.append({"run": run.number, "written": run.last})


def reason(error: Exception) -> str:
    """Why a store did not take something, in a line."""
    text = str(error)
    if "database is locked" in text:
        return "another process has been writing to the database all the time"
    return masked(" ".join(text.split()))[:300]
