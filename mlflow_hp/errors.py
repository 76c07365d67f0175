"""The one error that users see."""

from __future__ import annotations

from mlflow_hp.terminal import printable


class UserError(ValueError):
    """What came is wrong; the message says what came, why, and which argument or command mends it.

    A command line prints the message in a line or two and exits with status 2; in a Python program it is an
    ordinary ``ValueError``. What the message quotes from elsewhere can't steer a terminal.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__("\n".join(map(printable, str(message).split("\n"))))
