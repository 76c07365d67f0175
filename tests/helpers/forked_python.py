"""A Python whose programs are forks of a process that has the libraries loaded: loading takes seconds of each program.

A program sees what it would see in a process of its own: its arguments, environment, folder, standard streams, the
signals that are sent to what was started, and what is registered at exit; its exit status is that of what was started.
Whatever a fork cannot give is run by the real Python: options of the interpreter, variables that are read when Python
or a library is loaded, another copy of mlflow_hp, inherited files.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import mlflow_hp
from tests.helpers import fork_client

AT_LOADING = ("CUDA", "KERAS", "LANG", "LC_", "OMP", "PYTHON", "TF_", "TZ", "XLA")
"""Variables that are read when Python or a library is loaded begin so."""
AT_ANY_TIME = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONUNBUFFERED")


def python() -> str:
    """Return what is to be started in place of `sys.executable`."""
    return f"{commands()}/python"


@functools.cache
def commands() -> str:
    """Return a folder with `python` and `mlflow`, to stand first in PATH; the server is started with the first call."""
    folder = tempfile.mkdtemp(prefix="mlflow_hp_python_")
    settings = {
        "address": f"{folder}/address", "python": sys.executable, "copy": str(Path(mlflow_hp.__file__).parent),
        "at_loading": AT_LOADING, "at_any_time": AT_ANY_TIME, "environment": at_loading(),
    }  # fmt: skip
    client = Path(fork_client.__file__).read_text(encoding="utf-8")
    write(f"{folder}/python", f"#!{sys.executable} -IS\n{client}\nimport sys\nmain(sys.argv[1:], {settings!r})\n")
    write(f"{folder}/mlflow", f'#!/bin/sh\nexec {folder}/python -m mlflow "$@"\n')
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.helpers.fork_server", json.dumps({"folder": folder, **settings})],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    SERVERS.append(server)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n", "the server of forks has ended"
    return folder


def at_loading() -> dict[str, str]:
    """Return the variables that are read when Python or a library is loaded."""
    return fork_client.read_at_loading(os.environ, {"at_loading": AT_LOADING, "at_any_time": AT_ANY_TIME})


def wait_for_end(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a program that was sent a signal, before its input ends: its fork gets the signal later."""
    process.wait()
    assert process.stdout is not None
    process.stdout.read()


SERVERS: list[subprocess.Popen[str]] = []
"""They end when their input does, with this process."""


def write(path: str, text: str) -> None:
    """Write a program that can be started."""
    Path(path).write_text(text, encoding="utf-8")
    Path(path).chmod(0o755)
