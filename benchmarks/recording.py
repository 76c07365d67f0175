"""What recording costs a training, side by side with the bare fit and with other ways to record less.

    python -m benchmarks.recording [--repetitions 9] [--models [NAME ...]] [--cases A B B2] [--memory]

The models, eight by default: bare, recorded with the default settings, and with ``weights="none", gradients=False``;
the first two also with 50 steps per execution, against the bare fit step by step. Then, with ``--cases``:

(A) one Dense unit on one input, 160 rows, batch 10, 100 epochs, all weights; (B) an MLP 784-64-64-10, batch 32,
20,000 rows, statistics of the weights; (B2) the same with all weights at every step. All ways take turns within
each repetition, in one process; the table gives each way's training-visible time as a ratio to the bare fit (step
by step) of the same repetition, and apart from it the time at the end until everything is written. What writes to
MLflow writes to a SQLite file; the ways that write there at every batch take part in the first two repetitions only.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import mlflow
import numpy as np
import psutil
from tqdm import tqdm

import mlflow_hp
from benchmarks.trained_models import cases

if TYPE_CHECKING:
    from collections.abc import Callable

RNG = np.random.default_rng(0)
TIMED_AT_50 = ("Dense(1)", "MLP 784-64-64-10")
SLOW = ("mlflow.log_metrics per batch", "mlflow.keras.MlflowCallback per batch")


def regression(per_execution: int) -> keras.Model:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.RMSprop(0.01)
    model.compile(optimizer, "mse", metrics=["mae"], steps_per_execution=per_execution)
    return model


def network(per_execution: int) -> keras.Model:
    layers = [keras.layers.Dense(units, "relu") for units in (64, 64)]
    model = keras.Sequential([keras.Input((784,)), *layers, keras.layers.Dense(10, "softmax")])
    loss = "sparse_categorical_crossentropy"
    model.compile("rmsprop", loss, metrics=["accuracy"], steps_per_execution=per_execution)
    return model


def data(case: str) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    if case == "A":
        x = RNG.normal(size=(160, 1)).astype("float32")
        return x, 2 * x + 1, {"batch_size": 10, "epochs": 100}
    x = RNG.random((20_000, 784)).astype("float32")
    return x, RNG.integers(0, 10, 20_000), {"batch_size": 32, "epochs": 1}


class WeightsIntoLists(keras.callbacks.Callback):
    """The tutorials' own callback: weights and loss of every batch, in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Any] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.weights.append(self.model.get_weights())
        self.losses.append((logs or {})["loss"])


class LogMetrics(keras.callbacks.Callback):
    """One plain ``mlflow.log_metrics`` for every batch."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.step = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        mlflow.log_metrics(logs or {}, step=self.step)
        self.step += 1


def ways(case: str, folder: Path) -> dict[str, tuple[int, Callable[[], Any] | None]]:
    """Name -> (steps_per_execution, what makes the callback)."""
    weights = "statistics" if case == "B" else "all"

    def ours() -> mlflow_hp.TrainingRecorder:
        return mlflow_hp.TrainingRecorder(weights=weights, report=False)  # type: ignore[arg-type]

    def of_mlflow() -> Any:
        return mlflow.keras.MlflowCallback(log_every_epoch=False, log_every_n_steps=1)

    found: dict[str, tuple[int, Callable[[], Any] | None]] = {
        "bare fit": (1, None),
        "bare fit, steps_per_execution=50": (50, None),
        "TrainingRecorder": (1, ours),
        "TrainingRecorder, steps_per_execution=50": (50, ours),
        "get_weights into lists": (1, WeightsIntoLists),
        "mlflow.log_metrics per batch": (1, LogMetrics),
        "mlflow.keras.MlflowCallback per batch": (1, of_mlflow),
    }
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        print("TensorBoard is left out: the package tensorboard is not installed")
    else:
        found["keras.callbacks.TensorBoard(update_freq=1)"] = (
            1, lambda: keras.callbacks.TensorBoard(folder / "tensorboard", update_freq=1)
        )  # fmt: skip
    return found


def measure(case: str, repetitions: int, folder: Path) -> None:
    """Print the table of one case."""
    x, y, fit = data(case)
    ratios: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    flushes: dict[str, list[float]] = {}
    chosen = ways(case, folder)
    models = {name: (regression if case == "A" else network)(every) for name, (every, _) in chosen.items()}
    for repetition in tqdm(range(-1, repetitions), desc=f"case {case}"):  # the first compiles and is not counted
        for name, (_, make) in chosen.items():
            if repetition >= 2 and name in SLOW:
                continue
            callback = make() if make else None
            gc.collect()
            if repetition < 0:
                few = {"x": x[:320], "y": y[:320], "batch_size": fit["batch_size"], "epochs": 2}
            else:
                few = {"x": x, "y": y, **fit}
            with mlflow.start_run():
                began = time.perf_counter()
                models[name].fit(**few, verbose=0, callbacks=[callback] if callback else [])
                whole = time.perf_counter() - began
            if repetition < 0:
                continue
            flush = getattr(callback, "flush_seconds", 0.0)
            seconds.setdefault(name, []).append(whole - flush)
            flushes.setdefault(name, []).append(flush)
            ratios.setdefault(name, []).append((whole - flush) / seconds["bare fit"][-1])
    steps = fit["epochs"] * -(-len(x) // fit["batch_size"])
    print(f"\n({case}) {steps:,} steps, {repetitions} repetitions; times are medians, ratios median (min to max)\n")
    print("| way | training-visible, s | us per step | ratio to bare | final flush, s |\n|---|---|---|---|---|")
    for name, values in ratios.items():
        spread = f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
        median = np.median(seconds[name])
        print(f"| {name} | {median:.2f} | {median / steps * 1e6:.0f} | {spread} | {np.median(flushes[name]):.2f} |")
    print()


def measure_models(names: list[str], repetitions: int) -> None:
    """Print the ratios to the bare fit of each model, of the fits of the same repetition."""
    ways_of_table = ("recorded", '`weights="none", gradients=False`', "recorded, 50 per execution", "end, s")
    print(f"| model | bare, us per step | {' | '.join(ways_of_table)} |")
    print("|---|---|---|---|---|---|")
    for name, case in cases().items():
        if names and not any(part in name for part in names):
            continue
        ways: dict[str, tuple[int, dict[str, Any] | None]] = {
            "bare": (1, None),
            "recorded": (1, {}),
            "none": (1, {"weights": "none", "gradients": False}),
        }
        if name in TIMED_AT_50:
            ways["at 50"] = 50, {}
        models = {way: case.model(every) for way, (every, _) in ways.items()}
        ratios: dict[str, list[float]] = {way: [] for way in ways}
        bare: list[float] = []
        flushes: list[float] = []
        for repetition in range(-1, repetitions):  # the first compiles and is not counted
            for way, (every, settings) in ways.items():
                recorder = None if settings is None else mlflow_hp.TrainingRecorder(report=False, **settings)
                few = slice(2 * every * case.batch_size if repetition < 0 else None)
                gc.collect()
                with mlflow.start_run():
                    began = time.perf_counter()
                    models[way].fit(
                        case.x[few], case.y[few], batch_size=case.batch_size, verbose=0,
                        callbacks=[] if recorder is None else [recorder],
                    )  # fmt: skip
                    seconds = time.perf_counter() - began - (recorder.flush_seconds if recorder else 0)
                if repetition < 0:
                    continue
                if recorder is None:
                    bare.append(seconds)
                else:
                    ratios[way].append(seconds / bare[-1])
                if way == "recorded":
                    flushes.append(recorder.flush_seconds if recorder else 0)
        steps = -(-len(case.x) // case.batch_size)
        cells = [
            f"{np.median(ratios[way]):.2f} ({min(ratios[way]):.2f} to {max(ratios[way]):.2f})" if way in ways else ""
            for way in ("recorded", "none", "at 50")
        ]
        print(
            f"| {name} | {np.median(bare) / steps * 1e6:.0f} | {' | '.join(cells)} | {np.median(flushes):.1f} |",
            flush=True,
        )
    print()


def resident_memory(recorded: bool) -> None:
    """Train 200,000 steps of A in this process, and print by how many MB its memory grew, at its peak, meanwhile."""
    x = RNG.normal(size=(200_000, 1)).astype("float32")
    model = regression(50)
    recorder = [mlflow_hp.TrainingRecorder(report=False)] if recorded else []
    process = psutil.Process()
    peak = before = 0

    def watch(epoch: int, logs: dict[str, float]) -> None:
        nonlocal peak
        peak = max(peak, process.memory_info().rss)

    with mlflow.start_run():
        model.fit(x[:1000], x[:1000], batch_size=10, verbose=0)
        before = process.memory_info().rss
        watching = keras.callbacks.LambdaCallback(on_epoch_end=watch)
        model.fit(x, 2 * x + 1, batch_size=10, epochs=10, verbose=0, callbacks=[*recorder, watching])
        watch(0, {})
    print(f"{(peak - before) / 1e6:.0f}")


def memory() -> None:
    """Print the memory that recording 200,000 steps of A adds, each way in a process of its own."""
    grown = {}
    for recorded in (False, True):
        command = [sys.executable, __file__, "--memory-of", str(int(recorded))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        grown[recorded] = float(done.stdout.split()[-1])
    print(f"200,000 steps of (A): resident memory grows by {grown[False]:.0f} MB bare, {grown[True]:.0f} MB recorded")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--models", nargs="*", metavar="NAME", help="of the models, those whose name has one of these")
    parser.add_argument("--cases", nargs="*", default=[], choices=["A", "B", "B2"])
    parser.add_argument("--memory", action="store_true", help="also measure the memory of a long training")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.MlflowClient().create_experiment("benchmark", artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment("benchmark")
        if arguments.memory_of is not None:
            resident_memory(bool(arguments.memory_of))
            return
        if arguments.models is not None or not arguments.cases:
            measure_models(arguments.models or [], arguments.repetitions)
        for case in arguments.cases:
            measure(case, arguments.repetitions, folder)
    if arguments.memory:
        memory()


if __name__ == "__main__":
    main()
