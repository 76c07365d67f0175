"""The messages of an Arrow IPC stream, checked before anything is made of them.

pyarrow believes what a message says: a compressed buffer unpacks to any size, a schema may name one field a million
times, a length may lie beyond the file. A history holds only what `HistoryWriter` writes, so this reads no more of the
format: a schema of numbers and of lists of fixed length, then record batches, neither compressed nor with dictionaries,
whose buffers lie one after the other in the file. All else is refused, before memory is taken for it.

The format: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc and
https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from mlflow_hp.history.schema import Field

MARK = b"\xff\xff\xff\xff"
"""Begins each message."""
END = MARK + bytes(4)
"""Ends a stream."""
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, OSError,
             struct.error)  # fmt: skip
"""Raised by reading what is not a message, or not a history's."""

_SCHEMA, _RECORD_BATCH = 1, 3
_INTEGER, _FLOAT, _LIST_OF_FIXED_LENGTH = 2, 3, 16
_FLOATS = ("f2", "f4", "f8")
_SHORTER = "the file became shorter while it was read"
_BATCH_BYTES, _COLUMN_BYTES = 4096, 128
"""The most that the metadata of a record batch take: for itself, and for each of its columns."""


class Batch(NamedTuple):
    """A record batch that lies in a file.

    Attributes
    ----------
    rows : int
    places : list of int
        Where the numbers of each column begin in the file, in bytes; as many follow as the rows need.
    metadata : dict of bytes to bytes
    end : int
        Where the next message begins.
    """

    rows: int
    places: list[int]
    metadata: dict[bytes, bytes]
    end: int


class Columns:
    """The columns of a stream, and how its messages hold them.

    Parameters
    ----------
    fields : sequence of Field

    Attributes
    ----------
    row_size : int
        Bytes of a row.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        lists = np.array([bool(field.shape) for field in fields])
        lengths = [math.prod(field.shape) for field in fields]
        sizes = [length * field.stored.itemsize for length, field in zip(lengths, fields, strict=True)]
        self._fields, self.row_size = fields, sum(sizes)
        self._lengths, self._sizes = np.array(lengths), np.array(sizes)
        # In front of a column's numbers there is a buffer that says which are missing; a list has one more, and a node.
        self._nodes, self._buffers = len(fields) + lists.sum(), 2 * len(fields) + lists.sum()
        self._first_nodes = np.arange(len(fields)) + np.cumsum(lists) - lists
        self._last_nodes = self._first_nodes + lists
        self._before: _Alike | None = None
        self._numbers = 2 * np.arange(len(fields)) + 1 + np.cumsum(lists)

    def ensure_in(self, schema: Schema) -> None:
        """Raise ValueError where a schema has other columns."""
        columns = schema.table.tables(1, len(self._fields))
        if len(columns) != len(self._fields) or not all(map(_is_column, columns, self._fields)):
            raise ValueError("its columns are not those that it tells of")

    def batch(self, file: BinaryIO, at: int, size: int, *, nulls: bool = False) -> Batch:
        """Read a record batch without its numbers.

        Parameters
        ----------
        file : binary file
        at, size : int
            Where the message begins, and how long the file is.
        nulls : bool
            Whether values may be missing.

        Raises
        ------
        MALFORMED
            Where there is no whole batch, or one that `HistoryWriter` does not write.
        """
        data, body = _content(file, at, size, _BATCH_BYTES + _COLUMN_BYTES * len(self._fields))
        if not nulls and self._before is not None and (known := self._before.again(data, body, size)) is not None:
            return known
        message = _message(data, _RECORD_BATCH)
        body_size = message.number(3, "q")
        if not 0 <= body_size <= size - body:
            raise ValueError("it is longer than the file")
        table = message.table(2)
        if table.has(3) or table.has(4):
            raise ValueError("it is compressed, which no history is")
        rows = table.number(0, "q")
        if not 0 <= rows * self.row_size <= body_size:
            raise ValueError(f"{rows} rows are more than it can hold")
        nodes, buffers = table.pairs(1), table.pairs(2)
        if len(nodes) != self._nodes or len(buffers) != self._buffers:
            raise ValueError("it has other columns than the schema")
        if (nodes[self._first_nodes, 0] != rows).any() or (nodes[self._last_nodes, 0] != rows * self._lengths).any():
            raise ValueError("its columns are not of one length")
        if nodes[:, 1].any() and not nulls:
            raise ValueError("values are missing in it")
        if ((buffers < 0) | (buffers > body_size)).any():
            raise ValueError("a buffer lies outside of it")
        starts, ends = buffers[:, 0], buffers.sum(axis=1)
        if (starts[1:] < ends[:-1]).any() or ends[-1] > body_size:
            raise ValueError("its buffers do not lie one after the other in it")
        if (buffers[self._numbers, 1] < rows * self._sizes).any():
            raise ValueError(f"{rows} rows are more than its buffers hold")
        metadata, places = _metadata(message, 4), starts[self._numbers].tolist()
        if not nulls:
            self._before = _Alike.of(data, rows, places, metadata, body_size)
        return Batch(rows, [body + place for place in places], metadata, body + body_size)


class _Alike(NamedTuple):
    """A record batch that was checked: the next ones mostly differ from it in the text of their metadata alone."""

    head: bytes
    tail: bytes
    size: int
    key: bytes
    rows: int
    places: list[int]
    body_size: int

    @classmethod
    def of(cls, data: bytes, rows: int, places: list[int], metadata: dict[bytes, bytes], body_size: int) -> Self | None:
        if len(metadata) != 1 or data.count(next(iter(metadata.values()))) != 1:
            return None
        ((key, text),) = metadata.items()
        head, _, tail = data.partition(text)
        return cls(head, tail, len(data), key, rows, places, body_size)

    def again(self, data: bytes, body: int, size: int) -> Batch | None:
        """The batch of a message that differs in nothing else; None for others."""
        alike = len(data) == self.size and data.startswith(self.head) and data.endswith(self.tail)
        if not alike or self.body_size > size - body:
            return None
        metadata = {self.key: data[len(self.head) : self.size - len(self.tail)]}
        return Batch(self.rows, [body + place for place in self.places], metadata, body + self.body_size)


class Schema(NamedTuple):
    """The schema of a stream: its metadata, and where the next message begins; its columns are still to be checked."""

    table: _Table
    metadata: dict[bytes, bytes]
    end: int


def read_schema(file: BinaryIO, size: int) -> Schema:
    """Read the first message of a stream in a file of `size` bytes.

    Raises
    ------
    MALFORMED
        Where it is no schema.
    """
    data, end = _content(file, 0, size, size)
    table = _message(data, _SCHEMA).table(2)
    return Schema(table, _metadata(table, 2), end)


class _Table:
    """A table of a flatbuffer: values by their slots, each of which may be absent."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._slots_at = at - self._unpack("i", at)
        self._slots = (self._unpack("H", self._slots_at) - 4) // 2

    def has(self, slot: int) -> bool:
        """Whether there is a value."""
        return self._place(slot) is not None

    def number(self, slot: int, form: str) -> int:
        """A number by its form as of `struct`; 0 where it is absent."""
        at = self._place(slot)
        return 0 if at is None else self._unpack(form, at)

    def table(self, slot: int) -> _Table:
        """Another table."""
        return _Table(self._data, self._target(slot))

    def tables(self, slot: int, most: int) -> list[_Table]:
        """A vector of tables; ValueError where they are more than `most`: all may be one and the same."""
        if not self.has(slot):
            return []
        at = self._target(slot)
        length = self._unpack("I", at)
        if length > most:
            raise ValueError(f"{length} entries are more than {most}")
        places = range(at + 4, at + 4 + 4 * length, 4)
        return [_Table(self._data, place + self._unpack("I", place)) for place in places]

    def pairs(self, slot: int) -> np.ndarray:
        """A vector of structs of two 64-bit integers: shape (n, 2)."""
        at = self._target(slot)
        return np.frombuffer(self._data, "<i8", 2 * self._unpack("I", at), at + 4).reshape(-1, 2)

    def content(self, slot: int) -> bytes:
        """A text, in UTF-8."""
        at = self._target(slot)
        end = at + 4 + self._unpack("I", at)
        if end > len(self._data):
            raise ValueError("a text is longer than the message")
        return self._data[at + 4 : end]

    def _place(self, slot: int) -> int | None:
        if slot >= self._slots:
            return None
        offset = self._unpack("H", self._slots_at + 4 + 2 * slot)
        return self._at + offset if offset else None

    def _target(self, slot: int) -> int:
        at = self._place(slot)
        if at is None:
            raise ValueError("an entry is missing")
        return at + self._unpack("I", at)

    def _unpack(self, form: str, at: int) -> Any:
        if at < 0:
            raise ValueError("an entry lies before the message")
        return struct.unpack_from(f"<{form}", self._data, at)[0]


def _content(file: BinaryIO, at: int, size: int, most: int) -> tuple[bytes, int]:
    """The metadata of the message at `at`, and where its body begins."""
    file.seek(at)
    prefix = file.read(8)
    if at + 8 <= size and len(prefix) < 8:
        raise OSError(_SHORTER)
    mark, length = struct.unpack("<4si", prefix)
    if mark != MARK or not 0 < length <= min(size - at - 8, most):
        raise ValueError("it is no message of a history, or is cut off")
    data = file.read(length)
    if len(data) < length:
        raise OSError(_SHORTER)
    return data, at + 8 + length


def _message(data: bytes, kind: int) -> _Table:
    message = _Table(data, struct.unpack_from("<I", data)[0])
    if message.number(1, "B") != kind:
        raise ValueError("it is a message of another kind than a history has there")
    return message


def _metadata(table: _Table, slot: int) -> dict[bytes, bytes]:
    return {entry.content(0): entry.content(1) for entry in table.tables(slot, most=8)}


def _is_column(column: _Table, field: Field) -> bool:
    """Whether a column of a schema has the name and the type of a field."""
    if column.content(0) != field.name.encode() or column.has(4):
        return False
    children = column.tables(5, most=1)
    if not field.shape:
        return not children and _is_number(column, field.stored)
    listed = column.number(2, "B") == _LIST_OF_FIXED_LENGTH and len(children) == 1
    return listed and column.table(3).number(0, "i") == math.prod(field.shape) and _is_number(children[0], field.stored)


def _is_number(column: _Table, dtype: np.dtype) -> bool:
    kind, of = column.number(2, "B"), column.table(3)
    if column.tables(5, most=0) or column.has(4):
        return False
    if kind == _FLOAT:
        return dtype.kind == "f" and np.dtype(_FLOATS[of.number(0, "h")]) == dtype
    return kind == _INTEGER and (of.number(0, "i"), of.number(1, "?")) == (8 * dtype.itemsize, dtype.kind == "i")
