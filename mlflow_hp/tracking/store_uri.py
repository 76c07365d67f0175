"""URIs of tracking stores: make them absolute, and find local stores that do not exist."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

_NAMES_OF_STORES = ("databricks", "databricks-uc", "uc")
"""Tracking URIs that are not paths, although they look like one."""


def absolute_uri(tracking_uri: str) -> str:
    """Make a tracking URI independent of the working directory: paths of SQLite files and folders become absolute.

    Parameters
    ----------
    tracking_uri : str
        Tracking URI.

    Returns
    -------
    str
        Absolute URI.
    """
    scheme, colon, location = tracking_uri.partition(":")
    if scheme.partition("+")[0] == "sqlite" and location.startswith("///") and not location.startswith("////"):
        path, mark, query = location.removeprefix("///").partition("?")
        if path in ("", ":memory:") or path.startswith("file:"):
            return tracking_uri
        return f"{scheme}:///{Path(path).absolute()}{mark}{query}"
    if tracking_uri in _NAMES_OF_STORES:
        return tracking_uri
    if not colon or Path(tracking_uri).drive:
        return str(Path(tracking_uri).absolute())
    if scheme == "file" and not location.startswith("/"):
        return Path(location).absolute().as_uri()
    return tracking_uri


def missing_store(tracking_uri: str) -> str | None:
    """Return the path of a local store that does not exist, which MLflow would make and leave empty.

    Parameters
    ----------
    tracking_uri : str
        Tracking URI.

    Returns
    -------
    str or None
        Path of the missing file or folder; None for any other store.
    """
    scheme, _, location = tracking_uri.partition(":")
    if scheme.partition("+")[0] == "sqlite" and location.startswith("////"):
        path = Path(location.removeprefix("///").partition("?")[0])
    elif scheme == "file":
        path = Path(unquote(urlsplit(tracking_uri).path))
    elif tracking_uri.startswith("/"):
        path = Path(tracking_uri)
    else:
        return None
    return None if path.exists() else str(path)
