"""Reader of training steps inside the compiled graph, into buffers that are fetched every few hundred steps.

The model's ``train_step``, Keras' or the user's, is traced unchanged, in a separate function compiled as the model's
settings say; learning rates and weights are read around it, losses as the step returns or tracks them, and gradients as
its optimizers get them. So the recorded training gives the same results as an unrecorded one, bit for bit, and every
step is recorded even if Python sees only one in fifty.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from mlflow_hp._compat.keras import strategy_of
from mlflow_hp._compat.tensorflow import refuses_its_clock
from mlflow_hp.delivery.signals import held
from mlflow_hp.history.step_record import COSINE, Layout, Rows, n_weights
from mlflow_hp.training.capture import CaptureSettings, train_step_is_own
from mlflow_hp.training.capture.data_statistics import DataReader
from mlflow_hp.training.capture.due_statistics import DueStatistics
from mlflow_hp.training.capture.glances import OnGlance, is_time_to_glance
from mlflow_hp.training.capture.gradient_reader import gradient_reader
from mlflow_hp.training.capture.gradient_statistics import loss_scale
from mlflow_hp.training.capture.sharpness import SHARPNESS, sharpness_of
from mlflow_hp.training.capture.step_buffers import StepBuffers
from mlflow_hp.training.capture.step_layout import (
    EpochCounter,
    NothingRanError,
    Unwrappable,
    build,
    initial_weights,
    inputs_of,
    kinds_of,
    leaves_of,
    store_for,
    tensors_of,
    without_optionals,
)
from mlflow_hp.training.capture.train_step import TrainStep
from mlflow_hp.training.capture.unit_shares import UnitShares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FETCH_SECONDS = 0.5
"""Time after which the buffers are fetched although they are not full."""
UNMEASURED_STEPS = 32
"""Number of steps after which they are fetched as long as nothing is known about the cost of the statistics."""

_SCALARS = ("time", "samples")
"""First columns of the buffer; step, epoch and batch are counted on the host."""


class GraphReader:
    """Reads each step of a model on TensorFlow, inside the compiled function.

    Parameters
    ----------
    model : keras.Model
        Compiled, and possibly not built.
    settings : CaptureSettings
        What to read.
    forget : callable
        Called if this reader can serve no further fit.

    Attributes
    ----------
    steps_done : int
        Number of steps of the fit so far.
    units : UnitShares
        Shares of dead and saturated units, on the first samples of the fit.
    data : DataReader
        Statistics of the data of the first epoch.
    input_spec : nested structure of tf.TypeSpec, or None
        Specification of what ``train_step`` gets; None before the first step.
    """

    kind = "graph"

    def __init__(self, model: Any, settings: CaptureSettings, forget: Callable[[], object]) -> None:
        self.forget = forget
        self._model = model
        self._settings = settings
        self.units = UnitShares(model, settings.overhead)
        self.data = DataReader()
        self.input_spec: Any = None
        self._buffers: StepBuffers | None = None
        self._strategy = strategy_of(model)
        self._gradients = None if self._strategy is not None else gradient_reader(model, settings)
        self._train_step = TrainStep(model, self._strategy, self._gradients)
        self._statistics: DueStatistics | None = None
        self._sharpness: Any = None
        self._last: Any = {}
        self._done = 1
        self._clock = not refuses_its_clock()  # as scikeras has it with a random_state
        self._times: list[float] = []
        self._several = model.steps_per_execution > 1
        self._step: Any = self._several_steps if self._several else self._one_step
        self._step = tf.function(self._step, reduce_retracing=True, autograph=False)

    @property
    def optimizers(self) -> dict[str, Any]:
        """Optimizers that the step applies, by the names of their attributes; empty until it is traced."""
        return self._train_step.optimizers

    def connect(
        self,
        on_layout: Callable[[Layout], None],
        on_rows: Callable[[Rows], None],
        on_glance: OnGlance | None = None,
    ) -> None:
        """Set the callables: `on_layout`, called once in a fit after its first step, and `on_rows`, at each fetch.

        `on_glance` is called with the names of columns, and a table that has each step once, soon after it.
        """
        self._on_layout, self._on_rows, self._on_glance = on_layout, on_rows, on_glance

    def start(self, first_step: int) -> None:
        """Begin a fit; `first_step` is the number of its first step in its run (0-based)."""
        self._counter = EpochCounter(first_step)
        self._layout: Layout | None = None
        self._prepared = False
        self._pending = 0
        self._times = []
        self.units.start()
        self.data.start()
        self.steps_done = 0
        self._fetched_at = self._glanced_at = time.monotonic()
        self._glanced = 0
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
        self.input_spec = data
        if not train_step_is_own(self._model) and self._strategy is None:  # Keras builds a distributed model itself
            build(self._model, data)
        self._train_step.trace(data)  # builds what `build` has not, and shows which values there are
        self._tensors = tensors_of(self._model)
        self._store = store_for(self._settings.weights, n_weights(self._tensors))
        self._initial = initial_weights(self._model, self._tensors, self._store)
        if self._store == "statistics" and self._statistics is None:
            variables = [variable.value for variable in self._model.weights]
            self._statistics = DueStatistics(variables, self._settings.overhead)
        if self._buffers is None:
            self._sharpness = sharpness_of(self._model, self._settings.sharpness_every, data)
        self._step.get_concrete_function(iterator)
        if self._sharpness is not None:
            self._sharpness.start()
        if self._statistics is not None:
            self._statistics.start()
        if self._gradients is not None:
            self._gradients.start()
        self._prepared = True

    def make_room(self) -> None:
        """Fetch the buffers if the next execution would not fit, or the last fetch was ``FETCH_SECONDS`` ago."""
        if self._buffers is not None and (
            self._pending + self._model.steps_per_execution > self._buffers.capacity
            or time.monotonic() - self._fetched_at > FETCH_SECONDS
            or (self._is_measuring and self._pending >= UNMEASURED_STEPS)
        ):
            self.fetch()
        self._glance_in_time()

    @property
    def _is_measuring(self) -> bool:
        return self._statistics is not None and self._statistics.is_measuring

    def _glance_in_time(self) -> None:
        if self._on_glance is not None and is_time_to_glance(self._pending - self._glanced, self._glanced_at):
            self.glance()

    def glance(self) -> None:
        """Pass on the columns of the steps that are new since the last time, if this was asked for."""
        self._glanced_at = time.monotonic()
        if self._on_glance is not None and self._buffers is not None and self._glanced < self._pending:
            self._pass_on_columns(self._buffers.rows(self._glanced, self._pending))

    def _pass_on_columns(self, new: np.ndarray) -> None:
        self._glanced += len(new)
        if self._on_glance is not None and len(new):
            self._on_glance(self._scalars, new)

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
        if self._several:
            self._glance_in_time()

    def fetch(self) -> None:
        """Pass on the steps in the buffers, and empty them."""
        self._fetched_at = time.monotonic()
        if self._buffers is None or not self._prepared:
            return
        with held():
            self._pass_on(self._buffers)

    def _pass_on(self, buffers: StepBuffers) -> None:
        table, weights = buffers.take()
        self._pass_on_columns(table[self._glanced :])
        self._pending = self._glanced = 0
        if self._layout is None:
            layout = Layout(kinds_of(self._scalars), self._tensors, self._store, self._initial)
            self._on_layout(layout)
            self._layout = layout
        n_rows, scalars = len(table), self._scalars
        if not n_rows:
            return
        columns = self._counter.count(n_rows)
        columns |= dict(zip(scalars, table[:, : len(scalars)].T, strict=True))
        columns |= {
            name: np.ma.masked_invalid(columns[name]) for name in scalars if name.startswith((COSINE, SHARPNESS))
        }
        columns["samples"] = columns["samples"].astype(np.int64)
        if not self._clock:
            columns["time"] = np.array(self._times[:n_rows])
            del self._times[:n_rows]
        if self._store == "values":
            tensors = {
                tensor.name: flat.reshape(len(flat), *tensor.shape)
                for tensor, flat in zip(self._tensors, weights, strict=True)
            }
        elif self._statistics is not None:
            tensors = self._statistics.read(table[:, len(scalars) :], columns["time"], self._tensors)
        else:
            tensors = {}
        self._on_rows(Rows(columns, tensors))

    @property
    def _scalars(self) -> list[str]:
        """Columns at the beginning of the buffer's rows; statistics of the weights follow."""
        of_gradients = [] if self._gradients is None else self._gradients.columns
        of_hessian = [] if self._sharpness is None else [SHARPNESS]
        return [*_SCALARS, *self._train_step.columns, *of_gradients, *of_hessian]

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
            if len(self._train_step.logged) < len(leaves_of(logs)):
                raise Unwrappable("a metric's result is not a scalar")
            self._last = logs
            following = tf.cond(index + 1 < limit, iterator.get_next_as_optional, lambda: element)
            return index + 1, following

        start = (tf.constant(0), iterator.get_next_as_optional())
        done, _ = tf.while_loop(condition, body, start, parallel_iterations=1)
        assert self._buffers is not None
        last = self._buffers.last_row()
        values = (last[self._scalars.index(column)] for column in self._train_step.logged)
        return done, _filled(self._last, values)

    def _recorded_step(self, data: Any) -> Any:
        """Run Keras' step on one batch, and write its record into the buffers."""
        data = without_optionals(data)
        self.units.keep(data)
        self.data.keep(data)
        rates = [tf.convert_to_tensor(each.learning_rate) for each in self.optimizers.values()]
        scales = {name: loss_scale(each) for name, each in self.optimizers.items()}
        statistics = self._statistics
        before = None if statistics is None else statistics.before_step()
        sharpness = [] if self._sharpness is None else [self._sharpness.column(data)]
        (logs, values, gradients), samples = self._train_step(data)
        now = tf.timestamp() if self._clock else tf.constant(0.0, tf.float64)
        scalars = [now, samples, *rates, *values.batch.values(), *values.running.values()]
        row = [tf.stack([tf.cast(value, tf.float64) for value in scalars])]
        if self._gradients is not None and gradients:
            row.append(self._gradients.compute(gradients, self.optimizers, scales))
        row += sharpness
        weights = []
        if statistics is not None and before is not None:
            row += statistics.after_step(*before)
        elif self._store == "values":
            weights = [tf.reshape(variable.value, [-1]) for variable in self._model.weights]
        joined = tf.concat(row, axis=0)
        if self._buffers is None:
            with tf.init_scope():
                self._buffers = StepBuffers(joined.shape[0], weights, self._model.steps_per_execution)
            self._train_step.fix_columns()
        self._buffers.write(joined, weights)
        return logs


def _filled(logs: Mapping[str, Any], values: Iterator[Any]) -> dict[str, Any]:
    """Copy logs, with the next of `values` in place of each number."""

    def filled(value: Any) -> Any:
        if isinstance(value, Mapping):
            return _filled(value, values)
        number = next(values)
        return tf.cast(number, value.dtype) if hasattr(value, "dtype") else value

    return {name: filled(value) for name, value in logs.items()}
