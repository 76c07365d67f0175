"""Responses of the page: JSON, errors, static files, and security headers.

URLs of static files and plotly.js change with their contents, so that browsers may cache them for a year.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
from importlib.resources import files
from typing import Any, NamedTuple

from flask import Response, request

from mlflow_hp import run_page, server

MIN_GZIP_BYTES = 2_000
"""Shorter responses are not compressed."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Content security policy: scripts and data of this server only; inline styles are allowed, as plotly.js sets them."""


def add_headers(response: Response) -> Response:
    """Add the security headers, and forbid caching unless the route allows it."""
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def as_json(content: Any, status: int = 200) -> Response:
    """Make a JSON response; raises ValueError on numbers that are not finite, which browsers cannot parse."""
    body = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()
    response = Response(body, status, mimetype="application/json")
    response.headers["Vary"] = "Accept-Encoding"
    if len(body) >= MIN_GZIP_BYTES and accepts_gzip():
        response.data = gzip.compress(body, 3)
        response.headers["Content-Encoding"] = "gzip"
    return response


def accepts_gzip() -> bool:
    """Whether the browser accepts gzip, as all do."""
    return "gzip" in request.accept_encodings


def as_error(message: str, status: int) -> Response:
    """Make a JSON response with an error message for the page to show."""
    return as_json({"error": message}, status)


MIME_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


class StaticFile(NamedTuple):
    """Static file: MIME type, contents, and contents compressed by gzip."""

    mimetype: str
    content: bytes
    gzipped: bytes


class StaticFiles:
    """Scripts, styles and icon of the page, by name.

    Attributes
    ----------
    version : str
        Part of their URLs; changes with any of the contents.
    """

    def __init__(self) -> None:
        from plotly.offline import get_plotlyjs_version

        self._own = {
            item.name: item.read_bytes()
            for package in (server, run_page)
            for item in files(package).joinpath("static").iterdir()
            if item.is_file()
        }
        digest = hashlib.sha256(get_plotlyjs_version().encode())
        for name, content in sorted(self._own.items()):
            digest.update(name.encode() + content)
        self.version = digest.hexdigest()[:12]

    @property
    def names(self) -> list[str]:
        """Names of all files."""
        return sorted([*self._own, "plotly.js"])

    @functools.cache  # noqa: B019  (a server has one StaticFiles, for its lifetime)
    def file(self, name: str) -> StaticFile:
        """Get a file by name."""
        from plotly.offline import get_plotlyjs

        content = get_plotlyjs().encode() if name == "plotly.js" else self._own[name]
        return StaticFile(MIME_TYPES["." + name.rpartition(".")[2]], content, gzip.compress(content, 6))
