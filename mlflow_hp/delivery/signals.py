"""Handling of Ctrl-C and SIGTERM at moments when they would lose data: they wait until the data is written."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_is_holding = False


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

    def leave(number: int, frame: Any) -> None:  # noqa: ARG001
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is leave:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
