"""A proxy in front of a server, that fails or hangs when told to."""

from __future__ import annotations

import http.server
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import requests

from tests.helpers.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_ANSWER = 0, "", b""
LOGIN = "/a-page-to-log-in"


def refusal(status: int, code: str, message: str = "no") -> tuple[int, str, bytes]:
    """An answer as MLflow gives it when it refuses."""
    return status, "application/json", json.dumps({"error_code": code, "message": message}).encode()


def html(status: int, title: str) -> tuple[int, str, bytes]:
    """An answer as what stands in front of a server gives it."""
    return status, "text/html", f"<html><title>{title}</title></html>".encode()


ANSWERS: Mapping[str, tuple[int, str, bytes]] = {
    "400": refusal(400, "BAD_REQUEST"),
    "401": html(401, "Unauthorized"),
    "403": refusal(403, "PERMISSION_DENIED"),
    "403 of a proxy": html(403, "Forbidden"),
    "404": refusal(404, "RESOURCE_DOES_NOT_EXIST", "Run not found"),
    "404 of a proxy": html(404, "Not found"),
    "413": html(413, "Request entity too large"),
    "418": refusal(418, "TEAPOT"),
    "429": refusal(429, "REQUEST_LIMIT_EXCEEDED"),
    "fails": (500, "application/json", b"{}"),
    "502": html(502, "Bad gateway"),
    "503": refusal(503, "TEMPORARILY_UNAVAILABLE"),
    "302 to a login": html(302, "Found"),
    "308 to a login": html(308, "Permanent redirect"),
    "HTML": html(200, "Log in"),
    "not JSON": (200, "application/json", b"{torn"),
}
"""What a proxy in a bad mood answers to all that it is asked, by the name of the mood."""

SLOW_SECONDS = 3.0


class Proxy:
    """Hands requests on to a server; in a bad mood it does not.

    Attributes
    ----------
    uri : str
        Where it is.
    mood : str or tuple
        "well"; one of `ANSWERS`, or an answer; "hangs", where it does not answer as long as it is in this mood;
        "api hangs", where it answers ``/health`` nevertheless; "slow", where it takes seconds; "gone", where it breaks
        the connection; "forgets", where it breaks it when the server has done what it was asked for (but hands on what
        it was asked to read).
    healthy : bool
        Whether it answers well in any mood when it is asked for its health.
    refused : int
        How many requests it has met in a bad mood.
    answered : int
        How many it has handed on, those for its health not counted.
    """

    def __init__(self, target: str) -> None:
        self.mood: str | tuple[int, str, bytes] = "well"
        self.healthy = False
        self.refused = self.answered = 0
        self._target = target
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, kind, answer = proxy.answer(self, body)
                if not status:
                    self.close_connection = True
                    return
                self.send_response(status)
                if status in (302, 308):
                    self.send_header("Location", proxy.uri + LOGIN)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.handle_any)
        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.uri = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def answer(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        """Status, content type and content of the answer, or NO_ANSWER."""
        mood = self.mood
        if request.path.endswith("/health") and (self.healthy or mood == "api hangs"):
            return self.hand_on(request, body)
        if mood != "well":
            self.refused += 1
        if request.path == LOGIN:
            return html(200, "Log in")
        if isinstance(mood, str) and mood in ANSWERS:
            return ANSWERS[mood]
        if mood in ("hangs", "api hangs"):
            wait_for(lambda: self.mood != mood)
        if isinstance(mood, tuple):
            return mood
        if mood in ("hangs", "api hangs", "gone"):
            return NO_ANSWER
        if mood == "slow":
            time.sleep(SLOW_SECONDS)
        answer = self.hand_on(request, body)
        self.answered += not request.path.endswith("/health")
        return NO_ANSWER if mood == "forgets" and request.command != "GET" else answer

    def hand_on(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        """What the server answers."""
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "connection")}
        url = self._target + request.path
        try:
            got = requests.request(request.command, url, data=body or None, headers=headers, timeout=60)
        except requests.RequestException:
            return 502, "application/json", b"{}"
        return got.status_code, got.headers.get("Content-Type", "application/json"), got.content

    def close(self) -> None:
        """Close it."""
        self.mood = "well"
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Say nothing: who is killed breaks connections."""
