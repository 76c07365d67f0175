"""Reader of the gradients that a model's optimizers get, while its step is traced."""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from mlflow_hp._notice import log
from mlflow_hp.training.capture.gradient_statistics import GradientStatistics, clip_of, loss_scale
from mlflow_hp.training.capture.large_gradient import Gradient, LargeGradient, reduce_large
from mlflow_hp.training.capture.step_layout import tensors_of
from mlflow_hp.training.capture.step_values import optimizers_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.training.capture import CaptureSettings

GradientsByOptimizer = dict[str, list[Gradient]]


def gradient_reader(model: Any, settings: CaptureSettings) -> GradientReader | None:
    """Make a reader of a model's gradients; None if they are not to be read.

    XLA compiles a step that gives its gradients away into another program, whose sums may differ in their last bits: so
    ``gradients="auto"`` leaves them out there, and says so.
    """
    if settings.gradients == "auto" and is_compiled_by_xla(model):
        say_left_out(
            "XLA compiles the training step, and recording them could change its last bits. gradients=True records "
            "them all the same"
        )
        return None
    return GradientReader(model) if settings.gradients else None


def is_compiled_by_xla(model: Any) -> bool:
    """Whether XLA compiles a model's step: as the model has it, or all of TensorFlow's graphs."""
    of_all = re.search(r"tf_xla_auto_jit=[^-0]", os.environ.get("TF_XLA_FLAGS", ""))
    return bool(model.jit_compile or tf.config.optimizer.get_jit() or of_all)


@functools.cache
def say_left_out(reason: str) -> None:
    """Say, once in a process, that gradients are not recorded for a reason."""
    log(f"gradients are not recorded: {reason}", name=__name__)


class GradientReader:
    """Reads gradients as the optimizers get them, and computes their columns.

    Each large one is reduced before the optimizer uses it, so that it can use its memory again as it does without a
    recording. XLA computes sums more slowly: there they are reduced after the step.

    Parameters
    ----------
    model : keras.Model
        Compiled.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._statistics: GradientStatistics | None = None
        self._read: GradientsByOptimizer = {}
        self._layout: dict[str, list[tuple[str, tuple[int, ...]]]] = {}

    @property
    def columns(self) -> list[str]:
        """Names of the columns; none before the first call of `compute`."""
        return [] if self._statistics is None else self._statistics.columns

    def start(self) -> None:
        """Begin a fit: no gradient comes before its first."""
        if self._statistics is not None:
            self._statistics.start()

    def begin(self) -> None:
        """Begin the tracing of a step."""
        self._read = {}

    def before_apply(self, optimizer: str, pairs: Sequence[tuple[Any, Any]]) -> list[Any]:
        """Read the gradients that an optimizer is about to apply; return them, each to be used after it was reduced.

        Parameters
        ----------
        optimizer : str
            Its name in `optimizers_of`.
        pairs : sequence of tuple
            Variables, and their gradients.
        """
        tensors = zip(tensors_of(self._model), self._model.weights, strict=True)
        known = {id(part): tensor for tensor, variable in tensors for part in (variable, variable.value)}
        applied = optimizers_of(self._model)[optimizer]
        bound = clip_of(applied).bound(loss_scale(applied))
        read, passed = [], []
        for variable, value in pairs:
            passed.append(value)
            if id(variable) not in known:
                continue
            gradient = Gradient(known[id(variable)].name, known[id(variable)].shape, value)
            if not self._model.jit_compile:
                gradient = reduce_large(gradient, bound)
            if isinstance(gradient.value, LargeGradient):
                with tf.control_dependencies(gradient.value[:3]):
                    passed[-1] = tf.identity(value)
            read.append(gradient)
        self._read.pop(optimizer, None)  # the last call in a step counts
        if read:
            self._read[optimizer] = read
        return passed

    def end(self, stepped: Sequence[str]) -> dict[str, list[Any]]:
        """End the tracing of a step that applies the optimizers `stepped`; return what was read, by optimizer."""
        if stepped and not self._read:
            say_left_out("the step applies its optimizer inside a tf.function, a loop or a condition of its own")
        self._layout = {name: [(each.name, each.shape) for each in those] for name, those in self._read.items()}
        return {name: [each.value for each in those] for name, those in self._read.items()}

    @property
    def layout(self) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
        """Names and shapes of the weight tensors whose gradients the step that was traced last has, by optimizer."""
        return self._layout

    def compute(
        self, values: Mapping[str, Sequence[Any]], optimizers: Mapping[str, Any], scales: Mapping[str, Any]
    ) -> tf.Tensor:
        """Compute the columns, (n_columns,), float64.

        Parameters
        ----------
        values : mapping of str to sequence
            What `end` returned.
        optimizers : mapping of str to keras.optimizers.Optimizer
            By name.
        scales : mapping of str to number or tensor
            Factor of the loss whose gradients each optimizer gets.
        """
        gradients = {
            optimizer: [Gradient(*known, value) for known, value in zip(self._layout[optimizer], each, strict=True)]
            for optimizer, each in values.items()
        }
        if self._statistics is None:
            self._statistics = GradientStatistics(gradients, optimizers)
        return self._statistics.compute(gradients, scales)
