"""Spool of one recording: its locked folder on this machine, with the journal of the data for MLflow."""

from __future__ import annotations

import contextlib
import functools
import os
from typing import TYPE_CHECKING, Any

from mlflow_hp.delivery.folder_lock import FolderLock, FolderLockedError
from mlflow_hp.delivery.journal import Journal
from mlflow_hp.tracking.home import remove_local

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path


class Spool:
    """Keeps data on this machine until MLflow has it; its lock prevents a recovery meanwhile.

    Parameters
    ----------
    make_folder : callable
        Makes a new folder, and returns it; raises OSError if that is impossible.
    header : mapping
        Header of the journal, which names the recording.
    on_trouble : callable
        Called with a message at the first failure to write to the disk.
    consequence : str
        Beginning of that message: what follows from the failure.

    Attributes
    ----------
    folder : Path or None
        The folder; None if it could not be made.
    trouble : str or None
        The message; None if the disk has everything.
    """

    def __init__(
        self,
        make_folder: Callable[[], Path],
        header: Mapping[str, Any],
        on_trouble: Callable[[str], object],
        consequence: str,
    ) -> None:
        self.folder: Path | None = None
        self.trouble: str | None = None
        self._on_trouble = on_trouble
        self._consequence = consequence
        self._lock: FolderLock | None = None
        self._journal: Journal | None = None
        self._n_synced = 0
        self._is_closed = False
        try:
            self.folder = make_folder()
            self._lock = FolderLock(self.folder)  # first: a recovery takes a folder with a journal and no lock
            self._journal = Journal(self.folder, header)
        except (OSError, FolderLockedError) as error:
            self.give_up(error)

    @property
    def name(self) -> str:
        """Unique name of the folder; empty if there is none."""
        return self.folder.name if self.folder is not None else ""

    def append(self, record: Mapping[str, Any]) -> int | None:
        """Append a record to the journal.

        Returns
        -------
        int or None
            Its number; None if it, or an earlier one, could not be written.
        """
        return None if self.trouble is not None else self.append_last(record)

    def append_last(self, record: Mapping[str, Any]) -> int | None:
        """Append the record of the recording's end, even to an incomplete journal."""
        if self._journal is None or self._is_closed:
            return None
        try:
            return self._journal.append(record)
        except (OSError, ValueError) as error:  # full, or closed meanwhile
            self.give_up(error)
            return None

    def acknowledge(self, count: int) -> None:
        """Note that MLflow has the first `count` records."""
        if self._journal is not None:
            self._journal.acknowledge(count)

    def sync(self) -> None:
        """Sync the journal to the disk."""
        if self._journal is not None and self._journal.n_records > self._n_synced:
            self._n_synced = self._journal.n_records
            with contextlib.suppress(OSError, ValueError):  # unsupported by the file system, or closed meanwhile
                os.fsync(self._journal.fileno())

    def give_up(self, error: Exception) -> None:
        """Continue without the disk; written records stay readable."""
        if self.trouble is None:
            self.trouble = f"{self._consequence}: {error}"
            self._on_trouble(self.trouble)

    def close(self, *, all_sent: bool) -> None:
        """Close the journal; leave the folder to a recovery, or, if all is sent, to a call of `remove`."""
        if all_sent:
            self.append_last({"done": True})
        self._is_closed = True
        if self._journal is not None:
            self._journal.close()
        if not all_sent and self._lock is not None:
            self._lock.release()

    def remove(self) -> None:
        """Remove the folder, as MLflow has everything."""
        self.remover()()

    def remover(self) -> Callable[[], None]:
        """Return a function that removes the folder, without a reference to the recording."""
        return functools.partial(_remove, self.folder, self._lock)


def _remove(folder: Path | None, lock: FolderLock | None) -> None:
    try:
        if folder is not None:
            remove_local(folder)
    finally:  # also where a signal raises meanwhile
        if lock is not None:
            lock.release()
