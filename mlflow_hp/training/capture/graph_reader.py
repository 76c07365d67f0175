"""Reader of training steps inside the compiled graph, into buffers that are fetched every few hundred steps.

The model's ``train_step``, Keras' or the user's, is traced unchanged, in a separate function compiled as the model's
settings say; learning rates and weights are read around it, losses as the step returns or tracks them. So the recorded
training gives the same results as an unrecorded one, bit for bit, and every step is recorded even if Python sees only
one in fifty.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from keras import tree

from mlflow_hp._compat.tensorflow import refuses_its_clock
from mlflow_hp.delivery.signals import held
from mlflow_hp.history.step_record import Layout, Rows, n_weights
from mlflow_hp.training.capture import train_step_is_own
from mlflow_hp.training.capture.step_buffers import StepBuffers
from mlflow_hp.training.capture.step_layout import (
    EpochCounter,
    NothingRanError,
    Unwrappable,
    batch_column,
    build,
    columns_of,
    initial_weights,
    inputs_of,
    kinds_of,
    leaves_of,
    running_column,
    store_for,
    tensors_of,
)
from mlflow_hp.training.capture.step_values import StepValues, StepWatch, is_number, n_samples, optimizers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FETCH_SECONDS = 0.5
"""Time after which the buffers are fetched although they are not full."""

_SCALARS = ("time", "samples")
"""First columns of the scalar buffer; step, epoch and batch are counted on the host."""


class GraphReader:
    """Reads each step of a model on TensorFlow, inside the compiled function.

    Parameters
    ----------
    model : keras.Model
        Compiled, and possibly not built.
    weights : {"auto", "all", "statistics", "none"}
        What to read of the weights, as in `TrainingRecorder`.
    forget : callable
        Called if this reader can serve no further fit.

    Attributes
    ----------
    steps_done : int
        Number of steps of the fit so far.
    optimizers : dict of str to keras.optimizers.Optimizer
        Those that the step applies, by the names of their attributes; empty until it is traced.
    """

    kind = "graph"

    def __init__(self, model: Any, weights: str, forget: Callable[[], object]) -> None:
        self.forget = forget
        self._model = model
        self._weights = weights
        self._buffers: StepBuffers | None = None
        self.optimizers: dict[str, Any] = {}
        self._columns: list[str] | None = None
        self._logged: list[str] = []
        self._problem: Exception | None = None
        self._last: Any = {}
        self._done = 1
        self._clock = not refuses_its_clock()  # as scikeras has it with a random_state
        self._times: list[float] = []
        self._several = model.steps_per_execution > 1
        self._step: Any = self._several_steps if self._several else self._one_step
        self._step = tf.function(self._step, reduce_retracing=True, autograph=False)

    def connect(self, on_layout: Callable[[Layout], None], on_rows: Callable[[Rows], None]) -> None:
        """Set the callables: `on_layout`, called once in a fit after its first step, and `on_rows`, at each fetch."""
        self._on_layout, self._on_rows = on_layout, on_rows

    def start(self, first_step: int) -> None:
        """Begin a fit; `first_step` is the number of its first step in its run (0-based)."""
        self._counter = EpochCounter(first_step)
        self._layout: Layout | None = None
        self._prepared = False
        self._pending = 0
        self._times = []
        self.steps_done = 0
        self._fetched_at = time.monotonic()
        if self._buffers is not None:
            self._buffers.clear()

    def begin_epoch(self, epoch: int) -> None:
        """The next step belongs to `epoch` (0-based)."""
        self._counter.begin_epoch(epoch, self._pending)

    def prepare(self, iterator: Any) -> None:
        """Build the model, trace the step, and read the initial weights, without taking data from `iterator`.

        Raises
        ------
        Exception
            Any error of building or tracing: then this model's graph cannot be wrapped.
        """
        if self._prepared:
            return
        data = inputs_of(iterator.element_spec)
        if not train_step_is_own(self._model):
            build(self._model, data)
        self._compiled_step.get_concrete_function(data)  # builds what `build` has not, and shows which values there are
        if self._problem is not None:
            raise self._problem
        self._tensors = tensors_of(self._model)
        self._store = store_for(self._weights, n_weights(self._tensors))
        self._initial = initial_weights(self._model, self._tensors, self._store)
        self._step.get_concrete_function(iterator)
        self._prepared = True

    def make_room(self) -> None:
        """Fetch the buffers if the next execution would not fit, or the last fetch was ``FETCH_SECONDS`` ago."""
        if self._buffers is not None and (
            self._pending + self._model.steps_per_execution > self._buffers.capacity
            or time.monotonic() - self._fetched_at > FETCH_SECONDS
        ):
            self.fetch()

    def execute(self, iterator: Any) -> Any:
        """Run one execution (``steps_per_execution`` steps) as Keras' own train function would.

        Raises
        ------
        NothingRanError
            If it fails before data are taken.
        """
        if self._clock and refuses_its_clock():
            self.forget()
            raise NothingRanError("determinism was enabled during the fit: the graph reads the clock, and cannot run")
        try:
            result = self._step(iterator)
        except (StopIteration, tf.errors.OpError):
            raise
        except Exception as error:
            if tf.config.functions_run_eagerly():
                raise
            self.forget()  # not an error of an operation: tracing failed, before any operation ran
            raise NothingRanError(f"{type(error).__name__}: {error}") from error
        if not self._several:
            return result
        done, logs = result
        self._done = int(done)
        if not self._done:
            raise StopIteration
        return logs

    def read(self, logs: Any) -> None:  # noqa: ARG002
        """Count the steps of the last execution; their records are in the buffers already."""
        self._pending += self._done
        self.steps_done += self._done
        if not self._clock:
            self._times += [time.time()] * self._done

    def fetch(self) -> None:
        """Pass on the steps in the buffers, and empty them."""
        self._fetched_at = time.monotonic()
        if self._buffers is None or not self._prepared:
            return
        with held():
            self._pass_on(self._buffers)

    def _pass_on(self, buffers: StepBuffers) -> None:
        scalars, weights = buffers.take()
        self._pending = 0
        if self._layout is None:
            layout = Layout(kinds_of(self._scalars), self._tensors, self._store, self._initial)
            self._on_layout(layout)
            self._layout = layout
        if not len(scalars):
            return
        columns = self._counter.count(len(scalars))
        columns |= dict(zip(self._scalars, scalars.T, strict=True))
        columns["samples"] = columns["samples"].astype(np.int64)
        if not self._clock:
            columns["time"] = np.array(self._times[: len(scalars)])
            del self._times[: len(scalars)]
        if self._store == "values":
            tensors = {
                tensor.name: flat.reshape(-1, *tensor.shape)
                for tensor, flat in zip(self._tensors, weights, strict=True)
            }
        elif self._store == "statistics":
            rows = weights[0].reshape(len(scalars), len(self._tensors), -1)
            tensors = {tensor.name: rows[:, index] for index, tensor in enumerate(self._tensors)}
        else:
            tensors = {}
        self._on_rows(Rows(columns, tensors))

    @property
    def _scalars(self) -> list[str]:
        """Columns of the scalar buffer."""
        return [*_SCALARS, *(self._columns or [])]

    # The methods from here on run while TensorFlow traces.

    def _one_step(self, iterator: Any) -> Any:
        return self._recorded_step(iterator.get_next())

    def _several_steps(self, iterator: Any) -> Any:
        """Run up to ``steps_per_execution`` steps; return their number and the logs of the last."""
        limit = self._model.steps_per_execution

        def condition(index: tf.Tensor, element: Any) -> tf.Tensor:
            return tf.logical_and(index < limit, element.has_value())

        def body(index: tf.Tensor, element: Any) -> tuple[tf.Tensor, Any]:
            logs = self._recorded_step(element.get_value())
            if len(self._logged) < len(leaves_of(logs)):
                raise Unwrappable("a metric's result is not a scalar")
            self._last = logs
            following = tf.cond(index + 1 < limit, iterator.get_next_as_optional, lambda: element)
            return index + 1, following

        start = (tf.constant(0), iterator.get_next_as_optional())
        done, _ = tf.while_loop(condition, body, start, parallel_iterations=1)
        assert self._buffers is not None
        last = self._buffers.last_scalars()
        values = (last[self._scalars.index(column)] for column in self._logged)
        return done, _filled(self._last, values)

    def _recorded_step(self, data: Any) -> Any:
        """Run Keras' step on one batch, and write its record into the buffers."""
        data = tree.map_structure(_none_for_optional, data)
        rates = [tf.convert_to_tensor(each.learning_rate) for each in self.optimizers.values()]
        variables = [variable.value for variable in self._model.weights]
        before = [tf.convert_to_tensor(v) for v in variables] if self._store == "statistics" else []
        logs, values = self._compiled_step(data)
        if self._problem is not None:
            raise self._problem
        now = tf.timestamp() if self._clock else tf.constant(0.0, tf.float64)
        scalars = [now, n_samples(data), *rates, *values.batch.values(), *values.running.values()]
        after = [tf.convert_to_tensor(variable) for variable in variables]
        if self._store == "values":
            weights = [tf.reshape(value, [-1]) for value in after]
        elif self._store == "statistics":
            weights = [_statistics(after, before)]
        else:
            weights = []
        if self._buffers is None:
            with tf.init_scope():
                self._buffers = StepBuffers(len(scalars), weights, self._model.steps_per_execution)
        self._buffers.write(scalars, weights)
        return logs

    @property
    def _compiled_step(self) -> Any:
        """The model's step as a separate function, as in Keras, that also returns its values."""
        if not hasattr(self, "_own_step"):

            def step(data: Any) -> tuple[Any, StepValues]:
                watch = StepWatch(self._model)
                with watch.watching():
                    logs = self._model.train_step(data)
                try:
                    values = watch.values(logs)
                    self._note_values(logs, values, watch.stepped)
                except Exception as error:  # noqa: BLE001 - raised here, variables of the step would have no values
                    self._problem = error
                    values = StepValues({}, {})
                return logs, values

            self._own_step = tf.function(
                step, reduce_retracing=True, jit_compile=self._model.jit_compile, autograph=False
            )
        return self._own_step

    def _note_values(self, logs: Any, values: StepValues, stepped: list[str]) -> None:
        """Name the columns of the step's values, and the one that has each entry of its logs."""
        columns = columns_of(stepped, values.batch, values.running)
        if self._buffers is not None and columns != self._columns:  # before, metrics that the step makes are missing
            raise Unwrappable(f"train_step has other values than when it was traced first: {', '.join(columns)}")
        self._columns = columns
        held = optimizers_of(self._model)
        self.optimizers = {name: held[name] for name in stepped}
        self._logged = [
            running_column(name) if name in values.running else batch_column(name)
            for name, value in leaves_of(logs)
            if is_number(value)
        ]


def _filled(logs: Mapping[str, Any], values: Iterator[Any]) -> dict[str, Any]:
    """Copy logs, with the next of `values` in place of each number."""

    def filled(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _filled(value, values)
        number = next(values)
        return tf.cast(number, value.dtype) if hasattr(value, "dtype") else value

    return {name: filled(value) for name, value in logs.items()}


def _none_for_optional(element: Any) -> Any:
    """Convert an empty Optional, which Keras' data adapters give for a missing input, to None for ``train_step``."""
    return None if isinstance(element, tf.experimental.Optional) else element


def _statistics(after: Sequence[tf.Tensor], before: Sequence[tf.Tensor]) -> tf.Tensor:
    """Statistics of each tensor as in `mlflow_hp.history.statistics_of`, concatenated: float64, (4 * n_tensors,)."""
    means, halves = [], []
    for value, old in zip(after, before, strict=True):
        new, old_value = (v if v.dtype.is_floating else tf.cast(v, tf.float64) for v in (value, old))
        mean = tf.reduce_mean(new)
        means.append(tf.cast(mean, tf.float64))
        parts = (new, new - mean, new - old_value, old_value)
        halves.append(tf.stack([tf.cast(tf.nn.l2_loss(part), tf.float64) for part in parts]))
    sizes = tf.constant([max(v.shape.num_elements(), 1) for v in after], tf.float64)
    norm, spread, change, old_norm = tf.unstack(tf.sqrt(2.0 * tf.stack(halves)), axis=1)
    columns = [norm, tf.stack(means), spread / tf.sqrt(sizes), change / old_norm]
    return tf.reshape(tf.stack(columns, axis=1), [-1])
