"""Reading of the steps of one fit, in the graph or from the host; an error of it never ends the training."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mlflow_hp._compat.keras import is_own_train_function, train_function_around
from mlflow_hp._compat.private_name import UnsupportedVersionError, version_of
from mlflow_hp._compat.tensorflow import refuses_its_clock
from mlflow_hp.delivery.signals import forget_raised, raise_waiting
from mlflow_hp.terminal import count
from mlflow_hp.training.capture import CaptureSettings, steps_pass_python, warn_of_no_sharpness, why_host
from mlflow_hp.training.capture.host_reader import HostReader
from mlflow_hp.training.capture.step_layout import NothingRanError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_hp.history.step_record import Layout, Rows
    from mlflow_hp.training.capture.data_statistics import DataReader
    from mlflow_hp.training.capture.glances import OnGlance
    from mlflow_hp.training.capture.unit_shares import UnitShares

WRAPS = keras.backend.backend() == "tensorflow"
"""Whether the model's train function is wrapped; on other backends of Keras, batch hooks are used."""


class Steps:
    """Reads each step of a fit, by wrapping the train function that Keras calls.

    No error of the reading leaves the train function: if reading fails before the train function ran, Keras' own is
    called instead; if it fails afterwards, the result is returned all the same. Either ends the reading, by `on_error`.

    Parameters
    ----------
    model : keras.Model
        Compiled, and about to be fitted.
    settings : CaptureSettings
        What to read.
    on_layout, on_rows : callable
        Called with the `Layout` of the records, once, and with `Rows` of steps.
    on_host : callable
        Called if steps are read from the host, with the reason and the number of steps per record; returns a function
        that tells the user, which is called at once, or after the first step if an error is the reason: it may be one
        of the model, which Keras raises then.
    on_glance : callable, optional
        Called with the names of columns, and a table that has each step once, soon after it, in the training's thread.
        Defaults to None.
    before_step : callable
        Called before each execution of the train function.
    before_first : callable
        Called before the first step, when the model is built.
    after_epoch : callable
        Called after the last execution of each epoch, before any callback of the user's changes the weights.
    steps_per_epoch : int or None
        Number of steps in an epoch; None if Keras does not know it.
    on_error : callable
        Called with the error that ends the reading.
    on_interrupt : callable
        Called if the user's own error leaves the train function, or another fit begins inside this one.

    Attributes
    ----------
    kind : {"graph", "host"}
    """

    def __init__(
        self,
        model: Any,
        settings: CaptureSettings,
        *,
        on_layout: Callable[[Layout], None],
        on_rows: Callable[[Rows], None],
        on_host: Callable[[str, int], Callable[[], object]],
        on_glance: OnGlance | None = None,
        before_step: Callable[[], None],
        before_first: Callable[[], None],
        after_epoch: Callable[[], None],
        steps_per_epoch: int | None,
        on_error: Callable[[Exception], None],
        on_interrupt: Callable[[str | None], None],
    ) -> None:
        self._model, self._settings = model, settings
        self._on_layout, self._on_rows, self._on_host = on_layout, on_rows, on_host
        self._on_glance = on_glance
        self._before_step, self._on_error, self._on_interrupt = before_step, on_error, on_interrupt
        self._before_first: Callable[[], None] | None = before_first
        self._after_epoch, self._steps_per_epoch = after_epoch, steps_per_epoch
        self._original: Any = model.train_function if WRAPS else None
        self._make_before: Any = None
        self._each_step = WRAPS and steps_pass_python(model, self._original)
        self._tell_host: Callable[[], object] | None = None
        self._stopped = self._has_run_out = self._was_called = False
        self._calls = 0
        self._first_step = self._epoch = 0
        self._reader: Any = self._graph_reader() or self._host_reader()

    @property
    def kind(self) -> str:
        """Kind of the reader in use."""
        return str(self._reader.kind)

    @property
    def steps_done(self) -> int:
        """Steps of the fit so far."""
        return int(self._reader.steps_done)

    @property
    def optimizers(self) -> dict[str, Any]:
        """Keras optimizers that the steps apply, by the names of their attributes; empty before the first step."""
        optimizers: dict[str, Any] = self._reader.optimizers
        return optimizers

    @property
    def units(self) -> UnitShares:
        """Shares of dead and saturated units, on the first samples of the fit."""
        units: UnitShares = self._reader.units
        return units

    @property
    def input_spec(self) -> Any:
        """Specification of what ``train_step`` gets, where it is traced; else None."""
        return getattr(self._reader, "input_spec", None)

    @property
    def data(self) -> DataReader:
        """Statistics of the data of the first epoch."""
        data: DataReader = self._reader.data
        return data

    def start(self, first_step: int) -> None:
        """Start reading; `first_step` is the number of the fit's first step in its run (0-based)."""
        self._first_step = first_step
        forget_raised()
        self._reader.start(first_step)
        if not WRAPS:
            self._reader.prepare()
            return
        self._model.train_function = self._train_function
        self._make_before = self._model.__dict__.get("make_train_function")
        self._model.make_train_function = self._make_train_function

    def begin_epoch(self, epoch: int) -> None:
        """The next step belongs to `epoch` (0-based)."""
        self._was_called = self._was_called or self._calls > 0
        self._epoch, self._calls = epoch, 0
        self._reader.begin_epoch(epoch)

    def unseen(self) -> str | None:
        """Describe the steps of a finished epoch that were not read, and the reason; None if all were."""
        n_executions = self._n_executions
        is_in_place = not WRAPS or self._model.train_function == self._train_function
        has_left_early = self._has_run_out or (self._calls and self._model.stop_training)
        if (
            self._stopped
            or self._calls >= n_executions
            or has_left_early
            or (is_in_place and self._was_called)  # Keras knows that there are no more data
        ):
            return None
        seen = (
            f"{self._calls} of {count(n_executions, 'call')} for steps were seen" if self._calls else "no step was seen"
        )
        return (
            f"{seen} in epoch {self._epoch}, so the record lacks them: the train function that the model had when the "
            f"fit began was not called. Have {type(self._model).__name__}.fit call self.train_function, and set one of "
            f"your own before the fit; if you do neither, keras {version_of('keras')} is not supported"
        )

    @property
    def _n_executions(self) -> int:
        """Number of executions in an epoch; 1 if that is unknown."""
        return math.ceil((self._steps_per_epoch or 1) / self._model.steps_per_execution)

    def before_batch(self) -> None:
        """Read the state before a step; called by Keras' batch hook if the train function is not wrapped."""
        raise_waiting()
        self._calls += 1
        self._reader.make_room()
        self._before_step()
        self._reader.before()

    def after_batch(self, logs: dict[str, Any]) -> None:
        """Read a step; called by Keras' batch hook if the train function is not wrapped."""
        self._reader.read(logs)
        self._note_end_of_epoch()

    def glance(self) -> None:
        """Pass on the columns of new steps."""
        self._reader.glance()

    def fetch(self) -> None:
        """Pass on the steps read so far."""
        self._reader.fetch()

    def stop(self) -> None:
        """Restore the model's own functions, and stop reading even if others have wrapped ours in the meantime."""
        self._stopped = True
        if self._original is None:
            return
        if self._model.train_function == self._train_function:
            self._model.train_function = _still_open(self._original, "_original")
        if self._model.__dict__.get("make_train_function") == self._make_train_function:
            before = _still_open(self._make_before, "_make_before")
            if before is None:
                del self._model.make_train_function
            else:
                self._model.make_train_function = before

    def _train_function(self, *arguments: Any) -> Any:
        """Replacement for the model's train function."""
        self._calls += 1
        if self._stopped or not self._prepare(*arguments) or not self._safely(self._reader.make_room):
            return self._original(*arguments)
        self._safely(self._before_step)
        before_first, self._before_first = self._before_first, None
        if before_first is not None:
            self._safely(before_first)
        try:
            raise_waiting()
            logs = self._reader.execute(*arguments)
        except (StopIteration, _end_of_data()):
            self._has_run_out = True
            self._safely(self._after_epoch)
            raise
        except NothingRanError as error:
            self._fail(error)
            return self._original(*arguments)
        except BaseException:
            self._on_interrupt(None)
            raise
        tell, self._tell_host = self._tell_host, None
        if tell is not None:
            self._safely(tell)
        if not self._stopped:
            self._safely(lambda: self._reader.read(logs))
            self._safely(self._note_end_of_epoch)
        return logs

    def _note_end_of_epoch(self) -> None:
        if self._steps_per_epoch and self._calls >= self._n_executions:
            self._after_epoch()

    def _make_train_function(self, force: bool = False) -> Any:
        # Called by another fit: an exception has left this one, or a callback trains the model.
        self._on_interrupt("it ends where another fit or train_on_batch of the same model began")
        self.stop()
        return self._model.make_train_function(force)

    def _prepare(self, *arguments: Any) -> bool:
        started = time.perf_counter()
        try:
            self._reader.prepare(*arguments)
            self.units.note_tracing(time.perf_counter() - started)
        except Exception as error:  # noqa: BLE001 - if the model itself is at fault, Keras' own function says so
            reason = error.problem if isinstance(error, UnsupportedVersionError) else f"{type(error).__name__}: {error}"
            return self._safely(lambda: self._fall_back(reason, *arguments))
        return True

    def _fall_back(self, reason: str, *arguments: Any) -> None:
        """Read from the host, from the fit's first step on, since the graph cannot be wrapped."""
        if self._reader.kind == "host":
            raise RuntimeError(reason)
        self._reader.forget()
        self._tell_host = self._report_host(reason)
        self._reader = self._host_reader()
        self._reader.start(self._first_step)
        self._reader.begin_epoch(self._epoch)
        self._reader.prepare(*arguments)

    def _safely(self, do: Callable[[], object]) -> bool:
        """Run `do`, and end the reading if it fails; return whether it succeeded."""
        try:
            with np.errstate(all="ignore"):
                do()
        except Exception as error:  # noqa: BLE001 - the training goes on
            self._fail(error)
            return False
        return True

    def _fail(self, error: Exception) -> None:
        self.stop()
        self._on_error(error)

    def _graph_reader(self) -> Any:
        if self._each_step:
            return None
        reason = why_host(self._model)
        if reason is None and not is_own_train_function(self._original):
            reason = "the model's train function has been replaced"
        if reason is not None:
            self._report_host(reason)()
            return None
        from mlflow_hp.training.capture.graph_reader import GraphReader

        # Cached on the model's own train function, which lives until the next compile, so that a second fit is not
        # traced again.
        readers = self._original.__dict__.setdefault("_mlflow_hp_readers", {})
        kind = self._settings, refuses_its_clock()
        if kind not in readers:
            readers[kind] = GraphReader(self._model, self._settings, forget=lambda: readers.pop(kind, None))
        reader = readers[kind]
        reader.connect(self._on_layout, self._on_rows, self._on_glance)
        return reader

    def _host_reader(self) -> HostReader:
        if self._settings.sharpness_every is not None:
            warn_of_no_sharpness("steps are read from the host, not in a graph of TensorFlow's")
        reader = HostReader(self._model, self._settings, self._original)
        reader.connect(self._on_layout, self._on_rows, self._on_glance)
        if self._each_step:
            step = reader.around(self._model.train_step, lambda do: not self._stopped and self._safely(do))
            reader.train_function = train_function_around(self._model, step)
        return reader

    def _report_host(self, reason: str) -> Callable[[], object]:
        return self._on_host(reason, 1 if self._each_step else self._model.steps_per_execution)


def _still_open(function: Any, attribute: str) -> Any:
    """The function to restore: skips the wrappers of fits that are no longer read."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, Steps) and owner._stopped:
        return _still_open(getattr(owner, attribute), attribute)
    return function


def _end_of_data() -> type[BaseException]:
    """Exception of TensorFlow for data that end before the steps of an epoch; Keras handles it."""
    tensorflow = sys.modules.get("tensorflow")
    return StopIteration if tensorflow is None else tensorflow.errors.OutOfRangeError
