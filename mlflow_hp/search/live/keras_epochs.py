"""The curves of the Keras models that are fitted inside a fit of a search, by epoch.

`keras.Model.fit` gets one more callback, which reads what Keras tells at the end of an epoch. It is added for fits
inside `curves_to` alone, and changes neither the estimator nor what is computed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    OnEpoch = Callable[[int, int, Mapping[str, float]], None]
    StepsTo = Callable[[], tuple[str, str] | None]

_lock = threading.Lock()
_new_callbacks: ContextVar[Callable[[], list[Any]] | None] = ContextVar("mlflow_hp_new_callbacks", default=None)


@contextlib.contextmanager
def curves_to(
    on_epoch: OnEpoch, steps_to: StepsTo | None = None, problem: Callable[[str], None] = print
) -> Iterator[None]:
    """Have `on_epoch` called with each epoch's end, where Keras is loaded.

    Parameters
    ----------
    on_epoch : callable
        Called with the number of the Keras fit inside the block (0-based), the epoch (0-based) and the values:
        Keras' logs, and ``learning_rate`` in force when the epoch began.
    steps_to : callable, optional
        Asked when a Keras fit begins for the run that is to hold its every step, and that run's tracking URI.
    problem : callable
        Told why steps are not recorded.
    """
    keras = sys.modules.get("keras")
    if keras is None or not hasattr(keras, "Model"):
        yield
        return
    _teach(keras)
    fits = itertools.count()
    token = _new_callbacks.set(lambda: [_curves()(next(fits), on_epoch), *_recorders(steps_to, problem)])
    try:
        yield
    finally:
        _new_callbacks.reset(token)


def _teach(keras: Any) -> None:
    """Let `keras.Model.fit` ask for the callback; done once in a process."""
    with _lock:
        original = keras.Model.fit
        if hasattr(original, "_mlflow_hp_original"):
            return

        @functools.wraps(original)
        def fit(self: Any, *arguments: Any, **named: Any) -> Any:
            new_callbacks = _new_callbacks.get()
            if new_callbacks is None or len(arguments) > _PLACE_OF_CALLBACKS:
                return original(self, *arguments, **named)
            callbacks = named.pop("callbacks", None)
            if isinstance(callbacks, keras.callbacks.CallbackList):
                for callback in new_callbacks():
                    callbacks.append(callback)
            else:
                given = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []
                callbacks = [*given, *new_callbacks()]
            return original(self, *arguments, callbacks=callbacks, **named)

        fit._mlflow_hp_original = original  # type: ignore[attr-defined]
        keras.Model.fit = fit


_PLACE_OF_CALLBACKS = 5
"""``fit(x, y, batch_size, epochs, verbose, callbacks)``: positional callbacks are left as they are."""


@functools.cache
def _curves() -> Any:
    import keras

    class Curves(keras.callbacks.Callback):
        """Hands on each epoch's end."""

        def __init__(self, fit: int, on_epoch: OnEpoch) -> None:
            super().__init__()
            self.fit = fit
            self.on_epoch = on_epoch
            self.learning_rate: float | None = None

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            with contextlib.suppress(AttributeError, TypeError, ValueError):
                self.learning_rate = float(self.model.optimizer.learning_rate)

        def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
            values = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
            for name, value in (logs or {}).items():
                with contextlib.suppress(TypeError, ValueError):
                    values[name] = float(value)
            self.on_epoch(self.fit, epoch, values)

    return Curves


def _recorders(steps_to: StepsTo | None, problem: Callable[[str], None]) -> list[Any]:
    """The recorder of every step, where one is asked for and can do its work."""
    if steps_to is None:
        return []
    try:
        run = steps_to()
        if run is None:
            return []
        import mlflow

        from mlflow_hp.tracking.runs import find_run
        from mlflow_hp.training.callback import TrainingRecorder

        run_id, tracking_uri = run
        if mlflow.get_tracking_uri() != tracking_uri:  # in a worker
            mlflow.set_tracking_uri(tracking_uri)
        find_run(run_id)
        recorder = TrainingRecorder(run_id, report=False)
        recorder.owns_run = True
    except Exception as error:  # noqa: BLE001 - a fold must not fail for want of its record
        problem(f"not every step is recorded: {type(error).__name__}: {error}")
        return []
    return [recorder]
