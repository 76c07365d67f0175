"""The folder of a search that is being recorded: the journal of what MLflow is to have, and the report's pictures."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_hp.delivery.folder_lock import FolderLock, HeldError
from mlflow_hp.delivery.journal import Journal
from mlflow_hp.tracking import runs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REPORT = "report"
"""The folder of the pictures, next to the journal."""
PREFIX = "search"
"""Begins the names of the folders."""


class Spool:
    """Keeps on this machine what MLflow is to have of a search, until it has it; nobody else may bring it meanwhile.

    Parameters
    ----------
    run_id : str
        The parent run.
    head : mapping
        For the journal: whose it is.
    on_trouble : callable
        Given a sentence where this machine can't keep it.

    Attributes
    ----------
    folder : Path or None
        None where there is no place.
    trouble : str or None
        Why the journal does not have everything.
    """

    def __init__(self, run_id: str, head: Mapping[str, Any], on_trouble: Callable[[str], None]) -> None:
        self.folder: Path | None = None
        self.trouble: str | None = None
        self._on_trouble = on_trouble
        self._lock: FolderLock | None = None
        self._journal: Journal | None = None
        self._synced = 0
        self._is_closed = False
        self._aside: tempfile.TemporaryDirectory[str] | None = None
        try:
            self.folder = runs.local_folder(run_id, PREFIX)
            self._lock = FolderLock(self.folder)
            self._journal = Journal(self.folder, head)
        except (OSError, HeldError) as error:
            self._give_up(error)

    def append(self, record: Mapping[str, Any]) -> int:
        """Append a record to the journal; gives its number, -1 where it can't be."""
        if self._journal is None or self.trouble is not None or self._is_closed:
            return -1
        try:
            return self._journal.append(record)
        except (OSError, ValueError) as error:
            self._give_up(error)
            return -1

    def sync(self) -> None:
        """Have the disk itself hold what the operating system has."""
        journal = self._journal
        if journal is not None and journal.n_records > self._synced:
            self._synced = journal.n_records
            with contextlib.suppress(OSError, ValueError):  # a file system that can't; closed meanwhile
                os.fsync(journal.fileno())

    @property
    def report(self) -> Path:
        """The folder for the pictures of the report."""
        if self.folder is not None and self.trouble is None:
            return self.folder / REPORT
        self._aside = self._aside or tempfile.TemporaryDirectory(prefix="mlflow_hp_report_")
        return Path(self._aside.name)

    def close(self, *, all_written: bool) -> None:
        """Leave the folder to `mlflow-hp recover`; where all is written, remove it."""
        if all_written:
            self.append({"done": True})
        self._is_closed = True
        if self._journal is not None:
            self._journal.close()
        if all_written and self.folder is not None:
            runs.remove_local(self.folder)
        if self._lock is not None:
            self._lock.release()
        if self._aside is not None:
            self._aside.cleanup()

    def _give_up(self, error: Exception) -> None:
        """Go on without the journal; what it has stays readable."""
        if self.trouble is None:
            self.trouble = f"{type(error).__name__}: {error}"
            self._on_trouble(f"the search's record is not kept on this machine, it goes to MLflow directly: {error}")
