"""Replacements of ``fit`` that record every training and every search, in the run where it belongs."""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import mlflow

from mlflow_hp._compat.patch import MethodPatch
from mlflow_hp._compat.sklearn import search_class
from mlflow_hp._notice import warn
from mlflow_hp.search.live.family import is_watched
from mlflow_hp.search.live.keras_epochs import is_recording
from mlflow_hp.search.record_search import record_search
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.own_run import OwnRun, status_of
from mlflow_hp.tracking.server_health import reason
from mlflow_hp.training.callback import TrainingRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

TRIALS = ("keras_tuner", "optuna", "scikeras")
"""Libraries that train many models in one run: each of their trainings has a nested run."""


class Settings(NamedTuple):
    """Arguments of `TrainingRecorder` and of `record_search`, and tags for each run."""

    recorder: dict[str, Any]
    search: dict[str, Any]
    extra_tags: dict[str, str]


class _Patches:
    """Patches of this process; their only instance is `patches`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._patches = (
            (MethodPatch("fit", self._fit), keras.Model),
            (MethodPatch("fit", self._search), search_class()),
        )
        self._runs: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self.settings: Settings | None = None

    def set(self, settings: Settings | None) -> None:
        """Record with `settings` from now on; None ends it."""
        with self._lock:
            was_on, self.settings = self.settings is not None, settings
            for patch, owner in self._patches:
                if settings is not None and not was_on:
                    patch.enter(owner)
                elif settings is None and was_on:
                    patch.leave(owner)

    def _fit(self, original: Callable[..., Any], model: Any, *arguments: Any, **named: Any) -> Any:
        settings = self.settings
        if settings is None or is_recording() or _is_called_by(search_class().__module__):
            return original(model, *arguments, **named)
        try:
            bound = inspect.signature(original).bind(model, *arguments, **named)
        except (TypeError, ValueError):  # the call itself says what is wrong
            return original(model, *arguments, **named)
        callbacks = bound.arguments.get("callbacks")
        if any(isinstance(callback, TrainingRecorder) for callback in _listed(callbacks)):
            return original(model, *arguments, **named)
        with self._run_of(model, settings) as run_id, contextlib.ExitStack() as added:
            if run_id is None:
                return original(model, *arguments, **named)
            recorder = TrainingRecorder(run_id, **settings.recorder)
            recorder.extra_tags = settings.extra_tags
            if isinstance(callbacks, keras.callbacks.CallbackList):
                recorder.set_params(callbacks.params)
                recorder.set_model(model)
                callbacks.callbacks.insert(0, recorder)
                added.callback(callbacks.callbacks.remove, recorder)
            else:
                bound.arguments["callbacks"] = [recorder, *_listed(callbacks)]
            return original(*bound.args, **bound.kwargs)

    @contextlib.contextmanager
    def _run_of(self, model: Any, settings: Settings) -> Iterator[str | None]:
        """Yield the id of the run to record a training into; None if none can be started.

        It is the active run; without one, or in a trial of another library, a run of its own, which later trainings of
        the same model continue.
        """
        active = mlflow.active_run()
        if active is not None and not _is_called_by(*TRIALS):
            yield str(active.info.run_id)
            return
        run: OwnRun | None = None
        try:
            run = OwnRun(
                runs.run_tags("training", settings.extra_tags), self._runs.get(model) if active is None else None
            )
        except Exception as error:  # noqa: BLE001 - the training goes on
            warn(f"a training is not recorded, as no run can be started: {reason(error)}")
        if run is None:
            yield None
            return
        self._runs[model] = run.run_id
        try:
            yield run.run_id
        except BaseException as error:
            run.end(status_of(error))
            raise
        run.end("FINISHED")

    def _search(self, original: Callable[..., Any], search: Any, *arguments: Any, **named: Any) -> Any:
        settings = self.settings
        if settings is None or is_watched(search):
            return original(search, *arguments, **named)
        with contextlib.ExitStack() as recorded:
            try:
                recording = recorded.enter_context(record_search(search, **settings.search))
            except Exception as error:  # noqa: BLE001 - the search goes on
                warn(f"a search is not recorded: {reason(error)}")
                return original(search, *arguments, **named)
            try:
                runs.set_tags(recording.run_id, settings.extra_tags)
            except Exception as error:  # noqa: BLE001 - the search goes on
                warn(f"the run {recording.run_id} of a search lacks the tags of autolog: {reason(error)}")
            return original(search, *arguments, **named)


def _listed(callbacks: Any) -> list[Any]:
    """Return the callbacks of ``fit``, of any form that Keras takes, as a list."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks] if callbacks else []


def _is_called_by(*modules: str) -> bool:
    """Return whether one of these modules, or of these packages, is on the stack."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name in modules or name.partition(".")[0] in modules:
            return True
        frame = frame.f_back
    return False


patches = _Patches()
