"""Values by epoch of the Keras models fitted inside a fit of a search.

Inside `record_epochs`, `keras.Model.fit` gets one more callback, which reads Keras' logs at the end of each epoch. It
changes neither the estimator nor the results.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.patch import MethodPatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    OnEpoch = Callable[[int, int, Mapping[str, float]], None]
    OnTrained = Callable[[Any, int, int | None], None]
    FoldRun = Callable[[], tuple[str, str] | None]

_new_callbacks: ContextVar[Callable[[], list[Any]] | None] = ContextVar("mlflow_hp_new_callbacks", default=None)


@contextlib.contextmanager
def record_epochs(
    on_epoch: OnEpoch,
    fold_run: FoldRun | None = None,
    on_problem: Callable[[str], None] = print,
    on_trained: OnTrained = lambda *_: None,
) -> Iterator[None]:
    """Call `on_epoch` at the end of each epoch of Keras fits inside the block, if Keras is loaded.

    Parameters
    ----------
    on_epoch : callable
        Called with the number of the Keras fit inside the block (0-based), the epoch (0-based) and the values:
        Keras' logs, and the ``learning_rate`` at the start of the epoch.
    fold_run : callable, optional
        Called when a Keras fit begins; returns id and tracking URI of the run that is to hold its every step. Defaults
        to recording no steps.
    on_problem : callable
        Called with the reason why steps are not recorded. Defaults to print.
    on_trained : callable
        Called at the end of each Keras fit with its model, the number of its epochs, and of steps in each. Defaults to
        doing nothing.
    """
    keras = sys.modules.get("keras")
    if keras is None or not hasattr(keras, "Model"):
        yield
        return
    fits = itertools.count()
    with _patch.on(keras.Model):
        epochs = functools.partial(_epoch_callback(), on_epoch=on_epoch, on_trained=on_trained)
        token = _new_callbacks.set(lambda: [epochs(next(fits)), *_recorders(fold_run, on_problem)])
        try:
            yield
        finally:
            _new_callbacks.reset(token)


def is_recording() -> bool:
    """Return whether a Keras fit that begins here is one of a recorded search."""
    return _new_callbacks.get() is not None


def _fit(original: Callable[..., Any], model: Any, *arguments: Any, **named: Any) -> Any:
    """Fit a model with the new callbacks, if there are any."""
    import keras

    new_callbacks = _new_callbacks.get()
    if new_callbacks is None or len(arguments) > _PLACE_OF_CALLBACKS:
        return original(model, *arguments, **named)
    callbacks = named.pop("callbacks", None)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        for callback in new_callbacks():
            callbacks.append(callback)
    else:
        own = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []
        callbacks = [*own, *new_callbacks()]
    return original(model, *arguments, callbacks=callbacks, **named)


_patch = MethodPatch("fit", _fit)


_PLACE_OF_CALLBACKS = 5
"""``fit(x, y, batch_size, epochs, verbose, callbacks)``: positional callbacks are left as they are."""


@functools.cache
def _epoch_callback() -> Any:
    import keras

    class EpochCallback(keras.callbacks.Callback):
        """Passes on the values of each epoch."""

        def __init__(self, fit: int, on_epoch: OnEpoch, on_trained: OnTrained) -> None:
            super().__init__()
            self.fit = fit
            self.on_epoch = on_epoch
            self.on_trained = on_trained
            self.learning_rate: float | None = None
            self.n_epochs = 0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
            with contextlib.suppress(AttributeError, TypeError, ValueError):
                self.learning_rate = float(self.model.optimizer.learning_rate)

        def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
            values = {} if self.learning_rate is None else {"learning_rate": self.learning_rate}
            for name, value in (logs or {}).items():
                with contextlib.suppress(TypeError, ValueError):
                    values[name] = float(value)
            self.n_epochs += 1
            self.on_epoch(self.fit, epoch, values)

        def on_train_end(self, logs: Any = None) -> None:  # noqa: ARG002
            with contextlib.suppress(Exception):  # an unknown workload is not compared
                self.on_trained(self.model, self.n_epochs, (self.params or {}).get("steps"))

    return EpochCallback


def _recorders(fold_run: FoldRun | None, on_problem: Callable[[str], None]) -> list[Any]:
    """Make the recorder of every step, if steps are to be recorded and its run is available."""
    if fold_run is None:
        return []
    try:
        run = fold_run()
        if run is None:
            return []
        import mlflow

        from mlflow_hp.tracking.runs import find_run
        from mlflow_hp.training.callback import TrainingRecorder

        run_id, tracking_uri = run
        if mlflow.get_tracking_uri() != tracking_uri:  # in a worker
            mlflow.set_tracking_uri(tracking_uri)
        find_run(run_id)
        recorder = TrainingRecorder(run_id, report=False, log_datasets=False)
        recorder.owns_run = True
    except Exception as error:  # noqa: BLE001 - an error of the recording must not fail the fold
        on_problem(f"not every step is recorded: {type(error).__name__}: {error}")
        return []
    return [recorder]
