"""Messages to the user: problems are warnings, the rest is logged under ``mlflow_hp``. None of them ends a program."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings

from mlflow_hp.errors import RecordingWarning, TrainingWarning
from mlflow_hp.terminal import printable

_is_silent = False


def silence(silent: bool) -> None:
    """Show no messages of this package from now on; False shows them again.

    Parameters
    ----------
    silent : bool
    """
    global _is_silent  # noqa: PLW0603 - messages come from all threads of the process
    _is_silent = silent


def is_silent() -> bool:
    """Return whether messages are not shown.

    Returns
    -------
    bool
    """
    return _is_silent


def warn(message: str, stacklevel: int = 1, *, category: type[Warning] = RecordingWarning) -> bool:
    """Warn the user, unless this package is silent; never raises.

    Parameters
    ----------
    message : str
    stacklevel : int
        As of `warnings.warn`, counted from the caller. Defaults to 1.
    category : type of Warning
        `RecordingWarning`, or `TrainingWarning` for what is wrong with a training. Defaults to `RecordingWarning`.

    Returns
    -------
    bool
        Whether it was issued as a warning. If the user turns warnings into errors, it is logged instead.
    """
    if _is_silent:
        return True
    try:
        warnings.warn(f"mlflow_hp: {printable(message)}", category, stacklevel=stacklevel + 1)
    except (RecordingWarning, TrainingWarning):
        log(message, logging.WARNING)
        return False
    return True


def log(message: str, level: int = logging.INFO, name: str = "mlflow_hp") -> None:
    """Log a message, unless this package is silent; never raises.

    No handler is added to any logger. If the program has none, messages are printed to stderr: those of the level
    that it has set, or else of ``logging.INFO`` and above.

    Parameters
    ----------
    message : str
    level : int
        Defaults to ``logging.INFO``.
    name : str
        Name of the logger, ``__name__`` of the caller's module. Defaults to ``"mlflow_hp"``.
    """
    if _is_silent:
        return
    logger, text = logging.getLogger(name), printable(message)
    with contextlib.suppress(Exception):  # from a handler of the user, or a closed stderr
        if logger.hasHandlers():
            logger.log(level, text, stacklevel=2)
        elif logger.isEnabledFor(level) or (level >= logging.INFO and _has_default_level(logger)):
            _print(text)


def _has_default_level(logger: logging.Logger) -> bool:
    """Whether the program has neither disabled the logger nor set a level that applies to it."""
    if not logger.isEnabledFor(logging.CRITICAL):
        return False
    while logger.parent is not None:
        if logger.level != logging.NOTSET:
            return False
        logger = logger.parent
    return logger.level == logging.WARNING and logger.manager.disable < logging.INFO


def _print(text: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(AttributeError, io.UnsupportedOperation):  # a stream without a descriptor
            os.fstat(sys.stderr.fileno())  # raises for a closed one: text left in its buffer would fail the exit
        print(f"mlflow_hp: {text}", file=sys.stderr)
