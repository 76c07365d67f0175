"""Ctrl-C at a moment when it would lose something: it waits until that is done."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_holding = False


@contextlib.contextmanager
def held(meanwhile: str | None = None) -> Iterator[None]:
    """Have SIGINT and SIGTERM take effect behind the block; a second SIGINT takes effect at once.

    Nothing changes outside the main thread, which no signal interrupts, and for signals that Python doesn't handle.

    Parameters
    ----------
    meanwhile : str, optional
        What the block does: told to the user whose Ctrl-C has to wait for it.
    """
    global _holding  # noqa: PLW0603 - a block inside another is part of it
    if _holding or threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    came: list[int] = []

    def wait(number: int, frame: Any) -> None:
        again = number == signal.SIGINT and number in came
        came.append(number)
        if again:
            handlers[number](number, frame)
        elif meanwhile and len(came) == 1:
            with contextlib.suppress(OSError):
                os.write(2, f"\nmlflow_hp: {meanwhile}; Ctrl-C once more gives that up\n".encode())

    _holding = True
    try:
        for number in handlers:
            signal.signal(number, wait)
        yield
    finally:
        _holding = False
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came:
            handlers[number](number, None)


@contextlib.contextmanager
def sigterm_leaves() -> Iterator[None]:
    """Have SIGTERM leave the block by SystemExit, where it would end the process without a word.

    Nothing changes outside the main thread, and where SIGTERM has a handler already.
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
