"""What is recorded of each step: the columns, the tensors and their names, decided once the model is built."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.history import Tensor, statistics_of
from mlflow_hp.history.step_record import FEW_WEIGHTS, STEP_COLUMNS, Store, distinct

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def store_for(weights: str, n_weights: int) -> Store:
    """What is kept of the weights of a model with `n_weights` of them, given the recorder's `weights`."""
    if weights == "auto":
        return "values" if n_weights <= FEW_WEIGHTS else "statistics"
    stores: dict[str, Store] = {"all": "values", "statistics": "statistics", "none": "none"}
    return stores[weights]


def tensors_of(model: Any) -> tuple[Tensor, ...]:
    """Name, shape and dtype of each weight tensor of a built Keras model, in the order of ``model.weights``.

    The name is the variable's path in the model, without the model's own name: ``dense/kernel``. Where two
    paths are equal, the later ones get ``_2``, ``_3`` and so on.
    """
    paths = [variable.path for variable in model.weights]
    prefix = f"{model.name}/"
    if all(path.startswith(prefix) and path.count("/") > 1 for path in paths):
        paths = [path.removeprefix(prefix) for path in paths]
    return tuple(
        Tensor(name, tuple(variable.shape), str(variable.dtype), bool(variable.trainable))
        for name, variable in zip(distinct([*STEP_COLUMNS, *paths])[len(STEP_COLUMNS) :], model.weights, strict=True)
    )


def initial_weights(model: Any, tensors: Sequence[Tensor], store: Store) -> dict[str, np.ndarray]:
    """The weights as they are now, in the form that `store` keeps."""
    if store == "none":
        return {}
    values = {tensor.name: np.array(variable.numpy()) for tensor, variable in zip(tensors, model.weights, strict=True)}
    if store == "values":
        return values
    return {name: statistics_of(value[None])[0] for name, value in values.items()}


def trainable_weights(model: Any) -> dict[str, np.ndarray]:
    """The weights that train, as they are now, by the names of `tensors_of`; empty for a model not yet built."""
    tensors = zip(tensors_of(model), model.weights, strict=True)
    return {tensor.name: variable.numpy() for tensor, variable in tensors if tensor.trainable}


class Unwrappable(Exception):  # noqa: N818 - it tells a way, not an error: the host reader takes over
    """Why a model's training step can't be read inside the graph."""


class NothingRanError(Exception):
    """The reading failed before a step took data: Keras' own train function can be called instead."""


def leaves_of(logs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Name and value of each entry of Keras' logs, in their order; those of logs inside logs come one by one."""

    def leaves(part: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, value in part.items():
            if isinstance(value, Mapping):
                yield from leaves(value)
            else:
                yield str(name), value

    found = list(leaves(logs))
    return list(zip(distinct(name for name, _ in found), (value for _, value in found), strict=True))


def numbers_of(logs: Mapping[str, Any]) -> dict[str, float]:
    """Those of Keras' logs that are single real numbers."""
    numbers: dict[str, float] = {}
    for name, value in leaves_of(logs):
        if not isinstance(value, str | bytes) and not tuple(getattr(value, "shape", ())):
            with contextlib.suppress(TypeError, ValueError, OverflowError):  # no number: a list, a date, None
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
        """The step behind the `pending` uncounted ones is the first of `epoch`."""
        self._starts.append((self._next + pending, epoch))

    def count(self, k: int) -> dict[str, np.ndarray]:
        """Columns step, epoch and batch, each (k,), of the next `k` steps."""
        step = np.arange(self._next, self._next + k)
        starts, epochs = np.array(self._starts).T
        index = np.searchsorted(starts, step, side="right") - 1
        self._next += k
        self._starts = self._starts[index[-1] :] if k else self._starts
        return {"step": step, "epoch": epochs[index], "batch": step - starts[index]}


def build(model: Any, element_spec: Any) -> None:
    """Create the weights of a model that has not seen data yet, as its first step would, without taking data.

    Parameters
    ----------
    model : keras.Model
        A compiled model.
    element_spec : nested structure of tf.TypeSpec
        What one batch of the training data looks like.
    """
    if all(layer.built for layer in model._flatten_layers()):
        return
    from keras import tree

    def input_or_none(spec: Any) -> Any:
        return None if type(spec).__name__ == "OptionalSpec" else spec

    model._symbolic_build(data_batch=tree.map_structure(input_or_none, element_spec))


@contextlib.contextmanager
def tapped(tracker: Any) -> Iterator[list[dict[str, Any]]]:
    """Keep what Keras' loss tracker is given inside the block: ``values`` and ``sample_weight``, one dict a call."""
    seen: list[dict[str, Any]] = []
    if tracker is None:
        yield seen
        return
    update_state = tracker.update_state

    def update_and_keep(*arguments: Any, **named: Any) -> Any:
        seen.append(dict(zip(("values", "sample_weight"), arguments, strict=False)) | named)
        return update_state(*arguments, **named)

    tracker.update_state = update_and_keep
    try:
        yield seen
    finally:
        del tracker.update_state
