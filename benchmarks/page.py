"""How long the page takes to show an experiment of 1,000 runs, and histories of 100,000 steps.

    python -m benchmarks.page --postgres postgresql+psycopg2://postgres@127.0.0.1:5432
    python -m benchmarks.page                       # the same on SQLite

The database is made for it and dropped at the end. With a Chromium at hand (``--chromium``), the first view is timed in
it: from the call of the address, with nothing in its cache, to the rows on the screen.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import requests

from mlflow_hp.tracking.tags import (
    AUTHOR_TAG,
    BATCH_LEARNING_RATE_METRIC,
    BATCH_LOSS_METRIC,
    BATCH_RUNNING_LOSS_METRIC,
    COMMAND_TAG,
    DATA_DIGEST_TAG,
    DESCRIPTION_TAG,
    FIT_SECONDS_METRIC,
    KIND_TAG,
    RUN_NAME_TAG,
    SOURCE_NAME_TAG,
    SOURCE_TYPE_TAG,
    USER_TAG,
    VERSIONS_TAG,
    WEIGHTS_METRIC_PREFIX,
)
from tests.helpers.servers import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EXPERIMENT = "page"
AUTHORS = ("ann", "bob", "cem")
LONG_RUNS = 4
ROWS_AT_ONCE = 20_000
TRIES = 5
WIDTH = 1200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100_000, help=f"of each of the {LONG_RUNS} long histories")
    parser.add_argument("--postgres", metavar="URI", help="a server of PostgreSQL, without a database; default: SQLite")
    parser.add_argument("--chromium", type=Path, default=Path("/usr/bin/chromium"))
    arguments = parser.parse_args()
    os.environ.update(MLFLOW_LOGGING_LEVEL="ERROR", MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true")
    with tempfile.TemporaryDirectory() as folder, _database(arguments.postgres, Path(folder)) as uri:
        experiment = fill(uri, Path(folder), arguments.runs, arguments.steps)
        with serving(Path(folder), "mlflow-hp", store=uri) as server:
            time_routes(server, experiment)
            if arguments.chromium.exists():
                time_first_view(f"{server}/hp/#e={experiment}", arguments.chromium)


@contextlib.contextmanager
def _database(postgres: str | None, folder: Path) -> Iterator[str]:
    if postgres is None:
        yield f"sqlite:///{folder}/mlflow.db"
        return
    from sqlalchemy import NullPool, create_engine, text

    name = f"mlflow_hp_page_{os.getpid()}"
    engine = create_engine(f"{postgres.rstrip('/')}/postgres", isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
        try:
            yield f"{postgres.rstrip('/')}/{name}"
        finally:
            connection.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))


def fill(uri: str, folder: Path, n_runs: int, n_steps: int) -> str:
    """Runs as the recorder leaves them: 12 params, 26 metrics, 10 tags; the first few with a long history."""
    import sqlalchemy as sa
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric, SqlParam, SqlRun, SqlTag
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri, str(folder))
    experiment = store.create_experiment(EXPERIMENT)
    rng = np.random.default_rng(0)
    rows: dict[Any, list[dict[str, Any]]] = {SqlRun: [], SqlParam: [], SqlLatestMetric: [], SqlTag: [], SqlMetric: []}
    names = [
        "loss",
        "val_loss",
        "accuracy",
        "val_accuracy",
        BATCH_LOSS_METRIC,
        BATCH_RUNNING_LOSS_METRIC,
        BATCH_LEARNING_RATE_METRIC,
    ]
    tensors = [f"dense_{n}/{part}" for n in range(3) for part in ("kernel", "bias")]
    names += [f"{WEIGHTS_METRIC_PREFIX}{tensor}/{what}" for tensor in tensors for what in ("norm", "mean", "std")]
    names.append(FIT_SECONDS_METRIC)
    for number in range(n_runs):
        run_id, author, began = uuid.uuid4().hex, AUTHORS[number % 3], 1_760_000_000_000 + number * 60_000
        rows[SqlRun].append({
            "run_uuid": run_id, "name": f"run {number}", "experiment_id": int(experiment), "status": "FINISHED",
            "start_time": began, "end_time": began + 42_000, "lifecycle_stage": "active",
            "source_type": "LOCAL", "user_id": author,
            "artifact_uri": f"mlflow-artifacts:/{experiment}/{run_id}/artifacts",
        })  # fmt: skip
        params = {"learning_rate": 10 ** rng.uniform(-4, -1), "batch_size": 2 ** rng.integers(3, 9), "seed": number}
        params |= {"optimizer": ("SGD", "Adam", "RMSprop")[number % 3], "dropout": rng.uniform()}
        params |= dict.fromkeys(("epochs", "momentum", "layers", "units", "init", "loss", "data"), "the same")
        tags = {USER_TAG: author, AUTHOR_TAG: author, KIND_TAG: "training"}
        tags |= {DATA_DIGEST_TAG: "ab" * 20, DESCRIPTION_TAG: "A description. " * 40}
        tags |= {VERSIONS_TAG: "x" * 300, COMMAND_TAG: "python -m projects.train " * 4}
        tags |= {RUN_NAME_TAG: f"run {number}", SOURCE_NAME_TAG: "train.py", SOURCE_TYPE_TAG: "LOCAL"}
        own = {"run_uuid": run_id}
        rows[SqlParam] += [{**own, "key": key, "value": str(value)} for key, value in params.items()]
        rows[SqlTag] += [{**own, "key": key, "value": value} for key, value in tags.items()]
        latest = {**own, "step": 99, "timestamp": began, "is_nan": False}
        rows[SqlLatestMetric] += [{**latest, "key": name, "value": float(rng.uniform())} for name in names]
        if number < LONG_RUNS:
            losses = np.exp(-np.arange(n_steps) / n_steps * 5) + 0.05 * rng.normal(size=n_steps)
            point = {**own, "key": BATCH_LOSS_METRIC, "is_nan": False}
            rows[SqlMetric] += [
                {**point, "step": step, "timestamp": began + step, "value": value}
                for step, value in enumerate(losses.tolist())
            ]
    with store.ManagedSessionMaker() as session:
        for model, own_rows in rows.items():
            for at in range(0, len(own_rows), ROWS_AT_ONCE):
                session.execute(sa.insert(model), own_rows[at : at + ROWS_AT_ONCE])
    if uri.startswith("postgresql"):
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("ANALYZE"))  # as its own daemon would, in a while
    return str(experiment)


def time_routes(server: str, experiment: str) -> None:
    """What the server takes, beside the same by MLflow's own routes."""
    api, mlflow_api = f"{server}/hp/api", f"{server}/api/2.0/mlflow"
    listed = requests.get(f"{api}/runs?experiment={experiment}", timeout=60).json()["runs"]
    oldest = listed["id"][::-1]
    print(f"{len(oldest):,} runs, on {os.cpu_count()} cores")
    search: Any = {"experiment_ids": [experiment], "max_results": len(oldest)}
    told("the page's list of runs", lambda: requests.get(f"{api}/runs?experiment={experiment}", timeout=60))
    told("the same by MLflow's search", lambda: requests.post(f"{mlflow_api}/runs/search", json=search, timeout=60))
    for n in (1, LONG_RUNS):
        asked = f"{api}/histories?metric=batch/loss&pixels={WIDTH}&runs={','.join(oldest[:n])}"
        told(f"{n} long histories, thinned for {WIDTH} pixels", functools.partial(requests.get, asked, timeout=60))
    zoomed = f"{api}/histories?metric=batch/loss&pixels={WIDTH}&runs={oldest[0]}&start=50000&end=52000"
    told("2,000 steps of one, whole", lambda: requests.get(zoomed, timeout=60))
    history = f"{mlflow_api}/metrics/get-history?run_id={oldest[0]}&metric_key=batch/loss"
    told("one history by MLflow's own route", lambda: requests.get(history, timeout=60), tries=2)
    compared = f"{api}/sections?runs={','.join(oldest[:100])}"
    told("the comparison of 100 runs", lambda: requests.get(compared, timeout=60))


def told(what: str, ask: Callable[[], requests.Response], tries: int = TRIES) -> None:
    """Print the median time of an answer, and its size."""
    seconds = []
    for _ in range(tries):
        began = time.perf_counter()
        answer = ask()
        seconds.append(time.perf_counter() - began)
        answer.raise_for_status()
    sent = int(answer.headers.get("Content-Length", len(answer.content)))
    print(f"{what:45s} {statistics.median(seconds):6.2f} s {sent / 1000:9.0f} kB")


def time_first_view(address: str, chromium: Path) -> None:
    """In a browser, each time a new one."""
    from playwright.sync_api import sync_playwright

    seconds = []
    with sync_playwright() as playwright:
        for _ in range(TRIES):
            options = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
            browser = playwright.chromium.launch(executable_path=chromium, args=options)
            page = browser.new_page(viewport={"width": WIDTH + 80, "height": 900})
            began = time.perf_counter()
            page.goto(address)
            page.wait_for_selector("#table tbody tr")
            seconds.append(time.perf_counter() - began)
            browser.close()
    print(f"{'first view in the browser':45s} {statistics.median(seconds):6.2f} s")


if __name__ == "__main__":
    main()
