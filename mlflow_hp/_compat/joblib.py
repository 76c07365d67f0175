"""Private names of joblib."""

from __future__ import annotations

from typing import Any

from mlflow_hp._compat.private_name import PrivateName, UnsupportedVersionError, warn_once

BACKEND = PrivateName("joblib", "Parallel", "_backend", fallback="the backend of the program counts")
"""Backend of a `joblib.Parallel`. Fallback: the backend that is active in the program."""


def backend_of(parallel: Any) -> Any:
    """Return the backend of a `joblib.Parallel`."""
    try:
        return BACKEND.of(parallel)
    except UnsupportedVersionError as error:
        warn_once(error)
        from joblib.parallel import get_active_backend

        return get_active_backend()[0]
