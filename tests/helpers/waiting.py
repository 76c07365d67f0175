"""Wait for what another thread or process does; pytest-timeout ends a wait that has no end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def wait_for(condition: Callable[[], object]) -> None:
    """Return as soon as `condition` holds."""
    while not condition():
        time.sleep(0.005)
