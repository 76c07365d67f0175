"""Missing values of a column: masked arrays in memory, a bitmap of those that are there in Arrow."""

from __future__ import annotations

from typing import Any

import numpy as np


def array_of(values: Any, dtype: np.dtype | type | None = None) -> np.ndarray:
    """Convert to an array, masked if `values` are."""
    if isinstance(values, np.ma.MaskedArray):
        return values if dtype is None else values.astype(dtype, copy=False)
    return np.asarray(values, dtype)


def missing_in(values: np.ndarray) -> np.ndarray | None:
    """Return where values are missing; None if nowhere."""
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    return mask if mask is not None and mask.any() else None


def with_missing(values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Mask values; they stay a plain array if none is missing."""
    return np.ma.masked_array(values, missing) if missing.any() else values


def nan_where_missing(values: np.ndarray) -> np.ndarray:
    """Convert a masked array to a plain one, with NaN where a value is missing."""
    if not isinstance(values, np.ma.MaskedArray):
        return values
    return values.filled(np.nan) if missing_in(values) is not None else values.data


def stacked(columns: list[np.ndarray]) -> np.ndarray:
    """Stack columns of k rows to shape (k, n_columns), masked if one of them is."""
    is_masked = any(isinstance(column, np.ma.MaskedArray) for column in columns)
    return np.ma.stack(columns, axis=1) if is_masked else np.stack(columns, axis=1)


def bitmap(missing: np.ndarray) -> np.ndarray:
    """Make the bitmap of a column: a bit for each row, 1 where the value is there."""
    return np.packbits(~missing, bitorder="little")


def read_bitmap(bits: np.ndarray, n_rows: int) -> np.ndarray:
    """Return where the values of `n_rows` rows are missing."""
    return ~np.unpackbits(bits, count=n_rows, bitorder="little").astype(bool)


def bitmap_size(n_rows: int) -> int:
    """Bytes of the bitmap of a column."""
    return (n_rows + 7) // 8
