"""Faults, for real: what is lost, wrong or left open when processes and servers are killed.

    python benchmarks/faults.py [--cases kill search server away crowd long] [--kills 50] [--postgres URI]

(kill) trainings killed with -9 at random moments, each recovered: steps on disk against steps done, points that differ
from the training's own, runs left RUNNING; (search) a search over two processes killed with -9 and resumed, its
results beside those of the search alone; (server) one training while the tracking server is killed and started again
three times, then its database can't be reached, then it answers 500, then hangs; (away) a search while the server is
away for a minute; (crowd) eight trainings and a search at once into one server, then eight
trainings at once into one SQLite file; (long) a million steps of the Dense(1) model: memory, and the history.
With --postgres, a database that may be overwritten, the server keeps its runs there; else in a SQLite file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import mlflow
import numpy as np
from servers import Line, Proxy, Server

EXPERIMENT = "faults"


def train(uri: str, told: str, n_steps: int, pause: float, run_name: str = "training") -> None:
    """Train and record; at each step, tell in a file how many are done and the loss as Keras has it."""
    import keras

    import mlflow_hp

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(EXPERIMENT)
    x = np.random.default_rng(0).normal(size=(1600, 1)).astype("float32")

    class Tell(keras.callbacks.Callback):
        n = 0

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            self.n += 1
            draft = Path(f"{told}.part")
            draft.write_text(f"{self.n} {time.time()}\n")
            draft.replace(told)  # at once: a kill leaves a whole file
            time.sleep(pause)

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.RMSprop(0.01), "mse")
    with mlflow.start_run(run_name=run_name) as run:
        print(run.info.run_id, flush=True)
        recorder = mlflow_hp.TrainingRecorder(report=False)
        callbacks = [recorder, Tell()] if told else [recorder]
        model.fit(x, 2 * x, batch_size=10, epochs=n_steps // 160, verbose=0, callbacks=callbacks)


def start(*arguments: object) -> tuple[subprocess.Popen[str], str]:
    """A process of this program that trains, and the id of its run."""
    command = [sys.executable, __file__, "--train", json.dumps(arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def progress(path: Path) -> tuple[int, float]:
    """Steps done, and when the last was."""
    for _ in range(100):
        with contextlib.suppress(OSError, ValueError):
            n, at = path.read_text().split()
            return int(n), float(at)
        time.sleep(0.01)
    return 0, time.time()


def points_of(run_id: str, name: str) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for metric in mlflow.MlflowClient().get_metric_history(run_id, name):
        found.setdefault(metric.step, []).append(metric.value)
    return found


def wrong_points(run_id: str) -> int:
    """Metric points that are missing, doubled, or other than in the history."""
    import mlflow_hp

    history = mlflow_hp.load_history(run_id)
    wrong = 0
    for name, expected in (
        ("batch/loss", history.steps["batch_loss"]),
        ("weights/dense/kernel", history.weights("dense/kernel")[1:, 0, 0]),
    ):
        found = points_of(run_id, name)
        wrong += sum(found.get(step) != [float(value)] for step, value in enumerate(expected))
        wrong += len(found.keys() - range(len(expected)))
    return wrong


def running() -> int:
    """How many runs are RUNNING."""
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return len(client.search_runs([experiment.experiment_id], "attributes.status = 'RUNNING'"))


def kill(folder: Path, kills: int) -> None:
    """Kill trainings at random moments, and recover each."""
    from mlflow_hp.recovery import left_behind, recover

    mlflow.set_tracking_uri(f"sqlite:///{folder}/kill.db")
    mlflow.set_experiment(EXPERIMENT)
    chance, lost, seconds, wrong, different, n_steps = np.random.default_rng(0), 0, list[float](), 0, 0, 0
    reference: np.ndarray | None = None
    for _ in range(kills):
        told = folder / "told"
        told.unlink(missing_ok=True)
        process, run_id = start(mlflow.get_tracking_uri(), str(told), 160_000, 0.002)
        time.sleep(chance.uniform(0.5, 9))
        process.kill()
        process.communicate()
        done, at = progress(told) if told.exists() else (0, 0.0)
        for left in left_behind():
            recover(left)
        run = mlflow.get_run(run_id)
        recovered = int(run.data.tags.get("mlflow_hp.steps", 0))
        lost, n_steps = lost + done - recovered, n_steps + done
        if recovered:
            import mlflow_hp

            history = mlflow_hp.load_history(run_id)
            seconds.append(max(0.0, at - float(history.steps["time"][-1])))
            wrong += wrong_points(run_id)
            losses = history.steps["batch_loss"]
            if reference is not None:  # the same seed: the same training as far as both go
                n = min(len(reference), len(losses))
                different += int((reference[:n] != losses[:n]).sum())
            reference = losses if reference is None or len(losses) > len(reference) else reference
    print("| kills | steps done | steps lost | most seconds lost | points wrong | steps that differ | left RUNNING |")
    print("|---|---|---|---|---|---|---|")
    most = max(seconds, default=0.0)
    print(f"| {kills} | {n_steps:,} | {lost:,} | {most:.2f} | {wrong} | {different} | {running()} |\n", flush=True)


SEARCH = """
import os, sys, time
import mlflow, mlflow_hp, numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GridSearchCV


class Slow(RandomForestClassifier):
    def fit(self, x, y):
        time.sleep(pause)
        return super().fit(x, y)


uri, how, results = sys.argv[1:4]
n_combinations, pause, n_jobs = int(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6])
mlflow.set_tracking_uri(uri); mlflow.set_experiment("faults")
grid = {"random_state": list(range(n_combinations))}
search = GridSearchCV(Slow(n_estimators=5), grid, cv=3, n_jobs=n_jobs, refit=False)
if how == "alone":
    search.fit(*load_digits(return_X_y=True))
else:
    with mlflow_hp.record_search(search, progress=False, report=False, resume=how == "resume") as recording:
        print(recording.run_id, flush=True)
        search.fit(*load_digits(return_X_y=True))
np.save(results, np.array([v for k, v in sorted(search.cv_results_.items()) if "test_score" in k]))
"""


COMBINATIONS_PER_KILL = 6
"""So many that a killed search has something left to do."""


def search(folder: Path, kills: int) -> None:
    """Kill a search over two processes, again and again; compare its results with those of one left alone."""
    uri = f"sqlite:///{folder}/search.db"
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(EXPERIMENT)
    chance = np.random.default_rng(1)
    n = COMBINATIONS_PER_KILL * kills
    command = [sys.executable, "-W", "ignore", "-c", SEARCH, uri]
    work = [str(n), "0.5", "2"]
    subprocess.run([*command, "alone", str(folder / "alone.npy"), *work], check=True)
    killed, status = 0, None
    while status != 0:
        process = subprocess.Popen([*command, "resume", str(folder / "resumed.npy"), *work], stdout=subprocess.DEVNULL)
        try:
            status = process.wait(chance.uniform(6, 12) if killed < kills else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    same = np.array_equal(np.load(folder / "alone.npy"), np.load(folder / "resumed.npy"))
    found: Any = mlflow.search_runs(search_all_experiments=True, output_format="list")
    children = [run for run in found if run.data.tags.get("mlflow_hp.kind") == "candidate"]
    print("| search killed | results equal to those of the search alone | combinations | their runs | left RUNNING |")
    print("|---|---|---|---|---|")
    print(f"| {killed} times | {'yes' if same else 'NO'} | {n} | {len(children)} | {running()} |\n", flush=True)


def by_line(store: str) -> tuple[Line, str]:
    """A line to a database, and the URI of the database at the end of that line."""
    import sqlalchemy

    url = sqlalchemy.make_url(store)
    line = Line((url.host or "127.0.0.1", url.port or 5432))
    return line, url.set(host="127.0.0.1", port=line.port).render_as_string(hide_password=False)


def server(folder: Path, store: str | None, restart: str | None) -> None:
    """One training while its server dies and comes back, loses its database, fails and hangs."""
    line = None
    if store is not None:
        line, store = by_line(store)
    served = Server(folder, store)
    served.start()
    proxy = Proxy(served.uri)
    mlflow.set_tracking_uri(proxy.uri)
    mlflow.set_experiment(EXPERIMENT)
    told = folder / "told"
    told.unlink(missing_ok=True)
    process, run_id = start(proxy.uri, str(told), 32_000, 0.001)
    speeds: dict[str, list[float]] = {"there": [], "away": []}

    def watch(kind: str, seconds: float) -> None:
        before, began = progress(told)[0], time.monotonic()
        time.sleep(seconds)
        speeds[kind].append((progress(told)[0] - before) / (time.monotonic() - began))

    while not told.exists() and process.poll() is None:
        time.sleep(0.1)
    for _ in range(3):
        watch("there", 5)
        served.kill()
        watch("away", 5)
        served.start()
    if line is not None:
        watch("there", 5)
        line.cut()
        watch("away", 5)
        line.mend()
    if restart is not None:
        watch("there", 5)
        subprocess.run(shlex.split(restart), check=True)
        watch("away", 5)
    for mood in ("fails", "hangs"):
        watch("there", 5)
        proxy.mood = mood
        watch("away", 5)
        proxy.mood = "well"
    still = process.poll() is None
    _, errors = process.communicate(timeout=600)
    warned = sum("does not take what is recorded" in line for line in errors.splitlines() if "mlflow_hp:" in line)
    done = progress(told)[0]
    steps = points_of(run_id, "batch/loss")
    print("| server killed | then | steps done | steps in MLflow | points wrong | warnings | steps/s there | away |")
    print("|---|---|---|---|---|---|---|---|")
    there, away = (f"{np.median(speeds[kind]):.0f}" for kind in ("there", "away"))
    faults = ["database cut off"] * (line is not None) + ["database restarted"] * (restart is not None)
    then = ", ".join([*faults, "answers 500", "hangs" if still else "hangs (after the training)"])
    told_so = f"| 3 times | {then} | {done:,} | {len(steps):,} | {wrong_points(run_id)} | {warned}"
    print(f"{told_so} | {there} | {away} |\n", flush=True)
    served.kill()


def away(folder: Path, store: str | None) -> None:
    """A search while its server is away for a minute."""
    served = Server(folder, store)
    served.start()
    mlflow.set_tracking_uri(served.uri)
    mlflow.set_experiment(EXPERIMENT)
    command = [sys.executable, "-W", "ignore", "-c", SEARCH, served.uri]
    subprocess.run([*command, "alone", str(folder / "alone.npy"), "16", "0", "2"], check=True)
    command = [sys.executable, "-c", SEARCH, served.uri, "new", str(folder / "away.npy"), "16", "2", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    run_id = process.stdout.readline().strip()
    time.sleep(10)
    served.kill()
    began = time.monotonic()
    time.sleep(60)
    still = process.poll() is None
    served.start()
    seconds = time.monotonic() - began
    _, errors = process.communicate(timeout=600)
    same = np.array_equal(np.load(folder / "alone.npy"), np.load(folder / "away.npy"))
    client = mlflow.MlflowClient()
    found = client.search_runs([client.get_run(run_id).info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    folds = [len(client.get_metric_history(run.info.run_id, "score")) for run in found]
    print("| server away in a search | results equal | combinations | their runs | folds | recorded | warnings |")
    print("|---|---|---|---|---|---|---|")
    told = f"| {seconds:.0f} s{'' if still else ' (it had ended)'} | {'yes' if same else 'NO'} | 16 | {len(found)}"
    print(f"{told} | 48 | {sum(folds)} | {errors.count('mlflow_hp: ')} |\n", flush=True)
    served.kill()


def crowd(folder: Path, store: str | None) -> None:
    """Eight trainings at once, with a search into one server, and without into one SQLite file."""
    served = Server(folder, store and f"{store}")
    served.start()
    print("| at once | into | steps done | steps in MLflow | points wrong | 'database is locked' | left RUNNING | s |")
    print("|---|---|---|---|---|---|---|---|")
    for uri, into in ((served.uri, "a server"), (f"sqlite:///{folder}/crowd.db", "a SQLite file")):
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(EXPERIMENT)
        began = time.monotonic()
        trainings = [start(uri, "", 3200, 0.0) for _ in range(8)]
        if into == "a server":
            command = [
                sys.executable,
                "-W",
                "ignore",
                "-c",
                SEARCH,
                uri,
                "new",
                str(folder / "crowd.npy"),
                "16",
                "0.2",
                "2",
            ]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        locked = 0
        for process, _ in trainings:
            _, errors = process.communicate(timeout=900)
            locked += "database is locked" in errors
        seconds = time.monotonic() - began
        steps = sum(len(points_of(run_id, "batch/loss")) for _, run_id in trainings)
        wrong = sum(wrong_points(run_id) for _, run_id in trainings)
        told = f"| 8 trainings{' and a search' if into == 'a server' else ''} | {into} | {8 * 3200:,} | {steps:,}"
        print(f"{told} | {wrong} | {locked} | {running()} | {seconds:.0f} |", flush=True)
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
    print("| steps | MiB after each tenth | history whole | s |\n|---|---|---|---|")
    print(
        f"| {history.n_steps:,} | {' '.join(f'{m:.0f}' for m in seen)} | {'yes' if whole else 'NO'} | {seconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", nargs="*", default=["kill", "search", "server", "away", "crowd", "long"])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--postgres", help="postgresql://...: a database that may be overwritten")
    parser.add_argument("--restart", help="a command that restarts PostgreSQL itself, for the case `server`")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.train:
        train(*json.loads(arguments.train))
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.chdir(folder)
        os.environ["MLFLOW_HP_FOLDER"] = str(folder / "on-its-way")
        for case in arguments.cases:
            {
                "kill": lambda: kill(folder, arguments.kills),
                "search": lambda: search(folder, arguments.kills),
                "server": lambda: server(folder, arguments.postgres, arguments.restart),
                "away": lambda: away(folder, arguments.postgres),
                "crowd": lambda: crowd(folder, arguments.postgres),
                "long": lambda: long(folder),
            }[case]()


if __name__ == "__main__":
    main()
