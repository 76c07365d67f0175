"""Searches whose process or worker was killed: they are resumed, and their runs are ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import mlflow
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

import mlflow_hp
from mlflow_hp.tracking import process_identity
from mlflow_hp.tracking.tags import FOLD_TAG_PREFIX, PROCESS_TAG
from tests.helpers.counted_fits import Stops, interrupted
from tests.helpers.forked_python import python, wait_for_end
from tests.helpers.searches import LOKY, Picky, X, Y, children, found, nothing_runs, record
from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.usefixtures("store", "new_experiment"), pytest.mark.filterwarnings(LOKY)]


PROGRAM = """
import os, sys
sys.path[:0] = {paths!r}
import mlflow, numpy as np
from scipy.stats import loguniform
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
import mlflow_hp
from mlflow_hp.tracking import process_identity as process
from mlflow_hp.delivery import search_sender as writer
writer.EVERY_SECONDS = 0.1

n_fits = 0

class Stops(LogisticRegression):
    def fit(self, x, y, sample_weight=None):
        global n_fits
        n_fits += 1
        print("fit", flush=True)
        if n_fits == 6 and os.path.exists("stop"):
            sys.stdin.read()
        return super().fit(x, y, sample_weight)

rng = np.random.default_rng(0)
x = rng.normal(size=(90, 3)); y = (x[:, 0] + rng.normal(size=90) > 0).astype(int)
search = {{
    "grid": GridSearchCV(Stops(), {{"C": [0.001, 0.1, 10.0]}}, cv=3),
    "adaptive": mlflow_hp.AdaptiveSearchCV(Stops(), {{"C": loguniform(1e-3, 10)}}, n_iter=3, cv=3, random_state=0),
}}[sys.argv[2]]
if sys.argv[1] == "bare":
    search.fit(x, y)
else:
    with mlflow_hp.record_search(search, resume=sys.argv[1] == "resume", progress=False, report=False) as recording:
        search.fit(x, y)
print({{k: np.asarray(v).tolist() for k, v in search.cv_results_.items() if not k.endswith("_time")}})
"""


def program(tmp_path, store, kind):
    """What starts a program with a search of nine fits; with a file `stop`, the sixth stops until the input ends."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(paths=[str(Path(mlflow_hp.__file__).parents[1])]))
    experiment = store.search_experiments(max_results=1, order_by=["creation_time DESC"])[0]
    environment = {
        **os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "MLFLOW_EXPERIMENT_ID": experiment.experiment_id,
    }  # fmt: skip

    def start(how):
        return subprocess.Popen(
            [python(), str(script), how, kind],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path,
        )  # fmt: skip

    return start, experiment.experiment_id


def lines(running):
    out, _ = running.communicate()
    assert running.returncode == 0
    return out.splitlines()


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["grid", "adaptive"])
def test_a_killed_process(store, tmp_path, kind):
    start, experiment_id = program(tmp_path, store, kind)
    (tmp_path / "stop").touch()
    running = start("record")

    def n_kept():
        runs = store.search_runs([experiment_id])
        return sum(name.startswith(FOLD_TAG_PREFIX) for run in runs for name in run.data.tags)

    wait_for(lambda: n_kept() == 5)
    running.kill()
    wait_for_end(running)
    running.communicate()
    parent, *_ = store.search_runs([experiment_id], order_by=["attributes.start_time ASC"])
    assert parent.info.status == "RUNNING"
    (tmp_path / "stop").unlink()
    resumed = lines(start("resume"))
    assert resumed.count("fit") == 9 - 5 + 1
    assert resumed[-1] == lines(start("bare"))[-1]
    assert store.get_run(parent.info.run_id).info.status == "FINISHED"
    assert len(children(store, parent.info.run_id)) == 3
    assert {run.info.status for run in children(store, parent.info.run_id)} == {"FINISHED"}
    assert len(store.search_runs([experiment_id])) == 4


@pytest.mark.thorough
def test_a_killed_worker(store, fits):
    search = GridSearchCV(
        Stops(folder=fits.folder, how="kill"), {"C": [0.01, 0.1, 1.0, 10.0]}, cv=3, n_jobs=2, pre_dispatch=2
    )
    fits.stop_at(7)
    run_id = interrupted(search, raises=BrokenProcessPool)
    assert nothing_runs(store, run_id)
    kept = sum(name.startswith(FOLD_TAG_PREFIX) for run in children(store, run_id) for name in run.data.tags)
    assert kept > 0
    fits.stop_at(-1)
    n, again = fits.n, clone(search)
    record(again, resume=True)
    assert fits.n == n + 12 - kept + 1
    assert found(again) == found(clone(search).fit(X, Y))
    assert len(children(store, run_id)) == 4
    assert {run.info.status for run in children(store, run_id)} == {"FINISHED"}


def dead_process():
    """The tag of a process of this host that has ended."""
    begins = f"import sys; sys.path[:0] = {sys.path!r}\n"
    program = f"{begins}from mlflow_hp.tracking.process_identity import *; print(this_process())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_a_new_search_closes_what_dead_processes_left(store):
    dead, elsewhere = dead_process(), json.dumps({"host": "another", "pid": 1, "started": "then"})
    left = {}
    experiment_id = mlflow.tracking.fluent._get_experiment_id()
    for name, tag in (("dead", dead), ("alive", process_identity.this_process()), ("elsewhere", elsewhere)):
        parent = store.create_run(experiment_id, tags={PROCESS_TAG: tag}).info.run_id
        below = store.create_run(experiment_id, tags={"mlflow.parentRunId": parent}).info.run_id
        fold = store.create_run(experiment_id, tags={"mlflow.parentRunId": below}).info.run_id
        left[name] = (parent, below, fold)
    record(GridSearchCV(Picky(), {"strength": [0]}, cv=2))
    states = {name: {store.get_run(run).info.status for run in runs} for name, runs in left.items()}
    assert states == {"dead": {"KILLED"}, "alive": {"RUNNING"}, "elsewhere": {"RUNNING"}}
