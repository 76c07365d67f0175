"""Hook into scikeras' training of a Keras model, for speed-ups, each of them guarded.

A speed-up is a generator function. The part before its ``yield`` runs before the training and the rest after it; the
value it yields is the number of first epochs that the training may leave out: 0, or up to all of them. If a speed-up
fails, the reason is reported and the training runs without it; an error of the training itself passes unchanged.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp._compat.patch import MethodPatch
from mlflow_hp._compat.private_name import UnsupportedVersionError
from mlflow_hp._compat.scikeras import FIT_KERAS_MODEL, fit_arguments
from mlflow_hp.search.speedups.model_signature import NotShareableError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping

    SpeedUp = Callable[["KerasFit"], Generator[int, None, None]]
    OnPlain = Callable[[str, bool], None]


@dataclass
class KerasFit:
    """Training of the model that a scikeras estimator has just built.

    Attributes
    ----------
    estimator : scikeras.wrappers.BaseWrapper
        Its ``model_`` will be trained; a speed-up may replace it.
    x, y, sample_weight : array_like
        Encoded data for Keras.
    warm_start : bool
        Whether an earlier training is continued.
    epochs, initial_epoch : int
        Number of epochs, and number of the first (0-based).
    kwargs : mapping
        Further arguments for ``keras.Model.fit``.
    before : mapping
        The estimator's attributes before any speed-up, to restore them.
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
        """Number of references to the model from the estimator's attributes, now and before."""
        estimator = self.estimator
        holders = (vars(estimator), self.before)
        return sum(each is estimator.model_ for holder in holders for each in holder.values())

    def arguments(self) -> dict[str, Any]:
        """Named arguments of ``keras.Model.fit``, without the data, the epochs and the callbacks."""
        return {**fit_arguments(self.estimator), **self.kwargs}

    def is_plain(self) -> bool:
        """Whether an estimator of scikeras itself, not of a subclass, trains a new model from the start."""
        from scikeras.wrappers import KerasClassifier, KerasRegressor

        return type(self.estimator) in (KerasClassifier, KerasRegressor) and not (
            self.warm_start or self.estimator.warm_start or self.initial_epoch
        )


def ignore_reason(reason: str, is_fault: bool) -> None:
    """Ignore the reason why a training runs without a speed-up."""


class _ActiveSpeedUp(NamedTuple):
    """A speed-up, and the callable for reasons why a training runs without it."""

    speed_up: SpeedUp
    on_plain: OnPlain


SAME_NAMES = ("y", "sample_weight", "warm_start", "epochs", "initial_epoch")
"""Parameters of scikeras' function with the name of an attribute of `KerasFit`."""

_speed_ups: ContextVar[tuple[_ActiveSpeedUp, ...]] = ContextVar("mlflow_hp_speed_ups", default=())


@contextlib.contextmanager
def sped_up(speed_up: SpeedUp, on_plain: OnPlain) -> Iterator[None]:
    """Apply a speed-up to each training of a scikeras estimator inside the block, in this thread.

    Speed-ups of outer blocks come first. Nothing happens if scikeras has not been imported.

    Parameters
    ----------
    speed_up : generator function
        Called with the `KerasFit`; yields once. Raises `NotShareableError` if it does not apply.
    on_plain : callable
        Called with the reason why a training runs without it, and whether that is a fault rather than a known limit.
    """
    if "scikeras.wrappers" not in sys.modules:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            from scikeras.wrappers import BaseWrapper

            FIT_KERAS_MODEL.of(BaseWrapper)
            stack.enter_context(_patch.on(BaseWrapper))
            token = _speed_ups.set((*_speed_ups.get(), _ActiveSpeedUp(speed_up, on_plain)))
            stack.callback(_speed_ups.reset, token)
        except Exception as error:  # noqa: BLE001 - another version of scikeras
            on_plain(_reason(error), True)
        yield


def _train_with_speed_ups(original: Callable, *arguments: Any, **named: Any) -> Any:
    """Train in place of scikeras' own function."""
    speed_ups = _speed_ups.get()
    if not speed_ups:
        return original(*arguments, **named)
    token = _speed_ups.set(())  # a training inside a callback is not a fit of the search
    try:
        return _train(speed_ups, original, arguments, named)
    finally:
        _speed_ups.reset(token)


_patch = MethodPatch(FIT_KERAS_MODEL.name, _train_with_speed_ups)


def _train(speed_ups: tuple[_ActiveSpeedUp, ...], original: Callable, arguments: Any, named: Any) -> Any:
    """Train with those speed-ups that apply."""
    running: list[tuple[_ActiveSpeedUp, Generator[int, None, None]]] = []
    result, n_left_out = None, 0
    try:
        for active in speed_ups:
            with _guard(active, arguments[0]) as before:
                generator = active.speed_up(_fit_of(inspect.signature(original).bind(*arguments, **named), before))
                n_left_out = max(n_left_out, next(generator))
                running.append((active, generator))
        if n_left_out == 0:
            result = original(*arguments, **named)
        else:
            bound = inspect.signature(original).bind(*arguments, **named)
            bound.arguments["epochs"] -= n_left_out
            bound.arguments["initial_epoch"] = n_left_out
            if bound.arguments["epochs"]:
                result = original(*bound.args, **bound.kwargs)
    except BaseException:
        for _, generator in reversed(running):
            with contextlib.suppress(Exception):  # the user's error is the one to raise
                generator.close()
        raise
    for active, generator in reversed(running):
        with _guard(active):
            next(generator, None)
    return result


def _fit_of(bound: inspect.BoundArguments, before: Mapping[str, Any]) -> KerasFit:
    names = {"estimator": "self", "x": "X", **{name: name for name in SAME_NAMES}}
    by_name = {attribute: bound.arguments[name] for attribute, name in names.items()}
    return KerasFit(**by_name, kwargs=bound.arguments.get("kwargs", {}), before=before)


@contextlib.contextmanager
def _guard(active: _ActiveSpeedUp, estimator: Any = None) -> Iterator[Mapping[str, Any]]:
    """Report an error instead of raising it, and restore the attributes of `estimator`."""
    before = {} if estimator is None else dict(vars(estimator))
    try:
        yield before
    except BaseException as error:
        if estimator is not None:
            vars(estimator).clear()
            vars(estimator).update(before)
        if not isinstance(error, Exception):
            raise
        active.on_plain(_reason(error), not isinstance(error, NotShareableError))


def _reason(error: Exception) -> str:
    is_sentence = isinstance(error, (NotShareableError, UnsupportedVersionError))
    return str(error) if is_sentence else f"{type(error).__name__}: {error}"
