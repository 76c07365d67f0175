"""What recording a search costs and saves, side by side with the bare search and with MLflow's autologging.

    python -m benchmarks.search [--repetitions 5] [--cases cheap keras vectorised agreement halving atlas ...]

(cheap) LogisticRegression on the iris data, 12 combinations x 3 folds; (keras) an MLP on digits by scikeras, 4 learning
rates x 3 folds, 10 epochs, seeded; (vectorised) 12 of them in one program; (agreement) the best combinations of that,
with 20 seeds; (halving) 9 learning rates, halved from 2 to 18 epochs, beside a grid search with 18; (atlas) 2,000
descents; (tasks) 300, 1,000 and 3,000 fits of an estimator that does nothing; (memory) resident memory over 60 fits of
the MLP, each way in a process of its own; (prune) 200 replays of the tutorials' grids with each rule of pruning. All
ways take turns within each repetition, in one process, and write to a SQLite file; the table gives each way's time
beside the bare search of the same repetition. Pictures of what a search found are left out (`report=False`): they are
drawn once, at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import mlflow
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import load_digits, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from tqdm import tqdm

import mlflow_hp
from benchmarks.pruned import prune

if TYPE_CHECKING:
    from collections.abc import Callable

    Way = Callable[[GridSearchCV], contextlib.AbstractContextManager[Any]]

MEMORY_FITS = 60
CASES = ["cheap", "keras", "vectorised", "agreement", "halving", "atlas", "tasks", "memory", "prune"]


class Nothing(ClassifierMixin, BaseEstimator):
    """An estimator that does nothing."""

    def __init__(self, x: int = 0) -> None:
        self.x = x

    def fit(self, x: np.ndarray, y: np.ndarray) -> Nothing:
        self.classes_ = np.unique(y)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.zeros(len(x), int)


def build(learning_rate: float = 0.1) -> Any:
    import keras

    layers = [
        keras.layers.Dense(64, activation="relu"),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(10, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((64,)), *layers])
    optimizer = keras.optimizers.SGD(learning_rate, momentum=0.9)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def cheap() -> tuple[GridSearchCV, np.ndarray, np.ndarray]:
    grid = {"C": np.geomspace(1e-3, 1e2, 12).tolist()}
    return GridSearchCV(LogisticRegression(max_iter=1000), grid, cv=3), *load_iris(return_X_y=True)


def network(n_candidates: int = 4, epochs: int = 10) -> tuple[GridSearchCV, np.ndarray, np.ndarray]:
    from scikeras.wrappers import KerasClassifier

    x, y = load_digits(return_X_y=True)
    estimator = KerasClassifier(build, epochs=epochs, batch_size=128, verbose=0, random_state=0)
    grid = {"model__learning_rate": np.geomspace(0.01, 0.3, n_candidates).tolist()}
    return GridSearchCV(estimator, grid, cv=3, refit=False), (x / 16).astype("float32"), y


@contextlib.contextmanager
def autologged(search: GridSearchCV) -> Any:
    mlflow.sklearn.autolog(log_models=False, log_datasets=False, silent=True)
    try:
        with mlflow.start_run():
            yield
    finally:
        mlflow.sklearn.autolog(disable=True)


def recorded(**settings: Any) -> Way:
    return lambda search: mlflow_hp.record_search(search, progress=False, report=False, **settings)


WAYS: dict[str, dict[str, Way]] = {
    "cheap": {"record_search": recorded(), "mlflow.sklearn.autolog()": autologged},
    "keras": {
        "record_search": recorded(),
        "record_search, reuse=False": recorded(reuse=False),
        "mlflow.sklearn.autolog()": autologged,
    },
}


class Spent(NamedTuple):
    """Seconds by the clock and of the processor, and the search with its results."""

    wall: float
    cpu: float
    search: GridSearchCV


def spend(make: Callable[[], tuple[GridSearchCV, np.ndarray, np.ndarray]], way: Way | None) -> Spent:
    search, x, y = make()
    cpu, began = time.process_time(), time.perf_counter()
    with way(search) if way else contextlib.nullcontext():
        search.fit(x, y)
    return Spent(time.perf_counter() - began, time.process_time() - cpu, search)


def measure(case: str, repetitions: int) -> None:
    """Print the table of one case."""
    make = {"cheap": cheap, "keras": network}[case]
    ways: dict[str, Way | None] = {"bare search": None, **WAYS[case]}
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    for repetition in tqdm(range(-1, repetitions), desc=case):  # the first warms up and is not counted
        for name, way in ways.items():
            once = spend(make, way)
            if repetition >= 0:
                spent[name].append(once)
    bare = spent["bare search"]
    n = len(bare[0].search.cv_results_["params"])
    print(f"\n({case}) {n} combinations x 3 folds, {repetitions} repetitions; medians, ratios with (min to max)\n")
    print(
        "| way | wall, s | wall over bare | CPU over bare | added ms per combination | split scores |\n"
        + "|---" * 6
        + "|"
    )
    for name, found in spent.items():
        wall, cpu = ([a[i] / b[i] for a, b in zip(found, bare, strict=True)] for i in (0, 1))
        added = np.median([(a.wall - b.wall) / n * 1000 for a, b in zip(found, bare, strict=True)])
        same = all(equal(a.search.cv_results_, b.search.cv_results_) for a, b in zip(found, bare, strict=True))
        seconds = np.median([each.wall for each in found])
        told = f"{seconds:.2f} | {spread(wall)} | {spread(cpu)} | {added:.0f} | {'equal' if same else 'DIFFER'}"
        print(f"| {name} | {told} |")
    print(flush=True)


def spread(values: list[float]) -> str:
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def equal(found: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.array_equal(found[key], other[key]) for key in other if "_test_" in key)


def vectorised(repetitions: int) -> None:
    """Print the table of the vectorised engine: digits MLP, 12 combinations x 3 folds x 10 epochs."""

    def make() -> tuple[GridSearchCV, np.ndarray, np.ndarray]:
        return network(12)

    ways: dict[str, Way | None] = {
        "GridSearchCV": None,
        "record_search": recorded(),
        "vectorised, refit_top=3": recorded(engine="vectorised"),
        "vectorised, refit_top=0": recorded(engine="vectorised", refit_top=0),
    }
    spend(lambda: network(1, 1), None)
    print("| way | wall, s | CPU, s | GridSearchCV's wall over it | best combination |\n" + "|---" * 5 + "|")
    for _ in range(repetitions):
        bare = None
        for name, way in ways.items():
            once = spend(make, way)
            bare = bare or once.wall
            best = once.search.cv_results_["params"][int(np.argmax(once.search.cv_results_["mean_test_score"]))]
            cells = f"{once.wall:.1f} | {once.cpu:.1f} | {bare / once.wall:.1f} | {next(iter(best.values())):.3g}"
            print(f"| {name} | {cells} |", flush=True)
    print()


def agreement(n_seeds: int = 20) -> None:
    """Print in how many seeds a vectorised search has the best combination of the plain one, or one tied with it."""
    from mlflow_hp.analysis import from_cv_results
    from mlflow_hp.analysis.significance import winner

    same = tied = 0
    for seed in tqdm(range(n_seeds), desc="agreement"):

        def make(seed: int = seed) -> tuple[GridSearchCV, np.ndarray, np.ndarray]:
            search, x, y = network(6, 5)
            search.estimator.set_params(random_state=seed)
            return search, x, y

        plain = spend(make, recorded()).search.cv_results_
        other = spend(make, recorded(engine="vectorised")).search.cv_results_
        best = int(np.argmax(other["mean_test_score"]))
        found = winner(from_cv_results(plain))
        assert found is not None
        same += best == found.best
        tied += bool(found.tied[best])
    print(f"of {n_seeds} seeds, the same best combination in {same}, one not told from it in {tied}\n", flush=True)


def halving(repetitions: int) -> None:
    """Print the table of halving searches over epochs: what they train, and what they find, beside a grid search."""
    import keras
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import HalvingGridSearchCV

    n_epochs = 0

    class Counter(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            nonlocal n_epochs
            n_epochs += 1

    def counted(way: Way | None) -> Way:
        @contextlib.contextmanager
        def around(search: Any) -> Any:
            fit = keras.Model.fit

            def fit_counted(self: Any, *arguments: Any, callbacks: Any = (), **named: Any) -> Any:
                return fit(self, *arguments, callbacks=[*(callbacks or ()), Counter()], **named)

            keras.Model.fit = fit_counted
            try:
                with way(search) if way else contextlib.nullcontext():
                    yield
            finally:
                keras.Model.fit = fit

        return around

    def make(seed: int, *, is_halving: bool) -> tuple[Any, np.ndarray, np.ndarray]:
        search, x, y = network(9, 18)
        search.estimator.set_params(random_state=seed)
        if is_halving:
            settings = {"resource": "epochs", "min_resources": 2, "max_resources": 18, "factor": 3, "random_state": 0}
            search = HalvingGridSearchCV(search.estimator, search.param_grid, cv=3, refit=False, **settings)
        return search, x, y

    ways: dict[str, tuple[bool, Way | None]] = {
        "grid search, 18 epochs": (False, None),
        "halving": (True, None),
        "halving, recorded, share_epochs=False": (True, recorded(share_epochs=False)),
        "halving, recorded": (True, recorded()),
    }
    spend(lambda: network(1, 1), None)
    print("| seed | way | epochs | wall, s | CPU, s | best combination | its score |\n" + "|---" * 7 + "|")
    for seed in range(repetitions):
        for name, (is_halving, way) in ways.items():
            n_epochs = 0
            once = spend(functools.partial(make, seed, is_halving=is_halving), counted(way))
            results = once.search.cv_results_
            last = np.flatnonzero(results.get("iter", np.zeros(9)) == np.max(results.get("iter", 0)))
            best = last[int(np.argmax(results["mean_test_score"][last]))]
            found = f"{results['param_model__learning_rate'][best]:.3g} | {results['mean_test_score'][best]:.4f}"
            print(f"| {seed} | {name} | {n_epochs} | {once.wall:.1f} | {once.cpu:.1f} | {found} |", flush=True)
    print()


def atlas() -> None:
    """Print the time of an atlas of 2,000 descents of a 64-64 MLP on digits."""
    import keras

    def build_deep() -> Any:
        layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(64, "relu"), keras.layers.Dense(10, "softmax")]
        model = keras.Sequential([keras.Input((64,)), *layers])
        model.compile(keras.optimizers.SGD(), "sparse_categorical_crossentropy")
        return model

    x, y = load_digits(return_X_y=True)
    axes = {
        "learning_rate": np.geomspace(1e-3, 10, 40).tolist(),
        "batch_size": [8, 13, 20, 32, 51, 81, 128, 203, 323, 512],
    }
    cpu, began = time.process_time(), time.perf_counter()
    mlflow_hp.atlas(build_deep, x / 16, y, axes, seeds=5, epochs=10)
    seconds = time.perf_counter() - began
    print(f"atlas of 2,000 descents: {seconds:.0f} s, CPU {time.process_time() - cpu:.0f} s\n", flush=True)


def tasks() -> None:
    """Print what recording adds to searches of more and more fits."""
    x, y = load_iris(return_X_y=True)
    print("| fits | bare, s | recorded, s | added ms per fit |\n|---|---|---|---|")
    for n in (300, 1000, 3000):

        def make(n: int = n) -> tuple[GridSearchCV, np.ndarray, np.ndarray]:
            return GridSearchCV(Nothing(), {"x": list(range(n // 2))}, cv=2), x, y

        bare, ours = spend(make, None).wall, spend(make, recorded()).wall
        print(f"| {n:,} | {bare:.1f} | {ours:.1f} | {(ours - bare) / n * 1000:.1f} |", flush=True)
    print()


def resident_memory(way: Way | None) -> None:
    """Print by how many MiB a fit this process grows, after a first search."""
    import psutil

    spend(lambda: network(1, 1), way)
    before = psutil.Process().memory_info().rss
    spend(lambda: network(MEMORY_FITS // 3, 2), way)
    print(f"{(psutil.Process().memory_info().rss - before) / 2**20 / MEMORY_FITS:.2f}")


def memory() -> None:
    """Print the growth of memory, each way in a process of its own."""
    for name in ("bare search", *WAYS["keras"]):
        command = [sys.executable, __file__, "--memory-of", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"{name}: {done.stdout.split()[-1]} MiB a fit over {MEMORY_FITS} fits", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--cases", nargs="*", default=CASES)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
        mlflow.MlflowClient().create_experiment("benchmark", artifact_location=(folder / "artifacts").as_uri())
        mlflow.set_experiment("benchmark")
        if arguments.memory_of is not None:
            resident_memory({"bare search": None, **WAYS["keras"]}[arguments.memory_of])
            return
        for case in arguments.cases:
            others = {"tasks": tasks, "memory": memory, "prune": prune, "agreement": agreement, "atlas": atlas}
            others["vectorised"] = lambda: vectorised(arguments.repetitions)
            others["halving"] = lambda: halving(arguments.repetitions)
            others.get(case, lambda case=case: measure(case, arguments.repetitions))()


if __name__ == "__main__":
    main()
