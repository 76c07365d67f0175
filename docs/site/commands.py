"""Commands of a block: split, replaced and run in the page's folder."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from typing import NamedTuple

SERVER_SECONDS = 180
"""How long a server may take to answer."""


class Done(NamedTuple):
    """Outcome of a command.

    Attributes
    ----------
    command : str
        As it was run.
    status : int
    output : str
        What it printed.
    errors : str
        What it printed to standard error.
    seconds : float
    """

    command: str
    status: int
    output: str
    errors: str
    seconds: float


def with_parameters(command: str, parameters: str) -> str:
    """Add ``-P name=value`` to an ``mlflow run``, without those that it has."""
    if not command.startswith("mlflow run "):
        return command
    entry = (re.search(r" -e (\w+)", command) or [None, "main"])[1]
    for word in re.findall(r"-P (\S+)", parameters):
        where, _, pair = word.rpartition(":")
        if f"-P {pair.partition('=')[0]}=" not in command and where in ("", entry):
            command += f" -P {pair}"
    return command


def run(command: str) -> Done:
    """Run a command in a shell; of a server, until it answers at its page."""
    start = time.monotonic()
    if re.match(r"mlflow(-hp ui| server)\b", command):
        return _serve(command, start)
    done = subprocess.run(
        ["bash", "-c", command], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return Done(command, done.returncode, done.stdout, done.stderr, time.monotonic() - start)


def free_port() -> int:
    """Return a port at which no program listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


SERVERS: list[subprocess.Popen[bytes]] = []
"""They are ended with the page."""


def _serve(command: str, start: float) -> Done:
    if command.startswith("mlflow-hp ui") and "--port" not in command:
        command += f" --port {os.environ['MLFLOW_PORT']}"
    command = re.sub(r"^mlflow\b", os.environ["DOCS_MLFLOW"], command)
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
        SERVERS.append(server)
        if fault := _fault(server, start):
            log.seek(0)
            fault += f"\n{log.read()}"
    return Done(command, int(bool(fault)), "", fault, time.monotonic() - start)


def _fault(server: subprocess.Popen[bytes], start: float) -> str:
    """Wait until a server answers; return what is wrong if it does not, and end it."""
    url = f"http://127.0.0.1:{os.environ['MLFLOW_PORT']}/hp/"
    while server.poll() is None and time.monotonic() < start + SERVER_SECONDS:
        try:
            with urllib.request.urlopen(url, timeout=10):
                return ""
        except urllib.error.HTTPError as error:
            if error.code == 401:  # it asks for a login
                return ""
            time.sleep(0.5)
        except OSError:
            time.sleep(0.5)
    end_servers()
    return f"{url} did not answer"


def end_servers() -> None:
    """End the servers, with their workers."""
    for server in SERVERS:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait()
    SERVERS.clear()
