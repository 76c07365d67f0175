"""Much at once: trainings and a search into one store, and a million steps."""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

import mlflow
import numpy as np

from benchmarks.fault_cases.search import search_command
from benchmarks.fault_cases.training import EXPERIMENT, Training, record_of, running, show, show_row
from tests.helpers.servers import Server

if TYPE_CHECKING:
    from pathlib import Path


def crowd(folder: Path, store: str | None) -> None:
    """Eight trainings at once, with a search into one server, and without into one SQLite file."""
    served = Server(folder, store)
    served.start()
    show(["at once", "into", "steps done", "steps recorded", "wrong", "'database is locked'", "left RUNNING", "s"])
    for uri, into in ((served.uri, "a server"), (f"sqlite:///{folder}/crowd.db", "a SQLite file")):
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(EXPERIMENT)
        began = time.monotonic()
        trainings = [Training(folder, 3200, 0.0) for _ in range(8)]
        if into == "a server":
            command = search_command(uri, "new", folder / "crowd.npy", 16, 0.2, 2)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        locked = sum("database is locked" in training.wait() for training in trainings)
        seconds = time.monotonic() - began
        records = [record_of(training.run_id) for training in trainings]
        who = f"8 trainings{' and a search' if into == 'a server' else ''}"
        steps, wrong = sum(record.n_steps for record in records), sum(record.n_wrong for record in records)
        show_row([who, into, 8 * 3200, steps, wrong, locked, running(), f"{seconds:.0f}"])
    print()
    served.kill()


def long(folder: Path) -> None:
    """A million steps in this process."""
    import keras
    import psutil

    import mlflow_hp

    mlflow.set_tracking_uri(f"sqlite:///{folder}/long.db")
    mlflow.set_experiment(EXPERIMENT)
    x = np.random.default_rng(0).normal(size=(1_000_000, 1)).astype("float32")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.RMSprop(0.01), "mse", steps_per_execution=50)
    seen: list[float] = []
    process = psutil.Process()
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(process.memory_info().rss / 2**20))
    with mlflow.start_run() as run:
        recorder = mlflow_hp.TrainingRecorder(report=False, metrics_every=100)
        began = time.monotonic()
        model.fit(x, 2 * x, batch_size=10, epochs=10, verbose=0, callbacks=[recorder, watch])
        seconds = time.monotonic() - began
    recorder.history = None
    history = mlflow_hp.load_history(run.info.run_id)
    whole = bool((history.steps["step"] == np.arange(1_000_000)).all()) and history.complete
    row = [history.n_steps, " ".join(f"{m:.0f}" for m in seen), "yes" if whole else "NO", f"{seconds:.0f}"]
    show(["steps", "MiB after each tenth", "history whole", "s"], [row])
