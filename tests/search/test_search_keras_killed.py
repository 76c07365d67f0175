"""Searches of Keras models whose process was killed, in each engine: they are resumed to the same result."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import mlflow
import pytest

import mlflow_hp
from tests.helpers.forked_python import python, wait_for_end
from tests.helpers.search_faults import search_folders
from tests.helpers.searches import children, nothing_runs

pytestmark = [pytest.mark.usefixtures("store", "new_experiment"), pytest.mark.slow]

PROGRAM = """
import os, signal, sys
sys.path[:0] = {paths!r}
import mlflow, mlflow_hp
from scikeras.wrappers import KerasClassifier
from sklearn.experimental import enable_halving_search_cv
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV
from mlflow_hp.delivery import search_sender
from tests.helpers.keras_searches import X, Y, small
search_sender.EVERY_SECONDS = 0.1

class Scorer:
    n = 0

    def __call__(self, estimator, x, y):
        Scorer.n += 1
        if Scorer.n == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return estimator.score(x, y)

network = KerasClassifier(small, epochs=2, batch_size=50, verbose=0, random_state=7)
settings = {{"cv": 2, "refit": False, "scoring": Scorer()}}
rates = {{"model__learning_rate": [0.001, 0.03, 0.1, 0.3]}}
how, kind = sys.argv[1], sys.argv[3]
halved = {{"resource": "epochs", "factor": 2, "min_resources": 1, "max_resources": 2, "random_state": 0}}
if kind == "halving":
    search = HalvingGridSearchCV(network, rates, return_train_score=False, **halved, **settings)
else:
    search = GridSearchCV(network, rates, **settings)
more = {{"engine": "vectorised", "refit_top": 2}} if kind == "vectorised" else {{}}
with mlflow_hp.record_search(search, resume=how == "resume", progress=False, report=False, **more) as recording:
    print(recording.run_id, flush=True)
    search.fit(X, Y)
print({{k: [repr(each) for each in v] for k, v in search.cv_results_.items() if not k.endswith("_time")}})
"""


def result(tmp_path, how, dies_at, kind):
    """Exit status of a program with a search, which dies in the scorer's call of a number, and the lines it printed."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(paths=[str(Path(mlflow_hp.__file__).parents[1])]))
    environment = {
        **os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
        "MLFLOW_EXPERIMENT_ID": mlflow.tracking.fluent._get_experiment_id(),
    }  # fmt: skip
    running = subprocess.Popen(
        [python(), str(script), how, str(dies_at), kind],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=tmp_path,
    )  # fmt: skip
    out = running.stdout.read()
    wait_for_end(running)
    running.communicate()
    return running.returncode, out.splitlines()


@pytest.mark.sampled(2)
@pytest.mark.parametrize(("kind", "dies_at"), [("vectorised", 10), ("halving", 10)])
def test_a_killed_search_is_resumed_to_the_same_result(store, tmp_path, kind, dies_at):
    status, (run_id,) = result(tmp_path, "record", dies_at, kind)
    assert status == -signal.SIGKILL
    assert store.get_run(run_id).info.status == "RUNNING"
    status, (resumed_id, resumed) = result(tmp_path, "resume", 0, kind)
    assert (status, resumed_id) == (0, run_id)
    status, (_, whole) = result(tmp_path, "record", 0, kind)
    assert resumed == whole
    assert {run.info.status for run in children(store, run_id)} == {"FINISHED"}
    assert nothing_runs(store, run_id)
    assert not search_folders()
