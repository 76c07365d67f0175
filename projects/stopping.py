"""Signals that end an experiment, and the true status of its run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCH_SECONDS = 15.0
"""Seconds that `mlflow run` may take after the end of a program to set its status."""
RESEND_SECONDS = 0.01
"""Seconds after which an interrupt that Python dropped is sent again."""


class Stopped(KeyboardInterrupt):
    """Interrupt by SIGTERM."""


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM in the block.

    On Ctrl-C under `mlflow run` both come, milliseconds apart: the terminal sends SIGINT to all, and MLflow then
    SIGTERM to the program it started. Work that must be done in between is done under `held`. Python drops an exception
    that comes while it destroys an object, as Keras' iterators are at every epoch's end: then the signal is sent again.
    """
    is_sent_again = False

    def stop(number: int, _: Any) -> None:
        if not is_sent_again:
            raise Stopped(f"signal {number}") if number == signal.SIGTERM else KeyboardInterrupt

    def dropped(unraisable: Any) -> None:
        nonlocal is_sent_again
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            is_sent_again = True  # a second signal would end this function, and nothing would be sent
            try:
                threading.Timer(RESEND_SECONDS, os.kill, (os.getpid(), signal.SIGINT)).start()
            finally:
                is_sent_again = False
        else:
            hook(unraisable)

    hook, sys.unraisablehook = sys.unraisablehook, dropped
    previous_handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def keep_killed(run_id: str) -> None:
    """Start a process that outlives this one and makes a run KILLED again if `mlflow run` makes it FAILED.

    MLflow 3.17 intends to keep the status of an ended run, but takes KILLED for one that has not ended.
    """
    subprocess.Popen(
        [sys.executable, "-m", "projects.stopping", run_id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def watch(run_id: str, seconds: float = WATCH_SECONDS, pause: float = 0.5) -> bool:
    """Set the run to KILLED as soon as it is FAILED; return whether that happened within `seconds`."""
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
