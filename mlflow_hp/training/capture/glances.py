"""When the columns of new steps are looked at, before they are fetched, so that a divergence is noticed in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

OnGlance = Callable[[Sequence[str], np.ndarray], None]
"""Gets the names of n columns, and the table of k consecutive steps, (k, >= n)."""
GLANCE_STEPS = 10
"""Number of new steps after which they are looked at."""
GLANCE_SECONDS = 0.1
"""Time after which they are looked at although they are fewer. A look takes some 30 us."""


def is_time_to_glance(n_new: int, last: float) -> bool:
    """Whether to look at `n_new` steps, where the last time was `last`, by the monotonic clock."""
    return n_new >= GLANCE_STEPS or (n_new > 0 and time.monotonic() - last > GLANCE_SECONDS)
