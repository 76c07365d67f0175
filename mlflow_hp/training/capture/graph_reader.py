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
from mlflow_hp.training.capture.cadence import Cadence
from mlflow_hp.training.capture.data_statistics import DataReader
from mlflow_hp.training.capture.glances import OnGlance, is_time_to_glance
from mlflow_hp.training.capture.gradient_reader import gradient_reader
from mlflow_hp.training.capture.gradient_statistics import loss_scale
from mlflow_hp.training.capture.replicas import run_in_replicas
from mlflow_hp.training.capture.sharpness import SHARPNESS, sharpness_of
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
    without_optionals,
)
from mlflow_hp.training.capture.step_values import StepValues, StepWatch, is_number, n_samples, optimizers_of
from mlflow_hp.training.capture.unit_shares import UnitShares
from mlflow_hp.training.capture.weight_statistics import WeightStatistics

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
    optimizers : dict of str to keras.optimizers.Optimizer
        Those that the step applies, by the names of their attributes; empty until it is traced.
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
        self.optimizers: dict[str, Any] = {}
        self._columns: list[str] | None = None
        self._logged: list[str] = []
        self._problem: Exception | None = None
        self._strategy = strategy_of(model)
        self._gradients = None if self._strategy is not None else gradient_reader(model, settings)
        self._layout_of_gradients: Any = None
        self._weight_statistics: WeightStatistics | None = None
        self._sharpness: Any = None
        self._cadence = Cadence(settings.overhead)
        self._last: Any = {}
        self._done = 1
        self._clock = not refuses_its_clock()  # as scikeras has it with a random_state
        self._times: list[float] = []
        self._several = model.steps_per_execution > 1
        self._step: Any = self._several_steps if self._several else self._one_step
        self._step = tf.function(self._step, reduce_retracing=True, autograph=False)

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
        self._cadence.start()
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
        self._compiled_step.get_concrete_function(data)  # builds what `build` has not, and shows which values there are
        if self._problem is not None:
            raise self._problem
        self._tensors = tensors_of(self._model)
        self._store = store_for(self._settings.weights, n_weights(self._tensors))
        self._initial = initial_weights(self._model, self._tensors, self._store)
        if self._store == "statistics" and self._weight_statistics is None:
            self._weight_statistics = WeightStatistics(
                [variable.value for variable in self._model.weights], in_turns=self._settings.overhead < 1
            )
            self._fit_steps = tf.Variable(0, dtype=tf.int64, trainable=False)
            self._interval = tf.Variable(self._cadence.interval, dtype=tf.int64, trainable=False)
        if self._buffers is None:
            self._sharpness = sharpness_of(self._model, self._settings.sharpness_every, data)
        self._step.get_concrete_function(iterator)
        if self._sharpness is not None:
            self._sharpness.start()
        if self._weight_statistics is not None:
            self._weight_statistics.start()
            self._fit_steps.assign(0)
        if self._gradients is not None:
            self._gradients.start()
        self._prepared = True

    def make_room(self) -> None:
        """Fetch the buffers if the next execution would not fit, or the last fetch was ``FETCH_SECONDS`` ago."""
        if self._buffers is not None and (
            self._pending + self._model.steps_per_execution > self._buffers.capacity
            or time.monotonic() - self._fetched_at > FETCH_SECONDS
            or (self._has_large and not self._cadence.is_measured and self._pending >= UNMEASURED_STEPS)
        ):
            self.fetch()
        self._glance_in_time()

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

    @property
    def _has_large(self) -> bool:
        """Whether there are tensors whose statistics are taken only when they are due."""
        return self._weight_statistics is not None and bool(self._weight_statistics.is_large.any())

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
        elif self._store == "statistics":
            tensors = self._statistics_of(table[:, len(scalars) :], columns["time"])
        else:
            tensors = {}
        self._on_rows(Rows(columns, tensors))

    def _statistics_of(self, table: np.ndarray, times: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics (k, 4) by tensor, masked where a large one was not due; sets the interval of the next steps."""
        assert self._weight_statistics is not None
        rows, turns = table[:, :-1].reshape(len(table), len(self._tensors), 4), table[:, -1].astype(int)
        result = {tensor.name: rows[:, index] for index, tensor in enumerate(self._tensors)}
        if self._has_large:
            self._cadence.observe(times, turns)
            self._interval.assign(self._cadence.interval)
        large = np.flatnonzero(self._weight_statistics.is_large)
        for index, own in zip(large, self._weight_statistics.turns, strict=True):
            missing = np.repeat((turns != own)[:, np.newaxis], 4, axis=1)
            result[self._tensors[index].name] = np.ma.array(rows[:, index], mask=missing)
        return result

    @property
    def _scalars(self) -> list[str]:
        """Columns at the beginning of the buffer's rows; statistics of the weights follow."""
        of_gradients = [] if self._gradients is None else self._gradients.columns
        of_hessian = [] if self._sharpness is None else [SHARPNESS]
        return [*_SCALARS, *(self._columns or []), *of_gradients, *of_hessian]

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
        last = self._buffers.last_row()
        values = (last[self._scalars.index(column)] for column in self._logged)
        return done, _filled(self._last, values)

    def _recorded_step(self, data: Any) -> Any:
        """Run Keras' step on one batch, and write its record into the buffers."""
        data = without_optionals(data)
        self.units.keep(data)
        self.data.keep(data)
        rates = [tf.convert_to_tensor(each.learning_rate) for each in self.optimizers.values()]
        scales = {name: loss_scale(each) for name, each in self.optimizers.items()}
        statistics, turn, before = self._weight_statistics, tf.constant(0, tf.int64), []
        if statistics is not None and self._has_large:
            turn = statistics.next_turn(self._fit_steps, self._interval)
            before = statistics.before(turn)
        sharpness = [] if self._sharpness is None else [self._sharpness.column(data)]
        (logs, values, gradients), samples = self._compiled_step(data)
        if self._problem is not None:
            raise self._problem
        now = tf.timestamp() if self._clock else tf.constant(0.0, tf.float64)
        scalars = [now, samples, *rates, *values.batch.values(), *values.running.values()]
        row = [tf.stack([tf.cast(value, tf.float64) for value in scalars])]
        if self._gradients is not None and gradients:
            row.append(self._gradients.compute(gradients, self.optimizers, scales))
        row += sharpness
        weights = []
        if statistics is not None:
            row += [statistics.after(before, turn), tf.cast(turn, tf.float64)[tf.newaxis]]
            self._fit_steps.assign_add(1)
        elif self._store == "values":
            weights = [tf.reshape(variable.value, [-1]) for variable in self._model.weights]
        joined = tf.concat(row, axis=0)
        if self._buffers is None:
            with tf.init_scope():
                self._buffers = StepBuffers(joined.shape[0], weights, self._model.steps_per_execution)
        self._buffers.write(joined, weights)
        return logs

    @property
    def _compiled_step(self) -> Any:
        """The model's step as a separate function, as in Keras, that also returns its values."""
        if not hasattr(self, "_own_step"):

            def step(data: Any) -> Any:
                reader = self._gradients
                watch = StepWatch(self._model, None if reader is None else reader.before_apply)

                def in_replica(part: Any) -> Any:
                    logs, samples = self._model.train_step(part), n_samples(part)
                    try:
                        values = watch.values(logs)
                        gradients = {} if reader is None else reader.end(watch.stepped)
                        self._note_values(logs, values, watch.stepped)
                    except Exception as error:  # noqa: BLE001 - raised here, variables of the step would have no values
                        self._problem = error
                        return (logs, StepValues({}, {}), {}), samples
                    return (logs, values, gradients), samples

                if reader is not None:
                    reader.begin()
                with watch.watching():
                    return run_in_replicas(self._strategy, in_replica, data)

            self._own_step = tf.function(
                step, reduce_retracing=True, jit_compile=self._model.jit_compile, autograph=False
            )
        return self._own_step

    def _note_values(self, logs: Any, values: StepValues, stepped: list[str]) -> None:
        """Name the columns of the step's values, and the one that has each entry of its logs."""
        columns = columns_of(stepped, values.batch, values.running)
        of_gradients = None if self._gradients is None else self._gradients.layout
        if self._buffers is not None and (columns, of_gradients) != (self._columns, self._layout_of_gradients):
            # before, metrics that the step makes are missing
            raise Unwrappable(f"train_step has other values than when it was traced first: {', '.join(columns)}")
        self._columns, self._layout_of_gradients = columns, of_gradients
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
