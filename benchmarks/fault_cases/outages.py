"""Servers that go away, fail, refuse and hang while something is recorded, or when it ends."""

from __future__ import annotations

import contextlib
import shlex
import subprocess
import time
from typing import TYPE_CHECKING

import mlflow
import numpy as np

from benchmarks.fault_cases.search import search_command
from benchmarks.fault_cases.training import (
    EXPERIMENT,
    Training,
    left_behind,
    record_of,
    recover,
    running,
    show,
    show_row,
)
from mlflow_hp.tracking.tags import PARENT_TAG
from tests.helpers.cut_line import Line
from tests.helpers.failing_proxy import ANSWERS, Proxy
from tests.helpers.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

SECONDS = 5.0
"""How long a fault lasts, and how long the server is well in front of it."""

AT_THE_END = ["403", "404", "fails", "302 to a login", "HTML", "gone", "hangs", "api hangs", "slow", "run deleted"]
"""Faults that begin before the end of a fit, and go on."""


def by_line(store: str) -> tuple[Line, str]:
    """A line to a database, and the URI of the database at the end of that line."""
    import sqlalchemy

    url = sqlalchemy.make_url(store)
    line = Line((url.host or "127.0.0.1", url.port or 5432))
    return line, url.set(host="127.0.0.1", port=line.port).render_as_string(hide_password=False)


class Served:
    """A server behind a proxy, which is MLflow's store, and all that may happen to it.

    Attributes
    ----------
    faults : dict of str to callable
        By name; each gives a context in which it is in force.
    """

    def __init__(self, folder: Path, store: str | None, restart: str | None = None) -> None:
        self._folder = folder
        self._line = None
        if store is not None:
            self._line, store = by_line(store)
        self._server = Server(folder, store)
        self._server.start()
        self._proxy = Proxy(self._server.uri)
        mlflow.set_tracking_uri(self._proxy.uri)
        mlflow.set_experiment(EXPERIMENT)
        self.run_id = ""
        moods = [*ANSWERS, "gone", "hangs", "api hangs", "forgets", "slow"]
        self.faults: dict[str, Callable[[], AbstractContextManager[None]]] = {
            **{mood: lambda mood=mood: self._mood(mood) for mood in moods},  # type: ignore[misc]
            "server killed": self._killed,
            "run deleted": self._deleted,
        }
        if store is None:
            self.faults["server lacks the run"] = self._lacks
        if self._line is not None:
            self.faults["database cut off"] = self._cut
        if restart is not None:
            self.faults["database restarted"] = lambda: self._restarted(restart)

    def close(self) -> None:
        """End it."""
        self._proxy.close()
        self._server.kill()

    @contextlib.contextmanager
    def _mood(self, mood: str) -> Iterator[None]:
        self._proxy.mood = mood
        yield
        self._proxy.mood = "well"

    @contextlib.contextmanager
    def _killed(self) -> Iterator[None]:
        self._server.kill()
        yield
        self._server.start()

    @contextlib.contextmanager
    def _deleted(self) -> Iterator[None]:
        mlflow.MlflowClient(self._server.uri).delete_run(self.run_id)
        yield
        mlflow.MlflowClient(self._server.uri).restore_run(self.run_id)

    @contextlib.contextmanager
    def _lacks(self) -> Iterator[None]:
        """A server with an empty database, until the true one is restored."""
        database, aside = self._folder / "server.db", self._folder / "server.db.aside"
        self._server.kill()
        database.rename(aside)
        self._server.start()
        yield
        self._server.kill()
        aside.replace(database)
        self._server.start()

    @contextlib.contextmanager
    def _cut(self) -> Iterator[None]:
        assert self._line is not None
        self._line.cut()
        yield
        self._line.mend()

    @contextlib.contextmanager
    def _restarted(self, command: str) -> Iterator[None]:
        subprocess.run(shlex.split(command), check=True)
        yield


def server(folder: Path, store: str | None, restart: str | None) -> None:
    """One training, to whose server all faults happen, one after the other."""
    served = Served(folder, store, restart)
    training = Training(folder, 16_000_000, 0.001)
    served.run_id = training.run_id
    training.wait_for_steps(1)
    speeds: Mapping[str, list[float]] = {"well": [], "faulty": []}

    def watch(kind: str) -> None:
        before, began = training.n_steps, time.monotonic()
        time.sleep(SECONDS)
        speeds[kind].append((training.n_steps - before) / (time.monotonic() - began))

    for fault in served.faults.values():
        watch("well")
        with fault():
            watch("faulty")
    watch("well")
    training.stop()
    errors = training.wait()
    warned = sum("mlflow_hp: " in line for line in errors.splitlines())
    end, done = training.end_seconds, training.n_steps
    recover()
    record = record_of(training.run_id)
    print(f"{len(served.faults)} faults in one training: {', '.join(served.faults)}\n")
    head = ["faults", "steps done", "lost", "wrong", "left RUNNING", "left behind", "end of the fit, s", "warnings"]
    row = [
        len(served.faults),
        done,
        done - record.n_steps,
        record.n_wrong,
        running(),
        left_behind(),
        f"{end:.1f}",
        warned,
    ]
    medians = [f"{np.median(speeds[kind]):.0f}" for kind in speeds]
    show([*head, *(f"steps/s, {kind}" for kind in speeds)], [[*row, *medians]])
    served.close()


def end(folder: Path, store: str | None) -> None:
    """Trainings that end while their server is at fault; it is well again when `mlflow-hp recover` is called."""
    served = Served(folder, store)
    show(
        ["at the end of a fit", "it waited, s", "steps done", "lost", "wrong", "status", "left RUNNING", "left behind"]
    )
    for name in AT_THE_END:
        training = Training(folder, 16_000_000, 0.002)
        served.run_id = training.run_id
        training.wait_for_steps(500)
        with served.faults[name]():
            training.wait_for_steps(300)
            training.stop()
        training.wait()  # MLflow itself waits in `end_run` for minutes: that is not ours to measure
        recover()
        record, status = record_of(training.run_id), mlflow.get_run(training.run_id).info.status
        done = training.n_steps
        row = [name, f"{training.end_seconds:.1f}", done, done - record.n_steps, record.n_wrong, status]
        show_row([*row, running(), left_behind()])
    print()
    served.close()


def away(folder: Path, store: str | None) -> None:
    """A search while its server is away for a minute."""
    served = Server(folder, store)
    served.start()
    mlflow.set_tracking_uri(served.uri)
    mlflow.set_experiment(EXPERIMENT)
    subprocess.run(search_command(served.uri, "alone", folder / "alone.npy", 16, 0, 2), check=True)
    command = search_command(served.uri, "new", folder / "away.npy", 16, 2, 1, warnings="default")
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
    recover()
    same = np.array_equal(np.load(folder / "alone.npy"), np.load(folder / "away.npy"))
    client = mlflow.MlflowClient()
    runs = client.search_runs([client.get_run(run_id).info.experiment_id], f"tags.`{PARENT_TAG}` = '{run_id}'")
    folds = sum(len(client.get_metric_history(run.info.run_id, "score")) for run in runs)
    head = ["server away in a search", "results equal", "combinations", "their runs", "folds", "recorded", "warnings"]
    when = f"{seconds:.0f} s{'' if still else ' (it had ended)'}"
    show(head, [[when, "yes" if same else "NO", 16, len(runs), 48, folds, errors.count("mlflow_hp: ")]])
    served.kill()
