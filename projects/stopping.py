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
    """Start a process that outlives this one and makes a run KILLED again if `mlflow run` ends it otherwise.

    MLflow 3.17 intends to keep the status of an ended run, but takes KILLED for one that has not ended.
    """
    start_watching(run_id, "keep")


def discard(run_id: str) -> None:
    """Delete a run in which nothing has happened, by a process that waits until `mlflow run` has set its status.

    MLflow 3.17 sets it in any case, and would end with a traceback if the run was deleted before.
    """
    import mlflow

    with contextlib.suppress(Exception):  # a store that does not answer keeps the run
        mlflow.MlflowClient().set_terminated(run_id, "KILLED")
        start_watching(run_id, "delete")


def start_watching(run_id: str, action: str) -> None:
    """Start a process that outlives this one, and calls `watch`."""
    subprocess.Popen(
        [sys.executable, "-m", "projects.stopping", run_id, action],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def watch(run_id: str, action: str = "keep", seconds: float = WATCH_SECONDS, pause: float = 0.5) -> bool:
    """Wait until a KILLED run has another status; return whether that happened within `seconds`.

    Parameters
    ----------
    run_id : str
        The run.
    action : {"keep", "delete"}
        "keep" makes the run KILLED again; "delete" deletes it, also after `seconds`. Defaults to "keep".
    seconds : float
        Longest wait. Defaults to `WATCH_SECONDS`.
    pause : float
        Seconds between two looks. Defaults to 0.5.
    """
    import mlflow

    client = mlflow.MlflowClient()
    until = time.monotonic() + seconds
    while not (is_changed := client.get_run(run_id).info.status != "KILLED") and time.monotonic() < until:
        time.sleep(pause)
    if action == "delete":
        client.delete_run(run_id)
    elif is_changed:
        client.set_terminated(run_id, "KILLED")
    return is_changed


if __name__ == "__main__":
    watch(sys.argv[1], sys.argv[2])
