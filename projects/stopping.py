"""Signals that end an experiment, and the true status of its run."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from mlflow_hp.delivery import raise_on_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCH_SECONDS = 15.0
"""Seconds that `mlflow run` may take after the end of a program to set its status."""


class Stopped(KeyboardInterrupt):
    """Interrupt by SIGTERM."""


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGINT and SIGTERM in the block.

    On Ctrl-C under `mlflow run` both come, milliseconds apart: the terminal sends SIGINT to all, and MLflow then
    SIGTERM to the program it started. Work that must be done in between is done under `held`.
    """
    with raise_on_signals(
        {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: lambda: Stopped(f"signal {signal.SIGTERM}")}
    ):
        yield


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
