"""Retry with back-off: failed calls are repeated at growing intervals, and reported to the user."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

import tenacity

from mlflow_hp.tracking.server_health import reason

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE_SECONDS = 1.0
"""Pause after the first failure; it is doubled after each further one."""
LONGEST_PAUSE_SECONDS = 30.0

T = TypeVar("T")


class AbandonedError(Exception):
    """Raised in a thread whose retries were abandoned."""


class Retry:
    """Retries of one recording, in one thread; other threads can shorten and end them.

    Parameters
    ----------
    on_trouble : callable, optional
        Called with a message when MLflow begins to fail, and when it works again. Defaults to nothing.

    Attributes
    ----------
    error : Exception or None
        Error of the last attempt; None if it succeeded.
    is_hurried : bool
        Whether the recording is ending: then no pause is longer than the first.
    """

    def __init__(self, on_trouble: Callable[[str], object] | None = None) -> None:
        self.error: Exception | None = None
        self.is_hurried = False
        self._is_abandoned = False
        self._on_trouble = on_trouble or (lambda _: None)
        self._woken = threading.Event()

    def until_it_works(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it succeeds, and return its result.

        Raises
        ------
        AbandonedError
            If `abandon` is called meanwhile.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_retried),
            wait=lambda state: pause_seconds(state.attempt_number),
            before_sleep=self._note_failure,
            sleep=self.pause,
        )
        return retrying(attempt)

    def pause(self, seconds: float) -> None:
        """Wait for `seconds`, or until `wake`, `hurry` or `abandon` is called.

        Raises
        ------
        AbandonedError
            If `abandon` has been called.
        """
        self._woken.wait(min(seconds, FIRST_PAUSE_SECONDS) if self.is_hurried else seconds)
        self._woken.clear()
        self.raise_if_abandoned()

    def wake(self) -> None:
        """End the current pause."""
        self._woken.set()

    def hurry(self) -> None:
        """Shorten pauses from now on, as the recording is ending, and end the current one."""
        self.is_hurried = True
        self.wake()

    def abandon(self) -> None:
        """Make the current or next pause raise `AbandonedError`."""
        self._is_abandoned = True
        self.wake()

    def raise_if_abandoned(self) -> None:
        """Raise `AbandonedError` if `abandon` has been called."""
        if self._is_abandoned:
            raise AbandonedError

    def note_failure(self, error: Exception) -> None:
        """Report the first of several consecutive failures."""
        if self.error is None:
            self._on_trouble(f"MLflow does not accept the recorded data, which is kept meanwhile: {reason(error)}")
        self.error = error

    def note_success(self) -> None:
        """Report that MLflow works again, if it had failed."""
        if self.error is not None:
            self.error = None
            self._on_trouble("MLflow accepts the recorded data again")

    def _note_failure(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        assert isinstance(error, Exception)
        self.note_failure(error)


class BackOff:
    """Back-off of one of several tasks that are tried in turn."""

    def __init__(self) -> None:
        self._n_failures = 0
        self._due_at = float("-inf")

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next attempt."""
        return time.monotonic() >= self._due_at

    def note_failure(self) -> None:
        """Delay the next attempt."""
        self._n_failures += 1
        self._due_at = time.monotonic() + pause_seconds(self._n_failures)

    def reset(self) -> None:
        """Make the next attempt due now."""
        self._n_failures, self._due_at = 0, float("-inf")


def pause_seconds(n_failures: int) -> float:
    """Return the pause after this number of consecutive failures."""
    return min(FIRST_PAUSE_SECONDS * 2.0 ** min(n_failures - 1, 30), LONGEST_PAUSE_SECONDS)


def _is_retried(error: BaseException) -> bool:
    return isinstance(error, Exception) and not isinstance(error, AbandonedError)
