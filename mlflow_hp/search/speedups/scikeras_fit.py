"""The one place that stands between scikeras and Keras: speed-ups of an estimator's training, each inside a guard.

A speed-up is a generator function. What it does before its ``yield`` prepares the training, what comes after follows
it, and what it yields is whether the training is needed at all. Whatever fails in it is told, and the training runs as
if the speed-up were not there; an error of the training itself passes unchanged.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.search.speedups.model_signature import NotShareableError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    SpeedUp = Callable[["KerasFit"], Generator[bool, None, None]]
    Tell = Callable[[str, bool], None]


@dataclass
class KerasFit:
    """The training of the model that a scikeras estimator has just built.

    Attributes
    ----------
    estimator : scikeras.wrappers.BaseWrapper
        Its ``model_`` is what is trained, and may be exchanged before.
    x, y, sample_weight : array_like
        What Keras is given, encoded.
    warm_start : bool
        Whether an earlier training goes on.
    epochs, initial_epoch : int
        Epochs to train, and the 0-based number of the first.
    kwargs : mapping
        What else the caller hands to ``keras.Model.fit``.
    before : mapping
        The estimator's attributes before any of this, for them to be set again.
    """

    estimator: Any
    x: Any
    y: Any
    sample_weight: Any
    warm_start: bool
    epochs: int
    initial_epoch: int
    kwargs: Mapping[str, Any]
    before: Mapping[str, Any]

    def n_references_to_model(self) -> int:
        """How many references to the model come from the estimator's own attributes, now and before."""
        estimator = self.estimator
        holders = (vars(estimator), self.before)
        return sum(each is estimator.model_ for holder in holders for each in holder.values())

    def arguments(self) -> dict[str, Any]:
        """What ``keras.Model.fit`` is called with by name, but for the data, the epochs and the callbacks."""
        from scikeras._utils import route_params

        estimator = self.estimator
        found = route_params(estimator.get_params(), destination="fit", pass_filter=estimator._fit_kwargs)
        return {**found, **self.kwargs}

    def is_plain(self) -> bool:
        """Whether a new model of scikeras' own estimator, not of a class derived from it, is trained from the start."""
        from scikeras.wrappers import KerasClassifier, KerasRegressor

        return type(self.estimator) in (KerasClassifier, KerasRegressor) and not (
            self.warm_start or self.estimator.warm_start or self.initial_epoch
        )


def untold(reason: str, is_fault: bool) -> None:
    """Tell nobody."""


class _Aid(NamedTuple):
    """A speed-up, and who is told why a training goes without it."""

    speed_up: SpeedUp
    tell: Tell


WORDS = ("y", "sample_weight", "warm_start", "epochs", "initial_epoch")
"""Parameters of scikeras' function that are named like a fit's attributes."""

_aids: ContextVar[tuple[_Aid, ...]] = ContextVar("mlflow_hp_speed_ups", default=())
_lock = threading.Lock()
_n_blocks = 0
_ours: Any = None


@contextlib.contextmanager
def sped_up(speed_up: SpeedUp, tell: Tell) -> Iterator[None]:
    """Have `speed_up` prepare and follow each training of a scikeras estimator inside the block, in this thread.

    That of the outermost block comes first. Where scikeras has not been imported there is nothing to speed up, and it
    is not imported.

    Parameters
    ----------
    speed_up : generator function
        Called with the `KerasFit`; it yields once. `NotShareableError` says that it does not apply.
    tell : callable
        Called with the reason why a training goes without it, and whether that is a fault rather than a known limit.
    """
    if "scikeras.wrappers" not in sys.modules:
        yield
        return
    with contextlib.ExitStack() as until_the_end:
        try:
            until_the_end.enter_context(_patched())
            token = _aids.set((*_aids.get(), _Aid(speed_up, tell)))
            until_the_end.callback(_aids.reset, token)
        except Exception as error:  # noqa: BLE001 - another scikeras
            tell(_words(error), True)
        yield


@contextlib.contextmanager
def _patched() -> Iterator[None]:
    """While any thread is in such a block, ``_fit_keras_model`` of scikeras asks for speed-ups."""
    global _n_blocks, _ours  # noqa: PLW0603
    from scikeras.wrappers import BaseWrapper

    with _lock:
        if not _n_blocks:
            _ours = _asking(BaseWrapper._fit_keras_model)
            BaseWrapper._fit_keras_model = _ours
        _n_blocks += 1
    try:
        yield
    finally:
        with _lock:
            _n_blocks -= 1
            if not _n_blocks and BaseWrapper._fit_keras_model is _ours:  # or somebody else has patched it meanwhile
                BaseWrapper._fit_keras_model = _ours.__wrapped__


def _asking(original: Callable) -> Callable:
    @functools.wraps(original)
    def _fit_keras_model(*arguments: Any, **named: Any) -> Any:
        aids = _aids.get()
        if not aids:
            return original(*arguments, **named)
        token = _aids.set(())  # what a callback trains meanwhile is none of the search's fits
        try:
            return _train(aids, original, arguments, named)
        finally:
            _aids.reset(token)

    return _fit_keras_model


def _train(aids: tuple[_Aid, ...], original: Callable, arguments: Any, named: Any) -> Any:
    """Train with the help of what can help."""
    helping: list[tuple[_Aid, Generator[bool, None, None]]] = []
    result, is_needed = None, True
    try:
        for aid in aids:
            with _guard(aid, arguments[0]) as before:
                help_ = aid.speed_up(_fit_of(original, arguments, named, before))
                is_needed = next(help_) and is_needed
                helping.append((aid, help_))
        if is_needed:
            result = original(*arguments, **named)
    except BaseException:
        for _, help_ in reversed(helping):
            with contextlib.suppress(Exception):  # the user's error counts
                help_.close()
        raise
    for aid, help_ in reversed(helping):
        with _guard(aid):
            next(help_, None)
    return result


def _fit_of(original: Callable, arguments: Any, named: Any, before: Mapping[str, Any]) -> KerasFit:
    given = inspect.signature(original).bind(*arguments, **named).arguments
    names = {"estimator": "self", "x": "X", **{name: name for name in WORDS}}
    by_name = {ours: given[name] for ours, name in names.items()}
    return KerasFit(**by_name, kwargs=given.get("kwargs", {}), before=before)


@contextlib.contextmanager
def _guard(aid: _Aid, estimator: Any = None) -> Iterator[Mapping[str, Any]]:
    """Tell an error instead of raising it, and leave the `estimator` with the attributes that it had."""
    before = {} if estimator is None else dict(vars(estimator))
    try:
        yield before
    except BaseException as error:
        if estimator is not None:
            vars(estimator).clear()
            vars(estimator).update(before)
        if not isinstance(error, Exception):
            raise
        aid.tell(_words(error), not isinstance(error, NotShareableError))


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, NotShareableError) else f"{type(error).__name__}: {error}"
