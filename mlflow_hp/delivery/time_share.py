"""Time share of a background thread, so that it does not slow down training."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_hp.delivery.retry import Retry

SHARE_OF_TIME = 0.05
"""Share of time that sending computes during training, as both compete for Python's global lock; waiting for a server
takes nothing from the training."""
FIRST_SECONDS = 1.0
"""Time from the start of a training before which nothing is sent: a shorter one is sent at its end."""


class TimeShare:
    """Limits the share of time that a thread computes.

    Parameters
    ----------
    retry : Retry
        Makes the pauses; there are none once it is hurried.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._not_before = time.monotonic() + FIRST_SECONDS

    def wait_for_turn(self) -> None:
        """Pause until earlier work is within the time share.

        Raises
        ------
        AbandonedError
            If the retry is abandoned.
        """
        seconds = self._not_before - time.monotonic()
        if seconds > 0 and not self._retry.is_hurried:
            self._retry.pause(seconds)
        self._retry.raise_if_abandoned()

    @contextlib.contextmanager
    def work(self) -> Iterator[None]:
        """Count the processor time of the block in this thread, unless it raises."""
        began = time.thread_time()
        yield
        seconds = time.thread_time() - began
        self._not_before = max(self._not_before, time.monotonic()) + seconds * (1 / SHARE_OF_TIME - 1)
