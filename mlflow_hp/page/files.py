"""The page's own files and plotly.js, under names that change with their contents: browsers keep them for a year."""

from __future__ import annotations

import functools
import gzip
import hashlib
from importlib.resources import files
from typing import NamedTuple

TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class File(NamedTuple):
    """A file as it is sent: its type, its contents, and these packed by gzip."""

    mimetype: str
    content: bytes
    packed: bytes


class StaticFiles:
    """What the page loads, by name.

    Attributes
    ----------
    version : str
        Changes with any of the contents; part of their addresses.
    """

    def __init__(self) -> None:
        self._own = {
            item.name: item.read_bytes()
            for item in files("mlflow_hp.page").joinpath("static").iterdir()
            if item.is_file()
        }
        digest = hashlib.sha256(_plotly_version().encode())
        for name, content in sorted(self._own.items()):
            digest.update(name.encode() + content)
        self.version = digest.hexdigest()[:12]

    @property
    def names(self) -> list[str]:
        """All there are."""
        return sorted([*self._own, "plotly.js"])

    @functools.cache  # noqa: B019  (there is one of these in a server, as long as it lives)
    def file(self, name: str) -> File:
        """One of them."""
        content = _plotly() if name == "plotly.js" else self._own[name]
        return File(TYPES["." + name.rpartition(".")[2]], content, gzip.compress(content, 6))


def _plotly() -> bytes:
    return files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()


def _plotly_version() -> str:
    from importlib.metadata import version

    return version("plotly")
