"""The one place that stands between scikeras and Keras: what runs in place of an estimator's training."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


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
    """

    estimator: Any
    x: Any
    y: Any
    sample_weight: Any
    warm_start: bool
    epochs: int
    initial_epoch: int
    kwargs: Mapping[str, Any]
    proceed: Callable[[KerasFit], None]

    def run(self) -> None:
        """Train, as if nothing had come between."""
        self.proceed(self)

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


_interceptors: ContextVar[tuple[Callable[[KerasFit], None], ...]] = ContextVar("interceptors", default=())
_lock = threading.Lock()
_installed = 0


@contextlib.contextmanager
def intercepted(interceptor: Callable[[KerasFit], None]) -> Iterator[None]:
    """Have `interceptor` called in place of each training of a scikeras estimator inside the block, in this thread.

    The interceptor calls `KerasFit.run` for the training itself. The one of the outermost block is called first.
    Where scikeras has not been imported there is nothing to intercept, and it is not imported.
    """
    if "scikeras.wrappers" not in sys.modules:
        yield
        return
    token = _interceptors.set((interceptor, *_interceptors.get()))
    try:
        with _patched():
            yield
    finally:
        _interceptors.reset(token)


@contextlib.contextmanager
def _patched() -> Iterator[None]:
    """While any thread is in such a block, ``_fit_keras_model`` of scikeras asks the interceptors."""
    global _installed  # noqa: PLW0603
    from scikeras.wrappers import BaseWrapper

    with _lock:
        if not _installed:
            BaseWrapper._fit_keras_model = _asking(BaseWrapper._fit_keras_model)
        _installed += 1
    try:
        yield
    finally:
        with _lock:
            _installed -= 1
            if not _installed:
                BaseWrapper._fit_keras_model = BaseWrapper._fit_keras_model.__wrapped__


def _asking(original: Callable) -> Callable:
    @functools.wraps(original)
    def _fit_keras_model(
        self: Any,
        X: Any,  # noqa: N803
        y: Any,
        sample_weight: Any,
        warm_start: bool,
        epochs: int,
        initial_epoch: int,
        **kwargs: Any,
    ) -> None:
        def proceed(fit: KerasFit) -> None:
            original(
                fit.estimator,
                fit.x,
                fit.y,
                sample_weight=fit.sample_weight,
                warm_start=fit.warm_start,
                epochs=fit.epochs,
                initial_epoch=fit.initial_epoch,
                **fit.kwargs,
            )

        for interceptor in _interceptors.get():
            proceed = _before(interceptor, proceed)
        proceed(KerasFit(self, X, y, sample_weight, warm_start, epochs, initial_epoch, kwargs, proceed))

    return _fit_keras_model


def _before(interceptor: Callable[[KerasFit], None], proceed: Callable[[KerasFit], None]) -> Callable:
    def intercept(fit: KerasFit) -> None:
        interceptor(KerasFit(**{**vars(fit), "proceed": proceed}))

    return intercept
