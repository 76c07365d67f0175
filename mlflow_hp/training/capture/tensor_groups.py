"""Sums over the elements of each of many small tensors, in a few operations for all of them.

An operation costs some microseconds however small its tensor, so many tensors are not reduced one by one. Those that
differ in their first axis alone are concatenated as they are, without a reshape of each; each row of the resulting
matrices is summed, and then the rows of each tensor. Vectors have a row of one element each, except where several have
the same length: then each is a row.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Matrices = list[tf.Tensor]
"""A matrix (rows, width) for each group."""


SEVERAL = 4
"""Number of vectors of one length from which they are a group."""


class _Group(NamedTuple):
    """Tensors that are concatenated: their places among all, the dtype of the sums, and the shape of a row."""

    members: list[int]
    dtype: tf.DType
    width: int


class TensorGroups:
    """Groups of tensors that are summed together.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Shape of each tensor.
    dtypes : sequence of tf.DType
        Dtype of each tensor.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[tf.DType]) -> None:
        kinds = [(dtype, tuple(shape)) for shape, dtype in zip(shapes, dtypes, strict=True)]
        counts = Counter(kinds)
        are_rows = [len(kind[1]) == 1 and counts[kind] >= SEVERAL for kind in kinds]
        groups: dict[tuple[tf.DType, tuple[int, ...], bool], list[int]] = {}
        for index, ((dtype, shape), is_row) in enumerate(zip(kinds, are_rows, strict=True)):
            groups.setdefault((dtype, shape if is_row else shape[1:], is_row), []).append(index)
        self._groups = [
            _Group(members, _sum_dtype(dtype), math.prod(row)) for (dtype, row, _), members in groups.items()
        ]
        self._is_scalar = [not shape for shape in shapes]
        self._n_tensors = len(shapes)
        self.sizes = np.array([math.prod(shape) for shape in shapes], np.float64)
        n_rows = [1 if is_row or not shape else shape[0] for (_, shape), is_row in zip(kinds, are_rows, strict=True)]
        self._owners = [np.repeat(group.members, [n_rows[i] for i in group.members]) for group in self._groups]

    def matrices(self, tensors: Sequence[tf.Tensor]) -> Matrices:
        """Concatenate the tensors of each group to a matrix (rows, width)."""
        result = []
        for group, owners in zip(self._groups, self._owners, strict=True):
            parts = [tensors[i][tf.newaxis] if self._is_scalar[i] else tensors[i] for i in group.members]
            joined = parts[0] if len(parts) == 1 else tf.concat(parts, axis=0)
            flat = tf.reshape(joined, [len(owners), group.width])
            result.append(flat if flat.dtype == group.dtype else tf.cast(flat, group.dtype))
        return result

    def variables(self) -> list[tf.Variable]:
        """Create variables for `matrices`, zeros."""
        return [
            tf.Variable(tf.zeros((len(owners), group.width), group.dtype), trainable=False)
            for group, owners in zip(self._groups, self._owners, strict=True)
        ]

    def sums(self, *quantities: Matrices) -> tf.Tensor:
        """Sum the elements of each tensor; return (n_tensors, n_quantities), float64."""
        by_row = [
            tf.stack([tf.cast(tf.reduce_sum(matrix, axis=1), tf.float64) for matrix in of_group], axis=1)
            for of_group in zip(*quantities, strict=True)
        ]
        owners = np.concatenate([np.empty(0, np.int32), *self._owners]).astype(np.int32)
        rows = tf.concat(by_row, axis=0) if by_row else tf.zeros((0, len(quantities)), tf.float64)
        return tf.math.unsorted_segment_sum(rows, owners, self._n_tensors)

    def by_row(self, values: tf.Tensor) -> Matrices:
        """Repeat each tensor's value, of `values` (n_tensors,), for its rows: a matrix (rows, 1) for each group."""
        return [
            tf.cast(tf.gather(values, owners), group.dtype)[:, tf.newaxis]
            for group, owners in zip(self._groups, self._owners, strict=True)
        ]


def elementwise(function: Callable[..., tf.Tensor], *operands: Matrices) -> Matrices:
    """Apply a function to the matrices of each group."""
    return [function(*of_group) for of_group in zip(*operands, strict=True)]


def _sum_dtype(dtype: tf.DType) -> tf.DType:
    """Dtype in which tensors of `dtype` are summed: at least float32."""
    return tf.float32 if dtype in (tf.float32, tf.float16, tf.bfloat16) else tf.float64
