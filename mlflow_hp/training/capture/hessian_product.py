"""Product of the Hessian of a loss and a vector, without the Hessian: a gradient of the gradient, reverse over reverse.

After Pearlmutter 1994, "Fast exact multiplication by the Hessian".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

Tensors = list[tf.Tensor]


def hessian_product(loss: Callable[[Tensors], Any], weights: Tensors, vectors: Tensors) -> Tensors:
    """Multiply the Hessian of ``loss(weights)`` with `vectors`, which have the shapes of the weights."""
    with tf.GradientTape() as outer:
        outer.watch(weights)
        with tf.GradientTape() as inner:
            inner.watch(weights)
            value = loss(weights)
        gradients = inner.gradient(value, weights)
        connected = [i for i, gradient in enumerate(gradients) if gradient is not None]
        targets = [tf.convert_to_tensor(gradients[i]) for i in connected]
    directions = [tf.cast(vectors[i], gradient.dtype) for i, gradient in zip(connected, targets, strict=True)]
    products = outer.gradient(targets, weights, directions, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return [tf.cast(product, vector.dtype) for product, vector in zip(products, vectors, strict=True)]


def vector_dtype(variable: Any) -> tf.DType:
    """Precision of the vectors for a variable: its own, but at least single."""
    dtype = tf.as_dtype(variable.dtype)
    return dtype if dtype.size >= 4 else tf.float32
