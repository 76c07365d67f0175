"""The columns of a history: numbers and tensors, and how they go to Arrow and back without loss."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STEPS_FILE, EPOCHS_FILE, VERSION = "history.arrows", "epochs.csv", 1
STATISTICS = ("norm", "mean", "std", "update_ratio")
KEY = b"mlflow_hp"  # of our entry in the metadata of the stream's schema
CHECK = b"mlflow_hp_check"  # of what tells whether the head, or a chunk, is still as it was written
SECTOR = 512  # bytes that are added up for a checksum
PIECE = SECTOR * 2**13  # bytes that a checksum goes through at once


class Tensor(NamedTuple):
    """A variable of the model: name (``"dense/kernel"``), shape, numpy dtype by name, whether it trains."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool


class Field(NamedTuple):
    """A column of the steps file: a number (shape ``()``) or a tensor in each row."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def stored(self) -> np.dtype:
        """The dtype on disk: Arrow's, where it has it; else (bfloat16, float8, bool) the bits, unsigned."""
        if self.dtype.itemsize <= 8 and self.dtype.isbuiltin == 1 and self.dtype.kind in "iuf":
            return self.dtype
        if self.dtype.itemsize <= 8 and (self.dtype.isbuiltin == 2 or self.dtype.kind == "b"):
            return np.dtype(f"u{self.dtype.itemsize}")
        raise ValueError(f"{self.name!r} has dtype {self.dtype}; a history takes numbers of up to 8 bytes")

    def arrow_type(self) -> Any:
        """The column's type in Arrow: a number, or a list of fixed length."""
        import pyarrow as pa

        number = pa.from_numpy_dtype(self.stored)
        return pa.list_(number, math.prod(self.shape)) if self.shape else number

    def to_arrow(self, values: Any, rows: int) -> Any:
        """Wrap (rows, *shape) as an Arrow array; without a copy where dtype and memory layout are right."""
        import pyarrow as pa

        array = np.asarray(values)
        if array.shape != (rows, *self.shape):
            raise ValueError(f"{self.name!r} has shape {array.shape}, not {(rows, *self.shape)}")
        if not np.can_cast(array.dtype, self.dtype, "safe"):
            raise ValueError(f"{self.name!r} is {array.dtype}, which {self.dtype} does not hold without loss")
        flat = np.ascontiguousarray(array, self.dtype).reshape(-1).view(self.stored)
        number = pa.from_numpy_dtype(self.stored)
        numbers = pa.Array.from_buffers(number, flat.size, [None, pa.py_buffer(flat)])
        if not self.shape:
            return numbers
        return pa.Array.from_buffers(self.arrow_type(), rows, [None], children=[numbers])

    def from_arrow(self, array: Any) -> np.ndarray:
        """View an Arrow array as (rows, *shape), read-only."""
        numbers = array.values if self.shape else array
        flat: np.ndarray = numbers.to_numpy(zero_copy_only=True).view(self.dtype)
        return flat.reshape(len(array), *self.shape)

    def checksum(self, array: Any) -> int:
        """The `checksum` of what an Arrow array holds."""
        numbers = array.values if self.shape else array
        buffer = numbers.buffers()[1]
        size = len(numbers) * self.stored.itemsize
        return checksum(np.frombuffer(buffer, np.uint8, size) if size else np.empty(0, np.uint8))


def checksum(numbers: np.ndarray) -> int:
    """CRC-32 of an array's bytes, of which the whole sectors of 512 are first added up, as 64-bit words.

    This costs a seventh of the CRC-32 of all, and still tells each altered byte, word or sector, and sectors that were
    exchanged; what it does not tell are changes that cancel out within a sector.
    """
    data = np.ascontiguousarray(numbers).reshape(-1).view(np.uint8)
    whole, found = data.size // SECTOR * SECTOR, 0
    for start in range(0, whole, PIECE):
        words = data[start : min(start + PIECE, whole)].view("<u8")
        found = zlib.crc32(words.reshape(-1, SECTOR // 8).sum(axis=1, dtype="<u8").data, found)
    return zlib.crc32(data[whole:].data, found)


def check_of(rows: int, checksums: Sequence[int]) -> bytes:
    """What a chunk's metadata has under ``CHECK``: its number of rows, and the checksum of each column, in hex."""
    return np.array([rows, *checksums], "<u4").tobytes().hex().encode()


def checks_of(text: bytes, columns: int) -> tuple[int, list[int]]:
    """Number of rows and checksums, as `check_of` wrote them. ValueError where it did not."""
    rows, *checksums = np.frombuffer(bytes.fromhex(text.decode("ascii")), "<u4").tolist() or [0]
    if len(checksums) != columns:
        raise ValueError(f"a chunk of {columns} columns has {len(checksums)} checksums")
    return rows, checksums


def fields_of(head: Mapping[str, Any]) -> tuple[list[Field], list[Field]]:
    """Give the columns of the steps file from its head: those of the steps, those of the weights."""
    steps = [Field(name, (), dtype_of(dtype)) for name, dtype in head["columns"].items()]
    tensors = [Tensor(**tensor) for tensor in head["tensors"]]
    for tensor in tensors:
        if not isinstance(tensor.name, str) or not all(isinstance(size, int) and size >= 0 for size in tensor.shape):
            raise ValueError(f"there can be no tensor {tensor.name!r} of shape {tensor.shape}")
    recorded = [Field(tensor.name, tuple(tensor.shape), dtype_of(tensor.dtype)) for tensor in tensors]
    if head["weights"] not in ("values", "statistics", "none"):
        raise ValueError(f"weights={head['weights']!r} is none of 'values', 'statistics', 'none'")
    if head["weights"] == "statistics":
        float64 = np.dtype(np.float64)
        recorded = [Field(f"{tensor.name}/{key}", (), float64) for tensor in recorded for key in STATISTICS]
    elif head["weights"] == "none":
        recorded = []
    names = [field.name for field in (*steps, *recorded)]
    if not steps or len(set(names)) < len(names):
        raise ValueError(f"columns of the history need names of their own, and at least one: {names}")
    return steps, recorded


def dtype_of(name: str) -> np.dtype:
    """The NumPy dtype by name, also of those that TensorFlow adds (bfloat16, float8)."""
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is no name of a dtype")
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # TensorFlow brings it: bfloat16, float8_e5m2 and the like

        return np.dtype(getattr(ml_dtypes, name))


def same_names(what: str, came: Mapping[str, Any], wanted: Sequence[str]) -> None:
    """Raise ValueError where what came has other names than wanted."""
    if set(came) != set(wanted):
        raise ValueError(f"{what} came for {sorted(came)}, not for {sorted(wanted)}")


def statistics_of(weights: np.ndarray) -> np.ndarray:
    """Compute the ``STATISTICS`` of a tensor in each row.

    Parameters
    ----------
    weights : ndarray of shape (rows, *shape)

    Returns
    -------
    ndarray of shape (rows, 4)
        float64: Euclidean norm, mean, standard deviation of the population, and |w - w before| / |w before|
        from row to row (nan in row 0; where the tensor leaves zero: inf). Without elements: 0, nan, nan, nan.
    """
    size = math.prod(weights.shape[1:])
    flat = weights.reshape(len(weights), size)
    result = np.full((len(weights), len(STATISTICS)), np.nan)
    block = max(1, 2**20 // max(size, 1))  # the float64 copies stay at some MiB
    with np.errstate(all="ignore"):
        for start in range(0, len(weights), block):
            before = max(start - 1, 0)
            values = flat[before : start + block].astype(np.float64)
            rows = slice(before, before + len(values))
            result[rows, 0] = np.sqrt(np.square(values).sum(axis=1))
            if size:
                result[rows, 1], result[rows, 2] = values.mean(axis=1), values.std(axis=1)
            moved = np.sqrt(np.square(np.diff(values, axis=0)).sum(axis=1))
            result[before + 1 : rows.stop, 3] = moved / result[before : rows.stop - 1, 0]
    return result
