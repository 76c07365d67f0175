"""Patience: the end of a recording waits for MLflow as long as it makes progress, and a limited time otherwise."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_SECONDS = 10.0
"""Total time of failing, hanging or slow calls after which the end of a recording leaves the rest to a recovery."""
QUICK_SECONDS = 2.0
"""Duration up to which a call is not slow."""
SLOWEST_UPLOAD = 10 * 2**20
"""Bytes per second from which an upload is not slow."""
_POLL_SECONDS = 0.1


class Patience:
    """Measures a recording's calls to MLflow, and waits for them.

    Parameters
    ----------
    is_failing : callable
        Returns whether the last call failed.
    """

    def __init__(self, is_failing: Callable[[], bool]) -> None:
        self._is_failing = is_failing
        self._call_began: float | None = None
        self._quick_seconds = self._failed_seconds = 0.0

    @contextlib.contextmanager
    def call(self, n_bytes: int = 0) -> Iterator[None]:
        """Measure the block as a call to MLflow that uploads `n_bytes`."""
        began = time.monotonic()
        try:
            with self.health_check():
                yield
        except BaseException:
            self._failed_seconds = time.monotonic() - began
            raise
        self._count(time.monotonic() - began, QUICK_SECONDS + n_bytes / SLOWEST_UPLOAD)

    def note_refusal(self) -> None:
        """Count the last failed call as quick: a working store has refused its content."""
        self._count(self._failed_seconds)
        self._failed_seconds = 0.0

    def _count(self, seconds: float, limit: float | None = None) -> None:
        if seconds < (QUICK_SECONDS if limit is None else limit):
            self._quick_seconds += seconds

    @contextlib.contextmanager
    def health_check(self) -> Iterator[None]:
        """Measure the block as a check whether MLflow answers, which is not progress even if it is quick."""
        with self.wait_for_call(time.monotonic()):
            yield

    @contextlib.contextmanager
    def wait_for_call(self, began: float) -> Iterator[None]:
        """Measure the block as the rest of a call that another thread has made since `began`; it is not progress."""
        self._call_began = began
        try:
            yield
        finally:
            self._call_began = None

    @property
    def is_hanging(self) -> bool:
        """Whether the current call is slow already."""
        began = self._call_began
        return began is not None and time.monotonic() - began > QUICK_SECONDS

    def wait(
        self, is_over: Callable[[float], bool], seconds: float, on_progress: Callable[[], object] | None = None
    ) -> float:
        """Wait until `is_over`, or until MLflow has failed, hung or been slow for `seconds`.

        Parameters
        ----------
        is_over : callable
            Waits for at most the given number of seconds, and returns whether to stop waiting.
        seconds : float
            Limit of the time of failing, hanging or slow calls.
        on_progress : callable, optional
            Called several times a second meanwhile. Defaults to nothing.

        Returns
        -------
        float
            Unused part of `seconds`; 0 if the limit was reached.
        """
        spent, quick, last = 0.0, self._quick_seconds, time.monotonic()
        while not is_over(_POLL_SECONDS):
            now = time.monotonic()
            if self._call_began is not None or self._is_failing():
                spent += now - last
            last = now
            if spent - (self._quick_seconds - quick) > seconds:
                return 0.0
            if on_progress is not None:
                on_progress()
        return max(0.0, seconds - max(0.0, spent - (self._quick_seconds - quick)))
