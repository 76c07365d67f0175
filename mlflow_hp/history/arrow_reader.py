"""The steps file as it is read: its head, the whole chunks in it, columns of them; and what of it is damaged.

However long a history is, no more than one of its chunks is in memory.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from mlflow_hp.errors import UserError
from mlflow_hp.history.messages import END, MALFORMED, Columns, read_schema
from mlflow_hp.history.schema import CHECK, KEY, STATISTICS, STEPS_FILE, VERSION, Field, checks_of, checksum, fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

WIDE = 1024  # bytes; in narrower rows the columns lie so near that reading ahead is faster than skipping


class StepsFile:
    """A steps file as it was when this was made.

    Attributes
    ----------
    head : dict
        What its metadata tell.
    fields : list of Field
        Its columns.
    chunks : list of int
        The number of rows of each whole chunk, up to the first that is seen to be damaged.
    complete : bool
        Whether they are all, and the mark of the end follows.

    Raises
    ------
    UserError
        Where it is empty, of another kind, damaged in its head, cut off before the first chunk, or newer.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, path.stat().st_size
        if not self._size:
            raise UserError(f"{path} is empty: if it is a copy, copy it again; else nothing was recorded")
        self.head, self.fields, self._columns, at = _head(path, self._size)
        self.chunks: list[int] = []
        self._begin: list[int] = []
        problem: Exception | None = None
        with self._opened() as file:
            try:
                while at < self._size and not self._ends(file, at):
                    rows, _, _, end = self._chunk(file, len(self.chunks), at)
                    self.chunks.append(rows)
                    self._begin.append(at)
                    at = end
                self.complete = at + len(END) == self._size
            except MALFORMED as error:
                self.complete, problem = False, error
        if not self.chunks:
            why = "" if problem is None else f": {problem}"
            raise UserError(f"{path} is damaged or cut off before the first step{why}; there is nothing to read")

    def read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Read columns, (rows, *shape) each, and nothing else of the file.

        Raises
        ------
        ValueError
            Where one of them is not what was written.
        """
        chosen = [field for field in self.fields if field.name in names]
        found = {field.name: np.empty((sum(self.chunks), *field.shape), field.dtype) for field in chosen}
        for _ in self._read(chosen, lambda field, first, rows: found[field.name][first : first + rows]):
            pass
        return found

    def keep_sound(self) -> None:
        """Read everything, and leave out the chunks from the first on that is not what was written."""
        sound = 0
        try:
            for _ in self._read(self.fields, lambda field, _, rows: np.empty((rows, *field.shape), field.dtype)):
                sound += 1
        except ValueError:
            self.chunks, self._begin, self.complete = self.chunks[:sound], self._begin[:sound], False
        if not self.chunks:
            raise UserError(f"{self._path} is damaged from its first chunk on; there is nothing to read")

    def arrays(self, number: int) -> dict[str, np.ndarray]:
        """All columns of one chunk, (rows, *shape) each.

        Raises
        ------
        UserError
            Where one of them is not what was written.
        """
        rows, first = self.chunks[number], sum(self.chunks[:number])
        found = {field.name: np.empty((rows, *field.shape), field.dtype) for field in self.fields}
        with self._opened() as file:
            self._fill(file, number, first, {field: found[field.name] for field in self.fields})
        return found

    def _read(self, fields: list[Field], room: Callable[[Field, int, int], np.ndarray]) -> Iterator[None]:
        """Read a chunk's part of each field to where `room` (of field, first row, rows) says, chunk by chunk."""
        first = 0
        with self._opened() as file:
            for number, rows in enumerate(self.chunks):
                self._fill(file, number, first, {field: room(field, first, rows) for field in fields})
                yield
                first += rows

    def _fill(self, file: BinaryIO, number: int, first: int, parts: dict[Field, np.ndarray]) -> None:
        """Read fields of one chunk, the first row of which is `first`, into arrays."""
        rows, field = self.chunks[number], None
        try:
            there, places, checks, _ = self._chunk(file, number, self._begin[number])
            if there != rows:
                raise ValueError(f"it has {there} rows now")
            for i, field in enumerate(self.fields):
                if field not in parts:
                    continue
                part = parts[field]
                file.seek(places[i])
                if part.size and file.readinto(part.reshape(-1).view(np.uint8)) != part.nbytes:  # type: ignore[attr-defined]
                    raise OSError("the file became shorter while it was read")
                if checks is not None and checksum(part) != checks[i]:
                    raise ValueError("it has another checksum than when it was written")
        except MALFORMED as error:
            self._tell(field if field in parts else None, first, rows, error)

    def _opened(self) -> BinaryIO:
        """The file; with wide rows nothing is read ahead."""
        file = self._path.open("rb")
        if self._columns.row_size > WIDE and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return file

    def _ends(self, file: BinaryIO, at: int) -> bool:
        file.seek(at)
        return file.read(len(END)) == END

    def _chunk(self, file: BinaryIO, number: int, at: int) -> tuple[int, list[int], list[int] | None, int]:
        """Rows, the places of the columns, their checksums, if any, and the end of the chunk that begins at a byte."""
        rows, places, metadata, end = self._columns.batch(file, at, self._size, nulls=number == 0)
        checks = None
        if self.head.get("checked"):
            wanted, checks = checks_of(metadata[CHECK], len(self.fields))
            if rows != wanted:
                raise ValueError(f"it has {rows} rows, of {wanted} that were written")
        return rows, places, checks, end

    def _tell(self, field: Field | None, first: int, rows: int, error: Exception) -> NoReturn:
        what = "a chunk" if field is None else repr(field.name)
        raise UserError(
            f"{self._path} is damaged: {what} in its rows {first} to {first + rows - 1} is not what was written "
            f"({error}). Copy it again; or read what is sound before that with TrainingHistory.open(folder, check=True)"
        ) from error


def _head(path: Path, size: int) -> tuple[dict[str, Any], list[Field], Columns, int]:
    """What a file's metadata tell, its columns, and where its first chunk begins."""
    try:
        with path.open("rb") as file:
            schema = read_schema(file, size)
        text = schema.metadata[KEY]
        head = json.loads(text)
        version = head["version"]
        if type(version) is not int or version < 1:
            raise ValueError(f"its version is {version!r}")
    except MALFORMED as error:
        why = f"{path} is no training history, or less than the head of one; name another folder"
        raise UserError(why) from error
    if version > VERSION:
        raise UserError(f"{path} has format version {version}, above {VERSION}: upgrade mlflow_hp")
    check = schema.metadata.get(CHECK)
    try:
        if (check is not None or head.get("checked")) and check != str(zlib.crc32(text)).encode():
            raise ValueError("it has another checksum than when it was written")
        fields = [field for part in fields_of(head) for field in part]
        columns = Columns(fields)
        columns.ensure_in(schema)
        if not isinstance(head["meta"], dict):
            raise TypeError("its meta are no mapping")
    except MALFORMED as error:
        raise UserError(f"{path} is damaged in its head: {error}. Copy it again") from error
    return head, fields, columns, schema.end


class Chunk(NamedTuple):
    """Consecutive steps: ``columns`` (k,) each, ``weights`` (k, *shape) or, for statistics, (k, 4) each."""

    columns: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def chunk_of(arrays: Mapping[str, np.ndarray], head: Mapping[str, Any]) -> Chunk:
    """A chunk of the arrays of all its columns, given the head of its history."""
    columns = {name: arrays[name] for name in head["columns"]}
    names = [tensor["name"] for tensor in head["tensors"]]
    if head["weights"] == "statistics":
        return Chunk(columns, {name: np.stack([arrays[f"{name}/{s}"] for s in STATISTICS], axis=1) for name in names})
    return Chunk(columns, {name: arrays[name] for name in names} if head["weights"] == "values" else {})


def read_initial(folder: Path | str) -> dict[str, np.ndarray]:
    """What is recorded of each tensor before the first step: of its shape, or its four statistics; ``{}`` for none."""
    file = StepsFile(Path(folder) / STEPS_FILE)
    return {name: values[0] for name, values in chunk_of(file.arrays(0), file.head).weights.items()}


def read_chunks(folder: Path | str) -> Iterator[Chunk]:
    """The whole chunks behind the first row of a history, in their order.

    Raises
    ------
    OSError
        Where the file is not there.
    UserError
        Where it is no history, or a chunk is not what was written.
    """
    file = StepsFile(Path(folder) / STEPS_FILE)
    for number in range(1, len(file.chunks)):
        yield chunk_of(file.arrays(number), file.head)


def sound_chunks(folder: Path | str) -> int:
    """How many chunks, from the first, `read_chunks` gives of a history as they were written; 0 for a broken one."""
    try:
        file = StepsFile(Path(folder) / STEPS_FILE)
        file.keep_sound()
    except (ValueError, OSError):
        return 0
    return len(file.chunks) - 1  # the first is the row before the first step
