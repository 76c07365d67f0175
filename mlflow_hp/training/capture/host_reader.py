"""Reader of training steps from the host, for models whose graph cannot be wrapped."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp._compat.keras import is_built, loss_tracker
from mlflow_hp.delivery.signals import held
from mlflow_hp.history import statistics_of
from mlflow_hp.history.step_record import Layout, Rows, n_weights
from mlflow_hp.training.capture import CaptureSettings, train_step_is_own
from mlflow_hp.training.capture.cadence import LARGE, Cadence
from mlflow_hp.training.capture.data_statistics import DataReader
from mlflow_hp.training.capture.glances import OnGlance, is_time_to_glance
from mlflow_hp.training.capture.step_layout import (
    EpochCounter,
    NothingRanError,
    batch_column,
    build,
    initial_weights,
    inputs_of,
    kinds_of,
    numbers_of,
    rate_columns,
    running_column,
    store_for,
    tensors_of,
    to_numpy,
)
from mlflow_hp.training.capture.turns import NONE, turns_of
from mlflow_hp.training.capture.unit_shares import UnitShares

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from mlflow_hp.training.capture.step_values import StepWatch

MAX_BYTES = 32 * 2**20
"""Memory limit of the rows read but not passed on."""
PASS_ON_SECONDS = 1.0
"""Time after which rows are passed on although they are few."""


class HostReader:
    """Reads weights, learning rate and Keras' running values after each call of the model's train function.

    The batch's own loss is the change of Keras' loss tracker, ``(N_b m_b - N_(b-1) m_(b-1)) / n_b``, in which
    float32 cancels: expect an error of about 1e-6 of the running sum. The record lacks it if the model does not use
    that tracker. Statistics of large tensors are taken when they are due, as by `GraphReader`; there are no gradients.
    With ``steps_per_execution > 1`` there is one record per execution; if Python sees each step, `around` reads each,
    with the values that it returns and tracks. Where Keras calls a ``train_step`` of the user's own (JAX, torch), what
    it returns is the batch's own value, unless a metric of that name has been updated.

    Parameters
    ----------
    model, settings
        As for `GraphReader`.
    train_function : callable or None
        The model's own; None if Keras calls it itself, between `before` and `read`.
    optimizers : dict of str to keras.optimizers.Optimizer, optional
        Optimizers whose learning rates are read, by name. Defaults to the model's.

    Attributes
    ----------
    optimizers : dict of str to keras.optimizers.Optimizer
        Those that the step applies, by the names of their attributes; empty until the first step.
    units : UnitShares
        Shares of dead and saturated units, on the first samples of the fit, where Python sees each step.
    data : DataReader
        Statistics of the data of the first epoch, where Python sees each step.
    """

    kind = "host"

    def __init__(
        self,
        model: Any,
        settings: CaptureSettings,
        train_function: Callable[..., Any] | None,
        optimizers: Mapping[str, Any] | None = None,
    ) -> None:
        self._model = model
        self._settings = settings
        self.train_function = train_function
        self.units = UnitShares(model, settings.overhead)
        self.data = DataReader()
        self._own_step = train_step_is_own(model)
        self._tracker = loss_tracker(model)
        self._read_inside = False
        self.optimizers: dict[str, Any] = {}
        self._held: dict[str, Any] = {"optimizer": model.optimizer} if optimizers is None else dict(optimizers)
        self._is_own_of_keras = train_function is None and optimizers is None and self._own_step
        if self._is_own_of_keras:
            from mlflow_hp.training.capture.step_values import optimizers_of

            self._held = optimizers_of(model)
        self._iterations: dict[str, float] = {}

    def connect(
        self,
        on_layout: Callable[[Layout], None],
        on_rows: Callable[[Rows], None],
        on_glance: OnGlance | None = None,
    ) -> None:
        """Set the callables: `on_layout`, called once in a fit before the first rows, and `on_rows`, for all rows.

        `on_glance` is called with the names of columns, and a table that has each step once, soon after it.
        """
        self._on_layout, self._on_rows, self._on_glance = on_layout, on_rows, on_glance

    @property
    def columns(self) -> frozenset[str]:
        """Columns of the record; empty before the first rows are passed on."""
        return frozenset() if self._layout is None else frozenset(self._layout.columns)

    def start(self, first_step: int) -> None:
        """Begin a fit; `first_step` is the number of its first step in its run (0-based)."""
        self._counter = EpochCounter(first_step)
        self._layout: Layout | None = None
        self._initial: dict[str, np.ndarray] | None = None
        self._rows: list[tuple[dict[str, float], dict[str, float], dict[str, np.ndarray]]] = []
        self._bytes = 0
        self._passed_on_at = self._glanced_at = time.monotonic()
        self._glanced = 0
        self._before: dict[str, np.ndarray] = {}
        self._cadence = Cadence(self._settings.overhead)
        self._turns_of: dict[str, int] = {}
        self._next_turn, self._n_read = 0, 0
        self._turn = NONE
        self._turns: list[int] = []
        self._tracked = (0.0, 0.0)
        self._rates: dict[str, float] = {}
        self._rated: list[str] = []
        self.units.start()
        self.data.start()
        self.steps_done = 0

    def begin_epoch(self, epoch: int) -> None:
        """The next step belongs to `epoch` (0-based)."""
        self._counter.begin_epoch(epoch, len(self._rows))
        self._tracked = (0.0, 0.0)

    def prepare(self, *arguments: Any) -> None:
        """Read the initial weights; those of a model that needs data to be built are unknown."""
        if self._initial is not None:
            return
        if self._own_step and not is_built(self._model):
            return
        try:
            build(self._model, inputs_of(getattr(arguments[-1], "element_spec", None) if arguments else None))
        except Exception:  # noqa: BLE001 - if the model is at fault, the step itself raises
            return
        self._initial = self._describe()

    def make_room(self) -> None:
        """Pass on the rows if they are many, or the last time was ``PASS_ON_SECONDS`` ago."""
        if self._bytes > MAX_BYTES or time.monotonic() - self._passed_on_at > PASS_ON_SECONDS:
            self.fetch()
        if self._on_glance is not None and is_time_to_glance(len(self._rows) - self._glanced, self._glanced_at):
            self.glance()

    def glance(self) -> None:
        """Pass on the columns of the steps that are new since the last time, if this was asked for."""
        self._glanced_at = time.monotonic()
        new, self._glanced = self._rows[self._glanced :], len(self._rows)
        if self._on_glance is not None and new:
            names = [*rate_columns(list(new[0][1])), *new[0][0]]
            values = [
                [*rates.values(), *(scalars.get(name, np.nan) for name in new[0][0])] for scalars, rates, _ in new
            ]
            self._on_glance(names, np.array(values, np.float64))

    def execute(self, *arguments: Any) -> Any:
        """Call the model's own train function."""
        assert self.train_function is not None
        self._read_inside = False
        try:
            self.before()
        except Exception as error:
            raise NothingRanError(f"{type(error).__name__}: {error}") from error
        return self.train_function(*arguments)

    def around(self, step: Callable[[Any], Any], safely: Callable[[Callable[[], None]], bool]) -> Callable[[Any], Any]:
        """Wrap the ``train_step`` of a model that runs eagerly, so that each call is read.

        Parameters
        ----------
        step : callable
            The model's ``train_step``.
        safely : callable
            Runs a function if steps are still to be read, and returns whether that succeeded.
        """
        import tensorflow as tf

        from mlflow_hp.training.capture.step_values import StepWatch, optimizers_of

        self._held = optimizers_of(self._model)

        def read_step(data: Any) -> Any:
            if not tf.executing_eagerly():  # tracing: `read` reads the execution
                return step(data)
            self._read_inside = True
            if not safely(self.before):
                return step(data)
            self.units.keep(data)
            self.data.keep(data)
            watch = StepWatch(self._model)
            with watch.watching():
                logs = step(data)
            safely(lambda: self._read_watched(logs, watch, data))
            return logs

        return read_step

    def before(self) -> None:
        """Read the learning rates before the next step."""
        self._sync()
        self._rates = {name: _number(getattr(each, "learning_rate", None)) for name, each in self._held.items()}
        self._turn = NONE
        if self._initial is not None and self._cadence.is_due(self._n_read, self._n_turns):
            self._turn = self._next_turn
            self._before |= self._values([name for name, turn in self._turns_of.items() if turn == self._turn])
        if self._is_own_of_keras:
            self._iterations = {name: _number(each.iterations) for name, each in self._held.items()}

    def read(self, logs: Any) -> None:
        """Read the state after the train function, and the `logs` it returned, unless each step was read."""
        if self._read_inside:
            return
        self._sync()
        n_steps = self._model.steps_per_execution
        values = self._tracked_loss(n_steps)
        tracked = self._updated_metrics() if self._is_own_of_keras else None
        for name, value in numbers_of(logs).items():
            column = running_column if tracked is None or name in tracked else batch_column
            values.setdefault(column(name), value)
        changed = [name for name, before in self._iterations.items() if _number(self._held[name].iterations) != before]
        self.read_step(values, changed or self._held, n_steps)

    def _updated_metrics(self) -> set[str]:
        """Names of the model's metrics that steps of this epoch have updated; they are reset before it."""
        metrics = [metric for metric in self._model.metrics if any(map(np.any, map(to_numpy, metric.variables)))]
        return {metric.name for metric in metrics}

    def _read_watched(self, logs: Any, watch: StepWatch, data: Any) -> None:
        """Read a step that Python has seen."""
        from mlflow_hp.training.capture.step_values import n_samples

        batch, running = watch.values(logs)
        values = {"samples": _number(n_samples(data))}
        values |= {batch_column(name): _number(value) for name, value in batch.items()}
        values |= {running_column(name): _number(value) for name, value in running.items()}
        self.read_step(values, watch.stepped)

    def read_step(self, values: Mapping[str, float], stepped: Iterable[str], n_steps: int = 1) -> None:
        """Read the state after a step.

        Parameters
        ----------
        values : mapping of str to float
            Columns of the step, without its learning rates.
        stepped : iterable of str
            Names of the optimizers that it applied.
        n_steps : int
            Number of steps that the record stands for. Defaults to 1.
        """
        self.steps_done += n_steps
        self._sync()
        if self._initial is None:
            initial = self._describe()
            self._initial = {name: value * np.nan for name, value in initial.items()}
            self._before = {name: value * np.nan for name, value in self._before.items()}
            self._n_read = -1
        self.optimizers |= {name: self._held[name] for name in stepped}
        scalars = {"time": time.time(), **values}
        weights: dict[str, np.ndarray] = {}
        if self._store != "none":
            weights = self._values({tensor.name for tensor in self._tensors} - self._turns_of.keys())
        if self._store == "statistics":
            before, self._before = self._before, weights
            weights = {n: statistics_of(np.stack([before[n], value]))[1] for n, value in weights.items()}
            for name, turn in self._turns_of.items():
                weights[name] = np.ma.masked_all(4)
                if turn == self._turn:
                    (value,) = self._values({name}).values()
                    weights[name] = statistics_of(np.stack([before.pop(name), value]))[1]
            self._turns.append(self._turn)
            self._next_turn = (self._next_turn + (self._turn != NONE)) % self._n_turns
        self._n_read += 1
        self._rows.append((scalars, self._rates, weights))
        self._bytes += sum(value.nbytes for value in weights.values()) + 8 * len(scalars)

    def _tracked_loss(self, n_steps: int) -> dict[str, float]:
        """The batch's loss, if known, and its number of samples, 0 if unknown; from the change of Keras' tracker."""
        tracker = self._tracker
        total, count = (0.0, 0.0) if tracker is None else (_number(tracker.total), _number(tracker.count))
        old_total, old_count = self._tracked
        self._tracked = (total, count)
        samples = count - old_count
        if not samples > 0:
            return {"samples": 0.0}
        # A train_step as in Keras' guides tracks the mean of each batch as one value.
        is_counted = samples > n_steps or not self._own_step
        return {"samples": samples if is_counted else 0.0, batch_column("loss"): (total - old_total) / samples}

    def _sync(self) -> None:
        """Update the model's variables: on JAX, training keeps the values elsewhere."""
        if hasattr(self._model, "jax_state_sync"):
            self._model.jax_state_sync()

    def fetch(self) -> None:
        """Pass on the rows read so far."""
        self._passed_on_at = time.monotonic()
        if self._rows:
            with held():
                self._pass_on()

    def _pass_on(self) -> None:
        if self._layout is None:
            layout = Layout(kinds_of(self._columns()), self._tensors, self._store, self._initial or {})
            self._on_layout(layout)
            self._layout = layout
        self.glance()
        rows, self._rows, self._bytes, self._glanced = self._rows, [], 0, 0
        columns = self._counter.count(len(rows))
        rates = dict(zip(rate_columns(self._rated), self._rated, strict=True))
        for column, dtype in self._layout.columns.items():
            if column in rates:
                columns[column] = np.array([of_step[rates[column]] for _, of_step, _ in rows], dtype)
            elif column not in columns:
                columns[column] = np.array([scalars.get(column, np.nan) for scalars, _, _ in rows], dtype)
        weights: dict[str, np.ndarray] = {}
        for name in rows[0][2]:
            of_steps = [values[name] for _, _, values in rows]
            weights[name] = np.ma.stack(of_steps) if name in self._turns_of else np.stack(of_steps)
        if self._turns_of:
            self._cadence.observe(columns["time"], np.array(self._turns))
            self._turns = []
        self._on_rows(Rows(columns, weights))

    def _columns(self) -> list[str]:
        """Columns of the rows read so far, as far as all rows have them."""
        self._rated = [name for name in self.optimizers if np.isfinite(self._rows[0][1][name])]
        known = [name for name in self._rows[0][0] if all(name in scalars for scalars, _, _ in self._rows)]
        return [*rate_columns(self._rated), *known]

    @property
    def _n_turns(self) -> int:
        return max(self._turns_of.values(), default=0) + 1

    def _values(self, names: Collection[str]) -> dict[str, np.ndarray]:
        """Current values of some tensors."""
        pairs = zip(self._tensors, self._model.weights, strict=True)
        chosen = [(tensor, weight) for tensor, weight in pairs if tensor.name in names]
        return {tensor.name: np.array(weight.numpy()) for tensor, weight in chosen}

    def _describe(self) -> dict[str, np.ndarray]:
        """Note the tensors of the built model, and return its current weights."""
        self._tensors = tensors_of(self._model)
        self._store = store_for(self._settings.weights, n_weights(self._tensors))
        if self._store == "statistics":
            large = [tensor for tensor in self._tensors if math.prod(tensor.shape) > LARGE]
            turns = turns_of([math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize for tensor in large])
            turns = turns * (self._settings.overhead < 1)
            self._turns_of = dict(zip([tensor.name for tensor in large], turns.tolist(), strict=True))
            self._before = self._values({tensor.name for tensor in self._tensors} - self._turns_of.keys())
        return initial_weights(self._model, self._tensors, self._store)


def _number(value: Any) -> float:
    """Convert a Keras variable or tensor, possibly distributed over replicas, to a number; NaN if it is none."""
    import keras

    try:
        return float(to_numpy(keras.ops.convert_to_tensor(value)))
    except (TypeError, ValueError):
        return float("nan")
