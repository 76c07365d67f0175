"""Recovery of trainings: all data on disk reaches MLflow once, and runs get their true status."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import textwrap
import time

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.delivery import journal
from mlflow_hp.delivery.fit_history import HISTORY
from mlflow_hp.delivery.folder_lock import FolderLock, FolderLockedError
from mlflow_hp.delivery.metric_selection import MetricSelection
from mlflow_hp.errors import UserError
from mlflow_hp.history import STEPS_FILE
from mlflow_hp.terminal import count
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.training import recovery
from mlflow_hp.training.capture import graph_reader
from tests.helpers.forked_python import python, wait_for_end
from tests.helpers.interrupted_recordings import DEAD, STEPS, leave, rows
from tests.helpers.refusals import upload_failing_for
from tests.helpers.waiting import wait_for

STOPS_AT = 150
"""Step after which the program waits for the end of its input."""
PROGRAM = f"""
    import sys
    import keras, mlflow, numpy as np
    import mlflow_hp
    from mlflow_hp.training.capture import graph_reader
    graph_reader.FETCH_SECONDS = 0.0
    mlflow.set_tracking_uri(sys.argv[1])
    mlflow.set_experiment("tests")
    x = np.linspace(0, 1, 64, dtype="float32")[:, None]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")

    class Stops(keras.callbacks.Callback):
        n_steps = 0
        def on_train_batch_end(self, batch, logs=None):
            self.n_steps += 1
            if self.n_steps == {STOPS_AT}:
                print("stopped", flush=True)
                sys.stdin.read()

    with mlflow.start_run() as run:
        print(run.info.run_id, flush=True)
        model.fit(x, 2 * x, batch_size=8, epochs=100, verbose=0,
                  callbacks=[mlflow_hp.TrainingRecorder(report=False), Stops()])
"""


def metric_points_of(store, run_id):
    """Read all metric points of a run."""
    names = store.get_run(run_id).data.metrics
    return {n: [(m.step, m.value, m.timestamp) for m in store.get_metric_history(run_id, n)] for n in names}


@pytest.fixture
def home(tmp_path):
    return tmp_path / "on-its-way"


@pytest.mark.parametrize(("whole", "status"), [(None, "KILLED"), (False, "FAILED"), (True, "FINISHED")])
def test_all_data_on_disk_reaches_mlflow(store, monkeypatch, tmp_path, home, whole, status):
    run_id, folder = leave(monkeypatch, tmp_path, whole=whole)
    (left,) = recovery.left_behind()
    assert (left.run_id, left.folder, left.tracking_uri) == (run_id, folder, mlflow.get_tracking_uri())
    before = time.time_ns() // 1_000_000
    found = recovery.recover(left)
    assert found == (run_id, STEPS, STEPS * 4 + 3, status, [])
    run = store.get_run(run_id)
    assert (run.info.status, run.data.params) == (status, {"optimizer": "SGD"})
    assert run.info.start_time <= run.info.end_time <= before
    points = metric_points_of(store, run_id)
    expected = rows(0, STEPS)
    assert [p[:2] for p in points["batch/loss"]] == list(enumerate(expected.columns["batch_loss"]))
    assert [p[2] for p in points["batch/loss"]] == [int(1e12 + 1000 * step) for step in range(STEPS)]
    assert [p[1] for p in points["weights/dense/kernel/1"]] == [step + 0.5 for step in range(STEPS)]
    assert [p[:2] for p in points["loss"]] == [(0, 0.5), (1, 0.25), (2, 0.5 / 3)]
    history = mlflow_hp.load_history(run_id)
    np.testing.assert_array_equal(history.weights("dense/kernel")[1:], expected.weights["dense/kernel"])
    assert (history.n_steps, history.n_epochs, history.complete) == (STEPS, 3, whole is not None)
    assert run.data.tags["mlflow_hp.steps"] == "30"
    assert not list(home.glob("*/*"))


@pytest.mark.parametrize("whole", [None, False])
def test_training_without_a_finished_epoch(store, monkeypatch, tmp_path, home, whole):
    run_id, _ = leave(monkeypatch, tmp_path, whole=whole, epochs=False)
    found = recovery.recover(next(recovery.left_behind()))
    assert found == (run_id, STEPS, STEPS * 4, "KILLED" if whole is None else "FAILED", [])
    history = mlflow_hp.load_history(run_id)
    assert (history.n_steps, history.n_epochs) == (STEPS, 0)
    assert not list(home.glob("*/*"))


def test_recovery_is_idempotent(store, monkeypatch, tmp_path):
    run_id, folder = leave(monkeypatch, tmp_path)
    shutil.copytree(folder, tmp_path / "copy")
    recovery.recover(next(recovery.left_behind()))
    before, run = metric_points_of(store, run_id), store.get_run(run_id)
    shutil.copytree(tmp_path / "copy", folder)
    again = recovery.recover(next(recovery.left_behind()))
    assert (metric_points_of(store, run_id), again.status) == (before, run.info.status)
    after = store.get_run(run_id)
    assert (after.info.end_time, after.data.params) == (run.info.end_time, run.data.params)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_only_missing_data_is_sent(store, monkeypatch, tmp_path, n):
    run_id, folder = leave(monkeypatch, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(mlflow.MlflowClient, "log_batch", lambda *_, **__: None)
        shutil.copytree(folder, tmp_path / "copy")
        recovery.recover(next(recovery.left_behind()))
    shutil.copytree(tmp_path / "copy", folder)
    (folder / journal.ACKNOWLEDGED_FILE).write_text(str(n))
    found = recovery.recover(next(recovery.left_behind()))
    chunks, epochs = n // 2, (n - 1) // 2
    assert found.n_points == (3 - chunks) * 40 + 3 - epochs
    assert [p[0] for p in metric_points_of(store, run_id).get("batch/loss", [])] == list(range(10 * chunks, 30))


def test_open_ancestor_runs_are_ended(store, monkeypatch, tmp_path):
    run_id, _ = leave(monkeypatch, tmp_path)
    experiment = store.get_run(run_id).info.experiment_id
    above = [store.create_run(experiment, tags={"mlflow_hp.process": process}) for process in (this_process(), DEAD)]
    store.set_tag(above[1].info.run_id, "mlflow.parentRunId", above[0].info.run_id)
    store.set_tag(run_id, "mlflow.parentRunId", above[1].info.run_id)
    recovery.recover(next(recovery.left_behind()))
    assert [store.get_run(each.info.run_id).info.status for each in above] == ["RUNNING", "KILLED"]


def test_interrupted_recovery_is_resumed(store, monkeypatch, tmp_path):
    run_id, folder = leave(monkeypatch, tmp_path)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(runs, "upload", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        recovery.recover(next(recovery.left_behind()))
    assert journal.read(folder).n_acknowledged == 7
    assert recovery.recover(next(recovery.left_behind())).n_points == 0
    assert mlflow_hp.load_history(run_id).n_steps == STEPS


@pytest.mark.parametrize("place", [0.4, 0.7, 0.999])
def test_damaged_history_ends_before_the_damage(store, monkeypatch, tmp_path, place):
    run_id, folder = leave(monkeypatch, tmp_path)
    path = folder / HISTORY / STEPS_FILE
    broken = bytearray(path.read_bytes())
    at = int(place * len(broken))
    broken[at] ^= 4
    path.write_bytes(broken)
    ends = [r["chunk"]["end"] for r in journal.read(folder).records if "chunk" in r]
    n = 10 * sum(end <= at for end in ends)
    found = recovery.recover(next(recovery.left_behind()))
    assert found.n_steps == n
    assert found.problems == [f"incomplete, altered or missing: the last {count(30 - n, 'step')} of the history"]
    assert [p[0] for p in metric_points_of(store, run_id).get("batch/loss", [])] == list(range(n))
    if n:
        np.testing.assert_array_equal(mlflow_hp.load_history(run_id).weights("dense/kernel")[1:],
                                      rows(0, n).weights["dense/kernel"])  # fmt: skip
    assert store.get_run(run_id).data.tags["mlflow_hp.recovered"] == found.problems[0]


def test_torn_history_and_journal(store, monkeypatch, tmp_path):
    run_id, folder = leave(monkeypatch, tmp_path)
    for path in (folder / HISTORY / STEPS_FILE, folder / journal.FILE):
        os.truncate(path, path.stat().st_size - 5)
    found = recovery.recover(next(recovery.left_behind()))
    assert found.n_steps == 20
    assert [p[0] for p in metric_points_of(store, run_id)["loss"]] == [0, 1]
    assert len(found.problems) == 2


def test_repeated_journal_is_recovered_once(store, monkeypatch, tmp_path):
    run_id, folder = leave(monkeypatch, tmp_path)
    path = folder / journal.FILE
    path.write_bytes(path.read_bytes() * 2)
    found = recovery.recover(next(recovery.left_behind()))
    assert (found.n_steps, found.n_points) == (STEPS, STEPS * 4 + 3)
    assert "nothing is lost" in store.get_run(run_id).data.tags["mlflow_hp.recovered"]
    assert [step for step, *_ in metric_points_of(store, run_id)["batch/loss"]] == list(range(STEPS))


@pytest.mark.parametrize("metrics", ["summary", "all"])
def test_shares_of_units_are_metrics_by_epoch_and_not_of_the_best_epoch(store, monkeypatch, tmp_path, metrics):
    shares = {"dead_units/a": 0.25, "dead_units/b": 0.5, "saturated_units/c": 0.125}
    run_id, _ = leave(monkeypatch, tmp_path, selection=MetricSelection(metrics), **shares)
    recovery.recover(next(recovery.left_behind()))
    points = metric_points_of(store, run_id)
    expected = {"units/dead": 0.5, "units/saturated": 0.125}
    if metrics == "all":
        expected = {"units/dead/a": 0.25, "units/dead/b": 0.5, "units/saturated/c": 0.125}
    assert {name: points[name][2][1] for name in points if name.startswith("units/")} == expected
    assert {name for name in points if name.startswith("best/")} == {"best/epoch", "best/loss"}
    assert mlflow_hp.load_history(run_id).epochs["dead_units/b"].tolist() == [0.5] * 3


@pytest.mark.parametrize("n_acknowledged", [0, 3])
def test_recovery_into_a_file_store_is_idempotent(monkeypatch, tmp_path, n_acknowledged):
    """MLflow's databases keep equal points once; its file store keeps all that is written."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(tmp_path / "on-its-way"))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(str(tmp_path / "mlruns"))
    try:
        mlflow.set_experiment("tests")
        run_id, folder = leave(monkeypatch, tmp_path)
        shutil.copytree(folder, tmp_path / "copy")
        recovery.recover(next(recovery.left_behind()))
        shutil.copytree(tmp_path / "copy", folder)
        (folder / journal.ACKNOWLEDGED_FILE).write_text(str(n_acknowledged))
        assert recovery.recover(next(recovery.left_behind())).n_points == 0
        points = metric_points_of(mlflow.MlflowClient(), run_id)
    finally:
        mlflow.set_tracking_uri(before)
    once = {"best/epoch", "best/loss"}
    assert {len(of_name) for name, of_name in points.items() if "/" in name and name not in once} == {STEPS}
    assert {len(points[name]) for name in once} == {1}
    assert len(points["loss"]) == 3


@pytest.mark.parametrize("what", ["history", "epochs.csv"])
def test_missing_files(store, monkeypatch, tmp_path, what):
    run_id, folder = leave(monkeypatch, tmp_path)
    (folder / HISTORY / ("epochs.csv" if "epochs" in what else STEPS_FILE)).unlink()
    found = recovery.recover(next(recovery.left_behind()))
    assert [p[0] for p in metric_points_of(store, run_id)["loss"]] == [0, 1, 2]
    assert found.n_steps == (30 if "epochs" in what else 0)
    if "epochs" in what:
        assert mlflow_hp.load_history(run_id).epochs["loss"].tolist() == [0.5, 0.25, 0.5 / 3]
    else:
        assert "30 steps" in found.problems[0]


def test_locked_recording_is_skipped(store, monkeypatch, tmp_path):
    _, folder = leave(monkeypatch, tmp_path)
    left = next(recovery.left_behind())
    with FolderLock(folder):
        assert list(recovery.left_behind()) == []
        assert list(recovery.recordings()) == [left]
        with pytest.raises(FolderLockedError, match=f"process {os.getpid()} on"):
            recovery.recover(left)
    assert recovery.recover(left).n_steps == STEPS
    assert recovery.recover(left) is None  # another process was faster


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "nothing can be recovered"), (b'ef583d3f {"journal":1}\n', "not a training journal")],
    ids=["empty", "without a run"],
)
def test_unusable_journal_is_reported_and_stays(store, monkeypatch, tmp_path, content, why):
    _, folder = leave(monkeypatch, tmp_path)
    (folder / journal.FILE).write_bytes(content)
    said = []
    assert list(recovery.left_behind(on_unusable=said.append)) == []
    assert why in said[0]
    assert (folder / HISTORY / STEPS_FILE).exists()


def test_missing_run(store, monkeypatch, tmp_path):
    _, folder = leave(monkeypatch, tmp_path)
    left = next(recovery.left_behind())
    header = {**left.entries.header, "run_id": "nowhere"}
    with pytest.raises(
        UserError, match=r"does not return run nowhere .*not found.*restore the run.* recover --discard nowhere"
    ):
        recovery.recover(left._replace(entries=left.entries._replace(header=header)))
    assert (folder / journal.FILE).exists()


def test_other_store_than_the_current_one(store, monkeypatch, tmp_path):
    run_id, _ = leave(monkeypatch, tmp_path)
    uri = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/other.db")
    try:
        recovery.recover_quietly(pytest.fail, pytest.fail)
        assert recovery.recover(next(recovery.left_behind())).n_steps == STEPS
        assert mlflow.get_tracking_uri() != uri
    finally:
        mlflow.set_tracking_uri(uri)
    assert len(metric_points_of(store, run_id)["batch/loss"]) == STEPS


def start_and_stop(tracking_uri):
    """Start a process that trains and stops at a step; return it and the id of its run."""
    command = [python(), "-c", textwrap.dedent(PROGRAM), tracking_uri]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    run_id = process.stdout.readline().strip()
    assert process.stdout.readline() == "stopped\n"
    return process, run_id


def all_steps(store, run_id, name="batch/loss"):
    return [m.step for m in store.get_metric_history(run_id, name)]


def test_next_training_recovers_automatically(store, monkeypatch, tmp_path, home, caplog):
    caplog.set_level("INFO", "mlflow_hp")
    run_id, folder = leave(monkeypatch, tmp_path)
    _, lost = leave(monkeypatch, tmp_path)
    monkeypatch.setattr(runs, "upload", upload_failing_for(lost.parent.name, runs.upload))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((8, 1), np.float32)
    with mlflow.start_run(), pytest.warns(RuntimeWarning, match=f"{lost.parent.name} could not be recovered.*gone"):
        model.fit(x, x, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(report=False)])
    assert f"recovered 30 steps of run {run_id}, which is KILLED now" in caplog.text
    assert mlflow_hp.load_history(run_id).n_steps == STEPS
    assert (lost / journal.FILE).exists()
    assert not folder.exists()


@pytest.mark.slow
def test_kill_9_loses_only_unfetched_steps(store, tracking_uri, home):
    assert graph_reader.FETCH_SECONDS < 1  # in the program it is 0
    process, run_id = start_and_stop(tracking_uri)
    (folder,) = (one.folder for one in recovery.recordings())
    wait_for(lambda: mlflow_hp.TrainingHistory.open(folder / HISTORY).n_steps >= STOPS_AT - 1)
    process.kill()
    wait_for_end(process)
    process.communicate()
    died_at = (folder / journal.FILE).stat().st_mtime
    assert store.get_run(run_id).info.status == "RUNNING"
    (left,) = recovery.left_behind()
    assert left.run_id == run_id
    found = recovery.recover(left)
    assert found.problems == []
    run = store.get_run(run_id)
    assert (found.status, run.info.status) == ("KILLED", "KILLED")
    assert run.info.end_time == pytest.approx(1000 * died_at, abs=2)
    history = mlflow_hp.load_history(run_id)
    assert history.n_steps == found.n_steps
    assert history.n_steps in (STOPS_AT - 1, STOPS_AT)
    assert all_steps(store, run_id) == list(range(history.n_steps))
    np.testing.assert_array_equal(
        [m.value for m in store.get_metric_history(run_id, "batch/loss")], history.steps["batch_loss"]
    )
    assert all_steps(store, run_id, "loss") == list(range(history.n_epochs))
    assert run.data.params["optimizer"] == "SGD"
    assert not list(home.glob("*/*"))
    assert list(recovery.left_behind()) == []


@pytest.mark.slow
def test_sigterm_loses_nothing(store, tracking_uri, home):
    process, run_id = start_and_stop(tracking_uri)
    process.send_signal(signal.SIGTERM)
    wait_for_end(process)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert store.get_run(run_id).info.status == "FAILED"
    assert mlflow_hp.load_history(run_id).n_steps == STOPS_AT
    assert not list(home.glob("*/*"))


def test_recovery_continues_the_thinning(store, monkeypatch, tmp_path):
    """The points of a bucket that spans chunks, and the last step, are those of an undisturbed fit."""
    steps = []
    for n_acknowledged in (0, 4):
        run_id, folder = leave(monkeypatch, tmp_path, selection=MetricSelection(max_points=60, n_steps=STEPS))
        (folder / journal.ACKNOWLEDGED_FILE).write_text(str(n_acknowledged))
        recovery.recover(next(recovery.left_behind()))
        steps.append([step for step, *_ in metric_points_of(store, run_id)["batch/loss"]])
        cadence = store.get_run(run_id).data.tags["mlflow_hp.metric_steps"]
        assert cadence == "every step of the first 3, then the lowest and highest of each 16 steps"
    assert steps == [[0, 1, 2, 3, 6, 7, 22, 23, 29], [7, 22, 23, 29]]
