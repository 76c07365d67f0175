"""Norms of the gradients that each optimizer gets, and the cosine between those of consecutive steps, in the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from mlflow_hp.history.step_record import gradient_column, gradient_columns
from mlflow_hp.training.capture.large_gradient import (
    Gradient,
    LargeGradient,
    clipped_by_value,
    reduce_large,
    sum_of_squares,
)
from mlflow_hp.training.capture.tensor_groups import TensorGroups, elementwise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Clip(NamedTuple):
    """Clipping of gradients: as Keras' arguments of the same names, of which one is set."""

    clipnorm: float | None
    global_clipnorm: float | None
    clipvalue: float | None

    def bound(self, scale: Any) -> tf.Tensor | None:
        """Largest absolute value of an element of a gradient of the loss times `scale`; None for another clipping."""
        return None if self.clipvalue is None else tf.cast(self.clipvalue, tf.float32) * tf.cast(scale, tf.float32)


NO_CLIP = Clip(None, None, None)


def clip_of(optimizer: Any) -> Clip:
    """Return how an optimizer clips the gradients that it gets in each step."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if getattr(optimizer, "gradient_accumulation_steps", None):
        return NO_CLIP  # Keras clips the mean of several
    for name in Clip._fields:  # in the order in which Keras asks for them
        value = getattr(optimizer, name, None)
        if value is not None and value > 0:
            return NO_CLIP._replace(**{name: float(value)})
    return NO_CLIP


def loss_scale(optimizer: Any) -> Any:
    """Return the factor of the loss whose gradients an optimizer gets: 1, unless it scales the loss."""
    scale = getattr(optimizer, "dynamic_scale", None)
    if scale is None:
        scale = getattr(optimizer, "loss_scale_factor", None)
    return 1.0 if scale is None else tf.convert_to_tensor(scale)


class GradientStatistics:
    """Computes the columns of the gradients of a step.

    Parameters
    ----------
    gradients : mapping of str to sequence of Gradient
        By optimizer; only names, shapes and dtypes are used.
    optimizers : mapping of str to keras.optimizers.Optimizer
        The optimizers, which say how they clip.

    Attributes
    ----------
    columns : list of str
        Names of the columns.
    """

    def __init__(self, gradients: Mapping[str, Sequence[Gradient]], optimizers: Mapping[str, Any]) -> None:
        self._parts = {name: _OfOptimizer(each, optimizers[name]) for name, each in gradients.items() if each}
        self.columns: list[str] = []
        for name, part in self._parts.items():
            suffix = f"/{name}" if len(self._parts) > 1 else ""
            self.columns += gradient_columns(suffix, is_clipped=part.clip != NO_CLIP)
        for clipped in (False, True):
            for part in self._parts.values():
                if part.clip != NO_CLIP or not clipped:
                    self.columns += [gradient_column(tensor, clipped=clipped) for tensor in part.names]

    def start(self) -> None:
        """Begin a fit: no gradient comes before its first."""
        for part in self._parts.values():
            part.start()

    def compute(self, gradients: Mapping[str, Sequence[Gradient]], scales: Mapping[str, Any]) -> tf.Tensor:
        """Compute the columns, (n_columns,), float64.

        Parameters
        ----------
        gradients : mapping of str to sequence of Gradient
            By optimizer.
        scales : mapping of str to number or tensor
            Factor of the loss, by which the gradients of an optimizer are divided.
        """
        totals, norms, clipped = [], [], []
        for name, part in self._parts.items():
            total, each, each_clipped = part.compute(gradients[name], tf.cast(scales[name], tf.float64))
            totals.append(total)
            norms.append(each)
            clipped += [] if each_clipped is None else [each_clipped]
        return tf.concat([*totals, *norms, *clipped], axis=0)


class _OfOptimizer:
    """Statistics of the gradients that one optimizer gets."""

    def __init__(self, gradients: Sequence[Gradient], optimizer: Any) -> None:
        self.names = [gradient.name for gradient in gradients]
        self.clip = clip_of(optimizer)
        self._small = [i for i, each in enumerate(gradients) if not each.is_large]
        self._large = [i for i, each in enumerate(gradients) if each.is_large]
        small = [gradients[i] for i in self._small]
        self._groups = TensorGroups([each.shape for each in small], [each.value.dtype for each in small])
        sample_shapes = [reduce_large(gradients[i], None).value.sample.shape for i in self._large]
        with tf.init_scope():
            self._before = self._groups.variables()
            self._samples_before = [tf.Variable(tf.zeros(shape), trainable=False) for shape in sample_shapes]
            self._square_before = tf.Variable(0.0, dtype=tf.float64, trainable=False)

    def start(self) -> None:
        """Begin a fit: no gradient comes before its first."""
        self._square_before.assign(0.0)

    def compute(self, gradients: Sequence[Gradient], scale: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]:
        """Compute the values of all tensors together, the norm of each, and the clipped norm of each."""
        bound = self.clip.bound(scale)
        matrices = self._groups.matrices([gradients[i].value for i in self._small])
        large: list[LargeGradient] = [reduce_large(gradients[i], bound).value for i in self._large]
        clipped_matrices = [] if bound is None else [clipped_by_value(matrix, bound) for matrix in matrices]
        sums = self._groups.sums(
            elementwise(tf.square, matrices),
            elementwise(tf.multiply, matrices, self._before),
            *([] if bound is None else [elementwise(tf.square, clipped_matrices)]),
        )
        squares = self._in_order(sums[:, 0], [each.square for each in large])
        estimates = [
            each.weight * tf.cast(tf.tensordot(each.sample, before, 1), tf.float64)
            for each, before in zip(large, self._samples_before, strict=True)
        ]
        own = [each.weight * sum_of_squares(each.sample) for each in large]
        product = tf.reduce_sum(sums[:, 1]) + sum(estimates)
        square = tf.reduce_sum(sums[:, 0]) + sum(own)  # of the same elements as the product
        cosine = product / tf.sqrt(square * self._square_before)
        for variable, matrix in zip(self._before, matrices, strict=True):
            variable.assign(matrix)
        for variable, each in zip(self._samples_before, large, strict=True):
            variable.assign(each.sample)
        self._square_before.assign(square)
        norms = tf.sqrt(squares) / scale
        total = tf.sqrt(tf.reduce_sum(tf.square(norms)))
        if self.clip == NO_CLIP:
            return tf.stack([total, cosine]), norms, None
        if bound is not None:
            clipped = tf.sqrt(self._in_order(sums[:, 2], [each.clipped_square for each in large])) / scale
        elif self.clip.clipnorm is not None:
            clipped = tf.minimum(norms, tf.cast(self.clip.clipnorm, tf.float64))
        else:
            clipped = norms * tf.minimum(tf.ones_like(total), self.clip.global_clipnorm / total)
        return tf.stack([total, cosine, tf.sqrt(tf.reduce_sum(tf.square(clipped)))]), norms, clipped

    def _in_order(self, of_small: tf.Tensor, of_large: Sequence[tf.Tensor]) -> tf.Tensor:
        """Join values of small and large tensors in the order of all."""
        if not of_large:
            return of_small
        joined = tf.concat([of_small, tf.stack(of_large)], axis=0)
        return tf.gather(joined, np.argsort([*self._small, *self._large]))
