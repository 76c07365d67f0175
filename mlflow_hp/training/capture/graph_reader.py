"""One training step read inside the compiled graph, into buffers that are fetched every few hundred steps.

Keras' own ``train_step`` is traced unchanged, in a function of its own and compiled as the model asks; what is
read (loss, learning rate, weights) is read around it. So the recorded training computes what the bare one does,
bit for bit, and every step is recorded even when Python sees only one in fifty.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
from keras import tree

from mlflow_hp.delivery.signals import held
from mlflow_hp.history.step_record import STEP_COLUMNS, Layout, Rows, n_weights
from mlflow_hp.training.capture.step_layout import (
    EpochCounter,
    NothingRanError,
    Unwrappable,
    build,
    initial_weights,
    leaves_of,
    store_for,
    tapped,
    tensors_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BUFFER_BYTES = 32 * 2**20
"""Memory that the buffers may take; a fetch empties them when they are full."""
MOST_STEPS = 512
"""Steps in the buffers at the most, so that a long training is on disk and in MLflow soon."""
FETCH_SECONDS = 0.5
"""Time after which the buffers are fetched although they are not full."""

_SCALARS = ("time", "samples", "learning_rate", "batch_loss")
"""Columns of the scalar buffer, before the running ones; step, epoch and batch are counted on the host."""


def is_deterministic() -> bool:
    """Whether TensorFlow refuses what differs from run to run, such as its clock: scikeras' random_state has it so."""
    try:
        from tensorflow.python.framework.config import is_op_determinism_enabled
    except ImportError:  # it has no public name
        return False
    return bool(is_op_determinism_enabled())


class GraphReader:
    """Reads each step of Keras' standard ``train_step`` on TensorFlow, inside the compiled function.

    Parameters
    ----------
    model : keras.Model
        A compiled model; it may not be built yet.
    weights : {"auto", "all", "statistics", "none"}
        What to read of the weights, as in `TrainingRecorder`.
    forget : callable
        Called where this reader can serve no further fit.

    Attributes
    ----------
    steps_done : int
        Steps of the fit so far.
    """

    kind = "graph"

    def __init__(self, model: Any, weights: str, forget: Callable[[], object]) -> None:
        self.forget = forget
        self._model = model
        self._weights = weights
        self._buffers: _Buffers | None = None
        self._logs: list[str] = []
        self._last: Any = {}
        self._done = 1
        self._clock = not is_deterministic()
        self._times: list[float] = []
        self._several = model.steps_per_execution > 1
        self._step: Any = self._several_steps if self._several else self._one_step
        self._step = tf.function(self._step, reduce_retracing=True, autograph=False)

    def connect(self, on_layout: Callable[[Layout], None], on_rows: Callable[[Rows], None]) -> None:
        """Have `on_layout` called once in a fit, after its first step, and `on_rows` after each fetch."""
        self._on_layout, self._on_rows = on_layout, on_rows

    def start(self, first_step: int) -> None:
        """Begin a fit whose first step has the number `first_step` in its run."""
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
        """Build and trace what has not been, without taking data from `iterator`; read the initial weights.

        Raises
        ------
        Exception
            Whatever building or tracing raises: then this model's graph can't be wrapped.
        """
        if self._prepared:
            return
        build(self._model, iterator.element_spec)
        self._tensors = tensors_of(self._model)
        self._store = store_for(self._weights, n_weights(self._tensors))
        self._initial = initial_weights(self._model, self._tensors, self._store)
        self._step.get_concrete_function(iterator)
        self._prepared = True

    def make_room(self) -> None:
        """Fetch what is in the buffers where the next execution would not fit, or it has been there for long."""
        if self._buffers is not None and (
            self._pending + self._model.steps_per_execution > self._buffers.capacity
            or time.monotonic() - self._fetched_at > FETCH_SECONDS
        ):
            self.fetch()

    def execute(self, iterator: Any) -> Any:
        """Run one execution (a step, or ``steps_per_execution`` of them) as Keras' own function would.

        Raises
        ------
        NothingRanError
            Where it fails before data are taken.
        """
        if self._clock and is_deterministic():
            self.forget()
            raise NothingRanError("determinism was enabled during the fit: the graph that reads the clock can't run")
        try:
            result = self._step(iterator)
        except (StopIteration, tf.errors.OpError):
            raise
        except Exception as error:
            if tf.config.functions_run_eagerly():
                raise
            self.forget()  # what is no error of an operation comes of tracing, ahead of all operations
            raise NothingRanError(f"{type(error).__name__}: {error}") from error
        if not self._several:
            return result
        done, logs = result
        self._done = int(done)
        if not self._done:
            raise StopIteration
        return logs

    def read(self, logs: Any) -> None:  # noqa: ARG002
        """Count the steps of the last execution, which have written their records themselves."""
        self._pending += self._done
        self.steps_done += self._done
        if not self._clock:
            self._times += [time.time()] * self._done

    def fetch(self) -> None:
        """Hand on the steps that are in the buffers, and empty them."""
        self._fetched_at = time.monotonic()
        if self._buffers is None or not self._prepared:
            return
        with held():
            self._hand_on(self._buffers)

    def _hand_on(self, buffers: _Buffers) -> None:
        scalars, weights = buffers.take()
        self._pending = 0
        if self._layout is None:
            running = [f"running_{name}" for name in self._logs]
            kinds = STEP_COLUMNS | dict.fromkeys(running, "float64")
            layout = Layout(kinds, self._tensors, self._store, self._initial)
            self._on_layout(layout)
            self._layout = layout
        if not len(scalars):
            return
        columns = self._counter.count(len(scalars))
        names = [*_SCALARS, *(f"running_{name}" for name in self._logs)]
        columns |= dict(zip(names, scalars.T, strict=True))
        columns["samples"] = columns["samples"].astype(np.int64)
        if not self._clock:
            columns["time"] = np.array(self._times[: len(scalars)])
            del self._times[: len(scalars)]
        if self._store == "values":
            named = {
                tensor.name: flat.reshape(-1, *tensor.shape)
                for tensor, flat in zip(self._tensors, weights, strict=True)
            }
        elif self._store == "statistics":
            rows = weights[0].reshape(len(scalars), len(self._tensors), -1)
            named = {tensor.name: rows[:, index] for index, tensor in enumerate(self._tensors)}
        else:
            named = {}
        self._on_rows(Rows(columns, named))

    # What follows runs while TensorFlow traces.

    def _one_step(self, iterator: Any) -> Any:
        return self._recorded_step(iterator.get_next())

    def _several_steps(self, iterator: Any) -> Any:
        """Up to ``steps_per_execution`` steps; gives how many there were and the logs of the last."""
        most = self._model.steps_per_execution

        def goes_on(index: tf.Tensor, element: Any) -> tf.Tensor:
            return tf.logical_and(index < most, element.has_value())

        def body(index: tf.Tensor, element: Any) -> tuple[tf.Tensor, Any]:
            logs = self._recorded_step(element.get_value())
            if len(self._logs) < len(leaves_of(logs)):
                raise Unwrappable("a metric's result is not a scalar")
            self._last = logs
            following = tf.cond(index + 1 < most, iterator.get_next_as_optional, lambda: element)
            return index + 1, following

        start = (tf.constant(0), iterator.get_next_as_optional())
        done, _ = tf.while_loop(goes_on, body, start, parallel_iterations=1)
        assert self._buffers is not None
        values = iter(tf.unstack(self._buffers.last_scalars()[len(_SCALARS) :], len(self._logs)))
        return done, _filled(self._last, values)

    def _recorded_step(self, data: Any) -> Any:
        """Keras' step on one batch, its record written into the buffers."""
        data = tree.map_structure(_none_for_optional, data)
        learning_rate = tf.cast(tf.convert_to_tensor(self._model.optimizer.learning_rate), tf.float64)
        variables = [variable.value for variable in self._model.weights]
        before = [tf.convert_to_tensor(v) for v in variables] if self._store == "statistics" else []
        logs, loss, samples = self._compiled_step(data)
        values = {name: value for name, value in leaves_of(logs) if _is_number(value)}
        self._logs = list(values)
        now = tf.timestamp() if self._clock else tf.constant(0.0, tf.float64)
        scalars = [now, samples, learning_rate, loss, *values.values()]
        after = [tf.convert_to_tensor(variable) for variable in variables]
        if self._store == "values":
            weights = [tf.reshape(value, [-1]) for value in after]
        elif self._store == "statistics":
            weights = [_statistics(after, before)]
        else:
            weights = []
        if self._buffers is None:
            with tf.init_scope():
                self._buffers = _Buffers(len(scalars), weights, self._model.steps_per_execution)
        self._buffers.write(scalars, weights)
        return logs

    @property
    def _compiled_step(self) -> Callable:
        """Keras' step in a function of its own, as Keras has it, that also gives loss and batch size."""
        if not hasattr(self, "_own_step"):

            def step(data: Any) -> tuple[Any, tf.Tensor, tf.Tensor]:
                with tapped(self._model._loss_tracker) as seen:
                    logs = self._model.train_step(data)
                if len(seen) != 1:
                    raise Unwrappable(f"train_step tracked its loss {len(seen)} times, not once")
                return logs, seen[0]["values"], seen[0]["sample_weight"]

            self._own_step = tf.function(
                step, reduce_retracing=True, jit_compile=self._model.jit_compile, autograph=False
            )
        return self._own_step


class _Buffers:
    """Variables that hold the records of the steps since the last fetch.

    Parameters
    ----------
    n_scalars : int
        Scalars of a step.
    weights : sequence of 1-D tensors
        What is kept of the weights at a step; only shapes and dtypes are read here.
    least : int
        Steps that have to fit.
    """

    def __init__(self, n_scalars: int, weights: Sequence[tf.Tensor], least: int) -> None:
        row_bytes = 8 * n_scalars + sum(w.shape.num_elements() * w.dtype.size for w in weights)
        self.capacity = max(least, 1, min(MOST_STEPS, BUFFER_BYTES // row_bytes))
        self._cursor = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._scalars = tf.Variable(tf.zeros((self.capacity, n_scalars), tf.float64), trainable=False)
        self._weights = [
            tf.Variable(tf.zeros((self.capacity, w.shape.num_elements()), w.dtype), trainable=False) for w in weights
        ]

    def write(self, scalars: Sequence[tf.Tensor], weights: Sequence[tf.Tensor]) -> None:
        """Add the record of a step."""
        index = self._cursor.read_value()
        row = tf.stack([tf.cast(value, tf.float64) for value in scalars])
        written = [
            tf.raw_ops.ResourceScatterUpdate(resource=buffer.handle, indices=index, updates=values)
            for buffer, values in zip([self._scalars, *self._weights], [row, *weights], strict=True)
        ]
        with tf.control_dependencies([op for op in written if op is not None]):  # None where run eagerly
            self._cursor.assign_add(1)  # so a step that fails is not counted

    def last_scalars(self) -> tf.Tensor:
        """The scalars of the step that was written last; zeros where there is none."""
        return self._scalars[tf.maximum(self._cursor - 1, 0)]

    def take(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """What was written since the last call: arrays whose first axis is the step."""
        k = int(self._cursor)
        taken = self._scalars[:k].numpy(), [buffer[:k].numpy() for buffer in self._weights]
        self.clear()
        return taken

    def clear(self) -> None:
        """Forget what was written."""
        self._cursor.assign(0)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, tf.Tensor) and value.shape.rank == 0 and (value.dtype.is_floating or value.dtype.is_integer)
    )


def _filled(logs: Mapping[str, Any], values: Iterator[Any]) -> dict[str, Any]:
    """Logs as `logs`, with the next of `values` in place of each number."""
    return {
        name: _filled(value, values) if isinstance(value, Mapping) else tf.cast(next(values), value.dtype)
        for name, value in logs.items()
    }


def _none_for_optional(element: Any) -> Any:
    """Keras' data adapters say "no such input" with an empty Optional; ``train_step`` takes None."""
    return None if isinstance(element, tf.experimental.Optional) else element


def _statistics(after: Sequence[tf.Tensor], before: Sequence[tf.Tensor]) -> tf.Tensor:
    """`layout.statistics` of each tensor, one behind the other: float64, shape (4 * n_tensors,)."""
    means, halves = [], []
    for value, old in zip(after, before, strict=True):
        now, then = (v if v.dtype.is_floating else tf.cast(v, tf.float64) for v in (value, old))
        mean = tf.reduce_mean(now)
        means.append(tf.cast(mean, tf.float64))
        parts = (now, now - mean, now - then, then)
        halves.append(tf.stack([tf.cast(tf.nn.l2_loss(part), tf.float64) for part in parts]))
    sizes = tf.constant([max(v.shape.num_elements(), 1) for v in after], tf.float64)
    norm, spread, change, old_norm = tf.unstack(tf.sqrt(2.0 * tf.stack(halves)), axis=1)
    columns = [norm, tf.stack(means), spread / tf.sqrt(sizes), change / old_norm]
    return tf.reshape(tf.stack(columns, axis=1), [-1])
