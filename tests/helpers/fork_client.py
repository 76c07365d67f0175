"""What is started in place of Python: it has a server fork, and stands for the fork; see `forked_python`."""
# ruff: noqa: PTH109, PTH112, PTH113, PTH115, PTH118, PTH121, PTH208
# (pathlib takes longer to load than all the rest)

from __future__ import annotations

import json
import os
import signal
import socket

STREAMS = (0, 1, 2)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def main(words, settings):
    """Run Python's arguments `words` in a fork, or with the real Python."""
    asked, filters = list(words), []
    while asked[:1] in (["-u"], ["-W"]):  # a fork's output is never held back
        if asked.pop(0) == "-W":
            filters.append(asked.pop(0))
    if not can_be_a_fork(asked, settings):
        os.execv(settings["python"], [settings["python"], *words])  # noqa: S606
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(settings["address"])
    content = json.dumps([asked, filters, dict(os.environ), os.getcwd()]).encode()
    socket.send_fds(connection, [len(content).to_bytes(8, "big")], STREAMS)
    connection.sendall(content)
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: connection.sendall(bytes([number])))
    status = connection.recv(4)
    if not status:
        raise SystemExit("the server of forks has ended before the program")
    end(int.from_bytes(status, "big", signed=True))


def can_be_a_fork(words, settings):
    """Whether a fork gives the same as a Python that begins."""
    is_program = bool(words) and (words[0] in ("-c", "-m") or os.path.isfile(words[0]))
    folders = [os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    copies = [os.path.join(folder, "mlflow_hp") for folder in folders]
    return (
        is_program
        and read_at_loading(os.environ, settings) == settings["environment"]
        and all(os.path.samefile(copy, settings["copy"]) for copy in copies if os.path.isdir(copy))
        and not any(map(is_inherited, os.listdir("/proc/self/fd")))
    )


def read_at_loading(environment, settings):
    """The variables that are read when Python or a library is loaded."""
    names = tuple(settings["at_loading"])
    return {k: v for k, v in environment.items() if k.startswith(names) and k not in settings["at_any_time"]}


def is_inherited(number):
    """Whether a file is one that this program has not opened, beside the standard streams."""
    try:
        return int(number) not in STREAMS and os.readlink(f"/proc/self/fd/{number}").startswith(("pipe:", "socket:"))
    except OSError:
        return False


def end(status):
    """End as the fork has: by its exit status or signal."""
    if status < 0:
        if status != -signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
