"""Arrays of a history in memory, checked against its header."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.history.missing import array_of
from mlflow_hp.history.schema import STATISTICS, check_names, fields_of

if TYPE_CHECKING:
    from collections.abc import Mapping


def checked_arrays(
    header: Mapping[str, Any],
    steps: Mapping[str, Any],
    weights: Mapping[str, Any],
    statistics: Mapping[str, Mapping[str, Any]],
) -> dict[str, np.ndarray]:
    """Convert steps, and weights or statistics, to the columns that the header declares.

    Raises
    ------
    ValueError
        If names or shapes do not match the header.
    """
    arrays = {name: array_of(values) for name, values in {**steps, **weights}.items()}
    for name, of_tensor in statistics.items():
        arrays |= {f"{name}/{key}": array_of(of_tensor[key], np.float64) for key in STATISTICS}
    fields = [field for group in fields_of(header) for field in group]
    check_names("arrays", arrays, [field.name for field in fields])
    n_steps = len(arrays[next(iter(header["columns"]))])
    for field in fields:
        shape = (n_steps if field.name in header["columns"] else n_steps + 1, *field.shape)
        if arrays[field.name].shape != shape:
            raise ValueError(f"{field.name!r} has shape {arrays[field.name].shape}, not {shape}")
        arrays[field.name] = arrays[field.name].astype(field.dtype, copy=False)
    return arrays
