"""Journal of a recording: data for MLflow, written to the local disk before it is sent.

A journal is a text file that is only appended to. Each line is a record: its checksum, a space, and JSON. The first
record is the header, which names the recording. A file next to it has the number of records, from the first after the
header, that MLflow has acknowledged.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from mlflow_hp.history.checksums import is_intact, text_checksum
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "journal"
ACKNOWLEDGED_FILE = "acknowledged"
VERSION = 2
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)

Record = dict[str, Any]


class Entries(NamedTuple):
    """Content of a journal.

    Attributes
    ----------
    header : dict
        Header, which names the recording.
    records : list of dict
        Records after the header, up to the first damaged one.
    n_acknowledged : int
        Number of records, from the first, that MLflow has.
    problem : str or None
        Description of the damage; None if all records are intact.
    """

    header: Record
    records: list[Record]
    n_acknowledged: int
    problem: str | None


class JournalError(ValueError):
    """Journal without any usable record."""


class Journal:
    """Appends records to a new journal, from any thread.

    Parameters
    ----------
    folder : Path
        Folder of the journal, which must not have one yet.
    header : mapping
        Header, which names the recording; must be serialisable as JSON, as all records.

    Attributes
    ----------
    n_records : int
        Number of records after the header.

    Raises
    ------
    OSError
        If the journal cannot be written.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        self._open(folder, os.O_EXCL)
        try:
            self._acknowledged.truncate(0)
            self.append({"journal": VERSION, **header})
        except OSError:
            self.close()
            raise

    def _open(self, folder: Path, flags: int) -> None:
        self.n_records = -1
        self._lock = threading.Lock()
        self._file = _open_file(folder / FILE, flags | os.O_APPEND)
        try:
            self._acknowledged = _open_file(folder / ACKNOWLEDGED_FILE)
        except OSError:
            self._file.close()
            raise

    @classmethod
    def reopen(cls, folder: Path) -> Self:
        """Open an existing journal to append to it; damaged records at its end are cut off.

        Raises
        ------
        JournalError, OSError
            As of `read`, or if the journal cannot be written.
        """
        entries = read(folder)
        journal = cls.__new__(cls)
        journal._open(folder, 0)
        intact_lines = (folder / FILE).read_bytes().split(b"\n")[: 1 + len(entries.records)]
        journal._file.truncate(sum(len(line) + 1 for line in intact_lines))
        journal.n_records = len(entries.records)
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, record: Mapping[str, Any]) -> int:
        """Append a record; the operating system has it on return.

        Returns
        -------
        int
            Number of the record (0-based, the header not counted).

        Raises
        ------
        OSError
            If it cannot be written; then the journal is unchanged.
        ValueError
            If the journal is closed.
        """
        line = _line(record)
        with self._lock:
            size = self._file.seek(0, os.SEEK_END)
            try:
                _write(self._file, line)
            except OSError:
                self._file.truncate(size)
                raise
            self.n_records += 1
            return self.n_records - 1

    def fileno(self) -> int:
        """Descriptor of the file, for `os.fsync`."""
        return self._file.fileno()

    def acknowledge(self, count: int) -> None:
        """Note that MLflow has the first `count` records; if that cannot be written, at worst they are sent twice."""
        with self._lock, contextlib.suppress(OSError):
            if not self._acknowledged.closed:
                self._acknowledged.seek(0)
                _write(self._acknowledged, f"{count:020}\n".encode())

    def close(self) -> None:
        """Close the files; idempotent."""
        with self._lock:
            self._file.close()
            self._acknowledged.close()


def _open_file(path: Path, flags: int = 0) -> io.FileIO:
    """Open a file for unbuffered writing that only its user may read."""
    return io.FileIO(path, "r+", opener=lambda name, _: os.open(name, _OPEN_FLAGS | flags, 0o600))


def read(folder: Path) -> Entries:
    """Read a journal, also while it grows, up to the first damaged record.

    Raises
    ------
    JournalError
        If even the header is damaged, or the journal is of a newer version.
    OSError
        If there is no journal, or it cannot be read.
    """
    path = folder / FILE
    content, size = path.read_bytes(), 0
    records: list[Record] = []
    for line in content.splitlines(keepends=True):
        record = _parse_line(line)
        if record is None or (records and "journal" in record):  # damaged, or a second header
            break
        records.append(record)
        size += len(line)
    if not records or not isinstance(records[0].get("journal"), int):
        raise JournalError(f"{path} has no intact record: nothing can be recovered from it")
    header, *records = records
    if header["journal"] > VERSION:
        raise JournalError(
            f"{path} is of version {header['journal']}, above {VERSION}: upgrade mlflow_hp to recover it"
        )
    damage = _damage(content, size)
    problem = None if damage is None else f"{path}, after its record {len(records)}: {damage}"
    return Entries(header, records, min(_n_acknowledged(folder), len(records)), problem)


def _damage(content: bytes, size: int) -> str | None:
    """Describe the content after the intact part, which has this size; None if there is nothing."""
    intact, rest = content[:size], content[size:]
    if not rest:
        return None
    n_lines = rest.count(b"\n") + (not rest.endswith(b"\n"))
    if rest.startswith(intact[: intact.index(b"\n") + 1]) and intact.startswith(rest):
        return f"nothing is lost, as {count(n_lines, 'line')} after it repeat what was first"
    return f"torn or altered: the next {count(n_lines, 'line')}"


def _write(file: io.FileIO, text: bytes) -> None:
    n_written = file.write(text) or 0
    if n_written < len(text):
        raise OSError(errno.ENOSPC, f"only {n_written} of {len(text)} bytes could be written")


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%b %b\n" % (text_checksum(text).encode(), text)


def _parse_line(line: bytes) -> Record | None:
    """Parse the record of a line; None if it is torn or altered."""
    if not line.endswith(b"\n"):
        return None
    checksum, _, text = line[:-1].partition(b" ")
    if not is_intact(text, checksum):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _n_acknowledged(folder: Path) -> int:
    try:
        return max(0, int((folder / ACKNOWLEDGED_FILE).read_text()))
    except (OSError, ValueError):
        return 0
