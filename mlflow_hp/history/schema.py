"""Schema of a history: columns of numbers and tensors, and their lossless conversion to Arrow and back."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.history.checksums import column_checksum
from mlflow_hp.history.missing import array_of, bitmap, bitmap_size, missing_in, read_bitmap, with_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

STEPS_FILE, EPOCHS_FILE, VERSION = "history.arrows", "epochs.csv", 3
STATISTICS = ("norm", "mean", "std", "update_ratio")
KEY = b"mlflow_hp"
"""Key of the header in the metadata of the stream's schema."""
CHECK = b"mlflow_hp_check"
"""Key of the checksums of the header, and of each chunk, in their metadata."""


class Tensor(NamedTuple):
    """Variable of a model.

    Attributes
    ----------
    name : str
        Name, as ``"dense/kernel"``.
    shape : tuple of int
        Its shape.
    dtype : str
        Name of its NumPy dtype.
    trainable : bool
        Whether training changes it.

    Examples
    --------
    >>> from mlflow_hp.history import Tensor
    >>> Tensor("dense/kernel", (8, 1), "float32", trainable=True).shape
    (8, 1)
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    trainable: bool


class Field(NamedTuple):
    """Column of the steps file: a number (shape ``()``) or a tensor in each row."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def stored(self) -> np.dtype:
        """Dtype on disk: the same if Arrow has it, else (bfloat16, float8, bool) its bits as an unsigned integer."""
        if self.dtype.itemsize <= 8 and self.dtype.isbuiltin == 1 and self.dtype.kind in "iuf":
            return self.dtype
        if self.dtype.itemsize <= 8 and (self.dtype.isbuiltin == 2 or self.dtype.kind == "b"):
            return np.dtype(f"u{self.dtype.itemsize}")
        raise ValueError(f"{self.name!r} has dtype {self.dtype}; a history takes numbers of up to 8 bytes")

    @property
    def can_miss(self) -> bool:
        """Whether values may be missing: those of a column of floating-point numbers."""
        return not self.shape and self.dtype.kind == "f"

    def arrow_type(self) -> Any:
        """Return the column's type in Arrow: a number, or a list of fixed length."""
        import pyarrow as pa

        number = pa.from_numpy_dtype(self.stored)
        return pa.list_(number, math.prod(self.shape)) if self.shape else number

    def to_arrow(self, values: Any, n_rows: int) -> Any:
        """Wrap values of shape (n_rows, *shape) as an Arrow array, without a copy if dtype and memory layout match."""
        import pyarrow as pa

        array = array_of(values)
        missing = missing_in(array)
        if missing is not None and not self.can_miss:
            raise ValueError(f"{self.name!r} has masked values, which only columns of floating-point numbers can have")
        if missing is not None:
            array = np.ma.filled(array, np.nan)
        if array.shape != (n_rows, *self.shape):
            raise ValueError(f"{self.name!r} has shape {array.shape}, not {(n_rows, *self.shape)}")
        if not np.can_cast(array.dtype, self.dtype, "safe"):
            raise ValueError(f"{self.name!r} is {array.dtype}, which does not fit into {self.dtype} without loss")
        flat = np.ascontiguousarray(array, self.dtype).reshape(-1).view(self.stored)
        number = pa.from_numpy_dtype(self.stored)
        bits = None if missing is None else pa.py_buffer(bitmap(missing))
        numbers = pa.Array.from_buffers(number, flat.size, [bits, pa.py_buffer(flat)])
        if not self.shape:
            return numbers
        return pa.Array.from_buffers(self.arrow_type(), n_rows, [None], children=[numbers])

    def from_arrow(self, array: Any) -> np.ndarray:
        """View an Arrow array as an ndarray of shape (n_rows, *shape), read-only; masked where values are missing."""
        if array.null_count:
            bits, numbers = (np.frombuffer(buffer, np.uint8) for buffer in array.buffers())
            values = numbers[: len(array) * self.stored.itemsize].view(self.dtype)
            return with_missing(values, read_bitmap(bits, len(array)))
        numbers = array.values if self.shape else array
        flat: np.ndarray = numbers.to_numpy(zero_copy_only=True).view(self.dtype)
        return flat.reshape(len(array), *self.shape)

    def checksum(self, array: Any) -> int:
        """Return the checksum of an Arrow array's values, and of its bitmap if values are missing."""
        numbers = array.values if self.shape else array
        bits, buffer = numbers.buffers()
        size = len(numbers) * self.stored.itemsize
        content = np.frombuffer(buffer, np.uint8, size) if size else np.empty(0, np.uint8)
        present = np.frombuffer(bits, np.uint8, bitmap_size(len(array))) if array.null_count else None
        return column_checksum(content, VERSION, present)


def fields_of(header: Mapping[str, Any]) -> tuple[list[Field], list[Field]]:
    """Derive the columns of the steps file from its header: those of the steps, and those of the weights."""
    steps = [Field(name, (), dtype_of(dtype)) for name, dtype in header["columns"].items()]
    tensors = [Tensor(**tensor) for tensor in header["tensors"]]
    for tensor in tensors:
        if not isinstance(tensor.name, str) or not all(isinstance(size, int) and size >= 0 for size in tensor.shape):
            raise ValueError(f"a tensor cannot have the name {tensor.name!r} and the shape {tensor.shape}")
    recorded = [Field(tensor.name, tuple(tensor.shape), dtype_of(tensor.dtype)) for tensor in tensors]
    if header["weights"] not in ("values", "statistics", "none"):
        raise ValueError(f"weights={header['weights']!r} is none of 'values', 'statistics', 'none'")
    if header["weights"] == "statistics":
        float64 = np.dtype(np.float64)
        recorded = [Field(f"{tensor.name}/{key}", (), float64) for tensor in recorded for key in STATISTICS]
    elif header["weights"] == "none":
        recorded = []
    names = [field.name for field in (*steps, *recorded)]
    if not steps or len(set(names)) < len(names):
        raise ValueError(f"a history needs at least one column, and distinct names: {names}")
    return steps, recorded


def dtype_of(name: str) -> np.dtype:
    """Return the NumPy dtype of this name, including those that TensorFlow adds (bfloat16, float8)."""
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not the name of a dtype")
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes  # a dependency of TensorFlow: bfloat16, float8_e5m2 and the like

        return np.dtype(getattr(ml_dtypes, name))


def check_names(kind: str, values: Mapping[str, Any], names: Sequence[str]) -> None:
    """Raise ValueError if the keys of `values` are not `names`."""
    if set(values) != set(names):
        raise ValueError(f"{kind} have the names {sorted(values)}, not {sorted(names)}")


ELEMENTS_AT_ONCE = 2**20
"""Elements of which float64 copies are made at once: they take some MiB."""


def statistics_of(weights: np.ndarray) -> np.ndarray:
    """Compute the ``STATISTICS`` of a tensor in each row.

    Parameters
    ----------
    weights : ndarray of shape (rows, *shape)
        A tensor, row by row.

    Returns
    -------
    ndarray of shape (rows, 4)
        float64: Euclidean norm, mean, population standard deviation, and |w - w before| / |w before| from row to
        row (nan in row 0; inf if the tensor was zero before). For a tensor without elements: 0, nan, nan, nan.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.history import statistics_of
    >>> statistics_of(np.array([[3.0, 4.0], [3.0, 5.0]]))[1].round(3)  # norm, mean, std, update ratio
    array([5.831, 4.   , 1.   , 0.2  ])
    """
    size = math.prod(weights.shape[1:])
    flat = weights.reshape(len(weights), size)
    result = np.full((len(weights), len(STATISTICS)), np.nan)
    block = max(1, ELEMENTS_AT_ONCE // max(size, 1))
    with np.errstate(all="ignore"):
        if size > ELEMENTS_AT_ONCE:
            for row, values in enumerate(flat):
                result[row, :3], moved = _parts_of_large(values, flat[max(row - 1, 0)])
                result[row, 3] = moved / result[row - 1, 0] if row else np.nan
            return result
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


def _parts_of_large(values: np.ndarray, before: np.ndarray) -> tuple[tuple[float, float, float], float]:
    """Norm, mean and standard deviation of a tensor, and the norm of its change, from one part of it after another."""

    def total(function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> float:
        parts = [slice(start, start + ELEMENTS_AT_ONCE) for start in range(0, len(values), ELEMENTS_AT_ONCE)]
        return float(sum(function(values[part].astype(np.float64), before[part]).sum() for part in parts))

    mean = total(lambda part, _: part) / len(values)
    spread = total(lambda part, _: np.square(part - mean)) / len(values)
    norm, moved = total(lambda part, _: np.square(part)), total(lambda part, old: np.square(part - old))
    return (math.sqrt(norm), mean, math.sqrt(spread)), math.sqrt(moved)
