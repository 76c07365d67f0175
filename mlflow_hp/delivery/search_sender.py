"""Send the runs of a search to MLflow from a background thread, while the search goes on."""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_hp._forks import abandon_in_child
from mlflow_hp._notice import log
from mlflow_hp.delivery import patience
from mlflow_hp.delivery.outbox import Outbox
from mlflow_hp.delivery.patience import Patience
from mlflow_hp.delivery.retry import AbandonedError, Retry
from mlflow_hp.delivery.run_writer import RunWriter
from mlflow_hp.delivery.spool import Spool
from mlflow_hp.tracking import provenance
from mlflow_hp.tracking.home import local_folder
from mlflow_hp.tracking.params_and_tags import texts
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.tracking.server_health import silence_locked_database
from mlflow_hp.tracking.store_uri import absolute_uri
from mlflow_hp.tracking.tags import PROCESS_TAG, SOURCE_TAG_PREFIX, USER_TAG

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_hp.delivery.run_changes import RunChanges

EVERY_SECONDS = 1.0
"""Interval at which pending changes are written: each run in as few calls as MLflow allows."""
REPORT = "report"
"""Name of the report's folder, next to the journal."""
STATES = "states"
"""Likewise of the folder of trainings' states."""
SEARCH_FOLDER_PREFIX = "search"
"""Prefix of the names of the folders of searches."""
LEAVING_SECONDS = 1.0
"""Time to wait for the end of the thread after it is abandoned."""


class SearchSender(Outbox):
    """Writes runs to MLflow in the background, with retries; data that MLflow lacks is on this machine.

    Parameters
    ----------
    parent : mlflow.entities.Run
        Parent run of the search.
    on_trouble : callable
        Called with a message when this machine cannot keep the data, when MLflow begins to fail, and when it works
        again.
    is_owned : bool
        Whether the run was started for the search, and ends with it.
    """

    def __init__(self, parent: mlflow.entities.Run, on_trouble: Callable[[str], object], *, is_owned: bool) -> None:
        self.run_id = str(parent.info.run_id)
        self.tracking_uri = mlflow.get_tracking_uri()
        header = _header(parent, self.tracking_uri, is_owned=is_owned)
        self.spool = Spool(
            lambda: local_folder(parent.info.run_id, SEARCH_FOLDER_PREFIX),
            header,
            on_trouble,
            "the data of the search is not kept on this machine, it goes to MLflow directly",
        )
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        super().__init__(header, self.spool.append)
        self._retry = Retry(on_trouble)
        self._patience = Patience(lambda: self.error is not None)
        client = mlflow.MlflowClient(self.tracking_uri)
        self._writer = RunWriter(
            self, client, self.tracking_uri, self._retry, self._patience, lambda: self.report_folder
        )
        self._flushes: queue.SimpleQueue[threading.Event] = queue.SimpleQueue()
        self._is_closing = self._has_logged_delay = False
        self._ended = threading.Event()
        abandon_in_child(self)
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-writer", daemon=True)
        self._thread.start()

    @property
    def error(self) -> Exception | None:
        """Error of the last attempt to write; None if it succeeded."""
        return self._retry.error

    @property
    def report_folder(self) -> Path:
        """Folder for the files of the report."""
        return self._folder / REPORT

    @property
    def states_folder(self) -> Path:
        """Folder for the states of trainings that a later round of the search goes on with."""
        return self._folder / STATES

    @property
    def _folder(self) -> Path:
        """Folder that is removed when MLflow has everything, also after the death of this process."""
        if self.spool.folder is not None and self.spool.trouble is None:
            return self.spool.folder
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="mlflow_hp_search_", ignore_cleanup_errors=True)
        return Path(self._temporary.name)

    @property
    def busy_seconds(self) -> float:
        """Time spent on writing."""
        return self._writer.busy_seconds

    def do(self, action: Callable[[], Any]) -> None:
        """Call `action` once in the sender's thread, after the runs that were changed before are written or tried."""
        self.enqueue(action)

    def flush(self, seconds: float | None = None) -> float:
        """Wait until everything is written or has been tried; a failure is in `error`.

        Parameters
        ----------
        seconds : float, optional
            Limit of the time of failing, hanging or slow calls. Defaults to ten seconds, `patience.PATIENCE_SECONDS`.

        Returns
        -------
        float
            Unused part of that.
        """
        is_tried = threading.Event()
        self._flushes.put(is_tried)
        self._retry.wake()
        return self._wait_for(is_tried, patience.PATIENCE_SECONDS if seconds is None else seconds)

    def _wait_for(self, event: threading.Event, seconds: float) -> float:
        """Wait for an event; return the unused part of `seconds`."""
        began = time.monotonic()

        def log_delay() -> None:
            is_long = time.monotonic() - began > patience.PATIENCE_SECONDS
            if is_long and self._is_closing and not self._has_logged_delay:
                self._has_logged_delay = True
                log("MLflow is still accepting the recorded data of the search", logging.WARNING, __name__)

        return self._patience.wait(lambda s: event.wait(s) or not self._thread.is_alive(), seconds, log_delay)

    def run_id_of(self, run: RunChanges) -> str | None:
        """Return the id of `run`, which is created now if necessary; None if that fails."""
        if run.run_id is None:
            self.flush()
        return run.run_id

    def abandon(self) -> None:
        """In a forked child: replace the lock, which a thread of the parent may hold."""
        self.lock = threading.RLock()
        for run in self.runs:
            run.lock = self.lock

    def close(self, seconds: float, status: str, *, ends_run: bool) -> bool:
        """Write the rest; no changes may follow.

        Parameters
        ----------
        seconds : float
            Limit of the time of failing, hanging or slow calls.
        status : str
            Final status of the search.
        ends_run : bool
            Whether the parent run ends with it.

        Returns
        -------
        bool
            Whether MLflow has everything. Otherwise the rest stays on this machine.
        """
        now = time.time()
        with self.lock:
            if ends_run:
                self.parent.end(status, now)
            self.spool.append({"ended": {"status": status, "time": now}})
        self._is_closing = True
        self._retry.hurry()
        try:
            self._wait_for(self._ended, self.flush(seconds))
        finally:
            self._retry.abandon()
            self._ended.wait(LEAVING_SECONDS)  # a hanging call ends later, and the thread with it
        return not self.is_pending

    def _work(self) -> None:
        silence_locked_database()
        with contextlib.suppress(AbandonedError):
            while not self._is_closing or self.is_pending:
                self._retry.pause(EVERY_SECONDS)
                self._retry.until_it_works(self._write)
        all_sent = not self.is_pending
        self.spool.close(all_sent=all_sent)
        if all_sent:
            self.spool.remove()
        if self._temporary is not None:
            self._temporary.cleanup()
        self._ended.set()

    def _write(self) -> None:
        """Write pending changes, and set the events of waiting calls of `flush`."""
        flushes = []
        with contextlib.suppress(queue.Empty):
            while True:
                flushes.append(self._flushes.get_nowait())
        self.spool.sync()
        try:
            self._writer.write_due(at_once=bool(flushes) or self._is_closing)
        finally:
            for is_tried in flushes:
                is_tried.set()


def _header(parent: mlflow.entities.Run, tracking_uri: str, *, is_owned: bool) -> dict[str, Any]:
    """Make the header of the journal."""
    common = {name: value for name, value in parent.data.tags.items() if name.startswith((USER_TAG, SOURCE_TAG_PREFIX))}
    own = provenance.tags()  # MLflow does not call its context providers for runs that a client creates
    return {
        "kind": "search",
        "run_id": parent.info.run_id,
        "tracking_uri": absolute_uri(tracking_uri),
        "process": this_process(),
        "experiment_id": parent.info.experiment_id,
        "name": parent.info.run_name or "",
        "start": parent.info.start_time / 1000,
        "common": {**common, **texts("tags", own).values},
        "before": parent.data.tags.get(PROCESS_TAG),
        "key": secrets.token_hex(8),
        "is_owned": is_owned,
    }
