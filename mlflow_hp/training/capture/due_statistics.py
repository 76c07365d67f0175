"""Statistics of the weights that are due at a step: of which tensors, at the interval that their cost allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from mlflow_hp.training.capture.cadence import Cadence
from mlflow_hp.training.capture.weight_statistics import WeightStatistics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.history import Tensor


class DueStatistics:
    """Statistics of the weights of a model at its steps, in the compiled graph.

    Parameters
    ----------
    variables : sequence of tf.Variable
        The model's weights.
    overhead : float
        Share of the time of training that the statistics of large tensors may take.
    """

    def __init__(self, variables: Sequence[tf.Variable], overhead: float) -> None:
        self._statistics = WeightStatistics(variables, in_turns=overhead < 1)
        self._cadence = Cadence(overhead)
        self._has_large = bool(self._statistics.is_large.any())
        self._steps = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._interval = tf.Variable(self._cadence.interval, dtype=tf.int64, trainable=False)

    @property
    def is_measuring(self) -> bool:
        """Whether there are tensors whose cost is not known yet."""
        return self._has_large and not self._cadence.is_measured

    def start(self) -> None:
        """Begin a fit: the current weights are those before its first step."""
        self._cadence.start()
        self._statistics.start()
        self._steps.assign(0)

    def before_step(self) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Choose the turn that is due, and copy its tensors; called while TensorFlow traces.

        Returns
        -------
        turn : tf.Tensor
            Turn of large tensors, -1 if none is due; 0 if there are no large ones.
        before : list of tf.Tensor
            Large tensors before the step.
        """
        if not self._has_large:
            return tf.constant(0, tf.int64), []
        turn = self._statistics.next_turn(self._steps, self._interval)
        return turn, self._statistics.before(turn)

    def after_step(self, turn: tf.Tensor, before: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Compute the statistics after the step; they and the turn end the row of the step."""
        row = [self._statistics.after(before, turn), tf.cast(turn, tf.float64)[tf.newaxis]]
        self._steps.assign_add(1)
        return row

    def read(self, table: np.ndarray, times: np.ndarray, tensors: Sequence[Tensor]) -> dict[str, np.ndarray]:
        """Read the statistics from the ends of rows, and set the interval of the next steps.

        Parameters
        ----------
        table : ndarray of shape (k, 4 * n_tensors + 1)
            Ends of the rows of k consecutive steps.
        times : ndarray of shape (k,)
            Times of the steps, in seconds.
        tensors : sequence of Tensor
            Descriptions of the weights.

        Returns
        -------
        dict of str to ndarray of shape (k, 4)
            Statistics by the name of a tensor, masked where a large one was not due.
        """
        rows, turns = table[:, :-1].reshape(len(table), len(tensors), 4), table[:, -1].astype(int)
        result = {tensor.name: rows[:, index] for index, tensor in enumerate(tensors)}
        if self._has_large:
            self._cadence.observe(times, turns)
            self._interval.assign(self._cadence.interval)
        large = np.flatnonzero(self._statistics.is_large).tolist()
        for index, own in zip(large, self._statistics.turns, strict=True):
            missing = np.repeat((turns != own)[:, np.newaxis], 4, axis=1)
            result[tensors[index].name] = np.ma.array(rows[:, index], mask=missing)
        return result
