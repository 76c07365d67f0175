"""Digest of arrays and tables: equal for equal content in any program, fast enough for gigabytes.

Up to 512 MiB, all bytes are hashed; of larger data, blocks of 1 MiB spread evenly over each array, together 512 MiB;
and in any case all names, types and shapes. A text counts as `BYTES_OF_TEXT`, since it takes as long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

BYTES_HASHED = 2**29
"""Size of the part of larger data that is hashed."""
BLOCK = 2**20
"""Size of the blocks of which it consists."""
BYTES_OF_TEXT = 2000
"""Size at which a text counts."""
TEXTS_OF_BLOCK = 10_000
"""Number of texts in a block."""


class UnknownDataError(Exception):
    """Data of which no digest can be made without reading them as a training would."""


class Part(NamedTuple):
    """An array, or a column of a table.

    Attributes
    ----------
    name : str
        Path in its structure, such as ``age`` or ``0/age``; empty for a single array.
    dtype : numpy.dtype
    shape : tuple of int
    values : callable
        Returns the rows from the first argument to the second, as an array.
    """

    name: str
    dtype: Any
    shape: tuple[int, ...]
    values: Callable[[int, int], Any]


def parts_of(value: Any, name: str = "") -> list[Part]:
    """List the arrays of a structure.

    Parameters
    ----------
    value : array, DataFrame, Series, or dict or list of these
        The structure.
    name : str
        Path of it in a larger one. Defaults to none.

    Raises
    ------
    UnknownDataError
        If it holds something else.
    """
    import pandas as pd

    if value is None:
        return []
    if isinstance(value, Mapping):
        return [part for key in sorted(value, key=str) for part in parts_of(value[key], _path(name, key))]
    if isinstance(value, (list, tuple)):
        return [part for number, each in enumerate(value) for part in parts_of(each, _path(name, number))]
    if isinstance(value, pd.DataFrame):
        return [_column(value, number, _path(name, label)) for number, label in enumerate(value.columns)]
    if not hasattr(value, "__array__"):
        raise UnknownDataError(type(value).__name__)
    try:
        array = np.asarray(value)
    except Exception as error:
        raise UnknownDataError(str(error)) from error
    return [Part(name, array.dtype, array.shape, lambda start, stop: array[start:stop] if array.shape else array)]


def _path(name: str, key: object) -> str:
    return f"{name}/{key}" if name else str(key)


def _column(table: pd.DataFrame, number: int, name: str) -> Part:
    column = table.iloc[:, number]
    dtype = column.dtype if isinstance(column.dtype, np.dtype) else np.dtype(object)
    return Part(name, dtype, (len(table),), lambda start, stop: column.iloc[start:stop].to_numpy(dtype))


def digest_of(parts: Mapping[str, list[Part]], more: str = "") -> str:
    """Digest of arrays with a role each, such as features and targets, and of a text.

    Parameters
    ----------
    parts : mapping of str to list of Part
        Role -> arrays.
    more : str
        Defaults to none.

    Returns
    -------
    str
        16 hexadecimal digits.

    Raises
    ------
    UnknownDataError
        For arrays of other objects than numbers and texts.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.tracking.array_digest import digest_of, parts_of
    >>> rows, columns = np.arange(6.0).reshape(3, 2), np.arange(6.0).reshape(3, 2, order="F")
    >>> digest_of({"features": parts_of(rows)}) == digest_of({"features": parts_of(np.asfortranarray(rows))})
    True
    >>> digest_of({"features": parts_of(rows)}) == digest_of({"features": parts_of(columns)})
    False
    """
    n_bytes = sum(_size(part) for each in parts.values() for part in each)
    share = min(1.0, BYTES_HASHED / max(1, n_bytes))
    hashed = xxhash.xxh3_64(more.encode())
    for role, each in parts.items():
        for part in each:
            hashed.update(f"{role} {part.name!r} {part.dtype.str} {part.shape};".encode())
            for block in _blocks(part, share):
                hashed.update(_bytes(block))
    return str(hashed.hexdigest())


def _size(part: Part) -> int:
    return math.prod(part.shape) * (BYTES_OF_TEXT if part.dtype.hasobject else part.dtype.itemsize)


def _blocks(part: Part, share: float) -> Iterator[Any]:
    n_rows = part.shape[0] if part.shape else 1
    if not _size(part):
        return
    rows = TEXTS_OF_BLOCK if part.dtype.hasobject else max(1, BLOCK * n_rows // _size(part))
    n_blocks = math.ceil(n_rows / rows)
    for number in np.unique(np.linspace(0, n_blocks - 1, max(1, math.ceil(n_blocks * share))).astype(int)):
        yield part.values(int(number) * rows, min(n_rows, (int(number) + 1) * rows))


def _bytes(values: np.ndarray) -> Any:
    if values.dtype.hasobject:
        import pandas as pd

        try:
            values = pd.util.hash_array(values.reshape(-1))
        except Exception as error:
            raise UnknownDataError(str(error)) from error
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
