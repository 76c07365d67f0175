"""Shares of dead and saturated units in the table of epochs: a column for each layer, null where none was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

DEAD_UNITS = "dead_units/"
"""Prefix of the columns with the share of a layer's units that output 0 for each sample."""
SATURATED_UNITS = "saturated_units/"
"""Prefix of the columns with the share of a layer's outputs at the ends of the range of sigmoid or tanh."""

Value = TypeVar("Value")


def is_unit_share(column: str) -> bool:
    """Whether a column of epochs has shares of units, not a value that Keras logged."""
    return column.startswith((DEAD_UNITS, SATURATED_UNITS))


def without_unit_shares(epoch: Mapping[str, Value]) -> dict[str, Value]:
    """Copy the values or the columns of epochs without shares of units."""
    return {name: value for name, value in epoch.items() if not is_unit_share(name)}


def last_unit_shares(epochs: Mapping[str, np.ndarray], prefix: str) -> dict[str, float]:
    """Return the last known share of each layer.

    Parameters
    ----------
    epochs : mapping of str to ndarray of shape (n_epochs,)
        Columns of the table of epochs.
    prefix : str
        ``DEAD_UNITS`` or ``SATURATED_UNITS``.

    Returns
    -------
    dict of str to float
        Layer -> share, 0 to 1; empty if none was measured, as in histories of earlier versions.
    """
    columns = {name.removeprefix(prefix): values for name, values in epochs.items() if name.startswith(prefix)}
    known = {layer: values[np.isfinite(values)] for layer, values in columns.items()}
    return {layer: float(values[-1]) for layer, values in known.items() if len(values)}
