"""Turns in which large tensors are reduced, so that no more of them is copied at a time than memory allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_BYTES = 2**24
"""Memory of the tensors of a turn, unless the largest tensor takes more."""
NONE = -1
"""Number of the turn at a step where no large tensor is due."""


def turns_of(sizes: Sequence[int]) -> np.ndarray:
    """Assign tensors to turns, in order.

    Parameters
    ----------
    sizes : sequence of int
        Size of each tensor, in bytes.

    Returns
    -------
    ndarray of shape (n_tensors,)
        Turn of each tensor, int, 0-based: those of a turn take at most ``MAX_BYTES``, or as much as the largest.

    Examples
    --------
    >>> turns_of([6_000_000, 16_000_000, 4_000_000, 4_000_000]).tolist()
    [0, 1, 2, 2]
    """
    limit = max([MAX_BYTES, *sizes])
    turns, turn, filled = [], 0, 0
    for size in sizes:
        if filled + size > limit:
            turn, filled = turn + 1, 0
        turns.append(turn)
        filled += size
    return np.array(turns, int)
