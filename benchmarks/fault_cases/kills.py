"""Processes that are killed: trainings, trainings that are resumed in the same run, searches."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np

from benchmarks.fault_cases.search import search_command
from benchmarks.fault_cases.training import EXPERIMENT, Training, left_behind, record_of, recover, running, show
from mlflow_hp.tracking.tags import KIND_TAG

if TYPE_CHECKING:
    from pathlib import Path

COMBINATIONS_PER_KILL = 6
"""So many that a killed search has something left to do."""


def kill(folder: Path, kills: int) -> None:
    """Kill trainings at random moments, and recover each."""
    mlflow.set_tracking_uri(f"sqlite:///{folder}/kill.db")
    mlflow.set_experiment(EXPERIMENT)
    chance, lost, seconds, wrong, different, n_steps = np.random.default_rng(0), 0, [0.0], 0, 0, 0
    reference = np.zeros(0, "float32")
    for _ in range(kills):
        training = Training(folder, 160_000, 0.002)
        time.sleep(chance.uniform(0.5, 9))
        training.kill()
        done, at = training.progress()
        recover()
        record = record_of(training.run_id)
        lost, n_steps, wrong = lost + done - record.n_steps, n_steps + done, wrong + record.n_wrong
        for losses in record.losses:
            seconds.append(at - record.last)
            n = min(len(reference), len(losses))  # the same seed: the same training as far as both go
            different += int((reference[:n] != losses[:n]).sum())
            reference = max(reference, losses, key=len)
    head = ["kills", "steps done", "lost", "most seconds lost", "wrong", "steps that differ", "left RUNNING"]
    row = [kills, n_steps, lost, f"{max(seconds):.2f}", wrong, different, running()]
    show([*head, "left behind"], [[*row, left_behind()]])


def again(folder: Path, kills: int) -> None:
    """Kill a training, and train on in its run without a word: as a preempted machine does with MLFLOW_RUN_ID."""
    mlflow.set_tracking_uri(f"sqlite:///{folder}/again.db")
    mlflow.set_experiment(EXPERIMENT)
    rows = []
    for n_fits in range(2, 2 + max(1, kills // 10)):
        run_id = None
        for fit in range(n_fits):
            training = Training(folder, 160_000, 0.002, run_id)
            run_id = training.run_id
            training.wait_for_steps(300)
            if fit < n_fits - 1:
                training.kill()
        training.stop()
        training.wait()
        done = training.n_steps
        recover()
        record, status = record_of(training.run_id, n_fits), mlflow.get_run(training.run_id).info.status
        kept = [len(losses) for losses in record.losses]
        lost = done - (kept[-1] if len(kept) == n_fits else 0)
        rows.append([n_fits, kept, lost, record.n_wrong, status, running(), left_behind()])
    head = ["fits in one run, all but the last killed", "steps in their histories", "lost of the last", "wrong"]
    show([*head, "status", "left RUNNING", "left behind"], rows)


def search(folder: Path, kills: int) -> None:
    """Kill a search over two processes, again and again; compare its results with those of one left alone."""
    uri = f"sqlite:///{folder}/search.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(EXPERIMENT)
    chance = np.random.default_rng(1)
    n = COMBINATIONS_PER_KILL * kills
    subprocess.run(search_command(uri, "alone", folder / "alone.npy", n, 0.5, 2), check=True)
    killed, status = 0, None
    while status != 0:
        command = search_command(uri, "resume", folder / "resumed.npy", n, 0.5, 2)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            status = process.wait(chance.uniform(6, 12) if killed < kills else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    same = np.array_equal(np.load(folder / "alone.npy"), np.load(folder / "resumed.npy"))
    runs: Any = mlflow.search_runs(search_all_experiments=True, output_format="list")
    children = [run for run in runs if run.data.tags.get(KIND_TAG) == "candidate"]
    head = ["search killed", "results equal to those of the search alone", "combinations", "their runs", "left RUNNING"]
    show(head, [[f"{killed} times", "yes" if same else "NO", n, len(children), running()]])
