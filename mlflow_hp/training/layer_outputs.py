"""Outputs of a model's layers on a batch, by the activation that they are of.

The outputs are noted while the model is called, in inference and in a `keras.StatelessScope`, so they are known for
layers in layers and for models whose layers are called in code, too, and no variable of Keras' is assigned.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

import keras

from mlflow_hp._compat.keras import layers_of
from mlflow_hp.history.step_record import distinct_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SATURATED = {"sigmoid": (0.01, 0.99), "tanh": (-0.98, 0.98)}
"""Activation -> bounds of the outputs; those beyond them are in the outer 1 % of the range, on either side."""


class ActivatedLayer(NamedTuple):
    """Layer of a model: its distinct name, the activation that its output is of, and the layer itself."""

    name: str
    activation: str
    layer: Any


def activated_layers(model: Any, is_chosen: Callable[[str], bool]) -> list[ActivatedLayer]:
    """Return the layers of a built model with a chosen activation, those in layers, too."""
    layers = layers_of(model)
    names = distinct_names(layer.name for layer in layers)
    return [
        ActivatedLayer(name, activation, layer)
        for name, layer in zip(names, layers, strict=True)
        if is_chosen(activation := _activation_of(layer))
    ]


def outputs_on(
    model: Any, batch: Any, layers: Sequence[ActivatedLayer]
) -> tuple[list[tuple[ActivatedLayer, Any]], Any]:
    """Call a model on one batch, in inference; return each output of the `layers`, in order, and that of the model."""
    outputs: list[tuple[ActivatedLayer, Any]] = []
    training = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
    with contextlib.ExitStack() as stack:
        for each in layers:
            stack.enter_context(_noting(each.layer, functools.partial(_add, outputs, each)))
        stack.enter_context(keras.StatelessScope())
        result = model(batch, **training)
    return outputs, result


def last_layer(model: Any, inputs: Any) -> tuple[Any, str, tuple[int | None, ...]] | None:
    """Return the layer whose output is that of a model called in code, its activation, and its shape without the batch.

    The model is traced on the specification of a batch: nothing is computed.

    Parameters
    ----------
    model : keras.Model
        Built.
    inputs : nested structure of tf.TensorSpec
        What it is called with.

    Returns
    -------
    tuple of (Layer, str, tuple of int or None), or None
        None if the output is not of one layer.
    """
    import tensorflow as tf

    last: list[tuple[Any, str, tuple[int | None, ...]]] = []

    def trace(*parts: Any) -> Any:
        batch = keras.tree.pack_sequence_as(inputs, list(parts))
        outputs, result = outputs_on(model, batch, activated_layers(model, bool))
        of_layers = [layer for layer, output in outputs if output is result]
        if of_layers and tf.is_tensor(result):
            last.append((of_layers[-1].layer, of_layers[-1].activation, tuple(result.shape[1:])))
        return tf.constant(0)

    tf.function(trace, autograph=False).get_concrete_function(*keras.tree.flatten(inputs))
    return last[-1] if last else None


def _add(outputs: list[tuple[ActivatedLayer, Any]], layer: ActivatedLayer, output: Any) -> None:
    outputs.append((layer, output))


@contextlib.contextmanager
def _noting(layer: Any, note: Callable[[Any], None]) -> Iterator[None]:
    """Call `note` with each output of a layer inside the block."""
    before, original = vars(layer).get("call"), layer.call

    def call(*arguments: Any, **named: Any) -> Any:
        output = original(*arguments, **named)
        note(output)
        return output

    object.__setattr__(layer, "call", call)
    try:
        yield
    finally:
        if before is None:
            object.__delattr__(layer, "call")
        else:
            object.__setattr__(layer, "call", before)


def _activation_of(layer: Any) -> str:
    """Name of the activation that a layer's output is of; empty if it is none, and for cells of recurrent layers."""
    if hasattr(layer, "state_size"):
        return ""
    if isinstance(layer, keras.layers.ReLU):
        return "relu"
    name = str(getattr(getattr(layer, "activation", None), "__name__", ""))
    return "" if name in SATURATED and isinstance(layer, keras.layers.RNN) else name
