"""Methods of Optuna's studies and trials, wrapped while a study is recorded."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.patch import MethodPatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow_hp.search.trials.study_recording import StudyRecording

_watching: list[StudyRecording] = []


@contextlib.contextmanager
def watched(recording: StudyRecording) -> Iterator[None]:
    """Pass what happens to the study of a recording to it inside the block, in any thread."""
    import optuna

    with contextlib.ExitStack() as patched:
        for owner, methods in ((optuna.Study, _OF_STUDY), (optuna.Trial, _OF_TRIAL)):
            for name, act in methods.items():
                patched.enter_context(_patch(name, act).on(owner))
        _watching.append(recording)
        try:
            yield
        finally:
            _watching.remove(recording)


def recording_of(study: Any) -> StudyRecording | None:
    """Return the recording of a study; None if it is not recorded."""
    return next((each for each in (*_watching,) if each.study is study and not each.abandoned), None)


def _optimize(original: Callable[..., None], study: Any, *arguments: Any, **named: Any) -> None:
    recording = recording_of(study)
    if recording is None:
        return original(study, *arguments, **named)
    try:
        bound = inspect.signature(original).bind(study, *arguments, **named)
    except TypeError:  # Optuna's own refusal
        return original(study, *arguments, **named)
    of_call = bound.arguments
    recording.plan(of_call.get("n_trials"))
    function = of_call["func"]

    @functools.wraps(function, updated=())
    def objective(trial: Any) -> Any:
        with recording.computing(recording.begun(trial)):
            return function(trial)

    of_call["func"] = objective
    of_call["callbacks"] = [lambda _, trial: recording.ended(trial), *(of_call.get("callbacks") or ())]
    try:
        return original(*bound.args, **bound.kwargs)
    finally:
        recording.settle_raised()


def _ask(original: Callable[..., Any], study: Any, *arguments: Any, **named: Any) -> Any:
    trial = original(study, *arguments, **named)
    recording = recording_of(study)
    if recording is not None:
        recording.begun(trial)
    return trial


def _tell(original: Callable[..., Any], study: Any, *arguments: Any, **named: Any) -> Any:
    trial = original(study, *arguments, **named)
    recording = recording_of(study)
    if recording is not None:
        recording.ended(trial)
    return trial


def _suggest(original: Callable[..., Any], trial: Any, name: str, *arguments: Any, **named: Any) -> Any:
    value = original(trial, name, *arguments, **named)
    recording = recording_of(trial.study)
    if recording is not None:
        recording.suggested(trial, name, value)
    return value


def _report(original: Callable[..., None], trial: Any, value: float, step: int) -> None:
    original(trial, value, step)
    recording = recording_of(trial.study)
    if recording is not None:
        recording.reported(trial, value, step)


def _set_user_attr(original: Callable[..., None], trial: Any, key: str, value: Any) -> None:
    original(trial, key, value)
    recording = recording_of(trial.study)
    if recording is not None:
        recording.attributed(trial, key, value)


_OF_STUDY: dict[str, Callable[..., Any]] = {"optimize": _optimize, "ask": _ask, "tell": _tell}
_OF_TRIAL: dict[str, Callable[..., Any]] = {
    "suggest_float": _suggest,
    "suggest_int": _suggest,
    "suggest_categorical": _suggest,
    "report": _report,
    "set_user_attr": _set_user_attr,
}


@functools.cache
def _patch(name: str, act: Callable[..., Any]) -> MethodPatch:
    return MethodPatch(name, act)
