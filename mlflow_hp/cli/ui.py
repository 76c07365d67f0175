"""The command ``mlflow-hp ui``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import click

from mlflow_hp.cli.command import Command
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import say

SERVER_SETTINGS = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
"""Environment variables of the server, unless the user sets them: it starts in half the time."""


@click.command(cls=Command, context_settings={"ignore_unknown_options": True})
@click.option("--store", "store_uri", metavar="URI", help="Tracking store. Default: MLFLOW_TRACKING_URI.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", default=5000, type=click.IntRange(1, 65535), show_default=True, help="Port to listen at.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[OPTIONS OF MLFLOW SERVER]...")
def ui(store_uri: str | None, host: str, port: int, options: tuple[str, ...]) -> int:
    """Serve MLflow's UI and the page of the runs.

    Ctrl+C ends it. Further options go to `mlflow server`. Where the store is a server, its page is named instead.
    """
    import mlflow

    from mlflow_hp.tracking.redaction import masked
    from mlflow_hp.tracking.server_health import ensure_reachable
    from mlflow_hp.tracking.server_page import address_at, page_address
    from mlflow_hp.tracking.store_uri import absolute_uri

    uri = store_uri or mlflow.get_tracking_uri()
    if uri.startswith(("http://", "https://")):
        ensure_reachable(uri, option="--store" if store_uri else "")
        address = page_address(tracking_uri=uri)
        if address is None:
            raise UserError(
                f"the tracking server {masked(uri)} does not serve the page: start it by `mlflow server --app-name "
                "mlflow-hp`, with the package installed where it runs"
            )
        say(f"The page is at {address}")
        return 0
    uri = absolute_uri(uri)
    if "://" not in uri or uri.startswith("file:"):
        raise UserError(
            f"the page needs a database, and the tracking store {masked(uri)} is a folder: copy it with `mlflow-hp "
            "sync --to sqlite:///mlflow.db`"
        )
    if is_used(host, port):
        raise UserError(f"port {port} of {host} is used by another program: choose one by --port, such as {port + 1}")
    say(f"The page: {address_at(f'http://{host}:{port}')}   of {masked(uri)}   (Ctrl+C ends it)")
    return _serve(uri, host, port, options)


def is_used(host: str, port: int) -> bool:
    """Whether a program answers at the port: on macOS one of the system does at 5000."""
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _serve(uri: str, host: str, port: int, options: tuple[str, ...]) -> int:
    """Run MLflow's server until it ends, and return its status."""
    workers = () if any(option.startswith(("--workers", "-w")) for option in options) else ("--workers", "1")
    address = ("--host", host, "--port", str(port))
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "mlflow-hp", *address, *workers, *options]
    environment = {**SERVER_SETTINGS, **os.environ, "MLFLOW_BACKEND_STORE_URI": uri}  # no password in its command line
    environment.pop("MLFLOW_TRACKING_URI", None)
    server = subprocess.Popen(command, env=environment)
    before = signal.signal(signal.SIGTERM, lambda *_: server.terminate())  # else the server would outlive this process
    try:
        return _wait(server)
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(server: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return server.wait()
        except KeyboardInterrupt:  # the terminal has sent it to the server, too, which ends by it
            continue
