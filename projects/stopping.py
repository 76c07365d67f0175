"""How an experiment is stopped: a signal interrupts it, and its run keeps the status that is true."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCH_SECONDS = 15.0
"""How long after the end of a program `mlflow run` may take to set its status."""


AGAIN_SECONDS = 0.01
"""When an interrupt that Python dropped is sent again."""


class Stopped(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Have SIGINT and SIGTERM raise KeyboardInterrupt in the block.

    On Ctrl-C under `mlflow run` both come, milliseconds apart: the terminal sends SIGINT to all, and MLflow then
    SIGTERM to the program it started. What must be done in between is done under `held`. Python drops an exception
    that comes while it destroys an object, as Keras' iterators are at every epoch's end: then the signal is sent again.
    """

    def stop(number: int, _: Any) -> NoReturn:
        raise Stopped(f"signal {number}") if number == signal.SIGTERM else KeyboardInterrupt

    def dropped(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT)).start()
        else:
            hook(unraisable)

    hook, sys.unraisablehook = sys.unraisablehook, dropped
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def keep_killed(run_id: str) -> None:
    """Leave a process behind that makes a run KILLED again, should `mlflow run` call it FAILED after our end.

    MLflow 3.17 means to keep the status of a run that has ended, and takes KILLED for one that has not.
    """
    subprocess.Popen(
        [sys.executable, "-m", "projects.stopping", run_id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def watch(run_id: str, seconds: float = WATCH_SECONDS, pause: float = 0.5) -> bool:
    """Set the run to KILLED as soon as it is FAILED; whether that came within `seconds`."""
    import mlflow

    client = mlflow.MlflowClient()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if client.get_run(run_id).info.status == "FAILED":
            client.set_terminated(run_id, "KILLED")
            return True
        time.sleep(pause)
    return False


if __name__ == "__main__":
    watch(sys.argv[1])
