"""Dask's random numbers, kept apart from those of the fits.

A worker's heartbeats, and its message that a task has ended, are measured before they are sent: `dask.sizeof` samples
collections of more than ten items with Python's global generator, in a thread beside the fit. Keras models that are
seeded draw their seeds from the same generator, and get others where the two meet.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_lock = threading.Lock()
_own = random.Random()  # noqa: S311 - it decides which items are measured
_blocks = 0


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """While any thread of this process is in such a block, `dask.sizeof` draws from a generator of its own."""
    global _blocks  # noqa: PLW0603
    sizeof = sys.modules.get("dask.sizeof")
    if getattr(sizeof, "random", None) not in (random, _own):  # there is no Dask, or it measures in another way
        yield
        return
    with _lock:
        sizeof.random = _own  # type: ignore[union-attr]
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks:
                sizeof.random = random  # type: ignore[union-attr]
