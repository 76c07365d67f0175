"""Compiled program of a network: some steps of many members in one call."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.search.vectorised.layers import StepContext

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mlflow_hp.search.vectorised.network import Network


class CompiledNetwork:
    """Steps, evaluation and outputs of a network's members, compiled once for any number of members, rows and steps.

    Parameters
    ----------
    network : Network
    settings : sequence of str
        Names of the settings that are not 0 for all members.

    Attributes
    ----------
    slots : tuple of str
        Arrays that the optimizer keeps.
    """

    def __init__(self, network: Network, settings: Sequence[str]) -> None:
        self._network = network
        self._settings = tuple(settings)
        self.slots = network.optimizer.slots(self._settings)
        self._sizes = [math.prod(variable.shape) for variable in network.variables if variable.is_trained]

    @functools.cached_property
    def train(self) -> Callable[..., Any]:
        """Take some steps: see `_train`."""
        return self._compiled(self._train, 0)

    @functools.cached_property
    def evaluate(self) -> Callable[..., Any]:
        """Compute loss and metrics: see `_evaluate`."""
        return self._compiled(self._evaluate, 1)

    @functools.cached_property
    def predict(self) -> Callable[..., Any]:
        """Compute outputs: see `_predict`."""
        return self._compiled(self._predict, 2)

    def _compiled(self, function: Callable[..., Any], index: int) -> Callable[..., Any]:
        import tensorflow as tf

        return tf.function(function, autograph=False, input_signature=self._signatures()[index]).get_concrete_function()

    def _signatures(self) -> tuple[Any, Any, Any]:
        """Types of the arguments, for any number of members, rows and steps: so that nothing is traced twice."""
        import tensorflow as tf

        def spec(shape: Sequence[int | None], dtype: Any = tf.float32) -> Any:
            return tf.TensorSpec([None, *shape], dtype)

        network = self._network
        flat = spec([sum(self._sizes)])
        weights = flat, [spec(variable.shape) for variable in network.variables if not variable.is_trained]
        slots = dict.fromkeys(self.slots, flat)
        settings = {name: spec([2], tf.int64) if name.startswith("seed/") else spec([]) for name in self._settings}
        data = spec(network.input_shape, network.input_dtype), spec(network.target_shape)
        rows, sizes = spec([None], tf.int32), spec([], tf.int32)
        return (
            [weights, slots, settings, *data, spec([None, None], tf.int32), spec([None], tf.int32), spec([], tf.int64)],
            [weights, settings, *data, rows, sizes],
            [weights, spec([None, *network.input_shape], network.input_dtype)],
        )

    def pack(self, weights: Sequence[np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Join the trained variables of all members, each stacked, to one array of shape (n_members, n_weights).

        Returns it, and the other variables.
        """
        pairs = list(zip(weights, self._network.variables, strict=True))
        trained = [weight.reshape(len(weight), -1) for weight, variable in pairs if variable.is_trained]
        return np.concatenate(trained, 1), [weight for weight, variable in pairs if not variable.is_trained]

    def unpack(self, weights: tuple[Any, Sequence[Any]]) -> list[Any]:
        """Divide what `pack` has joined into the variables, as tensors."""
        import tensorflow as tf

        flat, others = weights
        trained, rest = iter(tf.split(flat, self._sizes, 1)), iter(others)
        return [
            tf.reshape(next(trained), (-1, *variable.shape)) if variable.is_trained else next(rest)
            for variable in self._network.variables
        ]

    def _train(
        self, weights: Any, slots: Any, settings: Any, x: Any, y: Any, rows: Any, sizes: Any, steps_before: Any
    ) -> Any:
        """Take some steps.

        Parameters
        ----------
        weights : tuple of Tensor and list of Tensor
            The variables, as from `pack`.
        slots : dict of str to Tensor
            The optimizer's arrays, each of shape (n_members, n_weights).
        settings : dict of str to Tensor
            Shape (n_members,); of seeds (n_members, 2).
        x, y : Tensor
            The shared data.
        rows : Tensor of int32, shape (n_steps, n_members, batch_size)
            Rows of each batch; those beyond its size only fill it up.
        sizes : Tensor of int32, shape (n_steps, n_members)
            Number of rows of each batch.
        steps_before : Tensor of int64, shape (n_members,)
            Number of steps that each member has taken before.

        Returns
        -------
        weights, slots
            The new ones.
        values : Tensor of float32, shape (n_steps, 1 + n_metrics, n_members)
            Loss and metrics of each batch.
        """
        import tensorflow as tf

        n_steps = tf.shape(rows)[0]
        own = {name: value for name, value in settings.items() if "/" in name}
        shared = {name: value[:, None] for name, value in settings.items() if "/" not in name}

        def body(step: Any, weights: Any, slots: Any, values: Any) -> Any:
            count = steps_before + tf.cast(step, tf.int64)
            is_row = tf.sequence_mask(sizes[step], tf.shape(rows)[2])
            with tf.GradientTape() as tape:
                tape.watch(weights[0])
                batch = StepContext(own, count, is_row)
                losses, metrics, others = self._losses(weights, x, y, rows[step], sizes[step], batch)
            gradient = tape.gradient(losses, weights[0])
            flat = weights[0]
            if "weight_decay" in shared:
                flat = flat - flat * shared["weight_decay"] * shared["learning_rate"]
            count = tf.cast(count, tf.float32)[:, None]
            flat, slots = self._network.optimizer.update(flat, gradient, slots, shared, count)
            return step + 1, (flat, others), slots, values.write(step, tf.stack([losses, *metrics]))

        values = tf.TensorArray(tf.float32, n_steps, element_shape=(1 + len(self._network.objectives.metrics), None))
        _, weights, slots, values = tf.while_loop(
            lambda step, *_: step < n_steps, body, (0, weights, slots, values), parallel_iterations=1
        )
        return weights, slots, values.stack()

    def _losses(
        self, weights: Any, x: Any, y: Any, rows: Any, sizes: Any, batch: StepContext
    ) -> tuple[Any, list[Any], list[Any]]:
        """Loss with penalties and metrics of each member, each of shape (n_members,), and new untrained variables."""
        import tensorflow as tf

        objectives, variables = self._network.objectives, self.unpack(weights)
        outputs, changed = self._network.outputs(tf.gather(x, rows), variables, batch)
        targets = tf.gather(y, rows)
        n = tf.cast(sizes, tf.float32)

        def mean(values: Any) -> Any:
            return tf.reduce_sum(tf.where(batch.is_row, values, tf.zeros_like(values)), 1) / n

        losses = mean(objectives.loss(targets, outputs))
        for index, variable in enumerate(variables):
            axes = list(range(1, len(variable.shape)))
            if f"l1/{index}" in batch.settings:
                losses += batch.settings[f"l1/{index}"] * tf.reduce_sum(tf.abs(variable), axes)
            if f"l2/{index}" in batch.settings:
                losses += batch.settings[f"l2/{index}"] * tf.reduce_sum(tf.square(variable), axes)
        others = [
            changed.get(index, variables[index])
            for index, each in enumerate(self._network.variables)
            if not each.is_trained
        ]
        return losses, [mean(metric(targets, outputs)) for metric in objectives.metrics.values()], others

    def _evaluate(self, weights: Any, settings: Any, x: Any, y: Any, rows: Any, sizes: Any) -> Any:
        """Loss and metrics of each member on its rows: shape (1 + n_metrics, n_members)."""
        import tensorflow as tf

        batch = StepContext(settings, None, tf.sequence_mask(sizes, tf.shape(rows)[1]))
        losses, metrics, _ = self._losses(weights, x, y, rows, sizes, batch)
        return tf.stack([losses, *metrics])

    def _predict(self, weights: Any, x: Any) -> Any:
        """Outputs for inputs of shape (n_members, n_rows, ...)."""
        return self._network.outputs(x, self.unpack(weights), StepContext({}))[0]
