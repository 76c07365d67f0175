"""The steps file as it is read: its head, the whole chunks in it, columns of them; and what of it is damaged."""

from __future__ import annotations

import json
import math
import mmap
import zlib
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from mlflow_hp.history.fields import CHECK, KEY, VERSION, Field, checks_of, checksum, fields_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

END = b"\xff\xff\xff\xff\x00\x00\x00\x00"  # Arrow's mark at the end of a stream
WIDE = 1024  # bytes; in narrower rows the columns lie so near that reading all is faster than skipping
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, OSError)


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
    ValueError
        Where it is empty, of another kind, damaged in its head, cut off before the first chunk, or newer.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._path, self._size = path, path.stat().st_size
        if not self._size:
            raise ValueError(f"{path} is empty: if it is a copy, copy it again; else nothing was recorded")
        self.head, self.fields = _head(path)
        self._row_size = sum(field.stored.itemsize * math.prod(field.shape) for field in self.fields)
        self._wide = self._row_size > WIDE
        self.chunks: list[int] = []
        source = pa.BufferReader(_mapped(path, wide=self._wide))
        try:
            for rows, _, _ in self._batches(source, [0]):
                self.chunks.append(rows)
            end = source.tell()
            self.complete = end == self._size and source.read_at(len(END), end - len(END)) == END
        except (pa.ArrowException, *_MALFORMED):
            self.complete = False
        if not self.chunks:
            raise ValueError(f"{path} is cut off before the first step; there is nothing to read")

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
            self.chunks, self.complete = self.chunks[:sound], False
        if not self.chunks:
            raise ValueError(f"{self._path} is damaged from its first chunk on; there is nothing to read")

    def _read(self, fields: list[Field], room: Callable[[Field, int, int], np.ndarray]) -> Iterator[None]:
        """Read a chunk's part of each field to where `room` (of field, first row, rows) says, chunk by chunk."""
        import pyarrow as pa

        columns = [i for i, field in enumerate(self.fields) if field in fields]
        buffer = _mapped(self._path, wide=self._wide)
        batches, first = self._batches(pa.BufferReader(buffer), columns), 0
        with self._path.open("rb") as file:
            for rows in self.chunks:
                field = None
                try:
                    there, batch, checks = next(batches)
                    if there != rows:
                        raise ValueError(f"it has {there} rows now")
                    for field, column, check in zip(fields, batch.columns, checks, strict=True):
                        part = room(field, first, rows)
                        field.read_arrow(column, file, buffer.address, part)
                        if check is not None and checksum(part) != check:
                            raise ValueError("it has another checksum than when it was written")
                except (pa.ArrowException, StopIteration, *_MALFORMED) as error:
                    self._tell(field, first, rows, error)
                yield
                first += rows

    def _batches(self, source: Any, columns: Sequence[int]) -> Iterator[tuple[int, Any, list[int | None]]]:
        """Go through a stream from its start: of each chunk the rows, some columns, and their checksums, if any."""
        import pyarrow as pa

        source.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=list(columns), use_threads=False)
        total = 0
        for batch, metadata in pa.ipc.open_stream(source, options=options).iter_batches_with_custom_metadata():
            batch.validate()
            rows = batch.num_rows
            total += rows
            if total * self._row_size > self._size:
                raise ValueError(f"{rows} rows are more than the file can hold")
            checks: list[int | None] = [None] * len(columns)
            if self.head.get("checked"):
                wanted, sums = checks_of(metadata[CHECK], len(self.fields))
                checks = [sums[i] for i in columns]
                if rows != wanted:
                    raise ValueError(f"it has {rows} rows, of {wanted} that were written")
            yield rows, batch, checks

    def _tell(self, field: Field | None, first: int, rows: int, error: Exception) -> NoReturn:
        what = "a chunk" if field is None else repr(field.name)
        raise ValueError(
            f"{self._path} is damaged: {what} in its rows {first} to {first + rows - 1} is not what was written "
            f"({error}). Copy it again; or read what is sound before that with TrainingHistory.open(folder, check=True)"
        ) from error


def _head(path: Path) -> tuple[dict[str, Any], list[Field]]:
    """What a file's metadata tell, and its columns."""
    import pyarrow as pa

    try:
        schema = pa.ipc.read_schema(pa.BufferReader(_mapped(path, wide=True)))
        text = schema.metadata[KEY]
        head = json.loads(text)
        version = head["version"]
        if type(version) is not int or version < 1:
            raise ValueError(f"its version is {version!r}")
    except (pa.ArrowException, *_MALFORMED) as error:
        why = f"{path} is no training history, or less than the head of one; name another folder"
        raise ValueError(why) from error
    if version > VERSION:
        raise ValueError(f"{path} has format version {version}, above {VERSION}: upgrade mlflow_hp")
    check = schema.metadata.get(CHECK)
    try:
        if (check is not None or head.get("checked")) and check != str(zlib.crc32(text)).encode():
            raise ValueError("it has another checksum than when it was written")
        fields = [field for part in fields_of(head) for field in part]
        types = [field.arrow_type() for field in fields]
        if schema.names != [field.name for field in fields] or schema.types != types:
            raise ValueError("its columns are not those that it tells of")
        if not isinstance(head["meta"], dict):
            raise TypeError("its meta are no mapping")
    except (pa.ArrowException, *_MALFORMED) as error:
        raise ValueError(f"{path} is damaged in its head: {error}. Copy it again") from error
    return head, fields


def _mapped(path: Path, *, wide: bool) -> Any:
    """Map a file as an Arrow buffer; with wide rows so that only what is touched is fetched from the disk."""
    import pyarrow as pa

    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if wide and hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return pa.py_buffer(mapped)
