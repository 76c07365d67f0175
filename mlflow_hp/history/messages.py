"""Messages of an Arrow IPC stream, validated before memory is allocated for them.

pyarrow trusts messages: a compressed buffer unpacks to any size, a schema may name one field a million times, a length
may exceed the file. A history contains only the part of the format that `HistoryWriter` writes: a schema of numbers and
of lists of fixed length, then record batches, neither compressed nor with dictionaries, with their buffers in order;
only columns of floating-point numbers have missing values.
Anything else is refused.

The format: https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from mlflow_hp.history.flatbuffer import FlatTable
from mlflow_hp.history.missing import bitmap_size

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from mlflow_hp.history.schema import Field

MARK = b"\xff\xff\xff\xff"
"""Start of each message."""
END = MARK + bytes(4)
"""End of a stream."""
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError, OSError,
             struct.error)  # fmt: skip
"""Errors that reading raises for a malformed message, or one that no history has."""

_SCHEMA, _RECORD_BATCH = 1, 3
_INTEGER, _FLOAT, _LIST_OF_FIXED_LENGTH = 2, 3, 16
_FLOATS = ("f2", "f4", "f8")
_SHORTER = "the file became shorter while it was read"
_BATCH_BYTES, _COLUMN_BYTES = 4096, 128
"""Largest size of the metadata of a record batch: for the batch itself, and for each column."""


class Batch(NamedTuple):
    """Record batch in a file.

    Attributes
    ----------
    n_rows : int
        Number of rows.
    offsets : list of int
        Offset in the file, in bytes, of the numbers of each column.
    bitmaps : dict of int to int
        Number of each column in which values are missing -> offset of its bitmap.
    metadata : dict of bytes to bytes
        Metadata of the batch.
    end : int
        Offset of the next message.
    """

    n_rows: int
    offsets: list[int]
    bitmaps: dict[int, int]
    metadata: dict[bytes, bytes]
    end: int


class Columns:
    """Columns of a stream, and their layout in its messages.

    Parameters
    ----------
    fields : sequence of Field
        The columns.
    has_missing : bool
        Whether values of floating-point numbers may be missing.

    Attributes
    ----------
    row_size : int
        Bytes of a row.
    """

    def __init__(self, fields: Sequence[Field], *, has_missing: bool) -> None:
        lists = np.array([bool(field.shape) for field in fields])
        lengths = [math.prod(field.shape) for field in fields]
        sizes = [length * field.stored.itemsize for length, field in zip(lengths, fields, strict=True)]
        self._fields, self.row_size = fields, sum(sizes)
        self._lengths, self._sizes = np.array(lengths), np.array(sizes)
        # Before a column's numbers comes a buffer that marks missing ones; a list has one more buffer and node.
        self._n_nodes, self._n_buffers = len(fields) + lists.sum(), 2 * len(fields) + lists.sum()
        self._first_nodes = np.arange(len(fields)) + np.cumsum(lists) - lists
        self._last_nodes = self._first_nodes + lists
        self._data_buffers = 2 * np.arange(len(fields)) + 1 + np.cumsum(lists)
        self._has_missing = has_missing
        self._cannot_miss = np.array([not (has_missing and field.can_miss) for field in fields])
        self._template: _BatchTemplate | None = None

    def ensure_in(self, schema: Schema) -> None:
        """Raise ValueError if a schema has other columns."""
        columns = schema.table.tables(1, len(self._fields))
        if len(columns) != len(self._fields) or not all(map(_is_column, columns, self._fields)):
            raise ValueError("its columns are not those of its header")

    def read_batch(self, file: BinaryIO, offset: int, size: int, *, nulls: bool = False) -> Batch:
        """Read a record batch without its numbers.

        Parameters
        ----------
        file : binary file
            The file.
        offset, size : int
            Start of the message, and size of the file, in bytes.
        nulls : bool
            Whether values of any column may be missing. Defaults to False.

        Raises
        ------
        MALFORMED
            If there is no complete batch, or one that `HistoryWriter` does not write.
        """
        data, body = _read_metadata(file, offset, size, _BATCH_BYTES + _COLUMN_BYTES * len(self._fields))
        if not nulls and self._template is not None and (batch := self._template.match(data, body, size)) is not None:
            return batch
        message = _message(data, _RECORD_BATCH)
        body_size = message.number(3, "q")
        if not 0 <= body_size <= size - body:
            raise ValueError("it is longer than the file")
        table = message.table(2)
        if table.has(3) or table.has(4):
            raise ValueError("it is compressed, unlike any history")
        n_rows = table.number(0, "q")
        if not 0 <= n_rows * self.row_size <= body_size:
            raise ValueError(f"it is too small for {n_rows} rows")
        nodes, buffers = table.pairs(1), table.pairs(2)
        if len(nodes) != self._n_nodes or len(buffers) != self._n_buffers:
            raise ValueError("it has other columns than the schema")
        n_values = n_rows * self._lengths
        if (nodes[self._first_nodes, 0] != n_rows).any() or (nodes[self._last_nodes, 0] != n_values).any():
            raise ValueError("its columns differ in length")
        n_missing = nodes[self._first_nodes, 1]
        n_nulls = n_missing + nodes[self._last_nodes, 1]
        if not nulls and n_nulls.any(where=self._cannot_miss):
            raise ValueError("values are missing")
        if (n_missing < 0).any() or (n_missing > n_rows).any():
            raise ValueError("the number of its missing values is impossible")
        if ((buffers < 0) | (buffers > body_size)).any():
            raise ValueError("a buffer is outside of it")
        starts, ends = buffers[:, 0], buffers.sum(axis=1)
        if (starts[1:] < ends[:-1]).any() or ends[-1] > body_size:
            raise ValueError("its buffers overlap or are out of order")
        if (buffers[self._data_buffers, 1] < n_rows * self._sizes).any():
            raise ValueError(f"its buffers are too small for {n_rows} rows")
        metadata, offsets = _metadata(message, 4), starts[self._data_buffers].tolist()
        masked = np.flatnonzero(n_missing) if self._has_missing else np.empty(0, int)
        of_bitmaps = self._data_buffers[masked] - 1
        if (buffers[of_bitmaps, 1] < bitmap_size(n_rows)).any():
            raise ValueError(f"its bitmaps are too small for {n_rows} rows")
        bitmaps = dict(zip(masked.tolist(), starts[of_bitmaps].tolist(), strict=True))
        if not nulls:
            self._template = _BatchTemplate.from_batch(data, n_rows, offsets, bitmaps, metadata, body_size)
        return _batch(body, n_rows, offsets, bitmaps, metadata, body_size)


def _batch(
    body: int, n_rows: int, offsets: list[int], bitmaps: dict[int, int], metadata: dict[bytes, bytes], size: int
) -> Batch:
    """Make a batch of offsets in the body of its message, which begins at `body`."""
    absolute = {column: body + start for column, start in bitmaps.items()}
    return Batch(n_rows, [body + start for start in offsets], absolute, metadata, body + size)


class _BatchTemplate(NamedTuple):
    """Validated record batch: most of the next ones differ only in the text of their metadata."""

    before_text: bytes
    after_text: bytes
    size: int
    key: bytes
    n_rows: int
    offsets: list[int]
    bitmaps: dict[int, int]
    body_size: int

    @classmethod
    def from_batch(
        cls,
        data: bytes,
        n_rows: int,
        offsets: list[int],
        bitmaps: dict[int, int],
        metadata: dict[bytes, bytes],
        body_size: int,
    ) -> Self | None:
        if len(metadata) != 1 or data.count(next(iter(metadata.values()))) != 1:
            return None
        ((key, text),) = metadata.items()
        before_text, _, after_text = data.partition(text)
        return cls(before_text, after_text, len(data), key, n_rows, offsets, bitmaps, body_size)

    def match(self, data: bytes, body: int, size: int) -> Batch | None:
        """Return the batch of a message that differs in nothing else; None for any other message."""
        is_same_layout = len(data) == self.size and data.startswith(self.before_text) and data.endswith(self.after_text)
        if not is_same_layout or self.body_size > size - body:
            return None
        metadata = {self.key: data[len(self.before_text) : self.size - len(self.after_text)]}
        return _batch(body, self.n_rows, self.offsets, self.bitmaps, metadata, self.body_size)


class Schema(NamedTuple):
    """Schema of a stream: its metadata, and the offset of the next message; its columns are not validated yet."""

    table: FlatTable
    metadata: dict[bytes, bytes]
    end: int


def read_schema(file: BinaryIO, size: int) -> Schema:
    """Read the first message of a stream in a file of `size` bytes.

    Raises
    ------
    MALFORMED
        If it is not a schema.
    """
    data, end = _read_metadata(file, 0, size, size)
    table = _message(data, _SCHEMA).table(2)
    return Schema(table, _metadata(table, 2), end)


def _read_metadata(file: BinaryIO, offset: int, size: int, max_length: int) -> tuple[bytes, int]:
    """Read the metadata of the message at `offset`; return it and the offset of the message's body."""
    file.seek(offset)
    prefix = file.read(8)
    if offset + 8 <= size and len(prefix) < 8:
        raise OSError(_SHORTER)
    mark, length = struct.unpack("<4si", prefix)
    if mark != MARK or not 0 < length <= min(size - offset - 8, max_length):
        raise ValueError("it is not a message of a history, or is cut off")
    data = file.read(length)
    if len(data) < length:
        raise OSError(_SHORTER)
    return data, offset + 8 + length


def _message(data: bytes, kind: int) -> FlatTable:
    message = FlatTable(data, struct.unpack_from("<I", data)[0])
    if message.number(1, "B") != kind:
        raise ValueError("it is a message of the wrong kind")
    return message


def _metadata(table: FlatTable, slot: int) -> dict[bytes, bytes]:
    return {entry.text(0): entry.text(1) for entry in table.tables(slot, max_length=8)}


def _is_column(column: FlatTable, field: Field) -> bool:
    """Return whether a column of a schema has the name and the type of a field."""
    if column.text(0) != field.name.encode() or column.has(4):
        return False
    children = column.tables(5, max_length=1)
    if not field.shape:
        return not children and _is_number(column, field.stored)
    if column.number(2, "B") != _LIST_OF_FIXED_LENGTH or len(children) != 1:
        return False
    return column.table(3).number(0, "i") == math.prod(field.shape) and _is_number(children[0], field.stored)


def _is_number(column: FlatTable, dtype: np.dtype) -> bool:
    kind, details = column.number(2, "B"), column.table(3)
    if column.tables(5, max_length=0) or column.has(4):
        return False
    if kind == _FLOAT:
        return dtype.kind == "f" and np.dtype(_FLOATS[details.number(0, "h")]) == dtype
    if kind != _INTEGER:
        return False
    n_bits, is_signed = details.number(0, "i"), details.number(1, "?")
    return (n_bits, is_signed) == (8 * dtype.itemsize, dtype.kind == "i")
