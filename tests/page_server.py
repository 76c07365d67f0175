"""A real `mlflow server` for the tests of the page."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time

import psutil
import requests


@contextlib.contextmanager
def serving(folder, app_name, *options, **environment):
    """The address of a server with `app_name`, its database and artifacts in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "mlflow", "server", "--workers", "1", "--port", str(port), "--app-name", app_name, *options]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", f"{folder}/artifacts"]
    settings = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment}
    prefix = options[options.index("--static-prefix") + 1] if "--static-prefix" in options else ""
    address = f"http://127.0.0.1:{port}"
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=log, env=settings, cwd=folder)
    try:
        for _ in range(240):
            assert process.poll() is None, (folder / "log").read_text()
            with contextlib.suppress(requests.ConnectionError):
                got(f"{address}{prefix}/health")
                break
            time.sleep(0.5)
        yield address + prefix
    finally:
        for running in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            running.kill()
        process.wait()


def got(address, **headers):
    """Status, text and headers of what comes from an address."""
    answer = requests.get(address, headers=headers, timeout=60)
    return answer.status_code, answer.text, answer.headers
