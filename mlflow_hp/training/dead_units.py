"""Dead and saturated units of a trained network, from the outputs of its layers on some samples.

The outputs are noted while the model is called, in inference and in a `keras.StatelessScope`, so they are known for
layers in layers and for models whose layers are called in code, too, and no variable of Keras' is assigned.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mlflow_hp._compat.keras import layers_of
from mlflow_hp.history.step_record import distinct_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

SATURATED = {"sigmoid": (0.01, 0.99), "tanh": (-0.98, 0.98)}
"""Activation -> bounds of the outputs; those beyond them are in the outer 1 % of the range, on either side."""


def dead_shares(model: Any, x: Any, batch_size: int = 1024) -> dict[str, float]:
    """Share of the units of each ReLU layer that output 0 for every sample, so that no gradient reaches them.

    Parameters
    ----------
    model : keras.Model
        Built; of any kind.
    x : array_like, or list or dict of them
        Its inputs.
    batch_size : int
        Samples in a batch. Defaults to 1024.

    Returns
    -------
    dict of str to float
        Layer name -> share, 0 to 1; the units of a convolution are its channels. Empty for a model without such
        layers, and for one that is not built.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from mlflow_hp.training import dead_shares
    >>> layer = keras.layers.Dense(2, "relu", name="hidden", bias_initializer=keras.initializers.Constant([-9.0, 9.0]))
    >>> model = keras.Sequential([keras.Input((1,)), layer])
    >>> dead_shares(model, np.zeros((4, 1)))
    {'hidden': 0.5}
    """
    is_dead: dict[str, np.ndarray] = {}
    for name, _, output in _outputs(model, x, batch_size, lambda activation: activation == "relu"):
        zero = (output == 0).all(axis=tuple(range(output.ndim - 1)))
        is_dead[name] = zero & is_dead.get(name, True)
    return {name: float(np.mean(units)) for name, units in is_dead.items()}


def saturated_shares(model: Any, x: Any, batch_size: int = 1024) -> dict[str, float]:
    """Share of the outputs of each sigmoid or tanh layer in the outer 1 % of the range, where gradients vanish.

    Parameters
    ----------
    model : keras.Model
        Built; of any kind.
    x : array_like, or list or dict of them
        Its inputs.
    batch_size : int
        Samples in a batch. Defaults to 1024.

    Returns
    -------
    dict of str to float
        Layer name -> share, 0 to 1, of all samples and units: those below 0.01 or above 0.99 of a sigmoid, and beyond
        -0.98 or 0.98 of a tanh. Recurrent layers are left out, since their outputs are products of several activations.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from mlflow_hp.training import saturated_shares
    >>> layer = keras.layers.Dense(2, "tanh", name="hidden", bias_initializer=keras.initializers.Constant([-9.0, 0.1]))
    >>> model = keras.Sequential([keras.Input((1,)), layer])
    >>> saturated_shares(model, np.zeros((4, 1)))
    {'hidden': 0.5}
    """
    counts: dict[str, np.ndarray] = {}
    for name, activation, output in _outputs(model, x, batch_size, SATURATED.__contains__):
        low, high = SATURATED[activation]
        count = np.array([np.count_nonzero((output < low) | (output > high)), output.size])
        counts[name] = counts.get(name, 0) + count
    return {name: float(n / total) for name, (n, total) in counts.items() if total}


def _outputs(
    model: Any, x: Any, batch_size: int, is_chosen: Callable[[str], bool]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Call a model batch by batch; yield name, activation and each output of the layers with a chosen activation."""
    if not model.built:
        return
    layers = layers_of(model)
    names = distinct_names(layer.name for layer in layers)
    chosen = [
        (name, activation, layer)
        for name, layer in zip(names, layers, strict=True)
        if is_chosen(activation := _activation_of(layer))
    ]
    if not chosen:
        return
    inputs = keras.tree.map_structure(np.asarray, x)
    for start in range(0, len(keras.tree.flatten(inputs)[0]), batch_size):
        part = slice(start, start + batch_size)
        batch = keras.tree.map_structure(lambda array, part=part: keras.ops.convert_to_tensor(array[part]), inputs)
        for name, activation, output in _noted(model, batch, chosen):
            yield name, activation, keras.ops.convert_to_numpy(output)


def _noted(model: Any, batch: Any, chosen: Sequence[tuple[str, str, Any]]) -> list[tuple[str, str, Any]]:
    """Call a model on one batch; return name, activation and each output of the chosen layers."""
    noted: list[tuple[str, str, Any]] = []
    training = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
    with contextlib.ExitStack() as stack:
        for name, activation, layer in chosen:
            stack.enter_context(_noting(layer, functools.partial(_add, noted, name, activation)))
        stack.enter_context(keras.StatelessScope())
        model(batch, **training)
    return noted


def _add(noted: list[tuple[str, str, Any]], name: str, activation: str, output: Any) -> None:
    noted.append((name, activation, output))


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
