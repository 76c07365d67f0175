"""Statistics of the weights at each step, in the compiled graph: of small tensors always, of large ones when due."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from mlflow_hp.training.capture.cadence import LARGE
from mlflow_hp.training.capture.tensor_groups import TensorGroups, elementwise
from mlflow_hp.training.capture.turns import NONE, turns_of

if TYPE_CHECKING:
    from collections.abc import Sequence


PART = 2**21
"""Number of elements of a large tensor whose differences are held at a time."""


class WeightStatistics:
    """Computes norm, mean, standard deviation and update ratio of each tensor, as `mlflow_hp.history.statistics_of`.

    The update ratio of a small tensor is the change since the last row of the fit, whose values are kept; that of a
    large one is the change by the step, before which it is copied if it is its turn.

    Parameters
    ----------
    variables : sequence of tf.Variable
        The model's weights.
    in_turns : bool
        Whether the large tensors that are due at a step are those of one turn, or all.

    Attributes
    ----------
    is_large : ndarray of shape (n_tensors,)
        bool: which tensors have statistics only when they are due.
    turns : ndarray of shape (n_large,)
        Turn of each large tensor, 0-based.
    """

    def __init__(self, variables: Sequence[tf.Variable], *, in_turns: bool = True) -> None:
        self._variables = variables
        self.is_large = np.array([math.prod(variable.shape) > LARGE for variable in variables], bool)
        self._small = np.flatnonzero(~self.is_large).tolist()
        self._large = np.flatnonzero(self.is_large).tolist()
        sizes = [math.prod(variables[i].shape) * variables[i].dtype.size for i in self._large]
        self.turns = turns_of(sizes) * in_turns
        self._n_turns = int(self.turns.max(initial=0)) + 1
        small = [variables[i] for i in self._small]
        self._groups = TensorGroups([tuple(v.shape) for v in small], [v.dtype for v in small])
        with tf.init_scope():
            self._previous = self._groups.variables()
            self._center = tf.Variable(tf.zeros(len(small), tf.float64), trainable=False)
            self._norm = tf.Variable(tf.zeros(len(small), tf.float64), trainable=False)
            self._turn = tf.Variable(0, dtype=tf.int64, trainable=False)

    def start(self) -> None:
        """Begin a fit: the current weights are those before its first step."""
        for previous, matrix in zip(self._previous, self._small_matrices(), strict=True):
            previous.assign(matrix)
        self._turn.assign(0)
        values = [np.asarray(self._variables[i].numpy(), np.float64) for i in self._small]
        with np.errstate(all="ignore"):
            self._norm.assign([np.sqrt(np.square(value).sum()) for value in values])
            means = np.array([value.mean() if value.size else 0.0 for value in values])
        self._center.assign(np.where(np.isfinite(means), means, 0.0))

    def next_turn(self, step: tf.Tensor, interval: tf.Tensor) -> tf.Tensor:
        """Return the turn that is due at a step of the fit (0-based), -1 if none is; see `Cadence`."""
        due = tf.logical_or(step < self._n_turns, tf.equal(step % interval, 0))
        turn = tf.where(due, self._turn, tf.constant(NONE, tf.int64))
        self._turn.assign((self._turn + tf.cast(due, tf.int64)) % self._n_turns)
        return turn

    def before(self, turn: tf.Tensor) -> list[tf.Tensor]:
        """Copy each large tensor before the step, if it is its turn; else return empty tensors."""
        return [
            tf.cond(tf.equal(turn, own), variable.read_value, lambda dtype=variable.dtype: tf.zeros(0, dtype))
            for own, variable in zip(self.turns, (self._variables[i] for i in self._large), strict=True)
        ]

    def after(self, before: Sequence[tf.Tensor], turn: tf.Tensor) -> tf.Tensor:
        """Compute the statistics after the step: (4 * n_tensors,), float64; NaN for a tensor that is not due."""
        rows = [self._of_small()] if len(self._small) else []
        for index, own, old in zip(self._large, self.turns, before, strict=True):
            variable = self._variables[index]

            def statistics(variable: tf.Variable = variable, old: tf.Tensor = old) -> tf.Tensor:
                return _of_large(variable.read_value(), tf.reshape(old, variable.shape))

            nothing = tf.constant(np.full((1, 4), np.nan))
            rows.append(tf.cond(tf.equal(turn, own), statistics, lambda nothing=nothing: nothing))
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
    """Statistics of one tensor, (1, 4); differences are taken of a part at a time, for the memory."""
    mean = tf.reduce_mean(value if value.dtype.is_floating else tf.cast(value, tf.float64))
    length = value.shape[0]
    n_rows = max(1, length * PART // math.prod(value.shape))

    def add_part(start: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parts = (value[start : start + n_rows], before[start : start + n_rows])
        new, old = (part if part.dtype.is_floating else tf.cast(part, tf.float64) for part in parts)
        halves = [tf.cast(tf.nn.l2_loss(part), tf.float64) for part in (new, new - mean, new - old, old)]
        return start + n_rows, sums + 2.0 * tf.stack(halves)

    begin = tf.constant(0), tf.zeros(4, tf.float64)
    if n_rows < length:
        _, sums = tf.while_loop(lambda start, _: start < length, add_part, begin, parallel_iterations=1)
    else:
        _, sums = add_part(*begin)
    norm, spread, change, norm_before = tf.unstack(tf.sqrt(sums))
    size = math.sqrt(math.prod(value.shape))
    return tf.stack([norm, tf.cast(mean, tf.float64), spread / size, change / norm_before])[tf.newaxis]
