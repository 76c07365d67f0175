"""Time limit of the searches recorded in one block."""

from __future__ import annotations

import contextlib
import math
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from mlflow_hp.search.adaptive.budget import budget_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator


class TimeLimit:
    """Time for the fits of a search, which begins with the first of them.

    Parameters
    ----------
    budget : float, str, timedelta or None
        As of `budget_seconds`. Defaults to None: no limit.

    Attributes
    ----------
    seconds : float
        Infinite for no limit.
    """

    def __init__(self, budget: Any = None) -> None:
        self.seconds = budget_seconds(budget)
        self._began: float | None = None

    def begin(self) -> None:
        """Begin to count, unless that has begun."""
        if self._began is None:
            self._began = time.monotonic()

    @property
    def is_set(self) -> bool:
        """Whether there is a limit."""
        return math.isfinite(self.seconds)

    @property
    def is_over(self) -> bool:
        """Whether the time is over."""
        return self._began is not None and time.monotonic() - self._began >= self.seconds


_active: ContextVar[TimeLimit | None] = ContextVar("mlflow_hp_time_limit", default=None)


@contextlib.contextmanager
def limited(limit: TimeLimit) -> Iterator[None]:
    """Apply a limit to the searches of this thread inside the block."""
    token = _active.set(limit)
    try:
        yield
    finally:
        _active.reset(token)


def is_over() -> bool:
    """Return whether the time of the recorded search of this thread is over."""
    limit = _active.get()
    return limit is not None and limit.is_over
