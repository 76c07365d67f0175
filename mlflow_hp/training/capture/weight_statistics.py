"""Statistics of the weights at each step, in the compiled graph: of small tensors always, of large ones when due."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from mlflow_hp.training.capture.cadence import LARGE
from mlflow_hp.training.capture.tensor_groups import TensorGroups, elementwise

if TYPE_CHECKING:
    from collections.abc import Sequence


class WeightStatistics:
    """Computes norm, mean, standard deviation and update ratio of each tensor, as `mlflow_hp.history.statistics_of`.

    The update ratio of a small tensor is the change since the last row of the fit, whose values are kept; that of a
    large one is the change by the step, before which it is copied if it is due.

    Parameters
    ----------
    variables : sequence of tf.Variable
        The model's weights.

    Attributes
    ----------
    is_large : ndarray of shape (n_tensors,)
        bool: which tensors have statistics only when they are due.
    """

    def __init__(self, variables: Sequence[tf.Variable]) -> None:
        self._variables = variables
        self.is_large = np.array([math.prod(variable.shape) > LARGE for variable in variables], bool)
        self._small = np.flatnonzero(~self.is_large).tolist()
        self._large = np.flatnonzero(self.is_large).tolist()
        small = [variables[i] for i in self._small]
        self._groups = TensorGroups([tuple(v.shape) for v in small], [v.dtype for v in small])
        with tf.init_scope():
            self._previous = self._groups.variables()
            self._center = tf.Variable(tf.zeros(len(small), tf.float64), trainable=False)
            self._norm = tf.Variable(tf.zeros(len(small), tf.float64), trainable=False)

    def start(self) -> None:
        """Begin a fit: the current weights are those before its first step."""
        for previous, matrix in zip(self._previous, self._small_matrices(), strict=True):
            previous.assign(matrix)
        values = [np.asarray(self._variables[i].numpy(), np.float64) for i in self._small]
        with np.errstate(all="ignore"):
            self._norm.assign([np.sqrt(np.square(value).sum()) for value in values])
            means = np.array([value.mean() if value.size else 0.0 for value in values])
        self._center.assign(np.where(np.isfinite(means), means, 0.0))

    def before(self, due: tf.Tensor) -> list[tf.Tensor]:
        """Copy each large tensor before the step, if it is due; else return empty tensors."""
        return [
            tf.cond(due, variable.read_value, lambda dtype=variable.dtype: tf.zeros(0, dtype))
            for variable in (self._variables[i] for i in self._large)
        ]

    def after(self, before: Sequence[tf.Tensor], due: tf.Tensor) -> tf.Tensor:
        """Compute the statistics after the step: (4 * n_tensors,), float64; NaN for a tensor that is not due."""
        rows = [self._of_small()] if len(self._small) else []
        for index, old in zip(self._large, before, strict=True):
            variable = self._variables[index]

            def statistics(variable: tf.Variable = variable, old: tf.Tensor = old) -> tf.Tensor:
                return _of_large(variable.read_value(), tf.reshape(old, variable.shape))

            nothing = tf.constant(np.full((1, 4), np.nan))
            rows.append(tf.cond(due, statistics, lambda nothing=nothing: nothing))
        table = tf.concat(rows, axis=0)
        if len(rows) > 1:
            table = tf.gather(table, np.argsort([*self._small, *self._large]))
        return tf.reshape(table, [-1])

    def _small_matrices(self) -> list[tf.Tensor]:
        return self._groups.matrices([self._variables[i].read_value() for i in self._small])

    def _of_small(self) -> tf.Tensor:
        """Statistics of the small tensors, (n, 4).

        Sums are of the deviations from the mean of the step before, so that no digits cancel where the mean is large.
        """
        values = self._small_matrices()
        previous = [variable.read_value() for variable in self._previous]
        center, norm_before = self._center.read_value(), self._norm.read_value()
        deviations = elementwise(tf.subtract, values, self._groups.by_row(center))
        changes = elementwise(tf.subtract, values, previous)
        sums = self._groups.sums(deviations, elementwise(tf.square, deviations), elementwise(tf.square, changes))
        total, squares, changed = tf.unstack(sums, axis=1)
        sizes = tf.constant(self._groups.sizes)
        shift = total / sizes
        mean = center + shift
        variance = (squares / sizes - tf.square(shift)) * tf.constant(self._groups.sizes > 1, tf.float64)
        deviation = tf.sqrt(tf.maximum(variance, 0.0))
        norm = tf.sqrt(tf.maximum(squares + 2.0 * center * total + sizes * tf.square(center), 0.0))
        for variable, matrix in zip(self._previous, values, strict=True):
            variable.assign(matrix)
        self._center.assign(tf.where(tf.math.is_finite(mean), mean, tf.zeros_like(mean)))
        self._norm.assign(norm)
        return tf.stack([norm, mean, deviation, tf.sqrt(changed) / norm_before], axis=1)


def _of_large(value: tf.Tensor, before: tf.Tensor) -> tf.Tensor:
    """Statistics of one tensor, (1, 4)."""
    new, old = (v if v.dtype.is_floating else tf.cast(v, tf.float64) for v in (value, before))
    mean = tf.reduce_mean(new)
    halves = [tf.cast(tf.nn.l2_loss(part), tf.float64) for part in (new, new - mean, new - old, old)]
    norm, spread, change, norm_before = tf.unstack(tf.sqrt(2.0 * tf.stack(halves)))
    size = math.sqrt(math.prod(value.shape))
    return tf.stack([norm, tf.cast(mean, tf.float64), spread / size, change / norm_before])[tf.newaxis]
