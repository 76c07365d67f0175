"""A recorded training in a process of its own, which tells how far it is, and what MLflow holds of it in the end."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
import numpy as np

from mlflow_hp.tracking.tags import BATCH_LOSS_METRIC, WEIGHTS_METRIC_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXPERIMENT = "faults"
STEPS_PER_EPOCH = 160


def train(uri: str, told: str, n_steps: int, pause: float, run_id: str | None = None) -> None:
    """Train and record, until a file ``<told>.stop`` is there; at each step, tell how many are done.

    The file `told` gets the number of steps, and the time of the last; ``<told>.end`` how many seconds after the last
    step ``fit`` returned.
    """
    import keras

    import mlflow_hp

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(EXPERIMENT)
    x = np.random.default_rng(0).normal(size=(1600, 1)).astype("float32")
    stop = Path(f"{told}.stop")

    class Tell(keras.callbacks.Callback):
        n = 0
        at = 0.0

        def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            self.n, self.at = self.n + 1, time.time()
            if told:
                write(Path(told), f"{self.n} {self.at}\n")
            time.sleep(pause)

        def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
            self.model.stop_training |= stop.exists()

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.RMSprop(0.01), "mse")
    with mlflow.start_run(run_id=run_id) as run:
        print(run.info.run_id, flush=True)
        tell = Tell()
        recorder = mlflow_hp.TrainingRecorder(report=False)
        epochs = n_steps // STEPS_PER_EPOCH
        model.fit(x, 2 * x, batch_size=10, epochs=epochs, verbose=0, callbacks=[recorder, tell])
        if told:
            write(Path(f"{told}.end"), str(time.time() - tell.at))


def write(path: Path, text: str) -> None:
    """Write a file at once: a kill leaves a whole one."""
    draft = path.with_suffix(".part")
    draft.write_text(text)
    draft.replace(path)


class Training:
    """A process that trains.

    Attributes
    ----------
    run_id : str
    process : subprocess.Popen
    """

    def __init__(
        self, folder: Path, n_steps: int, pause: float, run_id: str | None = None, *, inside: Sequence[str] = ()
    ) -> None:
        self._told = folder / f"told-{time.time_ns()}"
        words = json.dumps([mlflow.get_tracking_uri(), str(self._told), n_steps, pause, run_id])
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        command = [*inside, sys.executable, "-m", "benchmarks.faults", "--train", words]
        self.process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)  # fmt: skip
        assert self.process.stdout is not None
        self.run_id = self.process.stdout.readline().strip()
        if not self.run_id:
            raise RuntimeError(f"the training did not start: {self.process.communicate()[1][-2000:]}")

    @property
    def n_steps(self) -> int:
        """Steps done."""
        return self.progress()[0]

    def progress(self) -> tuple[int, float]:
        """Steps done, and when the last was."""
        with contextlib.suppress(OSError, ValueError):
            n, at = self._told.read_text().split()
            return int(n), float(at)
        return 0, time.time()

    def wait_for_steps(self, n: int) -> None:
        """Wait until so many steps more are done, or the training has ended."""
        until = self.n_steps + n
        while self.n_steps < until and self.process.poll() is None:
            time.sleep(0.05)

    def stop(self) -> None:
        """Have it end with its epoch, and wait until ``fit`` has returned."""
        Path(f"{self._told}.stop").touch()
        until = time.monotonic() + 900
        while np.isnan(self.end_seconds) and self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)

    def wait(self) -> str:
        """Wait until MLflow has ended the run, and the process; what it printed as errors and warnings."""
        return self.process.communicate(timeout=900)[1]

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.communicate()

    @property
    def end_seconds(self) -> float:
        """How long after its last step ``fit`` returned."""
        path = Path(f"{self._told}.end")
        return float(path.read_text()) if path.exists() else float("nan")


class Record(NamedTuple):
    """What MLflow holds of the trainings of one run, against the histories that it holds.

    Attributes
    ----------
    n_steps : int
        Steps in all histories.
    n_wrong : int
        Points that are missing, there twice, or other than in the history.
    last : float
        When the last step was.
    losses : list of ndarray
        By fit.
    """

    n_steps: int
    n_wrong: int
    last: float
    losses: list[np.ndarray]


KERNEL = f"{WEIGHTS_METRIC_PREFIX}dense/kernel"
"""Metric of the only weight."""


def record_of(run_id: str, n_fits: int = 1) -> Record:
    """Compare the metrics of a run with its histories."""
    import mlflow_hp

    expected: dict[str, dict[int, float]] = {BATCH_LOSS_METRIC: {}, KERNEL: {}}
    n_steps, last, losses = 0, 0.0, []
    for fit in range(n_fits):
        try:
            history = mlflow_hp.load_history(run_id, fit=fit)
        except mlflow_hp.UserError:  # it is not there
            continue
        steps = history.steps["step"].tolist()
        n_steps += len(steps)
        losses.append(np.array(history.steps["batch_loss"]))
        last = max([last, *history.steps["time"][-1:].tolist()])
        expected[BATCH_LOSS_METRIC] |= dict(zip(steps, losses[-1].tolist(), strict=True))
        kernel = history.weights("dense/kernel")[1:, 0, 0].tolist()
        expected[KERNEL] |= dict(zip(steps, kernel, strict=True))
    wrong = n_steps - len(expected[BATCH_LOSS_METRIC])  # steps of two fits under one number
    for name, values in expected.items():
        points = points_of(run_id, name)
        wrong += sum(points.get(step) != [value] for step, value in values.items()) + len(points.keys() - values.keys())
    return Record(n_steps, wrong, last, losses)


def points_of(run_id: str, name: str) -> dict[int, list[float]]:
    """Values of a metric by step."""
    points: dict[int, list[float]] = {}
    for metric in mlflow.MlflowClient().get_metric_history(run_id, name):
        points.setdefault(metric.step, []).append(metric.value)
    return points


def running() -> int:
    """How many runs are RUNNING."""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return len(client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'"))


def recover() -> subprocess.CompletedProcess[str]:
    """`mlflow-hp recover`, as a user calls it."""
    command = [sys.executable, "-m", "mlflow_hp.cli", "recover"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def left_behind() -> int:
    """How many recordings are still on this machine."""
    return len(list(Path(os.environ["MLFLOW_HP_FOLDER"]).glob("*/*_*")))


def show(head: Sequence[str], rows: Sequence[Sequence[Any]] = ()) -> None:
    """Print a table in Markdown, or its head alone."""
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        show_row(row)
    if rows:
        print()


def show_row(row: Sequence[Any]) -> None:
    """Print a row of it."""
    print(f"| {' | '.join(f'{each:,}' if isinstance(each, int) else str(each) for each in row)} |", flush=True)
