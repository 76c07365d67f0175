"""Recordings that a process left behind: all that was on disk reaches MLflow once, and runs get their true ends."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import keras
import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.cli.main import main
from mlflow_hp.delivery import journal
from mlflow_hp.delivery.folder_lock import FolderLock, HeldError
from mlflow_hp.delivery.spool import HISTORY, Recording
from mlflow_hp.errors import UserError
from mlflow_hp.history import STEPS_FILE, Tensor
from mlflow_hp.history.step_record import STEP_COLUMNS, Layout, Rows
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.training import recovery

PROGRAM = """
    import os, sys, time
    import keras, mlflow, numpy as np
    import mlflow_hp
    mlflow.set_tracking_uri(sys.argv[1])
    mlflow.set_experiment("tests")
    x = np.linspace(0, 1, 64, dtype="float32")[:, None]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")

    class Waits(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            done[0] += 1
            time.sleep(0.02)
            with open(sys.argv[2], "w") as file:
                file.write(f"{done[0]} {time.time()}")

    done = [0]
    with mlflow.start_run() as run:
        print(run.info.run_id, flush=True)
        model.fit(x, 2 * x, batch_size=8, epochs=100, verbose=0,
                  callbacks=[mlflow_hp.TrainingRecorder(report=False), Waits()])
"""


DEAD = json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1, "started": "long ago"})
TENSOR = Tensor("dense/kernel", (2,), "float32", True)
STEPS = 30


class Silent:
    """A sender to which nothing gets through."""

    tracking_uri = property(lambda _: mlflow.get_tracking_uri())
    submitted = sent = 0

    def __init__(self, run_id, **more):
        pass

    def submit(self, *arguments, **more):
        pass

    do = describe = submit


def rows(start, n):
    step = np.arange(start, start + n)
    whole = {"step": step, "epoch": step // 10, "batch": step % 10, "samples": np.full(n, 8)}
    numbers = {"time": 1e9 + step, "learning_rate": np.full(n, 0.1), "batch_loss": 1 / (1.0 + step)}
    return Rows(whole | numbers, {"dense/kernel": np.float32(step[:, None] + [0, 0.5])})


def leave(monkeypatch, tmp_path, process=DEAD, chunks=3, whole=None, epochs=True):
    """A run of which the record is on disk, and nothing of that in MLflow; gives its id and the folder."""
    run_id = mlflow.MlflowClient().create_run(mlflow.get_experiment_by_name("tests").experiment_id).info.run_id
    folder = runs.local_folder(run_id)
    meta = {"first_step": 0, "first_epoch": 0, "optimizer": {"name": "SGD", "learning_rate": 0.1}}
    with monkeypatch.context() as patched:
        patched.setattr("mlflow_hp.delivery.spool.Sender", Silent)
        head = {"process": process, "fit": 0, "first_step": 0, "first_epoch": 0, "report": False}
        recording = Recording(run_id, folder, meta, 1, head, pytest.fail)
        recording.describe({"optimizer": "SGD"}, {"mlflow_hp.kind": "training"})
        initial = {"dense/kernel": np.zeros(2, np.float32)}
        recording.open(Layout(dict(STEP_COLUMNS), (TENSOR,), "values", initial))
        for i in range(chunks):
            recording.add(rows(10 * i, 10))
            if epochs:
                recording.add_epoch({"epoch": i, "loss": 0.5 / (i + 1), "seconds": 1.0})
        if whole is None:
            recording._queue.put(None)
            recording._thread.join()
            recording._writer._sink.close()
        else:
            recording.finish_history(whole=whole)
        recording.close(all_sent=False)
    return run_id, folder


def all_of(store, run_id):
    """Every metric point that the store has of a run."""
    names = store.get_run(run_id).data.metrics
    return {n: [(m.step, m.value, m.timestamp) for m in store.get_metric_history(run_id, n)] for n in names}


@pytest.fixture
def home(tmp_path):
    return tmp_path / "on-its-way"


@pytest.mark.parametrize(("whole", "status"), [(None, "KILLED"), (False, "FAILED"), (True, "FINISHED")])
def test_all_that_was_on_disk_reaches_mlflow(store, monkeypatch, tmp_path, home, whole, status):
    run_id, folder = leave(monkeypatch, tmp_path, whole=whole)
    (left,) = recovery.left_behind()
    assert (left.run_id, left.folder, left.tracking_uri) == (run_id, folder, mlflow.get_tracking_uri())
    found = recovery.recover(left)
    assert found == (run_id, STEPS, STEPS * 4 + 3, status, [])
    run = store.get_run(run_id)
    assert (run.info.status, run.data.params) == (status, {"optimizer": "SGD"})
    assert abs(run.info.end_time / 1000 - time.time()) < 60
    points = all_of(store, run_id)
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
def test_a_training_that_came_to_no_end_of_an_epoch(store, monkeypatch, tmp_path, home, whole):
    run_id, _ = leave(monkeypatch, tmp_path, whole=whole, epochs=False)
    found = recovery.recover(next(recovery.left_behind()))
    assert found == (run_id, STEPS, STEPS * 4, "KILLED" if whole is None else "FAILED", [])
    history = mlflow_hp.load_history(run_id)
    assert (history.n_steps, history.n_epochs) == (STEPS, 0)
    assert not list(home.glob("*/*"))


def test_doing_it_again_changes_nothing(store, monkeypatch, tmp_path):
    run_id, folder = leave(monkeypatch, tmp_path)
    shutil.copytree(folder, tmp_path / "copy")
    recovery.recover(next(recovery.left_behind()))
    before, run = all_of(store, run_id), store.get_run(run_id)
    shutil.copytree(tmp_path / "copy", folder)
    again = recovery.recover(next(recovery.left_behind()))
    assert (all_of(store, run_id), again.status) == (before, run.info.status)
    after = store.get_run(run_id)
    assert (after.info.end_time, after.data.params) == (run.info.end_time, run.data.params)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_only_what_is_missing_is_sent(store, monkeypatch, tmp_path, n):
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
    assert [p[0] for p in all_of(store, run_id).get("batch/loss", [])] == list(range(10 * chunks, 30))


def test_runs_above_that_the_process_left_open_are_ended_too(store, monkeypatch, tmp_path):
    run_id, _ = leave(monkeypatch, tmp_path)
    experiment = store.get_run(run_id).info.experiment_id
    above = [store.create_run(experiment, tags={"mlflow_hp.process": process}) for process in (this_process(), DEAD)]
    store.set_tag(above[1].info.run_id, "mlflow.parentRunId", above[0].info.run_id)
    store.set_tag(run_id, "mlflow.parentRunId", above[1].info.run_id)
    recovery.recover(next(recovery.left_behind()))
    assert [store.get_run(each.info.run_id).info.status for each in above] == ["RUNNING", "KILLED"]


def test_an_interrupted_recovery_goes_on(store, monkeypatch, tmp_path):
    run_id, folder = leave(monkeypatch, tmp_path)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(runs, "upload", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        recovery.recover(next(recovery.left_behind()))
    assert journal.read(folder).acknowledged == 7
    assert recovery.recover(next(recovery.left_behind())).n_points == 0
    assert mlflow_hp.load_history(run_id).n_steps == STEPS


@pytest.mark.parametrize("place", [0.4, 0.7, 0.999])
def test_a_flipped_bit_in_the_history_cuts_it_there(store, monkeypatch, tmp_path, place):
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
    assert found.problems == [f"the last {30 - n} steps of the history are torn, altered or gone"]
    assert [p[0] for p in all_of(store, run_id).get("batch/loss", [])] == list(range(n))
    if n:
        np.testing.assert_array_equal(mlflow_hp.load_history(run_id).weights("dense/kernel")[1:],
                                      rows(0, n).weights["dense/kernel"])  # fmt: skip
    assert store.get_run(run_id).data.tags["mlflow_hp.recovered"] == found.problems[0]


def test_a_torn_history_and_journal(store, monkeypatch, tmp_path):
    run_id, folder = leave(monkeypatch, tmp_path)
    for path in (folder / HISTORY / STEPS_FILE, folder / journal.FILE):
        os.truncate(path, path.stat().st_size - 5)
    found = recovery.recover(next(recovery.left_behind()))
    assert found.n_steps == 20
    assert [p[0] for p in all_of(store, run_id)["loss"]] == [0, 1]
    assert len(found.problems) == 2


@pytest.mark.parametrize("what", ["history", "epochs.csv"])
def test_files_that_are_gone(store, monkeypatch, tmp_path, what):
    run_id, folder = leave(monkeypatch, tmp_path)
    (folder / HISTORY / ("epochs.csv" if "epochs" in what else STEPS_FILE)).unlink()
    found = recovery.recover(next(recovery.left_behind()))
    assert [p[0] for p in all_of(store, run_id)["loss"]] == [0, 1, 2]
    assert found.n_steps == (30 if "epochs" in what else 0)
    if "epochs" in what:
        assert mlflow_hp.load_history(run_id).epochs["loss"].tolist() == [0.5, 0.25, 0.5 / 3]
    else:
        assert "30 steps" in found.problems[0]


def test_what_is_being_recorded_or_recovered_is_left_alone(store, monkeypatch, tmp_path):
    _, folder = leave(monkeypatch, tmp_path)
    left = next(recovery.left_behind())
    with FolderLock(folder):
        assert list(recovery.left_behind()) == []
        assert list(recovery.recordings()) == [left]
        with pytest.raises(HeldError, match=f"process {os.getpid()} on"):
            recovery.recover(left)
    assert recovery.recover(left).n_steps == STEPS
    assert recovery.recover(left) is None  # somebody was faster


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "nothing can be recovered"), (b'ef583d3f {"journal":1}\n', "not a training journal")],
    ids=["empty", "without a run"],
)
def test_what_can_not_be_used_is_told_and_stays(store, monkeypatch, tmp_path, content, why):
    _, folder = leave(monkeypatch, tmp_path)
    (folder / journal.FILE).write_bytes(content)
    said = []
    assert list(recovery.left_behind(on_unusable=said.append)) == []
    assert why in said[0]
    assert (folder / HISTORY / STEPS_FILE).exists()


def test_a_run_that_is_gone(store, monkeypatch, tmp_path):
    _, folder = leave(monkeypatch, tmp_path)
    left = next(recovery.left_behind())
    head = {**left.entries.head, "run_id": "nowhere"}
    with pytest.raises(
        UserError, match=r"run nowhere can't be had from .* not found.*restore the run.* recover --discard nowhere"
    ):
        recovery.recover(left._replace(entries=left.entries._replace(head=head)))
    assert (folder / journal.FILE).exists()


def test_another_store_than_the_one_in_force(store, monkeypatch, tmp_path):
    run_id, _ = leave(monkeypatch, tmp_path)
    uri = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/other.db")
    try:
        recovery.recover_quietly(pytest.fail, pytest.fail)
        assert recovery.recover(next(recovery.left_behind())).n_steps == STEPS
        assert mlflow.get_tracking_uri() != uri
    finally:
        mlflow.set_tracking_uri(uri)
    assert len(all_of(store, run_id)["batch/loss"]) == STEPS


def start(tracking_uri, tmp_path, program=PROGRAM):
    """A process that trains, and the file that says how far it is."""
    progress = tmp_path / "progress"
    command = [sys.executable, "-c", textwrap.dedent(program), tracking_uri, str(progress)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process.stdout:
        run_id = process.stdout.readline().strip()
    return process, run_id, progress


def wait_for(progress, n_steps):
    until = time.monotonic() + 120
    while time.monotonic() < until:
        if progress.exists() and (text := progress.read_text()) and int(text.split()[0]) >= n_steps:
            return
        time.sleep(0.01)
    raise TimeoutError


def all_steps(store, run_id, name="batch/loss"):
    return [m.step for m in store.get_metric_history(run_id, name)]


def test_the_next_training_recovers_by_itself(store, monkeypatch, tmp_path, home, capsys):
    run_id, folder = leave(monkeypatch, tmp_path)
    _, lost = leave(monkeypatch, tmp_path)
    monkeypatch.setattr(runs, "upload", fails_for(lost.parent.name, runs.upload))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((8, 1), np.float32)
    with mlflow.start_run(), pytest.warns(RuntimeWarning, match=f"{lost.parent.name} could not be recovered.*gone"):
        model.fit(x, x, verbose=0, callbacks=[mlflow_hp.TrainingRecorder(report=False)])
    assert f"recovered 30 steps of run {run_id}, which is KILLED now" in capsys.readouterr().err
    assert mlflow_hp.load_history(run_id).n_steps == STEPS
    assert (lost / journal.FILE).exists()
    assert not folder.exists()


def fails_for(run_id, upload):
    def fails(given, *arguments):
        if given == run_id:
            raise UserError("the artifact store is gone")
        upload(given, *arguments)

    return fails


@pytest.mark.slow
def test_kill_9_loses_at_most_the_last_second(store, tracking_uri, tmp_path, home):
    process, run_id, progress = start(tracking_uri, tmp_path)
    wait_for(progress, 150)
    process.kill()
    process.wait()
    done, at = (float(part) for part in progress.read_text().split())
    assert store.get_run(run_id).info.status == "RUNNING"
    (left,) = recovery.left_behind()
    assert left.run_id == run_id
    found = recovery.recover(left)
    assert found.problems == []
    run = store.get_run(run_id)
    assert (found.status, run.info.status) == ("KILLED", "KILLED")
    assert abs(run.info.end_time / 1000 - at) < 2.5
    history = mlflow_hp.load_history(run_id)
    assert history.n_steps == found.n_steps
    assert history.n_steps <= done
    assert history.steps["time"][-1] > at - 1.5
    assert all_steps(store, run_id) == list(range(history.n_steps))
    np.testing.assert_array_equal(
        [m.value for m in store.get_metric_history(run_id, "batch/loss")], history.steps["batch_loss"]
    )
    assert all_steps(store, run_id, "loss") == list(range(history.n_epochs))
    assert run.data.params["optimizer"] == "SGD"
    assert not list(home.glob("*/*"))
    assert list(recovery.left_behind()) == []


@pytest.mark.slow
def test_sigterm_loses_nothing(store, tracking_uri, tmp_path, home):
    process, run_id, progress = start(tracking_uri, tmp_path)
    wait_for(progress, 30)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 128 + signal.SIGTERM
    done = int(progress.read_text().split()[0])
    assert store.get_run(run_id).info.status == "FAILED"
    assert mlflow_hp.load_history(run_id).n_steps in (done, done + 1)
    assert not list(home.glob("*/*"))


def test_the_command(store, monkeypatch, tmp_path, capsys):
    run_id, _ = leave(monkeypatch, tmp_path)
    gone, folder = leave(monkeypatch, tmp_path)
    monkeypatch.setattr(runs, "upload", fails_for(gone, runs.upload))
    assert main(["recover"]) == 1
    printed = capsys.readouterr()
    assert f"{run_id} in {mlflow.get_tracking_uri()}: 30 steps, KILLED\n" in printed.out
    assert "the artifact store is gone" in printed.err
    monkeypatch.undo()
    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(folder.parents[1]))
    assert main(["recover", "nowhere"]) == 2
    assert "nothing of nowhere is on this machine" in capsys.readouterr().err
    assert main(["recover", gone]) == 0
    assert main(["recover"]) == 0
    assert "nothing was left behind" in capsys.readouterr().out
