"""Tool that trains: it runs a recorded experiment again, following the advice of its findings."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys

from mlflow_hp.assistant.answer import answer
from mlflow_hp.errors import UserError

MAX_TRAININGS = 20
"""Trainings of one call."""
SHOWN_LINES = 12
"""Last lines of the command's output in an answer."""


def run_improvement(run_id: str, trainings: int, seconds: float) -> str:
    """Do what ``mlflow-hp improve RUN --yes`` does, in a process of its own, within a time limit.

    Parameters
    ----------
    run_id : str
        Id of a run of an experiment.
    trainings : int
        Trainings after the first one, 1 to 20.
    seconds : float
        Longest time; then the trainings are interrupted, and what is recorded stays.

    Returns
    -------
    str
        The last lines of its output.

    Raises
    ------
    UserError
        For an invalid id or number, or if the command fails or takes too long.
    """
    if not re.fullmatch(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}", run_id):
        raise UserError(f"run_id={run_id!r} is not the id of a run")
    if not 1 <= trainings <= MAX_TRAININGS:
        raise UserError(f"trainings={trainings} is out of range: give 1 to {MAX_TRAININGS}")
    options = ["--trainings", str(trainings), "--yes"]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow_hp.cli", "improve", *options, "--", run_id],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="backslashreplace",
        start_new_session=True,  # so that all its processes can be ended
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        raise UserError(
            f"the improvement of run {run_id} took longer than {seconds:g} s and was interrupted; its run has what was "
            "recorded"
        ) from None
    except BaseException:
        _end(process)
        raise
    lines = [line for line in output.splitlines() if line.strip()][-SHOWN_LINES:]
    if process.returncode:
        raise UserError(f"mlflow-hp improve ended with status {process.returncode}: {lines[-1] if lines else ''}")
    return answer(lines)


def _end(process: subprocess.Popen[str]) -> None:
    """Interrupt the processes of a command, as Ctrl+C does, and kill those that do not end by it."""
    for signal_number, patience in ((signal.SIGINT, 20.0), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal_number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=patience)
            return
