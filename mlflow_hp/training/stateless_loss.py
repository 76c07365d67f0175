"""The loss of a compiled Keras model at other weights than its own, which stay as they are."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
from keras import ops, tree

from mlflow_hp._compat.keras import build_loss, compute_loss, layers_of
from mlflow_hp.errors import UserError
from mlflow_hp.training.capture.step_layout import tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class DrawnRows(NamedTuple):
    """Rows of data that a loss is the mean of, in batches.

    Attributes
    ----------
    batches : list of tuple
        Inputs and targets (x, y) of each batch, as tensors.
    shares : list of float
        Share of each batch in all rows.
    n : int
        Number of rows.
    """

    batches: list[tuple[Any, Any]]
    shares: list[float]
    n: int


def draw_rows(x: Any, y: Any, *, n_samples: int, batch_size: int | None, seed: int) -> DrawnRows:
    """Draw `n_samples` rows by a seed, all if there are no more, in their order; one batch if `batch_size` is None.

    Raises
    ------
    UserError
        If x and y have not equally many rows, or a number is not positive.
    """
    x, y = as_evaluated(x), as_evaluated(y)
    n = common_length(x, y)
    batch_size = n if batch_size is None else batch_size
    if n_samples < 1 or batch_size < 1:
        raise UserError(f"n_samples={n_samples} and batch_size={batch_size} have to be positive; give 1 or more")
    rows = np.arange(n)
    if n_samples < n:
        rows = np.sort(np.random.default_rng(seed).choice(n, n_samples, replace=False))
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    batches = [tree.map_structure(lambda v, i=part: ops.convert_to_tensor(v[i]), (x, y)) for part in parts]
    return DrawnRows(batches, [len(part) / len(rows) for part in parts], len(rows))


def common_length(x: Any, y: Any) -> int:
    """Return the number of rows of x and y.

    Raises
    ------
    UserError
        If they have not equally many, or none.
    """
    lengths = {len(array) if array.ndim else 0 for array in tree.flatten((x, y))}
    if len(lengths) != 1 or not min(lengths):
        raise UserError(f"x and y have {sorted(lengths)} rows: give both equally many rows, one or more")
    return lengths.pop()


def as_evaluated(data: Any) -> Any:
    """Convert the arrays of a nested structure as ``model.evaluate`` does: floats in Keras' precision."""

    def converted(leaf: Any) -> np.ndarray:
        array = np.asarray(leaf)
        return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array

    return tree.map_structure(converted, data)


def trainable_variables(model: Any) -> dict[str, Any]:
    """Return a compiled model's trainable variables, in the order of ``model.weights``, by the names of `tensors_of`.

    Raises
    ------
    UserError
        If the model is not compiled or not built.
    """
    if not getattr(model, "compiled", False):
        raise UserError(f"the model {model.name!r} is not compiled, so it has no loss; call model.compile(loss=...)")
    if not model.built:
        raise UserError(f"the model {model.name!r} has no weights yet; call it once on data")
    return {t.name: v for t, v in zip(tensors_of(model), model.weights, strict=True) if t.trainable}


def prepare_loss(model: Any, rows: DrawnRows) -> None:
    """Create the variables of the model's loss, as the first batch of ``model.evaluate`` would."""
    build_loss(model, *rows.batches[0])


def loss_at(model: Any, variables: Sequence[Any], weights: Sequence[Any], x: Any, y: Any) -> Any:
    """Compute the compiled loss of a batch in inference mode, with `weights` in place of the values of `variables`.

    It equals that of ``model.evaluate``, with the losses of regularisers.
    """
    # model.stateless_call with the loss inside: the losses that layers add in their call are part of it
    with keras.StatelessScope(list(zip(variables, weights, strict=True)), collect_losses=True):
        return compute_loss(model, x, y, model(x, training=False))


def batch_normalizations(model: Any) -> list[Any]:
    """Layers of batch normalisation that are trained, and so take the statistics of a batch in training mode."""
    return [each for each in layers_of(model) if isinstance(each, keras.layers.BatchNormalization) and each.trainable]


@contextlib.contextmanager
def batch_statistics(layers: Sequence[Any]) -> Iterator[None]:
    """Let these layers of batch normalisation normalise by the statistics of the batch, within the block.

    All other layers stay in inference mode, such as dropout.
    """

    def by_batch(layer: Any) -> Any:
        call = layer.call

        def by_statistics_of_batch(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            del training
            return call(inputs, training=True, mask=mask)

        return by_statistics_of_batch

    earlier = [vars(layer).get("call") for layer in layers]
    try:
        for layer in layers:
            vars(layer)["call"] = by_batch(layer)
        yield
    finally:
        for layer, call in zip(layers, earlier, strict=True):
            if call is None:
                vars(layer).pop("call", None)
            else:
                vars(layer)["call"] = call
