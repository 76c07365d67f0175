"""The journal of a recording: what has to reach MLflow, on the local disk before it is sent.

A journal is a text file that is only ever appended to. Each line is a record: the CRC-32 of what follows, eight
hexadecimal digits, a space, and JSON. The first says whose journal it is. Beside it stands a file with the number of
records, from the first, that MLflow has acknowledged.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import threading
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "journal"
ACKNOWLEDGED_FILE = "acknowledged"
VERSION = 1
_NEW = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)

Record = dict[str, Any]


class Entries(NamedTuple):
    """What a journal holds.

    Attributes
    ----------
    head : dict
        Whose journal it is.
    records : list of dict
        Those behind the head, up to the first that is torn or altered.
    acknowledged : int
        How many of them MLflow has, from the first.
    problem : str or None
        What is wrong with the rest; None where all records are whole.
    """

    head: Record
    records: list[Record]
    acknowledged: int
    problem: str | None


class JournalError(ValueError):
    """There is nothing in a journal that can be used."""


class Journal:
    """Appends records to a new journal, from any thread.

    Parameters
    ----------
    folder : Path
        Where it is made; there has to be none yet.
    head : mapping
        Whose journal it is; as all records, something that JSON can hold.

    Attributes
    ----------
    n_records : int
        How many records have been appended, the head apart.

    Raises
    ------
    OSError
        Where it can't be written.
    """

    def __init__(self, folder: Path, head: Mapping[str, Any]) -> None:
        self._open(folder, os.O_EXCL)
        try:
            self._acknowledged.truncate(0)
            self.append({"journal": VERSION, **head})
        except OSError:
            self.close()
            raise

    def _open(self, folder: Path, flags: int) -> None:
        self.n_records = -1
        self._lock = threading.Lock()
        self._file = _opened(folder / FILE, flags | os.O_APPEND)
        try:
            self._acknowledged = _opened(folder / ACKNOWLEDGED_FILE)
        except OSError:
            self._file.close()
            raise

    @classmethod
    def reopen(cls, folder: Path) -> Self:
        """Append to a journal that there is; what is torn or altered at its end is cut off.

        Raises
        ------
        JournalError, OSError
            As `read` does; where it can't be written.
        """
        entries = read(folder)
        journal = cls.__new__(cls)
        journal._open(folder, 0)
        journal._file.truncate(sum(len(_line(record)) for record in (entries.head, *entries.records)))
        journal.n_records = len(entries.records)
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, record: Mapping[str, Any]) -> int:
        """Append a record; the operating system has it when this returns.

        Returns
        -------
        int
            Its number, from 0 behind the head.

        Raises
        ------
        OSError
            Where it can't be written; then nothing of it is in the journal.
        ValueError
            Where the journal is closed.
        """
        line = _line(record)
        with self._lock:
            whole = self._file.seek(0, os.SEEK_END)
            try:
                _write(self._file, line)
            except OSError:
                self._file.truncate(whole)
                raise
            self.n_records += 1
            return self.n_records - 1

    def fileno(self) -> int:
        """The descriptor of its file, for `os.fsync`."""
        return self._file.fileno()

    def acknowledge(self, count: int) -> None:
        """Note that MLflow has the first `count` records; where that can't be written, they are sent twice at worst."""
        with self._lock, contextlib.suppress(OSError):
            if not self._acknowledged.closed:
                self._acknowledged.seek(0)
                _write(self._acknowledged, f"{count:020}\n".encode())

    def close(self) -> None:
        """Close the files; a second time, do nothing."""
        with self._lock:
            self._file.close()
            self._acknowledged.close()


def _opened(path: Path, flags: int = 0) -> io.FileIO:
    """A file for writing that only its user may read; each write goes to the operating system at once."""
    return io.FileIO(path, "r+", opener=lambda name, _: os.open(name, _NEW | flags, 0o600))


def read(folder: Path) -> Entries:
    """What there is of a journal, also while it grows: all up to the first record that is not whole.

    Raises
    ------
    JournalError
        Where not even its first record can be used, or it is of a newer version.
    OSError
        Where there is none, or it can't be read.
    """
    path = folder / FILE
    lines = path.read_bytes().split(b"\n")
    rest = lines.pop()
    records: list[Record] = []
    for line in lines:
        record = _parsed(line)
        if record is None:
            break
        records.append(record)
    if not records or not isinstance(records[0].get("journal"), int):
        raise JournalError(f"{path} holds no record that is whole: nothing can be recovered from it")
    head, *records = records
    if head["journal"] > VERSION:
        raise JournalError(f"{path} is of version {head['journal']}, above {VERSION}: upgrade mlflow_hp to recover it")
    n_lost = len(lines) - len(records) - 1 + bool(rest)
    problem = f"{path}: what follows record {len(records)} is torn or altered ({n_lost} records)" if n_lost else None
    return Entries(head, records, min(_acknowledged(folder), len(records)), problem)


def of_a_training(entries: Entries) -> Entries:
    """Entries up to the first that no recording of a training writes; kinds of records that are not known pass.

    Raises
    ------
    JournalError
        Where the head is of no such recording.
    """
    for name, is_kind in _HEAD.items():
        if not is_kind(entries.head.get(name, _OLD_HEADS.get(name))):
            raise JournalError(
                f"the head of a journal has {name}={entries.head.get(name)!r:.100}: not a training journal"
            )
    for number, record in enumerate(entries.records):
        if not all(is_kind(record) for name, is_kind in _RECORDS.items() if name in record):
            problem = f"record {number} of the journal, from 0, is not a training's: nothing from there on is used"
            known = min(number, entries.acknowledged)
            return entries._replace(records=entries.records[:number], acknowledged=known, problem=problem)
    return entries


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(value, str) for value in values.values())


def _is_chunk(record: Record) -> bool:
    chunk = record["chunk"]
    return isinstance(chunk, dict) and _is_count(chunk.get("rows")) and _is_count(chunk.get("end"))


def _is_epoch(record: Record) -> bool:
    row = record["epoch"]
    numbers = isinstance(row, dict) and all(isinstance(value, int | float) for value in row.values())
    return numbers and _is_count(row.get("epoch")) and _is_count(record.get("time"))


def _is_description(record: Record) -> bool:
    return _are_texts(record["params"]) and _are_texts(record.get("tags"))


def _is_end(record: Record) -> bool:
    return isinstance(record["ended"], dict) and isinstance(record["ended"].get("whole"), bool)


def _is_shift(record: Record) -> bool:
    moved = record["shift"]
    return isinstance(moved, list) and len(moved) == len(("fit", "step", "epoch")) and all(map(_is_count, moved))


_HEAD = {
    "run_id": _is_text,
    "tracking_uri": _is_text,
    "process": _is_text,
    "fit": _is_count,
    "first_step": _is_count,
    "first_epoch": _is_count,
    "metrics_every": lambda value: _is_count(value) and value > 0,
    "report": lambda value: isinstance(value, bool),
}
_OLD_HEADS = {"first_step": 0, "first_epoch": 0}
"""What stands for what the heads of earlier versions lack."""
_RECORDS = {"chunk": _is_chunk, "epoch": _is_epoch, "params": _is_description, "ended": _is_end, "shift": _is_shift}


def _write(file: io.FileIO, text: bytes) -> None:
    written = file.write(text) or 0
    if written < len(text):
        raise OSError(errno.ENOSPC, f"only {written} of {len(text)} bytes could be written")


def _line(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _parsed(line: bytes) -> Record | None:
    """The record of a line; None for one that is torn or altered."""
    checksum, _, text = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _acknowledged(folder: Path) -> int:
    try:
        return max(0, int((folder / ACKNOWLEDGED_FILE).read_text()))
    except (OSError, ValueError):
        return 0
