"""The columns of a history: numbers and tensors, and how they go to Arrow and back without loss."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STEPS_FILE, EPOCHS_FILE, VERSION = "history.arrows", "epochs.csv", 1
STATISTICS = ("norm", "mean", "std", "update_ratio")
KEY = b"mlflow_hp"  # of our entry in the metadata of the stream's schema


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

    def read_arrow(self, array: Any, file: Any, mapped_at: int, to: np.ndarray) -> None:
        """Read an Arrow array of a mapped file, but from the file: a map would fetch its neighbours too."""
        if to.size:
            numbers = array.values if self.shape else array
            file.seek(numbers.buffers()[1].address - mapped_at)
            if file.readinto(to.reshape(-1).view(np.uint8)) != to.nbytes:
                raise OSError(f"{file.name} became shorter while it was read")


def fields_of(head: Mapping[str, Any]) -> tuple[list[Field], list[Field]]:
    """Give the columns of the steps file from its head: those of the steps, those of the weights."""
    steps = [Field(name, (), dtype_of(dtype)) for name, dtype in head["columns"].items()]
    recorded = [Field(t["name"], tuple(t["shape"]), dtype_of(t["dtype"])) for t in head["tensors"]]
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
