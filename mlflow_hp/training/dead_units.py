"""Dead units of a trained network."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np


def dead_shares(model: Any, x: Any, batch_size: int = 1024) -> dict[str, float]:
    """Share of the units of each ReLU layer that output 0 for every sample, so that no gradient reaches them.

    Parameters
    ----------
    model : keras.Model
        Built, with connected layers (Sequential or functional).
    x : array_like
        Its inputs.
    batch_size : int
        Samples in a batch. Defaults to 1024.

    Returns
    -------
    dict of str to float
        Layer name -> share, 0 to 1; the units of a convolution are its channels. Empty for a model without such
        layers, or one whose layers have no symbolic outputs.

    Examples
    --------
    >>> import keras, numpy as np
    >>> from mlflow_hp.training import dead_shares
    >>> layer = keras.layers.Dense(2, "relu", name="hidden", bias_initializer=keras.initializers.Constant([-9.0, 9.0]))
    >>> model = keras.Sequential([keras.Input((1,)), layer])
    >>> dead_shares(model, np.zeros((4, 1)))
    {'hidden': 0.5}
    """
    relu = [layer for layer in model.layers if _is_relu(layer)]
    try:
        outputs = [layer.output for layer in relu]
        inputs = model.inputs
    except (AttributeError, ValueError):  # a subclassed model
        return {}
    if not outputs:
        return {}
    probe = keras.Model(inputs, outputs)
    values = probe.predict(x, batch_size=batch_size, verbose=0)
    values = values if isinstance(values, list) else [values]
    return {
        layer.name: float(np.mean((value == 0).all(axis=tuple(range(value.ndim - 1)))))
        for layer, value in zip(relu, values, strict=True)
    }


def _is_relu(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    return type(layer).__name__ == "ReLU" or getattr(activation, "__name__", "") == "relu"
