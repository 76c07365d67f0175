"""The error and the warning that users see."""

from __future__ import annotations

from mlflow_hp.terminal import printable


class UserError(ValueError):
    """What came is wrong; the message says what came, why, and which argument or command mends it.

    A command line prints the message in a line or two and exits with status 2; in a Python program it is an
    ordinary ``ValueError``. What the message quotes from elsewhere can't steer a terminal.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__("\n".join(map(printable, str(message).split("\n"))))


class RecordingWarning(RuntimeWarning):
    """Something is not recorded as it should be, or a speed-up is off; training and search go on.

    Examples
    --------
    >>> import warnings
    >>> from mlflow_hp import RecordingWarning
    >>> warnings.simplefilter("ignore", RecordingWarning)
    """
