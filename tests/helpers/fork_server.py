"""A process with the libraries loaded that forks for each program it is asked to run; see `forked_python`."""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import sys
import threading
import types
import warnings

from tests.helpers import fork_client

LIBRARIES = (
    "alembic.command", "keras", "matplotlib.pyplot", "mlflow.cli", "mlflow.projects", "mlflow.store.db.utils",
    "mlflow.store.tracking.sqlalchemy_store", "mlflow_hp.search.record_search", "mlflow_hp.training.callback", "numpy",
    "pandas", "scikeras.wrappers", "scipy.stats", "sklearn.model_selection", "tensorflow", "yaml",
)  # fmt: skip


class Asked:
    """A program that somebody asks for.

    Attributes
    ----------
    words : list of str
        Python's arguments, from ``-c``, ``-m`` or the script on.
    filters : list of str
        Of warnings, as after ``-W``.
    environment : dict
        Its variables.
    folder : str
        Where it runs.
    streams : list of int
        Its standard streams.
    """

    def __init__(self, connection):
        size, self.streams, _, _ = socket.recv_fds(connection, 8, len(fork_client.STREAMS))
        content = b""
        while len(content) < int.from_bytes(size, "big"):
            content += connection.recv(1 << 20)
        self.words, self.filters, self.environment, self.folder = json.loads(content)


def serve(address):
    """Fork for each program; return, in the fork, what it is asked to run. Ends with the standard input."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    wakes, woken = socket.socketpair()
    wakes.setblocking(False), woken.setblocking(False)
    signal.set_wakeup_fd(wakes.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    selector, running = selectors.DefaultSelector(), {}
    for source in (listener, woken, sys.stdin):
        selector.register(source, selectors.EVENT_READ)
    gc.collect(), gc.freeze()  # a fork that looks through what is loaded copies all of it: a second each
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is sys.stdin:
                return None
            if key.fileobj is woken:
                woken.recv(4096)
                tell_ends(running, selector)
            elif key.fileobj is listener:
                connection, _ = listener.accept()
                asked = Asked(connection)
                if not (child := os.fork()):
                    signal.set_wakeup_fd(-1)
                    for opened in (selector, listener, wakes, woken, connection, *running.values()):
                        opened.close()
                    return asked
                list(map(os.close, asked.streams))
                running[child] = connection
                selector.register(connection, selectors.EVENT_READ, child)
            elif running.get(key.data) is key.fileobj:
                pass_on(key.fileobj, key.data, selector)


def tell_ends(running, selector):
    """Tell each client whose program has ended how it has."""
    for pid, connection in list(running.items()):
        if (ended := os.waitpid(pid, os.WNOHANG))[0]:
            del running[pid]
            with contextlib.suppress(KeyError):
                selector.unregister(connection)
            with contextlib.suppress(OSError):
                connection.sendall(os.waitstatus_to_exitcode(ended[1]).to_bytes(4, "big", signed=True))
            connection.close()


def pass_on(connection, pid, selector):
    """Send a program the signal that its client has got; whose client was killed is killed, and what it started."""
    try:
        number = connection.recv(1)
    except ConnectionError:  # a client that was killed
        number = b""
    if number:
        os.kill(pid, number[0])
    else:
        selector.unregister(connection)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def become(asked, executable):
    """Be the process that was asked for, but for its program."""
    os.setpgid(0, 0)
    for number, stream in zip(fork_client.STREAMS, asked.streams, strict=True):
        os.dup2(stream, number), os.close(stream)
    for number in (*fork_client.SIGNALS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear(), os.environ.update(asked.environment)
    os.chdir(asked.folder)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = open(number, "w" if number else "r", buffering=1, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream), setattr(sys, f"__{name}__", stream)
    sys.executable, sys.orig_argv = executable, [executable, *asked.words]
    sys.path[:1] = [folder for folder in asked.environment.get("PYTHONPATH", "").split(os.pathsep) if folder]
    sys.warnoptions += asked.filters
    warnings._processoptions(asked.filters)
    sys.modules["__main__"] = types.ModuleType("__main__")
    for name in [name for name in sys.modules if name == "tests" or name.startswith("tests.")]:
        del sys.modules[name]


def run(words):
    """Run a program as Python does that is started so."""
    main = vars(sys.modules["__main__"])
    if words[0] == "-m":
        sys.path[:0], sys.argv = [os.getcwd()], ["-m", *words[2:]]  # noqa: PTH109
        runpy._run_module_as_main(words[1])
    elif words[0] == "-c":
        sys.path[:0], sys.argv = [""], ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), main)  # noqa: S102
    else:
        main["__file__"] = os.path.abspath(words[0])  # noqa: PTH100
        sys.path[:0], sys.argv = [os.path.dirname(main["__file__"])], words  # noqa: PTH120
        with io.open_code(main["__file__"]) as file:
            code = compile(file.read(), main["__file__"], "exec")
        exec(code, main)  # noqa: S102


def run_to_the_end(words):
    """Run a program, then what is registered at exit; what is loaded is not taken down, which would copy all of it."""
    status = 0
    try:
        run(words)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001
        status = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
        ours = error.__traceback__.tb_next
        error.__traceback__ = ours.tb_next or ours
        sys.excepthook(type(error), error, error.__traceback__)
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError):
        sys.stdout.flush(), sys.stderr.flush()
    fork_client.end(status if status < 0 else status & 255)


def main():
    """Serve until the input ends."""
    settings = json.loads(sys.argv[1])
    list(map(__import__, LIBRARIES))
    asked = serve(settings["address"])
    if asked is None:
        shutil.rmtree(settings["folder"])
    else:
        become(asked, f"{settings['folder']}/python")
        run_to_the_end(asked.words)


if __name__ == "__main__":
    main()
