"""Closing of fits that were left open: by an exception out of ``fit``, by the end of their run, or of the program."""

from __future__ import annotations

import atexit
import functools
import sys
import weakref
from typing import TYPE_CHECKING, Any, Protocol

import keras

from mlflow_hp.tracking.run_observer import observer

if TYPE_CHECKING:
    from types import FrameType


class FitRecorder(Protocol):
    """Recorder of one fit at a time; the `TrainingRecorder` is one."""

    @property
    def model(self) -> Any:
        """The model that is fitted."""

    def is_recording(self, token: object) -> bool:
        """Whether the fit with this token is being recorded."""

    def close(self) -> None:
        """End the recording of a fit; do nothing if there is none."""


open_recorders: weakref.WeakSet[FitRecorder] = weakref.WeakSet()
"""Recorders with an unfinished fit."""


def close_at_exit() -> None:
    """Close the fits inside which the program ends, before what was registered so far to be closed at exit."""
    weakref.finalize(open_recorders, lambda: None)  # the first registers all with `atexit`: to run after `_close_all`
    atexit.register(_close_all)


def callback_list_of(frame: FrameType | None) -> keras.callbacks.CallbackList | None:
    """Find the list of callbacks that called this one, directly or through a subclass or another callback."""
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return caller
        frame = frame.f_back
    return None


def is_fitted(model: Any) -> bool:
    """Whether a ``fit`` of the model is running, in any thread.

    Parameters
    ----------
    model : keras.Model
        The model.

    Returns
    -------
    bool
        True if ``fit`` is on the stack of a thread.
    """
    for top in sys._current_frames().values():
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_code.co_name == "fit" and frame.f_locals.get("self") is model:
                return True
            frame = frame.f_back
    return False


def watch_fit(
    recorder: FitRecorder, run_id: str, token: object, callback_list: keras.callbacks.CallbackList | None
) -> None:
    """Watch a fit, to end its recording when an exception leaves it, before its run ends, or with the program.

    Parameters
    ----------
    recorder : FitRecorder
        Recorder of the fit.
    run_id : str
        Id of the run.
    token : object
        Token of the fit.
    callback_list : keras.callbacks.CallbackList or None
        The fit's list of callbacks, if it is known.
    """
    if callback_list is not None:  # freed when an exception leaves `fit`
        weakref.finalize(callback_list, _close_fit, weakref.ref(recorder), token).atexit = False
    open_recorders.add(recorder)
    observer.before_end(run_id, _name(recorder), functools.partial(_close_if_left, weakref.ref(recorder), token))


def end_watch(recorder: FitRecorder, run_id: str) -> None:
    """End what `watch_fit` began, as the recording ends."""
    open_recorders.discard(recorder)
    observer.before_end(run_id, _name(recorder), None)


def _name(recorder: FitRecorder) -> str:
    return f"fit {id(recorder)}"


def _close_fit(recorder: weakref.ref[FitRecorder], token: object) -> None:
    """End the recording of the fit with this token, if it is still open."""
    alive = recorder()
    if alive is not None and alive.is_recording(token):
        alive.close()


def _close_if_left(recorder: weakref.ref[FitRecorder], token: object) -> None:
    """End the recording of a fit before its run ends, if an exception has left ``fit`` and its traceback is kept."""
    alive = recorder()
    if alive is not None and alive.is_recording(token) and not is_fitted(alive.model):
        alive.close()


def _close_all() -> None:
    """End the recording of fits inside which the program ends."""
    for recorder in list(open_recorders):
        recorder.close()
