"""What a step's record holds: its columns, its tensors, and what is kept of these."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from mlflow_hp.history.schema import Tensor

FEW_WEIGHTS = 32
"""A model with at most this many weights is recorded weight by weight under ``weights="auto"``."""

Store = Literal["values", "statistics", "none"]

STEP_COLUMNS = {
    "step": "int64",
    "epoch": "int64",
    "batch": "int64",
    "time": "float64",
    "samples": "int64",
    "learning_rate": "float64",
    "batch_loss": "float64",
}


class Layout(NamedTuple):
    """What each step's record holds.

    Attributes
    ----------
    columns : dict of str to str
        Column name to NumPy dtype; ``STEP_COLUMNS``, then one ``running_<name>`` for each entry of Keras' logs.
    tensors : tuple of Tensor
        The weight tensors that are recorded.
    store : {"values", "statistics", "none"}
        What is kept of each tensor at each step.
    initial : dict of str to ndarray
        The weights before the first step: each tensor's values, or its four statistics; empty for "none".
    """

    columns: dict[str, str]
    tensors: tuple[Tensor, ...]
    store: Store
    initial: dict[str, np.ndarray]


class Rows(NamedTuple):
    """The records of k consecutive steps: columns (k,), and weights (k, *shape) or (k, 4) by tensor name."""

    columns: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def distinct(names: Iterable[str]) -> list[str]:
    """The same names, those seen before with ``_2``, ``_3``, ... behind them."""
    seen: set[str] = set()
    result = []
    for name in names:
        candidate, count = name, 1
        while candidate in seen:
            count += 1
            candidate = f"{name}_{count}"
        seen.add(candidate)
        result.append(candidate)
    return result


def n_weights(tensors: Iterable[Tensor]) -> int:
    """Number of single weights in all `tensors`."""
    return sum(math.prod(tensor.shape) for tensor in tensors)
