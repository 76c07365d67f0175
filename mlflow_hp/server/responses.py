"""How the page's routes answer: JSON, errors in words, and its own files; what a browser may do with it.

The page's own files and plotly.js have names that change with their contents: browsers keep them for a year.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from importlib.resources import files
from typing import Any, NamedTuple

from flask import Response, request

PACKED_FROM = 2_000
"""Bytes from which an answer is packed."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Nothing from elsewhere, and no script but the page's own; plotly.js sets styles of its elements."""


def with_headers(response: Response) -> Response:
    """What every answer of the page tells the browser."""
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def as_json(content: Any, status: int = 200) -> Response:
    """Content as JSON; numbers that are not finite are refused, since browsers can't read them."""
    body = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    response = Response(body, status, mimetype="application/json")
    response.headers["Vary"] = "Accept-Encoding"
    if len(body) >= PACKED_FROM and accepts_packed():
        response.data = gzip.compress(body, 3)
        response.headers["Content-Encoding"] = "gzip"
    return response


def accepts_packed() -> bool:
    """Whether the browser unpacks gzip, as all do."""
    return "gzip" in request.accept_encodings


def as_error(message: str, status: int) -> Response:
    """What went wrong, for the page to show."""
    return as_json({"error": message}, status)


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
            for item in files("mlflow_hp.server").joinpath("static").iterdir()
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
