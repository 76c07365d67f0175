"""Warnings to the user. They end nothing: where the user turns warnings into errors, they are printed instead."""

from __future__ import annotations

import contextlib
import sys
import warnings

from mlflow_hp.errors import RecordingWarning
from mlflow_hp.terminal import printable


def warn(message: str, stacklevel: int = 1) -> bool:
    """Warn the user; never raises.

    Parameters
    ----------
    message : str
    stacklevel : int
        As of `warnings.warn`, counted from the caller.

    Returns
    -------
    bool
        Whether it went out as a warning, not as a printed line in place of an error.
    """
    try:
        warnings.warn(f"mlflow_hp: {printable(message)}", RecordingWarning, stacklevel=stacklevel + 1)
    except RecordingWarning:
        print_line(message)
        return False
    return True


def print_line(message: str) -> None:
    """Print a line to stderr, where there is one."""
    with contextlib.suppress(OSError, ValueError):  # it is closed, or its reader has ended
        print(f"mlflow_hp: {printable(message)}", file=sys.stderr)
