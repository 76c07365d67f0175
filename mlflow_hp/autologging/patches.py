"""Replacements of ``fit`` that record every training and every search, in the run where it belongs."""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import mlflow

from mlflow_hp._compat.mlflow import revert_holder
from mlflow_hp._compat.patch import MethodPatch, Patch
from mlflow_hp._compat.private_name import UnsupportedVersionError, warn_once
from mlflow_hp._compat.sklearn import search_class
from mlflow_hp._notice import warn
from mlflow_hp.autologging.inputs_and_models import log_afterwards, log_data_of_search, warn_of_mlflows_candidates
from mlflow_hp.autologging.model_runs import model_runs
from mlflow_hp.search.live.family import is_watched
from mlflow_hp.search.live.keras_epochs import is_recording
from mlflow_hp.search.record_search import record_search
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.own_run import OwnRun, status_of
from mlflow_hp.tracking.server_health import reason
from mlflow_hp.training.callback import TrainingRecorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

TRIALS = ("keras_tuner", "optuna", "scikeras")
"""Libraries that train many models in one run: each of their trainings has a nested run."""


PLACE_OF_CALLBACKS = 5
"""Place of the argument in ``fit(x, y, batch_size, epochs, verbose, callbacks)``."""


class Settings(NamedTuple):
    """Arguments of `TrainingRecorder` and of `record_search`, tags for each run, and whether its model is logged."""

    recorder: dict[str, Any]
    search: dict[str, Any]
    extra_tags: dict[str, str]
    log_models: bool
    log_datasets: bool


class _Patches:
    """Patches of this process; their only instance is `patches`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_place: list[tuple[Patch, Any]] = []
        self._running: set[str] = set()
        self._reverting = Patch("revert_patches", self._restore_after)
        self.settings: Settings | None = None

    def set(self, settings: Settings | None) -> None:
        """Record with `settings` from now on; None ends it."""
        with self._lock:
            self.settings = settings
            if settings is None:
                model_runs.end_all()
            while self._in_place and settings is None:
                patch, owner = self._in_place.pop()
                patch.leave(owner)
            if settings is not None:
                self._watch_mlflow()
                placed = [owner for _, owner in self._in_place]
                for owner, act in [
                    (keras.Model, self._fit),
                    *((cls, self._search) for cls in _with_fit(search_class())),
                ]:
                    if owner not in placed:
                        patch = MethodPatch("fit", act)
                        patch.enter(owner)
                        self._in_place.append((patch, owner))

    def _watch_mlflow(self) -> None:
        """Stay in place when MLflow's own autologging is turned on or off, and restores what it has replaced."""
        try:
            holder = revert_holder()
        except UnsupportedVersionError as error:
            warn_once(error)
            return
        if (self._reverting, holder) not in self._in_place:
            self._reverting.enter(holder)
            self._in_place.append((self._reverting, holder))

    def _restore_after(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def replacement(*arguments: Any, **named: Any) -> Any:
            result = original(*arguments, **named)
            for patch, owner in list(self._in_place):
                if patch is not self._reverting:
                    patch.restore(owner)
            return result

        return replacement

    def _fit(self, original: Callable[..., Any], model: Any, *arguments: Any, **named: Any) -> Any:
        settings = self.settings
        if settings is None or is_recording() or _is_called_by(search_class().__module__):
            return original(model, *arguments, **named)
        try:
            inspect.signature(original).bind(model, *arguments, **named)
        except (TypeError, ValueError):  # the call itself says what is wrong
            return original(model, *arguments, **named)
        is_positional = len(arguments) > PLACE_OF_CALLBACKS
        callbacks = arguments[PLACE_OF_CALLBACKS] if is_positional else named.get("callbacks")
        if any(isinstance(callback, TrainingRecorder) for callback in _listed(callbacks)):
            return original(model, *arguments, **named)
        with self._run_of(model, settings) as run_id, contextlib.ExitStack() as added:
            if run_id is None:
                return original(model, *arguments, **named)
            recorder = TrainingRecorder(run_id, log_datasets=settings.log_datasets, **settings.recorder)
            recorder.extra_tags = settings.extra_tags
            if settings.log_models:
                added.enter_context(log_afterwards(model, run_id))
            if isinstance(callbacks, keras.callbacks.CallbackList):
                recorder.set_params(callbacks.params)
                recorder.set_model(model)
                callbacks.callbacks.insert(0, recorder)
                added.callback(callbacks.callbacks.remove, recorder)
                return original(model, *arguments, **named)
            callbacks = [recorder, *_listed(callbacks)]
            if is_positional:
                before, after = arguments[:PLACE_OF_CALLBACKS], arguments[PLACE_OF_CALLBACKS + 1 :]
                return original(model, *before, callbacks, *after, **named)
            return original(model, *arguments, **{**named, "callbacks": callbacks})

    @contextlib.contextmanager
    def _run_of(self, model: Any, settings: Settings) -> Iterator[str | None]:
        """Yield the id of the run to record a training into; None if none can be started.

        It is the active run; without one, or in a trial of another library, a run of its own, which later trainings of
        the same model continue.
        """
        active = mlflow.active_run()
        is_below = active is not None and active.info.run_id in self._running  # a training in a callback of another
        if active is not None and not is_below and not _is_called_by(*TRIALS):
            yield str(active.info.run_id)
            return
        tags = runs.run_tags("training", settings.extra_tags)
        with contextlib.ExitStack() as active_run:
            try:
                run_id = active_run.enter_context(model_runs.active(model, tags) if active is None else _new_run(tags))
            except Exception as error:  # noqa: BLE001 - the training goes on
                warn(f"a training is not recorded, as no run can be started: {reason(error)}")
                run_id = None
            if run_id is None:
                yield None
                return
            self._running.add(run_id)
            try:
                yield run_id
            finally:
                self._running.discard(run_id)

    def _search(self, original: Callable[..., Any], search: Any, *arguments: Any, **named: Any) -> Any:
        settings = self.settings
        if settings is None or is_watched(search):
            return original(search, *arguments, **named)
        warn_of_mlflows_candidates()
        with contextlib.ExitStack() as recorded:
            try:
                recording = recorded.enter_context(record_search(search, **settings.search))
            except Exception as error:  # noqa: BLE001 - the search goes on
                warn(f"a search is not recorded: {reason(error)}")
                return original(search, *arguments, **named)
            try:
                runs.set_tags(recording.run_id, settings.extra_tags)
                if settings.log_datasets:
                    log_data_of_search(recording.run_id, original, search, *arguments, **named)
            except Exception as error:  # noqa: BLE001 - the search goes on
                warn(f"the run {recording.run_id} of a search lacks tags or data sets of autolog: {reason(error)}")
            if settings.log_models:
                recorded.enter_context(log_afterwards(search, recording.run_id))
            return original(search, *arguments, **named)


@contextlib.contextmanager
def _new_run(tags: Mapping[str, str]) -> Iterator[str]:
    """Make a new run active inside the block, nested in the active one."""
    run = OwnRun(tags)
    failure: BaseException | None = None
    try:
        yield run.run_id
    except BaseException as error:
        failure = error
        raise
    finally:
        run.end(status_of(failure))


def _with_fit(cls: type) -> Iterator[type]:
    """Yield a class and its subclasses that have a ``fit`` of their own, such as one that MLflow has put there."""
    if "fit" in vars(cls):
        yield cls
    subclasses: list[type] = cls.__subclasses__()
    for subclass in subclasses:
        yield from _with_fit(subclass)


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
