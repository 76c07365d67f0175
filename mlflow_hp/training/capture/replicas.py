"""Replicas of a distributed model, each of which runs a step on its part of the batch.

Keras trains a model made in the scope of a `tf.distribute.MirroredStrategy` on several devices: each replica takes the
step on its part of the batch, and the logs of the step are the means of theirs, in which each replica counts once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
from keras import tree

if TYPE_CHECKING:
    from collections.abc import Callable


def run_in_replicas(strategy: Any, step: Callable[[Any], tuple[Any, tf.Tensor]], data: Any) -> tuple[Any, tf.Tensor]:
    """Run a step in each replica of a model, and combine what it returns.

    Parameters
    ----------
    strategy : tf.distribute.Strategy or None
        The strategy of the model; None runs the step once, as it is.
    step : callable
        Takes the data of a replica; returns a nested structure of values, and the number of samples.
    data : nested structure
        One batch.

    Returns
    -------
    tuple
        The values, each the mean over the replicas, as Keras has it for its logs; and the sum of the samples.
    """
    if strategy is None:
        return step(data)
    values, n_samples = strategy.run(step, args=(data,))

    def mean(value: Any) -> Any:
        parts = strategy.experimental_local_results(value)
        return parts[0] if len(parts) == 1 else tf.reduce_mean(parts, axis=0)

    return tree.map_structure(mean, values), tf.add_n(list(strategy.experimental_local_results(n_samples)))


def replica_number() -> int:
    """Return the number (0-based) of the replica whose step is being traced; 0 outside of any."""
    context = tf.distribute.get_replica_context()
    return 0 if context is None else int(tf.get_static_value(context.replica_id_in_sync_group) or 0)
