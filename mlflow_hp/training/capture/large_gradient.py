"""Gradient of one weight tensor; of a large one, the numbers that it is reduced to before the optimizer uses it.

Of a tensor with more than ``LARGE`` elements, the product with the gradient of the step before is estimated from every
k-th element, so that no copy of the gradient is kept; of an embedding, whose gradient has only the rows that were
looked up, from a sketch: rows are added up, with a sign each, in ``SKETCH_ROWS`` places (Charikar, Chen and
Farach-Colton 2002, Finding Frequent Items in Data Streams).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from mlflow_hp.training.capture.cadence import LARGE

if TYPE_CHECKING:
    from collections.abc import Sequence

SAMPLE = LARGE
"""Number of elements of a large gradient that are kept for the cosine."""
SKETCH_ROWS, SKETCH_WIDTH = 1024, 16


class Gradient(NamedTuple):
    """Gradient of a weight tensor, as an optimizer got it, or what is left of a large one.

    Attributes
    ----------
    name : str
        Name of the weight tensor.
    shape : tuple of int
        Its shape.
    value : Tensor, IndexedSlices or LargeGradient
        A tensor; `tf.IndexedSlices` for an embedding; or the numbers that a large one was reduced to.
    """

    name: str
    shape: tuple[int, ...]
    value: Any

    @property
    def is_large(self) -> bool:
        """Whether it is reduced by itself."""
        return not tf.is_tensor(self.value) or isinstance(self.value, tf.IndexedSlices) or self.size > LARGE

    @property
    def size(self) -> int:
        """Number of elements of the weight tensor."""
        return math.prod(self.shape)


class LargeGradient(NamedTuple):
    """Numbers of a large gradient.

    Attributes
    ----------
    square : Tensor
        Sum of the squared elements, float64.
    clipped_square : Tensor
        The same after clipping by value, if the optimizer does that.
    sample : Tensor
        Some elements, or a sketch, for the product with the gradient of another step: (n,), float32.
    weight : Tensor
        Number of elements for which one of the sample stands.
    """

    square: tf.Tensor
    clipped_square: tf.Tensor
    sample: tf.Tensor
    weight: tf.Tensor


def reduce_large(gradient: Gradient, bound: tf.Tensor | None) -> Gradient:
    """Reduce a large gradient to the numbers that are needed of it; return any other as it is.

    Parameters
    ----------
    gradient : Gradient
        As an optimizer got it.
    bound : Tensor or None
        Largest absolute value of an element after clipping; None if the optimizer does not clip by value.
    """
    if not gradient.is_large or isinstance(gradient.value, LargeGradient):
        return gradient
    if isinstance(gradient.value, tf.IndexedSlices):
        values, sample, weight = _of_rows(gradient)
    else:
        values = gradient.value
        sample = tf.reshape(values, [gradient.size])[:: _stride(gradient.shape)]
        weight = gradient.size / sample.shape[0]
    square = clipped = sum_of_squares(values)
    if bound is not None:
        clipped = sum_of_squares(clipped_by_value(values, bound))
    sample = tf.cast(sample, tf.float32)
    return gradient._replace(value=LargeGradient(square, clipped, sample, tf.constant(weight, tf.float64)))


def sum_of_squares(values: tf.Tensor) -> tf.Tensor:
    """Sum of squares, float64."""
    values = tf.cast(values, tf.float32) if values.dtype in (tf.float16, tf.bfloat16) else values
    return 2.0 * tf.cast(tf.nn.l2_loss(values), tf.float64)


def clipped_by_value(values: tf.Tensor, bound: tf.Tensor) -> tf.Tensor:
    """Limit the absolute values to `bound`."""
    bound = tf.cast(bound, values.dtype)
    return tf.clip_by_value(values, -bound, bound)


def _of_rows(gradient: Gradient) -> tuple[tf.Tensor, tf.Tensor, float]:
    """Rows that are not zero, each once; a sketch of them; the number of elements for which one of it stands."""
    indices, width = gradient.value.indices, math.prod(gradient.shape[1:])
    rows = tf.reshape(gradient.value.values, [-1, width])
    unique = tf.unique(indices)  # a row that was looked up several times has the sum
    summed = tf.math.unsorted_segment_sum(rows, unique.idx, tf.size(unique.y))
    sketched = min(width, SKETCH_WIDTH)
    sign = 1.0 - 2.0 * tf.cast((indices // SKETCH_ROWS) % 2, rows.dtype)
    places = tf.math.unsorted_segment_sum(rows[:, :sketched] * sign[:, tf.newaxis], indices % SKETCH_ROWS, SKETCH_ROWS)
    return summed, tf.reshape(places, [SKETCH_ROWS * sketched]), width / sketched


def _stride(shape: Sequence[int]) -> int:
    """Interval of the elements of a sample: without a factor in common with any axis, so that none is left out."""
    stride = max(1, math.prod(shape) // SAMPLE)
    while any(math.gcd(stride, size) > 1 for size in shape):
        stride += 1
    return stride
