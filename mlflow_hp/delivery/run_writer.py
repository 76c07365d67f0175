"""The thread that writes the runs of a search to MLflow, while the search goes on."""

from __future__ import annotations

import contextlib
import queue
import secrets
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_hp._forks import abandon_in_child
from mlflow_hp.delivery.outbox import Outbox
from mlflow_hp.delivery.pending_run import GivenUpError
from mlflow_hp.delivery.search_spool import Spool
from mlflow_hp.tracking import provenance, runs
from mlflow_hp.tracking.params_and_tags import texts
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.tracking.server_health import hush_outages

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mlflow_hp.delivery.pending_run import Run

EVERY_SECONDS = 1.0
"""How often what has come together is written: each run in as few calls as MLflow allows."""
LONGEST_PAUSE_SECONDS = 30.0
"""Pause between two attempts to reach a store that fails."""
PATIENCE_SECONDS = 10.0
"""How long the end of a search waits for MLflow in all: what is left then stays on this machine."""
LEAVING_SECONDS = 1.0
"""How long the thread may take to leave."""


class Writer(Outbox):
    """Writes runs to MLflow, in the background; what MLflow does not have yet is on this machine.

    A store that fails is tried again while the search goes on.

    Parameters
    ----------
    parent : mlflow.entities.Run
        The run below which others are opened.
    is_owned : bool
        Whether the run was started for the search, and ends with it.
    on_trouble : callable
        Given a sentence where this machine can't keep what is on its way.
    """

    def __init__(self, parent: mlflow.entities.Run, on_trouble: Callable[[str], None], *, is_owned: bool) -> None:
        uri = mlflow.get_tracking_uri()
        head = _head(parent, uri, is_owned=is_owned)
        super().__init__(head, mlflow.MlflowClient(uri), uri)
        self.spool = Spool(parent.info.run_id, head, on_trouble)
        self._requests: queue.SimpleQueue[threading.Event] = queue.SimpleQueue()
        self._is_closing = self._has_told = False
        self._is_given_up = False
        self._ended = threading.Event()
        abandon_in_child(self)
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-writer", daemon=True)
        self._thread.start()

    @property
    def report_folder(self) -> Path:
        """Where the files of the report are written."""
        return self.spool.report

    def append(self, record: Mapping[str, Any]) -> int:
        """Append a record to the journal; gives its number, -1 where it can't be."""
        return self.spool.append(record)

    def do(self, action: Callable[[], Any]) -> None:
        """Have `action` called in the writer's thread, once, when the runs noted before have been written or tried."""
        self.put(action)

    def flush(self, seconds: float | None = None) -> float:
        """Wait until all has been written, or been tried; what fails is in `error`.

        Parameters
        ----------
        seconds : float, optional
            For how long MLflow may not answer, or not take it; the time in which it takes things does not count. By
            default `PATIENCE_SECONDS`.

        Returns
        -------
        float
            What is left of that.
        """
        tried = threading.Event()
        self._requests.put(tried)
        return self._wait(PATIENCE_SECONDS if seconds is None else seconds, lambda: tried.wait(0.1))

    def _wait(self, seconds: float, is_over: Callable[[], bool]) -> float:
        """Wait until it is over; gives what is left of `seconds`."""
        began, good = time.monotonic(), self.good_seconds
        while self._thread.is_alive() and not is_over():
            spent = time.monotonic() - began
            if spent - (self.good_seconds - good) > seconds:
                return 0.0
            if spent > PATIENCE_SECONDS and self._is_closing and not self._has_told:
                self._has_told = True
                print("mlflow_hp: MLflow is still taking what was recorded of the search", file=sys.stderr)
        return max(0.0, seconds - (time.monotonic() - began - (self.good_seconds - good)))

    def made(self, run: Run) -> str | None:
        """The id of `run`, made now if it has not been; None where it can't be."""
        if run.run_id is None:
            self.flush()
        return run.run_id

    def abandon(self) -> None:
        """In a forked child: the thread is the parent's, and the lock may be held by it."""
        self.lock = threading.RLock()

    def close(self, seconds: float, status: str, *, ends_run: bool) -> bool:
        """Write what is left; nothing comes after that.

        Parameters
        ----------
        seconds : float
            For how long MLflow may not answer, or not take it.
        status : str
            The state in which the search has ended.
        ends_run : bool
            Whether the parent run ends with it.

        Returns
        -------
        bool
            Whether MLflow has all. Where it does not, what it lacks stays on this machine.
        """
        now = time.time()
        with self.lock:
            if ends_run:
                self.parent.end(status, now)
            self.append({"ended": {"status": status, "time": now}})
        self._is_closing = True
        try:
            self._wait(self.flush(seconds), lambda: self._ended.wait(0.1))
        finally:
            self._is_given_up = True
            self._requests.put(threading.Event())
            self._ended.wait(LEAVING_SECONDS)  # a call that hangs ends some day, and the thread with it
        return not self.is_pending

    def go_on_or_raise(self) -> None:
        """Raise `GivenUpError` where nobody waits any more."""
        if self._is_given_up:
            raise GivenUpError

    def _work(self) -> None:
        hush_outages()
        pause = EVERY_SECONDS
        while not self._is_over():
            tried = None
            with contextlib.suppress(queue.Empty):
                tried = self._requests.get(timeout=min(pause, EVERY_SECONDS) if self._is_closing else pause)
            if self._is_given_up:
                break
            self.spool.sync()
            went_well = self.write()
            pause = EVERY_SECONDS if went_well else min(2 * pause, LONGEST_PAUSE_SECONDS)
            if tried is not None:
                tried.set()
        self.spool.close(all_written=not self.is_pending)
        self._ended.set()

    def _is_over(self) -> bool:
        """Whether nothing more comes, and all is written or nobody waits."""
        return self._is_closing and (self._is_given_up or not self.is_pending)


def _head(parent: mlflow.entities.Run, tracking_uri: str, *, is_owned: bool) -> dict[str, Any]:
    """The head of the journal."""
    common = {
        name: value for name, value in parent.data.tags.items() if name.startswith(("mlflow.user", "mlflow.source."))
    }
    # MLflow does not ask its context providers about runs that are made by a client.
    own = {f"mlflow_hp.{name}": value for name, value in provenance.tags().items()}
    return {
        "kind": "search",
        "run_id": parent.info.run_id,
        "tracking_uri": runs.absolute_uri(tracking_uri),
        "process": this_process(),
        "experiment_id": parent.info.experiment_id,
        "name": parent.info.run_name or "",
        "start": parent.info.start_time / 1000,
        "common": {**common, **texts("tags", own).values},
        "before": parent.data.tags.get(runs.PROCESS_TAG),
        "key": secrets.token_hex(8),
        "is_owned": is_owned,
    }
