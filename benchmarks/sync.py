"""How long `mlflow-hp sync` takes to bring many runs to a tracking server, and how long it takes once they are there.

    python -m benchmarks.sync                     # to a server of its own on PostgreSQL at 127.0.0.1:5432
    python -m benchmarks.sync --to http://HOST:5000

Each run has 10,000 points of four metrics, ten params and two artifacts. The server is `mlflow server` with its own
database, which is dropped at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from mlflow_hp.tracking.artifact_paths import PLOTS_FOLDER, TRAINING_FOLDER
from mlflow_hp.tracking.tags import (
    BATCH_LEARNING_RATE_METRIC,
    BATCH_LOSS_METRIC,
    BATCH_RUNNING_LOSS_METRIC,
    WEIGHTS_METRIC_PREFIX,
)
from tests.helpers.servers import Server, postgresql

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPERIMENT = "sync"
METRICS = (
    BATCH_LOSS_METRIC,
    BATCH_RUNNING_LOSS_METRIC,
    BATCH_LEARNING_RATE_METRIC,
    f"{WEIGHTS_METRIC_PREFIX}dense/kernel",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--points", type=int, default=10_000, help="metric points of each run")
    parser.add_argument("--workers", type=int, default=2, help="of the server; MLflow itself starts 4")
    parser.add_argument("--to", help="a server that is there")
    parser.add_argument("--verify", action="store_true", help="compare both sides, too")
    arguments = parser.parse_args()
    os.environ.update(
        MLFLOW_LOGGING_LEVEL="ERROR",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        source = f"sqlite:///{folder}/mlflow.db"
        fill(source, Path(folder), arguments.runs, arguments.points)
        target = arguments.to or stack.enter_context(served(Path(folder), arguments.workers))
        print(f"{arguments.runs} runs x {arguments.points:,} points to {target} on {psutil.cpu_count()} cores")
        for name in ("first time", "again"):
            timed(name, source, target)
        if arguments.verify:
            timed("again, verified", source, target, "--verify")


def fill(uri: str, folder: Path, runs: int, points: int) -> None:
    """Record runs; the points go to the database itself, which takes seconds in place of minutes."""
    import mlflow
    from mlflow.entities import Metric, Param

    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment(EXPERIMENT, (folder / "artifacts").as_uri())
    steps = points // len(METRICS)
    rows = []
    for index in range(runs):
        start = 1_700_000_000_000 + index * 10_000_000
        run_id = client.create_run(experiment, start, run_name=f"run {index}").info.run_id
        params = [Param(f"param_{number}", str(number * index)) for number in range(10)]
        client.log_batch(run_id, [Metric(key, 1 / steps, start + steps - 1, steps - 1) for key in METRICS], params)
        rows += [(key, 1 / (step + 1), start + step, run_id, step) for key in METRICS for step in range(steps - 1)]
        client.log_text(run_id, "history " * 1000, f"{TRAINING_FOLDER}/history.txt")
        client.log_text(run_id, "<svg/>", f"{PLOTS_FOLDER}/loss.svg")
        client.set_terminated(run_id, end_time=start + steps)
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as database, database:
        database.executemany(
            "INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, 0)", rows
        )


def timed(name: str, source: str, target: str, *options: str) -> None:
    """Synchronize once in a process of its own, and print how long that took."""
    words = ["-m", "mlflow_hp.cli", "sync", "--from", source, "--to", target, "--experiment", EXPERIMENT, *options]
    began, busy = time.perf_counter(), children_seconds()
    done = subprocess.run([sys.executable, *words], check=False, capture_output=True, text=True)
    seconds, busy = time.perf_counter() - began, children_seconds() - busy
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    load = psutil.getloadavg()[0]
    print(
        f"{name}: {seconds:.1f} s ({busy:.0f} s of a core for the command itself; load {load:.1f})\n  "
        + done.stdout.strip().replace("\n", "\n  ")
    )


def children_seconds() -> float:
    """CPU seconds of the processes that have ended."""
    used = os.times()
    return used.children_user + used.children_system


@contextlib.contextmanager
def served(folder: Path, workers: int) -> Iterator[str]:
    """`mlflow server` on a PostgreSQL database of its own."""
    with postgresql(f"mlflow_hp_sync_{os.getpid()}") as store:
        server = Server(folder, store, workers)
        server.start()
        try:
            yield server.uri
        finally:
            print(f"the server took {server.kill():.0f} s of a core, with {workers} worker(s), PostgreSQL apart")


if __name__ == "__main__":
    main()
