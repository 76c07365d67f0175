"""Layout of the record of a step: columns, tensors and their names, determined once the model is built."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp._compat.keras import build_without_data, is_built
from mlflow_hp.history import Tensor, statistics_of
from mlflow_hp.history.step_record import FEW_WEIGHTS, STEP_COLUMNS, Store, distinct_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def store_for(weights: str, n_weights: int) -> Store:
    """Form in which to store the weights of a model with `n_weights` weights, by the recorder's `weights`."""
    if weights == "auto":
        return "values" if n_weights <= FEW_WEIGHTS else "statistics"
    stores: dict[str, Store] = {"all": "values", "statistics": "statistics", "none": "none"}
    return stores[weights]


def tensors_of(model: Any) -> tuple[Tensor, ...]:
    """Name, shape and dtype of each weight tensor of a built Keras model, in the order of ``model.weights``.

    The name is the variable's path in the model, without the model's own name: ``dense/kernel``. Equal paths are
    numbered: ``_2``, ``_3`` and so on.
    """
    paths = [variable.path for variable in model.weights]
    prefix = f"{model.name}/"
    if all(path.startswith(prefix) and path.count("/") > 1 for path in paths):
        paths = [path.removeprefix(prefix) for path in paths]
    names = distinct_names([*STEP_COLUMNS, *paths])[len(STEP_COLUMNS) :]
    return tuple(
        Tensor(name, tuple(variable.shape), str(variable.dtype), bool(variable.trainable))
        for name, variable in zip(names, model.weights, strict=True)
    )


def initial_weights(model: Any, tensors: Sequence[Tensor], store: Store) -> dict[str, np.ndarray]:
    """Current weights, in the form `store`."""
    if store == "none":
        return {}
    named = [(tensor.name, variable) for tensor, variable in zip(tensors, model.weights, strict=True)]
    if store == "values":
        return {name: np.array(variable.numpy()) for name, variable in named}
    return {name: statistics_of(np.asarray(variable.numpy())[None])[0] for name, variable in named}


def trainable_weights(model: Any) -> dict[str, np.ndarray]:
    """Current trainable weights, by the names of `tensors_of`; empty for a model not yet built."""
    tensors = zip(tensors_of(model), model.weights, strict=True)
    return {tensor.name: variable.numpy() for tensor, variable in tensors if tensor.trainable}


class Unwrappable(Exception):  # noqa: N818 - no error: the host reader is used instead
    """Raised if a model's training step cannot be read inside the graph; the message says why."""


class NothingRanError(Exception):
    """Raised if reading failed before a step took data, so that Keras' own train function can be called instead."""


def batch_column(name: str) -> str:
    """Name of the column with a batch's own value of an entry of the logs."""
    return f"batch_{name}"


def running_column(name: str) -> str:
    """Name of the column with the running value of an entry of the logs."""
    return f"running_{name}"


def rate_columns(optimizers: Sequence[str]) -> list[str]:
    """Names of the columns with the learning rates of `optimizers`."""
    return ["learning_rate"] if len(optimizers) == 1 else [f"learning_rate/{name}" for name in optimizers]


def columns_of(optimizers: Sequence[str], batch: Iterable[str], running: Iterable[str]) -> list[str]:
    """Columns of a step's values: learning rates of its `optimizers`, values of the batch alone, running values."""
    return [*rate_columns(optimizers), *map(batch_column, batch), *map(running_column, running)]


def kinds_of(columns: Iterable[str]) -> dict[str, str]:
    """Map each column of a record to its NumPy dtype; step, epoch and batch are first."""
    names = list(columns)
    first = {name: kind for name, kind in STEP_COLUMNS.items() if name in ("step", "epoch", "batch", *names)}
    return first | {name: "float64" for name in names if name not in first}


def leaves_of(logs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Name and value of each entry of Keras' logs, in order, with nested logs flattened."""

    def leaves(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in part.items():
            if isinstance(value, Mapping):
                yield from leaves(value)
            else:
                yield str(name), value

    entries = list(leaves(logs))
    return list(zip(distinct_names(name for name, _ in entries), (value for _, value in entries), strict=True))


def numbers_of(logs: Mapping[str, Any]) -> dict[str, float]:
    """Entries of Keras' logs that are single real numbers."""
    numbers: dict[str, float] = {}
    for name, value in leaves_of(logs):
        if not isinstance(value, str | bytes) and not tuple(getattr(value, "shape", ())):
            with contextlib.suppress(TypeError, ValueError, OverflowError):  # not a number: a list, a date, None
                numbers[name] = float(value)
    return numbers


class EpochCounter:
    """Counts steps, epochs and batches (each 0-based) of a fit on the host.

    Parameters
    ----------
    first_step : int
        Number of the fit's first step in its run.
    """

    def __init__(self, first_step: int) -> None:
        self._next = first_step
        self._starts: list[tuple[int, int]] = [(first_step, 0)]

    def begin_epoch(self, epoch: int, pending: int) -> None:
        """Note that the step after the `pending` uncounted ones is the first of `epoch` (0-based)."""
        self._starts.append((self._next + pending, epoch))

    def count(self, k: int) -> dict[str, np.ndarray]:
        """Count `k` steps; return their columns step, epoch and batch, each (k,)."""
        step = np.arange(self._next, self._next + k)
        starts, epochs = np.array(self._starts).T
        index = np.searchsorted(starts, step, side="right") - 1
        self._next += k
        self._starts = self._starts[index[-1] :] if k else self._starts
        return {"step": step, "epoch": epochs[index], "batch": step - starts[index]}


def inputs_of(element_spec: Any) -> Any:
    """Return the specification of what ``train_step`` gets, with None for an input that Keras' data adapters lack.

    Parameters
    ----------
    element_spec : nested structure of tf.TypeSpec
        Specification of one batch of the training data.
    """
    from keras import tree

    def input_or_none(spec: Any) -> Any:
        return None if type(spec).__name__ == "OptionalSpec" else spec

    return tree.map_structure(input_or_none, element_spec)


def without_optionals(data: Any) -> Any:
    """Return a batch as ``train_step`` gets it: None for an input that Keras' data adapters give as an Optional."""
    import tensorflow as tf
    from keras import tree

    return tree.map_structure(lambda part: None if isinstance(part, tf.experimental.Optional) else part, data)


def build(model: Any, inputs: Any) -> None:
    """Create the weights of an unbuilt model, as its first step would, without taking data.

    Parameters
    ----------
    model : keras.Model
        Compiled.
    inputs : nested structure of tf.TypeSpec
        As `inputs_of` returns.
    """
    if not is_built(model):
        build_without_data(model, inputs)


def to_numpy(value: Any) -> np.ndarray:
    """Convert a tensor or a number; by TensorFlow's own method, as NumPy 2 warns of the one that Keras uses."""
    import keras

    if keras.backend.backend() == "tensorflow" and hasattr(value, "numpy"):
        return np.asarray(value.numpy())
    return np.asarray(keras.ops.convert_to_numpy(value))
