"""Layout of the records of steps: columns, tensors, and the form in which tensors are kept."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np

    from mlflow_hp.history.schema import Tensor

FEW_WEIGHTS = 32
"""Largest number of weights that are recorded one by one under ``weights="auto"``, and shown one by one in tables."""

COSINE = "gradient_cosine"
"""Column with the cosine between the gradients of a step and the one before; of several optimizers, its beginning."""

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
    """Layout of each step's record.

    Attributes
    ----------
    columns : dict of str to str
        Column name to NumPy dtype: those of ``STEP_COLUMNS`` that are known, then ``learning_rate/<optimizer>`` where
        there are several, ``batch_<name>`` for other values of the batch alone that are known, and ``running_<name>``
        for each running value in Keras' logs.
    tensors : tuple of Tensor
        The recorded weight tensors.
    store : {"values", "statistics", "none"}
        Form in which each tensor is kept at each step.
    initial : dict of str to ndarray
        The weights before the first step: each tensor's values, or its four statistics; empty for "none".
    """

    columns: dict[str, str]
    tensors: tuple[Tensor, ...]
    store: Store
    initial: dict[str, np.ndarray]


class Rows(NamedTuple):
    """Records of k consecutive steps: columns of shape (k,), and weights of (k, *shape) or (k, 4) by tensor name."""

    columns: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]


def batch_values(steps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Select the values of each batch alone: ``loss`` first where it is known, then others by their names in Keras."""
    values = {name.removeprefix("batch_"): column for name, column in steps.items() if name.startswith("batch_")}
    return {name: values[name] for name in sorted(values, key=lambda name: name != "loss")}


def learning_rates(steps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Select the learning rates: of the only optimizer as ``learning rate``, of several by their names."""
    prefix = "learning_rate"
    names = {column: column.removeprefix(f"{prefix}/") for column in steps if column.startswith(f"{prefix}/")}
    names |= {prefix: "learning rate"} if prefix in steps else {}
    return {label: steps[column] for column, label in names.items()}


def gradient_columns(suffix: str, *, is_clipped: bool) -> list[str]:
    """Name the columns with the gradient of all tensors together; `suffix` is for one of several optimizers."""
    clipped = [f"clipped_gradient_norm{suffix}"] if is_clipped else []
    return [f"gradient_norm{suffix}", f"{COSINE}{suffix}", *clipped]


def gradient_column(tensor: str, *, clipped: bool = False) -> str:
    """Name the column with the norm of a tensor's gradient, before clipping, or after it."""
    return f"{'clipped_' if clipped else ''}gradient_norm_of/{tensor}"


def gradient_norms(steps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Select the norms of the gradients by tensor, before clipping."""
    prefix = gradient_column("")
    return {name.removeprefix(prefix): column for name, column in steps.items() if name.startswith(prefix)}


def distinct_names(names: Iterable[str]) -> list[str]:
    """Make names distinct: append ``_2``, ``_3``, ... to repeated ones."""
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
    """Count the single weights in all `tensors`."""
    return sum(math.prod(tensor.shape) for tensor in tensors)
