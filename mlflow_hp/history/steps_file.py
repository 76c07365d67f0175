"""Steps file: its header, its intact chunks, and reading of chosen columns; masked where values are missing.

At most one chunk is in memory at a time, however long the history is.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn

import numpy as np

from mlflow_hp.errors import UserError
from mlflow_hp.history.checksums import column_checksum, header_checksum, read_chunk_checksums
from mlflow_hp.history.messages import END, MALFORMED, Columns, read_schema
from mlflow_hp.history.missing import bitmap_size, read_bitmap, with_missing
from mlflow_hp.history.schema import CHECK, KEY, VERSION, Field, fields_of
from mlflow_hp.terminal import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

MISSING_VERSION = 3
"""Version of the format since which values may be missing after the first row."""
ALL = slice(None)
"""All rows."""
WIDE = 1024
"""Bytes of a row above which reading ahead costs more than it saves."""


class StepsFile:
    """Steps file as it was when it was opened.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    header : dict
        Version, columns, tensors and metadata of the history.
    fields : list of Field
        Columns of the file.
    chunk_rows : list of int
        Number of rows of each chunk, up to the first that is visibly damaged.
    complete : bool
        Whether these are all chunks, followed by the end mark.

    Raises
    ------
    UserError
        If the file is empty, not a history, damaged in its header, cut off before the first chunk, or of a newer
        version.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._size = path, path.stat().st_size
        if not self._size:
            raise UserError(f"{path} is empty: if it is a copy, copy it again; otherwise nothing was recorded")
        self.header, self.fields, self._columns, offset = _read_header(path, self._size)
        self._position = {field.name: number for number, field in enumerate(self.fields)}
        self.chunk_rows: list[int] = []
        self._offsets: list[int] = []
        problem: Exception | None = None
        with self._open() as file:
            try:
                while offset < self._size and not self._is_end_mark(file, offset):
                    layout = self._read_layout(file, len(self.chunk_rows), offset)
                    self.chunk_rows.append(layout.n_rows)
                    self._offsets.append(offset)
                    offset = layout.end
                self.complete = offset + len(END) == self._size
            except MALFORMED as error:
                self.complete, problem = False, error
        if not self.chunk_rows:
            why = "" if problem is None else f": {problem}"
            raise UserError(f"{path} is damaged or cut off before the first step{why}; there is nothing to read")

    def read(self, names: Sequence[str], rows: slice = ALL) -> dict[str, np.ndarray]:
        """Read columns, shape (rows, *shape) each, and no other part of the file: of some rows, the chunks with them.

        Raises
        ------
        ValueError
            If one of them is damaged.
        """
        wanted_names = set(names)
        chosen = [field for field in self.fields if field.name in wanted_names]
        start, stop, _ = rows.indices(sum(self.chunk_rows))
        ends = np.cumsum(self.chunk_rows)
        chunks = range(int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(ends, stop)) + 1)
        chunks = chunks[: max(0, len(self.chunk_rows) - chunks.start)] if stop > start else range(0)
        offset = int(ends[chunks.start] - self.chunk_rows[chunks.start]) if chunks else 0
        n_rows = sum(self.chunk_rows[number] for number in chunks)
        arrays = {field.name: _Array.of(field, n_rows) for field in chosen}
        for _ in self._read_into(
            chosen, lambda field, first, n_rows: arrays[field.name].rows(first - offset, n_rows), chunks
        ):
            pass
        wanted = slice(start - offset, max(start, stop) - offset)
        return {name: array.masked()[wanted] for name, array in arrays.items()}

    def drop_damaged(self) -> None:
        """Read everything, and drop the first damaged chunk and all later ones."""
        n_intact = 0
        try:
            for _ in self._read_into(self.fields, lambda field, _, n_rows: _Array.of(field, n_rows)):
                n_intact += 1
        except ValueError:
            self.chunk_rows, self._offsets, self.complete = self.chunk_rows[:n_intact], self._offsets[:n_intact], False
        if not self.chunk_rows:
            raise UserError(f"{self._path} is damaged from its first chunk on; there is nothing to read")

    def read_chunk(self, number: int) -> dict[str, np.ndarray]:
        """Read all columns of one chunk, shape (rows, *shape) each.

        Raises
        ------
        UserError
            If one of them is damaged.
        """
        n_rows, first = self.chunk_rows[number], sum(self.chunk_rows[:number])
        arrays = {field: _Array.of(field, n_rows) for field in self.fields}
        with self._open() as file:
            self._fill(file, number, first, arrays)
        return {field.name: array.masked() for field, array in arrays.items()}

    def _read_into(
        self, fields: list[Field], target: Callable[[Field, int, int], _Array], chunks: range | None = None
    ) -> Iterator[None]:
        """Read `fields` chunk by chunk into the arrays that `target` returns for field, first row, number of rows."""
        chunks = range(len(self.chunk_rows)) if chunks is None else chunks
        first = sum(self.chunk_rows[: chunks.start])
        with self._open() as file:
            for number in chunks:
                n_rows = self.chunk_rows[number]
                self._fill(file, number, first, {field: target(field, first, n_rows) for field in fields})
                yield
                first += n_rows

    def _fill(self, file: BinaryIO, number: int, first: int, arrays: dict[Field, _Array]) -> None:
        """Read the fields of one chunk, whose first row is `first`, into `arrays`."""
        n_rows, field = self.chunk_rows[number], None
        try:
            layout = self._read_layout(file, number, self._offsets[number])
            if layout.n_rows != n_rows:
                raise ValueError(f"it has {count(layout.n_rows, 'row')} now")
            for field, array in arrays.items():
                i, values, bitmap = self._position[field.name], array.values, None
                _read_into(values, file, layout.offsets[i])
                if i in layout.bitmaps:
                    bitmap = np.empty(bitmap_size(n_rows), np.uint8)
                    _read_into(bitmap, file, layout.bitmaps[i])
                if layout.checksums and column_checksum(values, self.header["version"], bitmap) != layout.checksums[i]:
                    raise ValueError("it has another checksum than when it was written")
                if bitmap is not None and field.can_miss:
                    missing = read_bitmap(bitmap, n_rows)
                    array.missing[:], values[missing] = missing, np.nan
        except MALFORMED as error:
            self._raise_damaged(field if field in arrays else None, first, n_rows, error)

    def _open(self) -> BinaryIO:
        """Open the file, without reading ahead if its rows are wide."""
        file = self._path.open("rb")
        if self._columns.row_size > WIDE and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        return file

    def _is_end_mark(self, file: BinaryIO, offset: int) -> bool:
        file.seek(offset)
        return file.read(len(END)) == END

    def _read_layout(self, file: BinaryIO, number: int, offset: int) -> _ChunkLayout:
        batch = self._columns.read_batch(file, offset, self._size, nulls=number == 0)
        n_rows, metadata = batch.n_rows, batch.metadata
        checksums: list[int] = []
        if self.header.get("checked"):
            n_written, checksums = read_chunk_checksums(metadata[CHECK], len(self.fields), self.header["version"])
            if n_rows != n_written:
                raise ValueError(f"it has {count(n_rows, 'row')}, of {n_written} that were written")
        return _ChunkLayout(n_rows, batch.offsets, batch.bitmaps, checksums, batch.end)

    def _raise_damaged(self, field: Field | None, first: int, n_rows: int, error: Exception) -> NoReturn:
        part = "a chunk" if field is None else repr(field.name)
        raise UserError(
            f"{self._path} is damaged: {part} in its rows {first} to {first + n_rows - 1} differs from what was "
            f"written ({error}). Copy it again, or read the part before the damage with "
            "TrainingHistory.open(folder, check=True)"
        ) from error


class _ChunkLayout(NamedTuple):
    """Number of rows of a chunk, offset and checksum of each column (no checksums in old files), and its end.

    `bitmaps` has the offset of the bitmap of each column, by its number, in which values are missing.
    """

    n_rows: int
    offsets: list[int]
    bitmaps: dict[int, int]
    checksums: list[int]
    end: int


class _Array(NamedTuple):
    """Values of a column, and where they are missing."""

    values: np.ndarray
    missing: np.ndarray

    @classmethod
    def of(cls, field: Field, n_rows: int) -> _Array:
        return cls(np.empty((n_rows, *field.shape), field.dtype), np.zeros(n_rows if field.can_miss else 0, bool))

    def rows(self, first: int, n_rows: int) -> _Array:
        return _Array(self.values[first : first + n_rows], self.missing[first : first + n_rows])

    def masked(self) -> np.ndarray:
        return with_missing(self.values, self.missing) if len(self.missing) else self.values


def _read_into(array: np.ndarray, file: BinaryIO, offset: int) -> None:
    file.seek(offset)
    if array.size and file.readinto(array.reshape(-1).view(np.uint8)) != array.nbytes:  # type: ignore[attr-defined]
        raise OSError("the file became shorter while it was read")


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], list[Field], Columns, int]:
    """Read the header of a file; return it, the columns as fields and as they lie in chunks, and the header's end."""
    try:
        with path.open("rb") as file:
            schema = read_schema(file, size)
        text = schema.metadata[KEY]
        header = json.loads(text)
        version = header["version"]
        if type(version) is not int or version < 1:
            raise ValueError(f"its version is {version!r}")
    except MALFORMED as error:
        why = f"{path} is not a training history, or is cut off within its header; name another folder"
        raise UserError(why) from error
    if version > VERSION:
        raise UserError(f"{path} has format version {version}, above {VERSION}: upgrade mlflow_hp")
    checksum = schema.metadata.get(CHECK)
    try:
        if (checksum is not None or header.get("checked")) and checksum != header_checksum(text, version).encode():
            raise ValueError("it has another checksum than when it was written")
        fields = [field for group in fields_of(header) for field in group]
        columns = Columns(fields, has_missing=version >= MISSING_VERSION)
        columns.ensure_in(schema)
        if not isinstance(header["meta"], dict):
            raise TypeError("its metadata is not a mapping")
    except MALFORMED as error:
        raise UserError(f"{path} is damaged in its header: {error}. Copy it again") from error
    return header, fields, columns, schema.end
