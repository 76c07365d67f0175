"""Recording of every fit inside a block."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from mlflow_hp.autologging.patches import Settings, patches

if TYPE_CHECKING:
    from collections.abc import Iterator

DEFAULTS = Settings({}, {}, {}, log_models=False, log_datasets=True)
"""What `autolog()` records."""


@contextlib.contextmanager
def every_fit_recorded() -> Iterator[None]:
    """Record every ``fit`` inside the block as `autolog` does; if that is on already, with its settings."""
    if patches.settings is not None:
        yield
        return
    patches.set(DEFAULTS)
    try:
        yield
    finally:
        if patches.settings is DEFAULTS:  # else the block has called `autolog` itself
            patches.set(None)
