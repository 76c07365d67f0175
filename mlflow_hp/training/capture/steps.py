"""The steps of one fit, read in the way that its model allows; the training goes on whatever becomes of that."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from mlflow_hp.training.capture import is_keras_own, steps_pass_python, why_host, with_step
from mlflow_hp.training.capture.host_reader import HostReader
from mlflow_hp.training.capture.step_layout import NothingRanError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_hp.history.step_record import Layout, Rows

WRAPS = keras.backend.backend() == "tensorflow"
"""Whether the model's train function is replaced; on Keras' other backends its batch hooks are used."""


class Steps:
    """Reads each step of a fit, around the train function that Keras calls.

    No error of the reading leaves the train function: where reading fails before the function was called, Keras' own is
    called instead; behind it, the function's result is given all the same. Either ends the reading, by `on_error`.

    Parameters
    ----------
    model : keras.Model
        Compiled, and about to be fitted.
    weights : {"auto", "all", "statistics", "none"}
        What to read of the weights, as in `TrainingRecorder`.
    on_layout, on_rows : callable
        Given the `Layout` of the records, once, and the `Rows` of steps that have been read.
    on_host : callable
        Given the reason where steps are read from the host, and how many steps have one record there.
    before_step : callable
        Called before each execution of the train function.
    on_error : callable
        Given what ended the reading.
    on_interrupt : callable
        Called where the user's own error leaves the train function, or another fit begins inside this one.

    Attributes
    ----------
    kind : {"graph", "host"}
    """

    def __init__(
        self,
        model: Any,
        weights: str,
        *,
        on_layout: Callable[[Layout], None],
        on_rows: Callable[[Rows], None],
        on_host: Callable[[str, int], None],
        before_step: Callable[[], None],
        on_error: Callable[[Exception], None],
        on_interrupt: Callable[[str | None], None],
    ) -> None:
        self._model, self._weights = model, weights
        self._on_layout, self._on_rows, self._on_host = on_layout, on_rows, on_host
        self._before_step, self._on_error, self._on_interrupt = before_step, on_error, on_interrupt
        self._original: Any = model.train_function if WRAPS else None
        self._make_before: Any = None
        self._each_step = WRAPS and steps_pass_python(model, self._original)
        self._stopped = False
        self._first_step = self._epoch = 0
        self._reader: Any = self._graph_reader() or self._host_reader()

    @property
    def kind(self) -> str:
        """How steps are read now."""
        return str(self._reader.kind)

    @property
    def steps_done(self) -> int:
        """Steps of the fit so far."""
        return int(self._reader.steps_done)

    def start(self, first_step: int) -> None:
        """Begin to read; the fit's first step has the number `first_step` in its run."""
        self._first_step = first_step
        self._reader.start(first_step)
        if not WRAPS:
            self._reader.prepare()
            return
        self._model.train_function = self._train_function
        self._make_before = self._model.__dict__.get("make_train_function")
        self._model.make_train_function = self._make_train_function

    def begin_epoch(self, epoch: int) -> None:
        """The next step belongs to `epoch` (0-based)."""
        self._epoch = epoch
        self._reader.begin_epoch(epoch)

    def before_batch(self) -> None:
        """Where the train function is not replaced, Keras' hook says when a step begins."""
        self._reader.make_room()
        self._before_step()
        self._reader.before()

    def after_batch(self, logs: dict[str, Any]) -> None:
        """Where the train function is not replaced, Keras' hook says when a step has ended."""
        self._reader.read(logs)

    def fetch(self) -> None:
        """Hand on what has been read."""
        self._reader.fetch()

    def stop(self) -> None:
        """Put the model's own functions back. Where somebody has wrapped ours meanwhile, it reads no more."""
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
        """What Keras calls instead of its own train function."""
        if self._stopped or not self._prepare(*arguments) or not self._safely(self._reader.make_room):
            return self._original(*arguments)
        self._safely(self._before_step)
        try:
            logs = self._reader.execute(*arguments)
        except (StopIteration, _end_of_data()):
            raise
        except NothingRanError as error:
            self._fail(error)
            return self._original(*arguments)
        except BaseException:
            self._on_interrupt(None)
            raise
        if not self._stopped:
            self._safely(lambda: self._reader.read(logs))
        return logs

    def _make_train_function(self, force: bool = False) -> Any:
        # A fit begins by asking for the function: an exception has left this one, or a batch is trained inside it.
        self._on_interrupt("it ends where the model's train function was asked for again, by another fit or batch")
        self.stop()
        return self._model.make_train_function(force)

    def _prepare(self, *arguments: Any) -> bool:
        try:
            self._reader.prepare(*arguments)
        except Exception as error:  # noqa: BLE001 - if the model itself is at fault, Keras' own function says so
            reason = f"{type(error).__name__}: {error}"
            return self._safely(lambda: self._fall_back(reason, *arguments))
        return True

    def _fall_back(self, reason: str, *arguments: Any) -> None:
        """Read from the host what could not be read in the graph; from the fit's first step on."""
        if self._reader.kind == "host":
            raise RuntimeError(reason)
        self._reader.forget()
        self._say_host(reason)
        self._reader = self._host_reader()
        self._reader.start(self._first_step)
        self._reader.begin_epoch(self._epoch)
        self._reader.prepare(*arguments)

    def _safely(self, do: Callable[[], None]) -> bool:
        """Whether it went well; where not, the reading ends."""
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
        if reason is None and not is_keras_own(self._original):
            reason = "the model's train function has been replaced"
        if reason is not None:
            self._say_host(reason)
            return None
        from mlflow_hp.training.capture.graph_reader import GraphReader, is_deterministic

        # Kept with the model's own train function, which lives from one compile to the next, so that a second fit
        # need not be traced again.
        readers = self._original.__dict__.setdefault("_mlflow_hp_readers", {})
        kind = self._weights, is_deterministic()
        if kind not in readers:
            readers[kind] = GraphReader(self._model, self._weights, forget=lambda: readers.pop(kind, None))
        reader = readers[kind]
        reader.connect(self._on_layout, self._on_rows)
        return reader

    def _host_reader(self) -> HostReader:
        reader = HostReader(self._model, self._weights, self._original)
        reader.connect(self._on_layout, self._on_rows)
        if self._each_step:
            step = reader.around(self._model.train_step, lambda do: not self._stopped and self._safely(do))
            reader.train_function = with_step(self._model, step)
        return reader

    def _say_host(self, reason: str) -> None:
        self._on_host(reason, 1 if self._each_step else self._model.steps_per_execution)


def _still_open(function: Any, attribute: str) -> Any:
    """A function that was replaced; where it is that of a fit that is not read any more, the one behind it."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, Steps) and owner._stopped:
        return _still_open(getattr(owner, attribute), attribute)
    return function


def _end_of_data() -> type[BaseException]:
    """What TensorFlow raises where an epoch's data end before its steps do; Keras handles it."""
    tensorflow = sys.modules.get("tensorflow")
    return StopIteration if tensorflow is None else tensorflow.errors.OutOfRangeError
