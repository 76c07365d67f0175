"""Error and warnings that users see."""

from __future__ import annotations

from mlflow_hp.terminal import printable

__all__ = ["RecordingWarning", "TrainingWarning", "UserError"]


class UserError(ValueError):
    """Wrong input; the message names it, says why it is wrong, and which argument or command fixes it.

    A command line prints the message and exits with status 2; in a Python program it is an ordinary ``ValueError``.
    Control characters in the message are escaped, so that text from a store cannot steer the terminal.

    Parameters
    ----------
    message : object
        Message for the user. Defaults to ``""``.

    Examples
    --------
    >>> from mlflow_hp import UserError
    >>> raise UserError("epochs=0 trains nothing; give 1 or more")
    Traceback (most recent call last):
        ...
    mlflow_hp.errors.UserError: epochs=0 trains nothing; give 1 or more
    """

    def __init__(self, message: object = "") -> None:
        super().__init__("\n".join(map(printable, str(message).split("\n"))))


class RecordingWarning(RuntimeWarning):
    """The recording is incomplete, or a speed-up is off; training and search continue.

    Examples
    --------
    >>> import warnings
    >>> from mlflow_hp import RecordingWarning
    >>> warnings.simplefilter("ignore", RecordingWarning)
    """


class TrainingWarning(UserWarning):
    """A problem of the training itself, found while it runs: its program, its data, or its curves.

    Examples
    --------
    >>> import warnings
    >>> from mlflow_hp import TrainingWarning
    >>> warnings.simplefilter("ignore", TrainingWarning)
    """
