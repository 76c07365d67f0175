"""Batches of many members, as rows of their shared data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mlflow_hp.search.vectorised.members import Member


def batches(members: Sequence[Member], epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each batch of an epoch.

    Parameters
    ----------
    members : sequence of Member
    epoch : int
        0-based.

    Returns
    -------
    rows : ndarray of int32, shape (n_steps, n_members, batch_size)
        Filled up with rows of the member's own; `batch_size` is no more than the most rows that a member has.
    sizes : ndarray of int32, shape (n_steps, n_members)
        Number of rows of each batch; 0 after a member's last one.
    """
    n_steps, most = max(member.n_steps for member in members), max(len(member.rows) for member in members)
    size = min(most, max(member.batch_size for member in members))
    rows = np.empty((n_steps, len(members), size), np.int32)
    sizes = np.zeros((n_steps, len(members)), np.int32)
    for index, member in enumerate(members):
        order = member.rows if member.order is None else member.rows[member.order[epoch % len(member.order)]]
        own_size = min(member.batch_size, most)
        own = np.resize(order, n_steps * own_size).reshape(n_steps, own_size)
        rows[:, index] = np.pad(own, ((0, 0), (0, size - own_size)), mode="wrap")
        first = np.arange(n_steps) * member.batch_size
        sizes[:, index] = np.clip(len(order) - first, 0, member.batch_size)
    return rows, sizes


def segments(n_steps: np.ndarray) -> Iterator[tuple[int, int, list[int]]]:
    """Divide an epoch into parts in which the same members take steps.

    Parameters
    ----------
    n_steps : ndarray of int, shape (n_members,)
        Number of steps of each member.

    Yields
    ------
    first, last : int
        First step of the part, and the one after its last.
    members : list of int
        Positions of the members that take these steps.
    """
    first = 0
    for last in np.unique(n_steps).tolist():
        yield first, last, np.flatnonzero(n_steps >= last).tolist()
        first = last


def keras_order(n_rows: int) -> np.ndarray:
    """Order in which Keras would shuffle this many rows now, in each epoch of a seeded training.

    Keras shuffles in a pipeline of `tf.data` by an operation without a seed of its own, which TensorFlow's global seed
    determines, together with its place in the pipeline. The same pipeline gives the same order. Without a global seed
    it is a random one.

    Returns
    -------
    ndarray of int, shape (n_rows,)
    """
    import tensorflow as tf

    pipeline = tf.data.Dataset.range(1).map(lambda _: tf.random.shuffle(tf.range(n_rows, dtype=tf.int64)))
    return next(iter(pipeline)).numpy()
