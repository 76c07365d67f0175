"""Handling of Ctrl-C and SIGTERM: they wait until data is written, and end a training that would lose their error."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType

RETRY_SECONDS = 0.05
"""Seconds after which a signal is handled again that came while TensorFlow's own code ran, or whose error was lost."""
MAX_RETRIES = 20
"""After that many, the error is raised in TensorFlow's code, too."""

_is_holding = False
_in_force: _Raiser | None = None


@contextlib.contextmanager
def held(meanwhile: str | None = None) -> Iterator[None]:
    """Defer SIGINT and SIGTERM until the end of the block; a second SIGINT takes effect at once.

    Has no effect outside the main thread, which alone receives signals, and on signals that Python does not handle.

    Parameters
    ----------
    meanwhile : str, optional
        Description of the block for the user whose Ctrl-C is deferred. Defaults to None: no message.

    Yields
    ------
    None
        Nothing.

    Examples
    --------
    >>> from mlflow_hp.delivery import held
    >>> with held("writing the results"):
    ...     results = sum(range(10))
    >>> results
    45
    """
    global _is_holding  # noqa: PLW0603 - a nested block is part of the outer one
    if _is_holding or threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    received: list[int] = []

    def defer(number: int, frame: Any) -> None:
        is_second = number == signal.SIGINT and number in received
        received.append(number)
        if is_second:
            handlers[number](number, frame)
        elif meanwhile and len(received) == 1:
            with contextlib.suppress(OSError):
                os.write(2, f"\nmlflow_hp: {meanwhile}; press Ctrl-C again to abort that\n".encode())

    _is_holding = True
    try:
        for number in handlers:
            signal.signal(number, defer)
        yield
    finally:
        _is_holding = False
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in received:
            handlers[number](number, None)


@contextlib.contextmanager
def raise_on_signals(errors: Mapping[int, Callable[[], BaseException]]) -> Iterator[None]:
    """Raise an error in the block when a signal comes, where it is not lost.

    Code in C drops an error that comes while it calls Python: Python itself does while it destroys an object, as Keras'
    iterators are at every epoch's end, and TensorFlow's extension modules, which can even crash. So if TensorFlow's own
    Python code is running, the error waits for the next step of the training, or until other code runs, at most a
    second; and if it is lost all the same, it is raised again. Has no effect outside the main thread.

    Parameters
    ----------
    errors : mapping of int to callable
        Number of a signal -> function that makes the error.

    Yields
    ------
    None
        Nothing.

    Examples
    --------
    >>> import signal
    >>> from mlflow_hp.delivery import raise_on_signals
    >>> with raise_on_signals({signal.SIGTERM: lambda: SystemExit(143)}):
    ...     pass
    """
    global _in_force  # noqa: PLW0603 - a process has one handler of each signal
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    hook, before = sys.unraisablehook, _in_force
    raiser = _Raiser(errors, hook)
    sys.unraisablehook = raiser.dropped
    handlers = {number: signal.signal(number, raiser.handle) for number in errors}
    _in_force = raiser
    try:
        yield
    finally:
        _in_force = before
        raiser.end()
        if sys.unraisablehook == raiser.dropped:
            sys.unraisablehook = hook
        if threading.current_thread() is threading.main_thread():  # no other may set handlers
            for number, handler in handlers.items():
                if signal.getsignal(number) == raiser.handle:
                    signal.signal(number, handler)
        if not raiser.is_raised:
            raiser.raise_waiting()


def raise_waiting() -> None:
    """Raise the error of a signal that has not been raised yet, or that was lost; called before each step."""
    if _in_force is not None and _in_force.error is not None:
        _in_force.raise_waiting()


def forget_raised() -> None:
    """Forget the error that was raised, as a fit begins: it has ended what came before."""
    if _in_force is not None and _in_force.is_raised:
        _in_force.error = None


class _Raiser:
    """Raises an error for each signal.

    Attributes
    ----------
    error : BaseException or None
        Of the last signal.
    is_raised : bool
        Whether it has been raised, perhaps in vain.
    """

    def __init__(self, errors: Mapping[int, Callable[[], BaseException]], hook: Callable[[Any], object]) -> None:
        self._errors, self._hook = errors, hook
        self.error: BaseException | None = None
        self.is_raised = False
        self._retries = 0
        self._is_in_hook = self._has_ended = self._is_scheduled = False
        self._sending = threading.Lock()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; `frame` is None if it was deferred."""
        if self.error is None or self.is_raised:
            self.error, self.is_raised, self._retries = self._errors[number](), False, 0
        if self._is_in_hook:
            return
        is_safe = frame is None or not str(frame.f_globals.get("__name__")).startswith("tensorflow.")
        if is_safe or self._retries >= MAX_RETRIES:
            self._raise()
        self._retries += 1
        self._handle_again(number)

    def dropped(self, unraisable: Any) -> None:
        """Take the place of `sys.unraisablehook`: handle the signal again whose error Python has dropped."""
        if self.error is None or unraisable.exc_value is not self.error:
            self._hook(unraisable)
            return
        self._is_in_hook = True  # an error raised here would end this function
        try:
            self.is_raised = False
            self._handle_again(next(iter(self._errors)))
        finally:
            self._is_in_hook = False

    def raise_waiting(self) -> None:
        """Raise the error, if there is one; only the main thread does, as it alone handles signals."""
        if self.error is not None and threading.current_thread() is threading.main_thread():
            self._raise()

    def end(self) -> None:
        """Send no signal any more."""
        with self._sending:
            self._has_ended = True

    def _raise(self) -> NoReturn:
        assert self.error is not None
        self.is_raised = True
        raise self.error

    def _handle_again(self, number: int) -> None:
        if self._is_scheduled:
            return
        self._is_scheduled = True
        timer = threading.Timer(RETRY_SECONDS, self._send, (number,))
        timer.daemon = True
        timer.start()

    def _send(self, number: int) -> None:
        with self._sending:
            self._is_scheduled = False
            if not (self.is_raised or self._has_ended):
                if hasattr(signal, "pthread_kill"):
                    signal.pthread_kill(threading.main_thread().ident or 0, number)
                else:  # on Windows
                    signal.raise_signal(number)


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Make SIGTERM raise SystemExit in the block instead of ending the process at once.

    Has no effect outside the main thread, and if SIGTERM has a handler already.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    with raise_on_signals({signal.SIGTERM: lambda: SystemExit(128 + signal.SIGTERM)}):
        yield
