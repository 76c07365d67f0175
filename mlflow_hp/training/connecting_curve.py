"""A curve of low loss between two sets of weights, trained as in Garipov et al. 2018.

"Loss surfaces, mode connectivity, and fast ensembling of DNNs" (NeurIPS), section 3: a quadratic Bezier curve, whose
control point is trained to lower the mean loss over the curve.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops, tree

from mlflow_hp.training.stateless_loss import as_evaluated, batch_statistics, common_length, loss_at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEARNING_RATE = 0.01
"""Learning rate of Adam at the first step; it falls to 0 along a cosine."""


def train_bend(
    model: Any,
    variables: Sequence[Any],
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    x: Any,
    y: Any,
    *,
    steps: int,
    batch_size: int,
    seed: int,
    normalizations: Sequence[Any] = (),
    progress: Callable[[int], Any] | None = None,
) -> list[np.ndarray]:
    """Train the control point of the curve ``(1 - t)^2 first + 2 t (1 - t) bend + t^2 second``, on TensorFlow.

    Each step takes a batch of rows and one `t`, uniform in 0 to 1, and moves the bend by Adam; it starts in the middle
    of the ends. Dropout is off.

    Parameters
    ----------
    model : keras.Model
        Compiled; it is not modified.
    variables : sequence of keras.Variable
        Trainable variables.
    first, second : sequence of ndarray
        Their values at the ends.
    x, y : array_like, or nested structures of them
        Inputs and targets.
    steps, batch_size, seed : int
        Number of steps, rows of each, and seed for drawing rows and positions.
    normalizations : sequence of keras.layers.BatchNormalization
        Layers that normalise by the statistics of the batch. Defaults to none.
    progress : callable, optional
        Called with the number of steps just taken. Defaults to nothing.

    Returns
    -------
    list of ndarray
        Values of the variables at the control point, float64.
    """
    import tensorflow as tf

    data = as_evaluated(x), as_evaluated(y)
    n = common_length(*data)
    rng = np.random.default_rng(seed)
    dtypes = [variable.dtype for variable in variables]
    start, end = (
        [tf.constant(values, dtype) for values, dtype in zip(side, dtypes, strict=True)] for side in (first, second)
    )
    bends = [
        keras.Variable((np.asarray(a) + b) / 2, dtype=dtype, name="bend")
        for a, b, dtype in zip(first, second, dtypes, strict=True)
    ]
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    optimizer = keras.optimizers.Adam(schedule, name="bend_adam")
    optimizer.build(bends)

    def step(t: Any, batch_x: Any, batch_y: Any) -> None:
        values = [tf.convert_to_tensor(bend.value) for bend in bends]
        with tf.GradientTape() as tape:
            tape.watch(values)
            weights = [_bezier(tf.cast(t, a.dtype), a, c, b) for a, c, b in zip(start, values, end, strict=True)]
            loss = loss_at(model, variables, weights, batch_x, batch_y)
        gradients = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], bends)

    compiled = step if model.run_eagerly else tf.function(step, autograph=False, reduce_retracing=True)
    batch_size = min(batch_size, n)
    order = np.zeros(0, np.int64)
    for _ in range(steps):
        if len(order) < batch_size:
            order = rng.permutation(n)
        rows, order = np.sort(order[:batch_size]), order[batch_size:]
        batch = tree.map_structure(lambda values, rows=rows: ops.convert_to_tensor(values[rows]), data)
        with batch_statistics(normalizations) if normalizations else contextlib.nullcontext():
            compiled(tf.constant(rng.random()), *batch)
        if progress is not None:
            progress(1)
    return [np.asarray(bend.numpy(), np.float64) for bend in bends]


def _bezier(t: Any, first: Any, bend: Any, second: Any) -> Any:
    return (1 - t) ** 2 * first + 2 * t * (1 - t) * bend + t**2 * second
