"""Recordings seen from where their process can't be: another host name, another space of process ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow

from benchmarks.fault_cases.training import EXPERIMENT, Training, left_behind, record_of, recover, running, show

if TYPE_CHECKING:
    from pathlib import Path

ELSEWHERE = {
    "another host name": ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname elsewhere; exec "$@"', "sh"],
    "another pid namespace": ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"],
}
"""Commands of Linux that start a process elsewhere."""


def hosts(folder: Path) -> None:
    """Kill a training there, and recover it here; recover, and train, here while another lives there."""
    mlflow.set_tracking_uri(f"sqlite:///{folder}/hosts.db")
    mlflow.set_experiment(EXPERIMENT)
    rows = []
    for where, inside in ELSEWHERE.items():
        for lives in (False, True):
            training = Training(folder, 16_000_000, 0.002, inside=inside)
            training.wait_for_steps(500)
            if lives:
                recover()
                here = Training(folder, 160, 0.002)
                here.wait()
                status = mlflow.get_run(training.run_id).info.status
                training.wait_for_steps(300)
                training.stop()
                training.wait()
            else:
                training.kill()
                status = "killed"
            done = training.n_steps
            recover()
            record = record_of(training.run_id)
            ended = mlflow.get_run(training.run_id).info.status
            row = [where, "yes" if lives else "no", status, ended, done, done - record.n_steps, record.n_wrong]
            rows.append([*row, running(), left_behind()])
    head = ["a training under", "alive", "its run meanwhile", "and then", "steps done", "lost", "wrong", "left RUNNING"]
    show([*head, "left behind"], rows)
