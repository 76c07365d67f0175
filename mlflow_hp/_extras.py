"""Optional libraries: the extra that installs each, and the error if one is missing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from mlflow_hp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

EXTRAS = {
    "distributed": "dask",
    "keras": "training",
    "mcp": "mcp",
    "plotly": "server",
    "scikeras": "training",
    "tensorflow": "training",
}
"""Library that the package does not require -> extra in pyproject.toml that requires it."""


class MissingExtraError(UserError, ImportError):
    """A library of an extra is not installed; the message names the command that installs it."""


@contextmanager
def needed_by(feature: str) -> Iterator[None]:
    """Raise an error that names the extra to install, if a library is missing in the block; also a decorator.

    Parameters
    ----------
    feature : str
        Public name or command that needs the library.

    Raises
    ------
    MissingExtraError
        If a library of an extra is not installed. Any other missing module is an ordinary ``ModuleNotFoundError``.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRAS:
            raise
        raise MissingExtraError(f"{feature} needs {library}: pip install 'mlflow-hp[{EXTRAS[library]}]'") from error
