"""What the units of a trained network put out: which of them are dead."""

from __future__ import annotations

from typing import Any

import numpy as np


def dead_shares(model: Any, x: Any, batch_size: int = 1024) -> dict[str, float]:
    """Share of the units of each ReLU layer that put out 0 for every sample, so that no gradient reaches them.

    Parameters
    ----------
    model : keras.Model
        A built model whose layers are connected (Sequential or functional).
    x : array_like
        Its inputs.
    batch_size : int
        Samples in a batch.

    Returns
    -------
    dict of str to float
        Layer name -> share, 0 to 1; of a convolution, a channel is a unit. Empty for a model without such layers, or
        one whose layers' outputs can't be had.
    """
    import keras

    relu = [layer for layer in model.layers if _is_relu(layer)]
    try:
        outputs = [layer.output for layer in relu]
        inputs = model.inputs
    except (AttributeError, ValueError):  # layers that are called in code of their own
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
