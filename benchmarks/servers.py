"""Servers to be hurt: `mlflow server` that is killed, a proxy that fails or hangs, a line that is cut, databases."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

POSTGRES = "postgresql+psycopg2://postgres@127.0.0.1:5432"
"""A PostgreSQL on this machine, where databases may be made and dropped."""


class Server:
    """An ``mlflow server`` on this machine, that can be killed and started again.

    Parameters
    ----------
    folder : Path
        For its artifacts and its log.
    store : str, optional
        URI of its database; by default a SQLite file in `folder`.
    workers : int
        How many processes answer.

    Attributes
    ----------
    uri : str
        Where it is; the same when it is started again.
    """

    def __init__(self, folder: Path, store: str | None = None, workers: int = 1) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        store = store or f"sqlite:///{folder}/server.db"
        self._words = ["-m", "mlflow", "server", "--backend-store-uri", store, "--workers", str(workers),
                       "--artifacts-destination", str(folder / "at-the-server"), "--port", str(port)]  # fmt: skip
        self._folder, self._log = folder, folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, seconds: float = 120) -> None:
        """Start it, and wait until it answers.

        Raises
        ------
        TimeoutError
            With its log, where it does not.
        """
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with self._log.open("a") as log:
            self._process = subprocess.Popen([sys.executable, *self._words], env=environment, stdout=log, stderr=log,
                                             cwd=self._folder, start_new_session=True)  # fmt: skip
        until = time.monotonic() + seconds
        while time.monotonic() < until and self._process.poll() is None:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                return
            time.sleep(0.2)
        raise TimeoutError(self._log.read_text()[-2000:])

    def kill(self) -> float:
        """Kill it and what it has started; gives the seconds of a core that they took."""
        import psutil

        assert self._process is not None
        used = 0.0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            times = [one.cpu_times() for one in [process, *process.children(recursive=True)]]
            used = sum(one.user + one.system for one in times)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        return used


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
    """

    def __init__(self, target: str) -> None:
        self.mood: str | tuple[int, str, bytes] = "well"
        self.healthy = False
        self.refused = 0
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
        while mood in ("hangs", "api hangs") and self.mood == mood:
            time.sleep(0.05)
        if isinstance(mood, tuple):
            return mood
        if mood in ("hangs", "api hangs", "gone"):
            return NO_ANSWER
        if mood == "slow":
            time.sleep(SLOW_SECONDS)
        answer = self.hand_on(request, body)
        return NO_ANSWER if mood == "forgets" and request.command != "GET" else answer

    def hand_on(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[int, str, bytes]:
        """What the server answers."""
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("host", "connection")}
        handed = urllib.request.Request(self._target + request.path, body or None, headers, method=request.command)
        try:
            with urllib.request.urlopen(handed, timeout=60) as got:
                return got.status, got.headers.get("Content-Type", "application/json"), got.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers.get("Content-Type", "application/json"), error.read()
        except OSError:
            return 502, "application/json", b"{}"

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


class Line:
    """Hands bytes on to a host and port, and back; while it is cut, nobody gets through.

    Attributes
    ----------
    port : int
        Where it listens, on this machine.
    """

    def __init__(self, target: tuple[str, int] = ("127.0.0.1", 5432)) -> None:
        self._target = target
        self._cut = False
        self._ends: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def cut(self) -> None:
        """Break all connections, and let none be made."""
        with self._lock:
            self._cut = True
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections be made."""
        self._cut = False

    def close(self) -> None:
        """Cut it for ever."""
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                with self._lock:
                    if self._cut:
                        near.close()
                        continue
                    far = socket.create_connection(self._target)
                    self._ends |= {near, far}
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._hand_on, args=ends, daemon=True).start()

    def _hand_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with self._lock:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._ends.discard(source)
            source.close()


@contextlib.contextmanager
def database(name: str) -> Iterator[str]:
    """A new database at `POSTGRES`, dropped at the end; gives its name.

    Raises
    ------
    sqlalchemy.exc.OperationalError
        Where no PostgreSQL answers there.
    """
    import sqlalchemy

    engine = sqlalchemy.create_engine(
        f"{POSTGRES}/postgres", isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    try:
        yield name
    finally:
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(f"DROP DATABASE {name} WITH (FORCE)"))
