"""A forked child owns nothing of its parent's; and what can be pickled of a recording."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import cloudpickle
import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from tests.helpers.fits import LABELS, X, record, regression
from tests.helpers.forked_python import python

pytestmark = pytest.mark.usefixtures("store")

HEAD = f"""
    import atexit, os
    parent = os.getpid()
    # The last of Python's exit: what TensorFlow does behind it, without us too, hangs in a child of a busy parent.
    atexit.register(lambda: os.getpid() == parent or os._exit(7))
    import multiprocessing, signal, sys
    sys.path.insert(0, {str(Path(__file__).parents[1])!r})
    from tests.helpers.fits import *
    mlflow.set_experiment("tests")
    class Forks(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.code = fork(child)
    kept = []
    def fork(do):
        pid = os.fork()
        if pid == 0:
            signal.alarm(100)  # ends a child that hangs
            kept.append(sys._getframe())  # else TensorFlow waits for its threads where it forgets the data, bare too
            do()
            sys.exit(7)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    def fit(recorder, *callbacks):
        model = regression(run_eagerly=True)
        model.fit(X, Y, batch_size=8, epochs=3, verbose=0, callbacks=[recorder, *callbacks])
        return model
"""
IN_CALLBACK = """
    forks, recorder = Forks(), mlflow_hp.TrainingRecorder(report=False)
    with mlflow.start_run() as outer, mlflow.start_run(nested=True) as run:
        fit(recorder, forks)
    client = mlflow.MlflowClient()
    assert forks.code == expected, forks.code
    assert recorder.history.n_steps == 15
    assert recorder.history.steps["step"].tolist() == list(range(15))
    for each in (outer, run):
        found = client.get_run(each.info.run_id)
        assert found.info.status == "FINISHED"
        assert "mlflow_hp.recording_error" not in found.data.tags
    assert found.data.params["optimizer"] == "RMSprop"
    assert len(client.get_metric_history(run.info.run_id, "batch/loss")) == 15
"""
IN_TURN = """
import gc
def leaves(): pass
def raises(): raise ValueError("of the child")
def is_terminated(): os.kill(os.getpid(), signal.SIGTERM)
def ends_the_run(): mlflow.end_run()
def logs(): mlflow.set_tag("from", "the child")
def collects(): gc.collect()
for child in (leaves, raises, is_terminated, ends_the_run, logs, collects):
    expected = -15 if child is is_terminated else 7
    print(child.__name__, file=sys.stderr, flush=True)
"""
CHILDREN = {
    "one after another": (IN_TURN + textwrap.indent(textwrap.dedent(IN_CALLBACK), "    "), ""),
    "multiprocessing": (
        """
expected = 0
def child(): pass
def fork(do):
    process = multiprocessing.get_context("fork").Process(target=do)
    process.start(); process.join()
    return process.exitcode
""",
        IN_CALLBACK,
    ),
    "behind the fit": (
        "def child(): pass\n",
        """
    recorder = mlflow_hp.TrainingRecorder(report=False)
    with mlflow.start_run() as run:
        fit(recorder)
        assert fork(child) == 7
        assert mlflow.get_run(run.info.run_id).info.status == "RUNNING"
        assert not mlflow.get_run(run.info.run_id).data.params
    assert fork(child) == 7
    assert recorder.history.weights("out/kernel").shape == (16, 3, 1)
    assert mlflow.get_run(run.info.run_id).data.params["optimizer"] == "RMSprop"
""",
    ),
    "records itself": (
        """
def child():
    with mlflow.start_run() as run:
        recorder = mlflow_hp.TrainingRecorder(report=False)
        fit(recorder)
        assert recorder.history.n_steps == 15
    found = mlflow.get_run(run.info.run_id)
    assert (found.data.params["optimizer"], found.info.status) == ("RMSprop", "FINISHED")
""",
        """
    recorder = mlflow_hp.TrainingRecorder(report=False)
    assert fork(child) == 7
""",
    ),
    "a search": (
        "",
        """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    class Forking(LogisticRegression):
        def fit(self, x, y):
            if self.C == 2.0:
                assert fork(lambda: None) == 7
            return super().fit(x, y)
    search = GridSearchCV(Forking(), {"C": [1.0, 2.0, 3.0]}, cv=2)
    with mlflow_hp.record_search(search, report=False, progress=False) as recording:
        search.fit(X, LABELS)
    client = mlflow.MlflowClient()
    below = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{recording.run_id}'")
    assert sorted(run.info.status for run in below) == ["FINISHED"] * 3
    assert client.get_run(recording.run_id).info.status == "FINISHED"
""",
    ),
}


@pytest.mark.sampled(6)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked here")
@pytest.mark.parametrize("child", CHILDREN)
def test_a_forked_child(tracking_uri, tmp_path, child):
    given, then = CHILDREN[child]
    program = f"{textwrap.dedent(HEAD)}\n{given}\n{textwrap.dedent(then)}\nprint('to the end')"
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_HP_FOLDER": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    # whose folder goes at exit, for which HEAD has to come before the libraries: in a Python of its own
    executable = sys.executable if child == "records itself" else python()
    done = subprocess.run(
        [executable, "-W", "ignore::DeprecationWarning", "-c", program],
        capture_output=True, text=True, env=environment, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("to the end\n"), done.stderr
    assert not list(tmp_path.rglob("journal"))


COPIES = {
    "pickle": lambda it: pickle.loads(pickle.dumps(it)),  # noqa: S301
    "cloudpickle": lambda it: pickle.loads(cloudpickle.dumps(it)),  # noqa: S301
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


class Mine(mlflow_hp.TrainingRecorder):
    """A recorder with a setting of the user's own."""

    def __init__(self, note):
        super().__init__(weights="all", metrics_every=3, report=False)
        self.note = note


@pytest.mark.sampled(2)
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_of_a_recorder(copied):
    recorder, during = Mine("mine"), []

    class Copies(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            during.append(copied(recorder))

    copies = [copied(recorder)]
    record(regression(run_eagerly=True), recorder=recorder, callbacks=[Copies()])
    copies += [*during, copied(recorder)]
    assert recorder.history.n_steps == 10
    for each in copies:
        assert (each.weights, each.metrics_every, each.report, each.note) == ("all", 3, False, "mine")
        assert each.history is None
    fitted = record(regression(run_eagerly=True), recorder=copies[1])
    assert fitted.recorder.history.n_steps == 10


@pytest.mark.sampled(15)
@pytest.mark.parametrize("weights", ["all", "statistics", "none"])
@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_of_a_history_hold_all(copied, weights):
    recorder = mlflow_hp.TrainingRecorder(weights=weights, report=False)
    history = record(regression(run_eagerly=True), recorder=recorder).recorder.history
    again = copied(history)
    assert (again.meta, again.tensors, again.recorded) == (history.meta, history.tensors, history.recorded)
    assert (again.n_steps, again.n_epochs, again.complete) == (10, 2, True)
    for name, values in history.steps.items():
        np.testing.assert_array_equal(again.steps[name], values)
    if weights != "none":
        np.testing.assert_array_equal(again.to_pandas(), history.to_pandas())
    np.testing.assert_array_equal(again.epochs["loss"], history.epochs["loss"])


def test_a_search_with_a_recorder_that_has_been_used_can_be_cloned():
    from sklearn.base import BaseEstimator, clone

    class Network(BaseEstimator):
        def __init__(self, callbacks=None):
            self.callbacks = callbacks

    recorder = mlflow_hp.TrainingRecorder(report=False)
    record(regression(run_eagerly=True), recorder=recorder)
    assert isinstance(clone(Network([recorder])).callbacks[0], mlflow_hp.TrainingRecorder)


@pytest.mark.parametrize("copied", [COPIES["pickle"], COPIES["cloudpickle"]])
def test_a_recording_of_a_search_pickles_as_its_run(copied):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(LogisticRegression(), {"C": [1.0, 2.0]}, cv=2)
    with mlflow_hp.record_search(search, report=False) as recording:
        during = copied(recording)
        assert not during.wants(search)
        search.fit(X, LABELS)
    assert copied(recording).run_id == during.run_id == recording.run_id
    during.close(None, "FINISHED", ends_run=True)
    assert mlflow.get_run(recording.run_id).info.status == "FINISHED"


def test_sigterm_is_the_users_again_behind_a_fit():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    record(regression(run_eagerly=True))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
