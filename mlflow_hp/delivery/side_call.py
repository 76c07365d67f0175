"""A call to MLflow that holds up nothing else: in a thread of its own, and repeated while it fails."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING

from mlflow_hp.delivery.retry import AbandonedError, Retry

if TYPE_CHECKING:
    from collections.abc import Callable


class SideCall:
    """Calls MLflow in the background until it succeeds once.

    MLflow repeats a call that a server answers with 500 for minutes. So what the rest of a record does not depend on is
    sent like this, as its endpoint may fail alone.

    Parameters
    ----------
    call : callable
        Makes the call, and raises if it fails.
    name : str
        Name of what it sends, for messages.

    Attributes
    ----------
    is_done : bool
        Whether the call has succeeded.
    began : float
        When it was first made, by `time.monotonic`.
    """

    def __init__(self, call: Callable[[], object], name: str) -> None:
        self.name = name
        self.is_done = False
        self.began = time.monotonic()
        self._call = call
        self._retry = Retry()
        self._thread = threading.Thread(target=self._work, name="mlflow_hp-side-call", daemon=True)
        self._thread.start()

    @property
    def error(self) -> Exception | None:
        """Error of the last attempt; None if there is none yet."""
        return self._retry.error

    def hurry(self) -> None:
        """Repeat it at once if it has failed, and without long pauses from now on."""
        self._retry.hurry()

    def repeat_no_more(self) -> None:
        """Let the current attempt be the last."""
        self._retry.abandon()

    def is_over(self, seconds: float) -> bool:
        """Wait for at most `seconds`; return whether it has succeeded, or is not repeated any more."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        with contextlib.suppress(AbandonedError):
            self._retry.until_it_works(self._call)
            self.is_done = True
