"""How the page's routes answer: JSON, packed where that pays; errors in words; what a browser may do with it."""

from __future__ import annotations

import gzip
import json
from typing import Any

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
