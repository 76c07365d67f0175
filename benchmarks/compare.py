"""How long `mlflow-hp compare` takes over many runs, and how much memory.

    python -m benchmarks.compare                  # 200 and 2,000 runs in SQLite
    python -m benchmarks.compare --postgres postgresql://postgres@127.0.0.1:5432 --runs 200

Half of the runs are combinations of searches, with five folds; half are trainings of five authors with a history of
1,000 steps. The database is made for it and dropped at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from mlflow_hp.tracking.tags import (
    AUTHOR_TAG,
    BATCH_LEARNING_RATE_METRIC,
    BATCH_LOSS_METRIC,
    BATCH_RUNNING_LOSS_METRIC,
    DATA_DIGEST_TAG,
    FIT_SECONDS_METRIC,
    KIND_TAG,
    MEAN_SCORE_METRIC,
    PARENT_TAG,
    SPLIT_DIGEST_TAG,
    TEST_SCORE_METRIC,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

EXPERIMENT = "compare"
FOLDS, EPOCHS = 5, 20
AUTHORS = ("Ada", "Blaise", "Carl", "Emmy", "Grace")
ROWS_AT_ONCE = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[200, 2000])
    parser.add_argument("--steps", type=int, default=1000, help="of each training")
    parser.add_argument("--postgres", metavar="URI", help="a server of PostgreSQL, without a database; default: SQLite")
    arguments = parser.parse_args()
    os.environ.update(MLFLOW_LOGGING_LEVEL="ERROR", MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true")
    for runs in arguments.runs:
        with tempfile.TemporaryDirectory() as folder, _store(arguments.postgres, Path(folder), runs) as uri:
            began = time.perf_counter()
            points = fill(uri, Path(folder), runs, arguments.steps)
            print(f"{runs:,} runs, {points:,} points, written in {time.perf_counter() - began:.0f} s", flush=True)
            timed(uri, Path(folder, "compared.html"))


@contextlib.contextmanager
def _store(postgres: str | None, folder: Path, runs: int) -> Iterator[str]:
    if postgres is None:
        yield f"sqlite:///{folder}/mlflow.db"
        return
    from sqlalchemy import create_engine, text

    name = f"mlflow_hp_compare_{os.getpid()}_{runs}"  # another each time: MLflow keeps what it has opened
    engine = create_engine(f"{postgres.rstrip('/')}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
        try:
            yield f"{postgres.rstrip('/')}/{name}"
        finally:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    engine.dispose()


def fill(uri: str, folder: Path, n_runs: int, n_steps: int) -> int:
    """Record runs, their histories straight into the database; returns the number of points."""
    import mlflow
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.store.tracking.dbmodels.models import SqlMetric
    from sqlalchemy import insert

    from mlflow_hp._compat.mlflow import store_of

    client, rng, rows, total = mlflow.MlflowClient(uri), np.random.default_rng(0), [], 0
    experiment = client.create_experiment(EXPERIMENT, (folder / "artifacts").as_uri())
    store = store_of(client)
    shared = {DATA_DIGEST_TAG: "d1", SPLIT_DIGEST_TAG: "s1"}
    parent = client.create_run(experiment, tags=shared | {KIND_TAG: "search"}, run_name="search")
    client.set_terminated(parent.info.run_id)
    for index in range(n_runs):
        start = 1_700_000_000_000 + index * 100_000
        rate, width = float(rng.choice([0.1, 0.03, 0.01, 0.003])), int(rng.choice([16, 32, 64]))
        params = [Param("learning_rate", str(rate)), Param("hidden", str(width)), Param("seed", str(index))]
        if index % 2:
            tags = {KIND_TAG: "candidate", PARENT_TAG: parent.info.run_id}
            folds = 0.8 + 0.1 * rate + rng.normal(0, 0.02, FOLDS)
            histories = {"score": folds, FIT_SECONDS_METRIC: np.full(FOLDS, 2.0)}
            single = {MEAN_SCORE_METRIC: folds.mean(), "std_score": folds.std()}
        else:
            tags = shared | {KIND_TAG: "training"}
            loss = np.exp(-rate * np.arange(n_steps) / 30) + rng.gamma(2, 0.05, n_steps)
            by_epoch = loss[:: n_steps // EPOCHS]
            histories = {BATCH_LOSS_METRIC: loss, BATCH_LEARNING_RATE_METRIC: np.full(n_steps, rate)}
            histories |= {BATCH_RUNNING_LOSS_METRIC: loss, "loss": by_epoch, "val_loss": by_epoch * 1.1}
            single = {TEST_SCORE_METRIC: float(1 / (1 + by_epoch[-1]))}
        tags[AUTHOR_TAG] = AUTHORS[index % len(AUTHORS)]
        run_id = client.create_run(experiment, start, run_name=f"lr={rate} {width} #{index}").info.run_id
        last = [Metric(k, float(v[-1]), start + len(v) - 1, len(v) - 1) for k, v in histories.items()]
        last += [Metric(name, float(value), start, 0) for name, value in single.items()]
        client.log_batch(run_id, last, params, [RunTag(*item) for item in tags.items()])
        client.set_terminated(run_id, end_time=start + int(rng.uniform(5e3, 9e4)))
        rows += [
            {"key": k, "value": float(x), "timestamp": start + step, "run_uuid": run_id, "step": step, "is_nan": False}
            for k, v in histories.items()
            for step, x in enumerate(v[:-1])
        ]
        if len(rows) >= ROWS_AT_ONCE or index == n_runs - 1:
            with store.ManagedSessionMaker(read_only=False) as session:
                session.execute(insert(SqlMetric), rows)
            total, rows = total + len(rows), []
    return total


def timed(uri: str, report: Path) -> None:
    """Compare in a process of its own, and print how long that took, and its highest memory."""
    words = ["-m", "mlflow_hp.cli", "compare", "--experiment", EXPERIMENT, "--output", str(report)]
    began = time.perf_counter()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    process = subprocess.Popen([sys.executable, *words], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(said)
    load = psutil.getloadavg()[0]
    print(
        f"  compared in {time.perf_counter() - began:.1f} s ({used.ru_utime + used.ru_stime:.1f} s of a core; load "
        f"{load:.1f}), at most {used.ru_maxrss / 1024:.0f} MiB; the report has {report.stat().st_size / 2**20:.1f} MiB"
    )
    print("  " + said.strip().splitlines()[1][:160], flush=True)


if __name__ == "__main__":
    main()
