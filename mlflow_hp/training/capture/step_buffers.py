"""Buffers inside the compiled graph that hold the records of steps until they are fetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

BUFFER_BYTES = 32 * 2**20
"""Memory limit of the buffers; a fetch empties them when they are full."""
MAX_STEPS = 512
"""Most steps in the buffers, so that the steps of a long training reach disk and MLflow soon."""


class StepBuffers:
    """Variables with the records of the steps since the last fetch.

    Parameters
    ----------
    n_columns : int
        Number of columns of a step's row.
    weights : sequence of 1-D tensors
        Weights after a step; only shapes and dtypes are used.
    min_capacity : int
        Number of steps that must fit.
    """

    def __init__(self, n_columns: int, weights: Sequence[tf.Tensor], min_capacity: int) -> None:
        row_bytes = 8 * n_columns + sum(w.shape.num_elements() * w.dtype.size for w in weights)
        self.capacity = max(min_capacity, 1, min(MAX_STEPS, BUFFER_BYTES // row_bytes))
        self._places: dict[tuple[int, int], tf.Tensor] = {}
        self._cursor = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._rows = tf.Variable(tf.zeros((self.capacity, n_columns), tf.float64), trainable=False)
        self._weights = [
            tf.Variable(tf.zeros((self.capacity, w.shape.num_elements()), w.dtype), trainable=False) for w in weights
        ]

    def write(self, row: tf.Tensor, weights: Sequence[tf.Tensor]) -> None:
        """Add the record of a step: its row, (n_columns,) float64, and the weights after it."""
        index = self._cursor.read_value()
        updates = [
            tf.raw_ops.ResourceScatterUpdate(resource=buffer.handle, indices=index, updates=values)
            for buffer, values in zip([self._rows, *self._weights], [row, *weights], strict=True)
        ]
        with tf.control_dependencies([op for op in updates if op is not None]):  # None in eager mode
            self._cursor.assign_add(1)  # last, so that a step that fails is not counted

    def last_row(self) -> tf.Tensor:
        """Row of the last step written; zeros if there is none."""
        return self._rows[tf.maximum(self._cursor - 1, 0)]

    def rows(self, first: int, end: int) -> np.ndarray:
        """Rows of the steps `first` to `end` - 1 since the last fetch, without clearing them."""
        if (first, end) not in self._places:  # converting them takes longer than reading the rows
            self._places[first, end] = tf.range(first, end)
        places = self._places[first, end]
        rows: np.ndarray = tf.raw_ops.ResourceGather(
            resource=self._rows.handle, indices=places, dtype=tf.float64
        ).numpy()
        return rows

    def take(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return and clear the records: arrays whose first axis is the step."""
        k = int(self._cursor)
        records = self._rows[:k].numpy(), [buffer[:k].numpy() for buffer in self._weights]
        self.clear()
        return records

    def clear(self) -> None:
        """Discard the records."""
        self._cursor.assign(0)
