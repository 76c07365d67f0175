"""Largest eigenvalue of the Hessian of the training loss on one batch, by power iteration in the graph.

A step of gradient descent is stable along an eigenvector while learning rate x eigenvalue < 2 (Cohen et al. 2021,
"Gradient descent on neural networks typically occurs at the edge of stability").

The loss is computed as in the training step, dropout and all, in a `keras.StatelessScope`: no variable is assigned.
The iteration is with ``H + s I``: the shift ``s`` makes it find the largest eigenvalue also where another one is more
negative.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from mlflow_hp._compat.keras import compute_loss, strategy_of
from mlflow_hp.training.capture import train_step_is_own, warn_of_no_sharpness
from mlflow_hp.training.capture.graph_operations import changing_operations
from mlflow_hp.training.capture.hessian_product import hessian_product, vector_dtype
from mlflow_hp.training.capture.step_layout import Unwrappable

if TYPE_CHECKING:
    from mlflow_hp.training.capture.hessian_product import Tensors

SHARPNESS = "sharpness"
"""Column of the largest eigenvalue."""
TOLERANCE = 0.01
"""The iteration ends when ``|H v - e v|`` is at most this share of the eigenvalue ``e``, which is its error at most."""
MOST_ITERATIONS = 100
RANDOM_SHARE = 0.1
"""Share of a random vector in the start, so that no direction is missed for good."""


def sharpness_of(model: Any, every: int | None, data: Any) -> Sharpness | None:
    """Trace the sharpness of a model; None if it is not asked for, or, with a warning, if it cannot be computed.

    Parameters
    ----------
    model : keras.Model
        Compiled, with its ``train_step`` traced.
    every : int or None
        Interval of the steps with a sharpness.
    data : nested structure of tf.TypeSpec
        Specification of a batch.
    """
    if every is None:
        return None
    if train_step_is_own(model):
        warn_of_no_sharpness("the loss in a train_step of one's own is unknown")
        return None
    if strategy_of(model) is not None:
        warn_of_no_sharpness("the model is distributed")
        return None
    try:
        return Sharpness(model, every, data)
    except Exception as error:  # noqa: BLE001 - everything else is recorded
        name = "" if isinstance(error, Unwrappable) else f"{type(error).__name__}: "
        warn_of_no_sharpness(f"{name}{error}")
        return None


class Sharpness:
    """Computes the largest eigenvalue at steps 0, n, 2n, ... of a fit.

    Parameters
    ----------
    model, every, data
        As of `sharpness_of`.

    Raises
    ------
    Exception
        Any error of tracing.
    """

    def __init__(self, model: Any, every: int, data: Any) -> None:
        self._model, self._every = model, every
        variables = model.trainable_variables
        if not variables:
            raise Unwrappable("the model has no trainable weights")
        with tf.init_scope():
            self._vectors = [tf.Variable(tf.zeros(v.shape, vector_dtype(v)), trainable=False) for v in variables]
            self._step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._has_arg = "training" in inspect.signature(model.call).parameters
        self._product = tf.function(self._hessian_product, reduce_retracing=True, autograph=False)
        traced = self._product.get_concrete_function(data, self._weights, [v.read_value() for v in self._vectors])
        changing = changing_operations(traced.graph.as_graph_def())
        if changing:
            raise Unwrappable(f"the loss changes a state, is random or calls Python ({', '.join(changing)})")

    def start(self) -> None:
        """Begin a fit: its first step has a sharpness, and starts from a vector of its own."""
        self._step.assign(0)
        for vector in self._vectors:
            vector.assign(tf.zeros_like(vector))

    def column(self, data: Any) -> tf.Tensor:
        """Compute the sharpness, (1,), float64, on a batch before the step; NaN where it is not due."""
        due = tf.equal(self._step % self._every, 0)
        value = tf.cond(due, lambda: self._largest_eigenvalue(data), lambda: tf.constant(float("nan"), tf.float64))
        self._step.assign_add(1)
        return value[tf.newaxis]

    @property
    def _weights(self) -> Tensors:
        return [tf.convert_to_tensor(variable.value) for variable in self._model.trainable_variables]

    def _largest_eigenvalue(self, data: Any) -> tf.Tensor:
        weights = self._weights

        def is_unfinished(_: Tensors, value: tf.Tensor, residual: tf.Tensor, __: tf.Tensor) -> tf.Tensor:
            return residual > TOLERANCE * value  # also while the value is negative; not if it is NaN

        def iterate(vectors: Tensors, _: tf.Tensor, __: tf.Tensor, shift: tf.Tensor) -> tuple[Any, ...]:
            products = self._product(data, weights, vectors)
            value = _dot(vectors, products)
            residual = _norm(_sum(products, vectors, -value))
            gap = _norm(products) - value  # near an eigenvector, 0; of a negative eigenvalue, twice its size
            shift = tf.where(gap > shift, 2 * gap, shift)
            return _unit(_sum(products, vectors, shift), vectors), value, residual, shift

        zero, infinite = tf.constant(0.0, tf.float64), tf.constant(float("inf"), tf.float64)
        start = self._start(weights), zero, infinite, zero
        vectors, value, _, _ = tf.while_loop(is_unfinished, iterate, start, maximum_iterations=MOST_ITERATIONS)
        is_finite = tf.math.is_finite(_norm(vectors))
        for variable, vector in zip(self._vectors, vectors, strict=True):
            variable.assign(tf.where(is_finite, vector, tf.zeros_like(vector)))
        return value

    def _start(self, weights: Tensors) -> Tensors:
        """Return the last eigenvector with a random share, which is the same in each training."""
        random = [
            tf.random.stateless_normal(tf.shape(weight), (tf.cast(self._step, tf.int32), index), dtype=vector.dtype)
            for index, (weight, vector) in enumerate(zip(weights, self._vectors, strict=True))
        ]
        last = [vector.read_value() for vector in self._vectors]
        return _unit(_sum(last, _unit(random, random), tf.constant(RANDOM_SHARE, tf.float64)), last)

    def _hessian_product(self, data: Any, weights: Tensors, vectors: Tensors) -> Tensors:
        """Multiply the Hessian with vectors."""
        return hessian_product(lambda values: self._loss(data, values), weights, vectors)

    def _loss(self, data: Any, weights: Tensors) -> Any:
        """Compute the loss as Keras' ``train_step`` does."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        values = list(zip(self._model.trainable_variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=values, collect_losses=True):
            outputs = self._model(x, training=True) if self._has_arg else self._model(x)
            return compute_loss(self._model, x, y, outputs, sample_weight, training=True)


def _dot(one: Tensors, other: Tensors) -> tf.Tensor:
    return tf.add_n([tf.cast(tf.reduce_sum(a * b), tf.float64) for a, b in zip(one, other, strict=True)])


def _norm(vectors: Tensors) -> tf.Tensor:
    return tf.sqrt(_dot(vectors, vectors))


def _sum(one: Tensors, other: Tensors, factor: tf.Tensor) -> Tensors:
    """Add `factor` times the `other` vectors."""
    return [a + tf.cast(factor, b.dtype) * b for a, b in zip(one, other, strict=True)]


def _unit(vectors: Tensors, instead: Tensors) -> Tensors:
    """Divide vectors by the norm of all; `instead`, if that is 0."""
    norm = _norm(vectors)
    return [
        tf.where(norm > 0, vector / tf.cast(norm, vector.dtype), other)
        for vector, other in zip(vectors, instead, strict=True)
    ]
