"""Dead and saturated units of a trained network, from the outputs of its layers on some samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mlflow_hp.training.capture.step_layout import to_numpy
from mlflow_hp.training.layer_outputs import SATURATED, activated_layers, outputs_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow_hp.training.layer_outputs import ActivatedLayer


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
    for layer, output in _outputs(model, x, batch_size, lambda activation: activation == "relu"):
        zero = (output == 0).all(axis=tuple(range(output.ndim - 1)))
        is_dead[layer.name] = zero & is_dead.get(layer.name, True)
    return {name: float(np.mean(units)) for name, units in is_dead.items()}


def saturated_shares(model: Any, x: Any, batch_size: int = 1024) -> dict[str, float]:
    """Share of the outputs of each sigmoid or tanh layer in the outer 1 % of the range, where gradients vanish.

    Those are the outputs below 0.01 or above 0.99 of a sigmoid, and beyond -0.98 or 0.98 of a tanh, among those of all
    samples and units. Recurrent layers are left out, since their outputs are products of several activations.

    Parameters
    ----------
    model : keras.Model
        As of `dead_shares`.
    x : array_like, or list or dict of them
        As of `dead_shares`.
    batch_size : int
        As of `dead_shares`. Defaults to 1024.

    Returns
    -------
    dict of str to float
        Layer name -> share, 0 to 1.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from mlflow_hp.training import saturated_shares
    >>> layer = keras.layers.Dense(2, "tanh", name="hidden", bias_initializer=keras.initializers.Constant([-9.0, 0.1]))
    >>> saturated_shares(keras.Sequential([keras.Input((1,)), layer]), np.zeros((4, 1)))
    {'hidden': 0.5}
    """
    counts: dict[str, np.ndarray] = {}
    for layer, output in _outputs(model, x, batch_size, SATURATED.__contains__):
        low, high = SATURATED[layer.activation]
        count = np.array([np.count_nonzero((output < low) | (output > high)), output.size])
        counts[layer.name] = counts.get(layer.name, 0) + count
    return {name: float(n / total) for name, (n, total) in counts.items() if total}


def _outputs(
    model: Any, x: Any, batch_size: int, is_chosen: Callable[[str], bool]
) -> Iterator[tuple[ActivatedLayer, np.ndarray]]:
    """Call a model batch by batch; yield each output of the layers with a chosen activation."""
    layers = activated_layers(model, is_chosen) if model.built else []
    if not layers:
        return
    inputs = keras.tree.map_structure(np.asarray, x)
    for start in range(0, len(keras.tree.flatten(inputs)[0]), batch_size):
        part = slice(start, start + batch_size)
        batch = keras.tree.map_structure(lambda array, part=part: keras.ops.convert_to_tensor(array[part]), inputs)
        for layer, output in outputs_on(model, batch, layers)[0]:
            yield layer, to_numpy(output)
