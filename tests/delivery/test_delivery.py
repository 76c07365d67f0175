"""What MLflow refuses for a moment, or for good: the first reaches it later, the second stands in an artifact."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import keras
import mlflow
import numpy as np
import pytest
from fakes import X, Y, bare, record, regression, same_weights, wait_for_the_rest
from mlflow.exceptions import MlflowException
from servers import Proxy

import mlflow_hp
from mlflow_hp.cli.main import main
from mlflow_hp.delivery import journal, metric_sender
from mlflow_hp.delivery.metric_sender import Sender
from mlflow_hp.tracking import runs
from mlflow_hp.training import recovery

LOG_BATCH = mlflow.MlflowClient.log_batch
RUN = "1" * 32


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """MLflow gives up on a call at once, metrics are sent as soon as they are there, and the end waits for a second."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    monkeypatch.setattr(metric_sender, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(metric_sender, "OLDEST_SECONDS", 0.05)
    monkeypatch.setattr(metric_sender, "SHARE_OF_TIME", 0.9)
    monkeypatch.setattr(metric_sender, "LONGEST_PAUSE_SECONDS", 0.2)


@pytest.fixture
def patience(monkeypatch):
    monkeypatch.setattr(metric_sender, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(metric_sender, "QUICK_SECONDS", 0.5)


class Answers(Proxy):
    """A tracking server that takes metrics; while it `is_off`, it gives another answer."""

    def __init__(self, off):
        super().__init__("")
        self.off, self.is_off, self.metrics, self.connections = off, False, [], set()

    def answer(self, request, body):
        self.connections.add(request.client_address)
        if self.is_off and not request.path.endswith("/health"):
            self.refused += 1
            if callable(self.off):
                return self.off(self)
            return self.off
        if request.path.endswith("/log-batch"):
            self.metrics += json.loads(body).get("metrics", [])
        return 200, "application/json", b"{}"


def error(status, code, message="no"):
    return status, "application/json", json.dumps({"error_code": code, "message": message}).encode()


PHASES = {
    "400": error(400, "BAD_REQUEST"),
    "an unknown run": error(404, "RESOURCE_DOES_NOT_EXIST", "Run with id=1 not found"),
    "a deleted run": error(400, "INVALID_PARAMETER_VALUE", "The run must be in the 'active' state"),
    "401": (401, "text/plain", b"You are not authenticated"),
    "403 of MLflow": error(403, "PERMISSION_DENIED", "Permission denied"),
    "403 of a proxy": (403, "text/html", b"<html>Forbidden</html>"),
    "404 of a proxy": (404, "text/html", b"<html>Not found</html>"),
    "413": (413, "text/html", b"<html>Too large</html>"),
    "429": (429, "text/plain", b"slow down"),
    "502": (502, "text/html", b"<html>Bad gateway</html>"),
    "HTML of a login": (200, "text/html", b"<html>Log in</html>"),
    "an unknown code": error(418, "TEAPOT"),
    "a quota": error(429, "RESOURCE_EXHAUSTED"),
    "no JSON that is an object": (200, "application/json", b"[1"),
}


def points(start, n):
    return [("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(start, start + n)]


def wait_for(what, seconds=60):
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("phase", PHASES)
def test_what_is_refused_for_a_moment_is_not_acknowledged_and_arrives(phase):
    acknowledged = []
    with contextlib.closing(Answers(PHASES[phase])) as server:
        sending = Sender(RUN, server.uri, on_acknowledged=acknowledged.append, set_aside=pytest.fail)
        sending.submit(10, lambda: points(0, 10), 0)
        wait_for(lambda: acknowledged == [1])
        server.is_off = True
        sending.submit(10, lambda: points(10, 10), 1)
        wait_for(lambda: server.refused > 5)
        assert acknowledged == [1]
        server.is_off = False
        sending.flush()
        assert acknowledged == [1, 2]
        assert [point["step"] for point in server.metrics] == list(range(20))
        assert (sending.sent, sending.n_refused, sending.complete) == (20, 0, True)


def test_connections_are_kept():
    with contextlib.closing(Answers(None)) as server:
        sending = Sender(RUN, server.uri)
        for start in range(0, 200, 10):
            sending.submit(10, lambda start=start: points(start, 10))
            wait_for(lambda start=start: sending.sent == start + 10)
        sending.flush()
        assert len(server.connections) <= 3


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("phase", ["403 of MLflow", "an unknown run", "hangs"])
def test_what_is_refused_to_the_end_stays_in_the_journal(phase):
    def hang(server):
        while server.is_off:
            time.sleep(0.05)
        return 0, "", b""

    acknowledged, began = [], time.monotonic()
    with contextlib.closing(Answers(PHASES.get(phase, hang))) as server:
        server.is_off = True
        sending = Sender(RUN, server.uri, on_acknowledged=acknowledged.append, set_aside=pytest.fail)
        sending.submit(10, lambda: points(0, 10), 0)
        with pytest.raises((MlflowException, TimeoutError)):
            sending.flush()
        assert not sending.complete
        server.is_off = False
    assert acknowledged == []
    assert time.monotonic() - began < 25


def refuses(monkeypatch, is_bad, code="INVALID_PARAMETER_VALUE"):
    """Have MLflow refuse every call in which something is bad."""
    from mlflow.protos import databricks_pb2

    def log_batch(self, run_id, metrics=(), params=(), tags=(), **more):
        if any(map(is_bad, [*metrics, *params, *tags])):
            raise MlflowException("it is bad", databricks_pb2.ErrorCode.Value(code))
        return LOG_BATCH(self, run_id, metrics, params, tags, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)


@pytest.mark.parametrize("code", ["INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INTERNAL_ERROR"])
def test_what_is_refused_for_its_content_is_set_aside_and_blocks_nothing(store, monkeypatch, code):
    refuses(monkeypatch, lambda item: item.key == "batch/loss" and item.step == 3, code)
    model = regression()
    with pytest.warns(RuntimeWarning, match=r"MLflow refuses 1 metrics.*training/refused\.jsonl"):
        fitted = record(model)
    assert same_weights(model, bare(regression()))
    run = store.get_run(fitted.run_id)
    steps = [point.step for point in store.get_metric_history(fitted.run_id, "batch/loss")]
    assert sorted(steps) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    text = Path(store.download_artifacts(fitted.run_id, "training/refused.jsonl")).read_text()
    (line,) = map(json.loads, text.splitlines())
    assert (line["metric"]["key"], line["metric"]["step"]) == ("batch/loss", 3)
    assert line["metric"]["value"] == fitted.history.steps["batch_loss"][3]
    assert "it is bad" in line["reason"]
    assert "MLflow refuses 1 metrics" in run.data.tags["mlflow_hp.recording_error"]
    assert list(recovery.left_behind()) == []


def test_a_tag_or_param_that_is_refused_takes_nothing_with_it(store, monkeypatch):
    refuses(monkeypatch, lambda item: item.key in ("optimizer", "mlflow_hp.weights"))
    with pytest.warns(RuntimeWarning) as told:
        fitted = record(regression())
    said = [str(one.message) for one in told]
    assert any("MLflow refuses 1 metrics, params or tags" in line for line in said), said
    assert any("does not take the param 'optimizer'" in line for line in said), said
    assert fitted.history.n_steps == 10
    assert len(store.get_metric_history(fitted.run_id, "batch/loss")) == 10
    assert store.get_run(fitted.run_id).data.tags["mlflow_hp.fits"] == "1"


class At(keras.callbacks.Callback):
    """Has something done at the begin of epochs: epoch -> function."""

    def __init__(self, **happens):
        super().__init__()
        self.happens = {int(name.removeprefix("epoch_")): do for name, do in happens.items()}

    def on_epoch_begin(self, epoch, logs=None):
        self.happens.get(epoch, lambda: None)()
        time.sleep(0.1)


def test_a_run_that_is_deleted_and_restored_has_every_step(store):
    with mlflow.start_run() as run:
        at = At(epoch_2=lambda: store.delete_run(run.info.run_id), epoch_20=lambda: store.restore_run(run.info.run_id))
        recorder = mlflow_hp.TrainingRecorder(report=False)
        with pytest.warns(RuntimeWarning, match="does not take what is recorded|takes again"):
            regression().fit(X, Y, batch_size=8, epochs=30, verbose=0, callbacks=[recorder, at])
    assert [p.step for p in store.get_metric_history(run.info.run_id, "batch/loss")] == list(range(150))
    assert mlflow_hp.load_history(run.info.run_id).n_steps == 150
    assert list(recovery.left_behind()) == []


@pytest.mark.usefixtures("patience")
def test_a_run_that_stays_deleted_is_kept_until_it_is_restored_or_discarded(store, capsys):
    run_ids = []
    for _ in range(2):
        with mlflow.start_run() as run:
            at = At(epoch_1=lambda run=run: store.delete_run(run.info.run_id))
            recorder = mlflow_hp.TrainingRecorder(report=False)
            with pytest.warns(RuntimeWarning, match="mlflow_hp"):
                regression().fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=[recorder, at])
            store.restore_run(run.info.run_id)
        store.delete_run(run.info.run_id)
        run_ids.append(run.info.run_id)
    one, other = run_ids
    assert main(["recover"]) == 1
    said = capsys.readouterr().err
    assert f"run {one} is deleted" in said
    assert f"mlflow runs restore --run-id {one}" in said
    store.restore_run(one)
    assert main(["recover", one]) == 0
    assert [p.step for p in store.get_metric_history(one, "batch/loss")] == list(range(20))
    assert mlflow_hp.load_history(one).n_steps == 20
    assert main(["recover", "--discard"]) == 2
    assert main(["recover", "--discard", other]) == 0
    assert main(["recover"]) == 0
    assert "nothing was left behind" in capsys.readouterr().out


def test_a_second_fit_in_a_run_that_a_killed_process_trained_in_goes_on_behind_it(store, monkeypatch, tmp_path):
    from test_recovery import DEAD, leave

    run_id, _ = leave(monkeypatch, tmp_path)
    store.set_tag(run_id, "mlflow_hp.process", DEAD)
    with mlflow.start_run(run_id=run_id):
        status = []
        at = At(epoch_1=lambda: status.append(store.get_run(run_id).info.status))
        recorder = mlflow_hp.TrainingRecorder(report=False)
        regression().fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[recorder, at])
    assert status == ["RUNNING"]
    assert store.get_run(run_id).info.status == "FINISHED"
    assert [mlflow_hp.load_history(run_id, fit=fit).n_steps for fit in (0, 1)] == [30, 10]
    assert sorted(p.step for p in store.get_metric_history(run_id, "batch/loss")) == list(range(40))
    assert sorted(p.step for p in store.get_metric_history(run_id, "loss")) == list(range(5))
    tags = store.get_run(run_id).data.tags
    assert (tags["mlflow_hp.fits"], tags["mlflow_hp.steps"], tags["mlflow_hp.epochs"]) == ("2", "40", "5")


def test_it_goes_on_behind_it_too_where_that_could_not_be_recovered_yet(store, monkeypatch, tmp_path):
    from test_recovery import leave

    run_id, folder = leave(monkeypatch, tmp_path)
    monkeypatch.setattr("mlflow_hp.training.callback.recover_quietly", lambda *_: None)
    with mlflow.start_run(run_id=run_id):
        recorder = mlflow_hp.TrainingRecorder(report=False)
        regression().fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[recorder])
    (left,) = recovery.left_behind()
    assert left.folder == folder
    assert recovery.recover(left).status == "FINISHED"  # as the later training has left it
    assert [mlflow_hp.load_history(run_id, fit=fit).n_steps for fit in (0, 1)] == [30, 10]
    assert sorted(p.step for p in store.get_metric_history(run_id, "batch/loss")) == list(range(40))
    assert store.get_run(run_id).data.tags["mlflow_hp.steps"] == "40"


def test_two_machines_that_train_in_one_run_do_not_overwrite_each_other(store, monkeypatch, tmp_path):
    """The second does not see what the first has left, which never reached MLflow while it lived."""
    from test_recovery import leave

    run_id, folder = leave(monkeypatch, tmp_path)
    shutil.move(folder.parents[1], tmp_path / "first-machine")
    with mlflow.start_run(run_id=run_id):
        regression().fit(X, Y, batch_size=8, epochs=2, verbose=0,
                         callbacks=[mlflow_hp.TrainingRecorder(report=False)])  # fmt: skip
    (left,) = recovery.left_behind(tmp_path / "first-machine")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(runs, "upload", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        recovery.recover(left)
    (left,) = recovery.left_behind(tmp_path / "first-machine")
    recovery.recover(left)
    assert [mlflow_hp.load_history(run_id, fit=fit).n_steps for fit in (0, 1)] == [10, 30]
    assert sorted(p.step for p in store.get_metric_history(run_id, "batch/loss")) == list(range(40))
    assert sorted(p.step for p in store.get_metric_history(run_id, "loss")) == list(range(5))


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("how", ["gone", "hangs"])
def test_a_server_that_is_away_when_training_begins_is_an_outage(store, monkeypatch, how):
    """Its run is made by MLflow; what the recorder then asks the server for is not answered."""
    model, uri = regression(), mlflow.get_tracking_uri()
    monkeypatch.setattr("mlflow_hp.training.callback.PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(runs, "SECONDS_TO_ANSWER", 1.0)
    recorder = mlflow_hp.TrainingRecorder(report=False)
    with contextlib.closing(Proxy("")) as proxy, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with mlflow.start_run() as run:
            proxy.mood = how
            mlflow.set_tracking_uri(proxy.uri)
            try:
                model.fit(X, Y, batch_size=8, epochs=2, verbose=0, callbacks=[recorder])
            finally:
                mlflow.set_tracking_uri(uri)
        proxy.mood = "well"
    said = [str(one.message) for one in told if "mlflow_hp" in str(one.message)]
    assert [line for line in said if "recover` brings it" in line]
    assert len(said) <= 3  # that it is away, what that leaves undone, and that the run's params wait in a tag
    assert same_weights(model, bare(regression()))
    assert recorder.history.n_steps == 10
    (left,) = recovery.left_behind()
    assert left.tracking_uri == proxy.uri
    head = {**left.entries.head, "tracking_uri": uri}
    assert recovery.recover(left._replace(entries=left.entries._replace(head=head))).n_steps == 10
    assert [p.step for p in store.get_metric_history(run.info.run_id, "batch/loss")] == list(range(10))


def test_histories_that_a_loop_keeps_stay_readable(store, tmp_path):
    kept = [record(regression()).recorder.history for _ in range(3)]
    assert [history.weights("out/kernel").shape for history in kept] == [(11, 3, 1)] * 3
    assert len({history.steps["time"][0] for history in kept}) == 3
    assert main(["recover"]) == 0
    assert kept[0].steps["batch_loss"].shape == (10,)


@pytest.mark.filterwarnings("ignore:mlflow_hp")
def test_metrics_go_on_and_the_history_too_where_its_folder_is_removed(store, tmp_path):
    recorder = mlflow_hp.TrainingRecorder(report=False)
    at = At(epoch_3=lambda: shutil.rmtree(tmp_path / "on-its-way"))
    fitted = record(regression(), recorder=recorder, epochs=12, callbacks=[at])
    assert [p.step for p in store.get_metric_history(fitted.run_id, "batch/loss")] == list(range(60))
    assert [p.step for p in store.get_metric_history(fitted.run_id, "loss")] == list(range(12))
    assert (fitted.history.n_steps, fitted.history.n_epochs) == (60, 12)
    np.testing.assert_array_equal(
        [p.value for p in store.get_metric_history(fitted.run_id, "batch/loss")], fitted.history.steps["batch_loss"]
    )
    assert "removed" in store.get_run(fitted.run_id).data.tags["mlflow_hp.recording_error"]


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("sqlite:///a/b.db?timeout=5", "sqlite:///{here}/a/b.db?timeout=5"),
        ("sqlite+pysqlite:///x.db", "sqlite+pysqlite:///{here}/x.db"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("./mlruns", "{here}/mlruns"),
        ("mlruns", "{here}/mlruns"),
        ("file:mlruns", "file://{here}/mlruns"),
        ("file:///x/mlruns", "file:///x/mlruns"),
        ("http://host:5000", "http://host:5000"),
        ("databricks", "databricks"),
        ("databricks://profile", "databricks://profile"),
        ("postgresql+psycopg2://u:p@h/db", "postgresql+psycopg2://u:p@h/db"),
    ],
)
def test_a_tracking_uri_means_the_same_from_everywhere(monkeypatch, tmp_path, uri, absolute):
    monkeypatch.chdir(tmp_path)
    assert runs.absolute_uri(uri) == absolute.format(here=tmp_path)


def test_a_store_that_is_gone_is_not_made_anew(store, monkeypatch, tmp_path, capsys):
    from test_recovery import leave

    leave(monkeypatch, tmp_path)
    (left,) = recovery.recordings()
    path = left.folder / journal.FILE
    with journal.Journal(tmp_path, {**left.entries.head, "tracking_uri": f"sqlite:///{tmp_path}/gone.db"}) as copy:
        for entry in left.entries.records:
            copy.append(entry)
    shutil.copy(tmp_path / journal.FILE, path)
    assert main(["recover"]) == 1
    assert "gone.db is not there" in capsys.readouterr().err
    assert not (tmp_path / "gone.db").exists()
    assert path.exists()


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_record_that_can_not_be_locked_is_told(store, monkeypatch, tmp_path, capsys, fault):
    from test_recovery import leave

    _, folder = leave(monkeypatch, tmp_path)

    def fails(*_, **__):
        raise OSError(28, "No space left on device") if fault == "full" else PermissionError(30, "Read-only")

    monkeypatch.setattr("mlflow_hp.training.recovery.FolderLock", fails)
    assert main(["recover"]) == 1
    said = capsys.readouterr().err
    assert "can't be locked" in said
    assert "MLFLOW_HP_FOLDER" in said
    assert (folder / journal.FILE).exists()


def test_a_living_recording_is_named_and_left_alone(store, capsys):
    said = []

    def look():
        said.append((main(["recover"]), capsys.readouterr().out))

    fitted = record(regression(), epochs=2, callbacks=[At(epoch_1=look)])
    ((status, out),) = said
    assert status == 0
    assert f"{fitted.run_id}: left alone in" in out
    assert f"process {os.getpid()} on {socket.gethostname()} holds it" in out


def test_threads_that_start_at_once_leave_each_other_alone(store):
    """Each recovers what was left behind when it begins: not what another begins at that moment."""
    experiment, errors = mlflow.get_experiment_by_name("tests").experiment_id, []
    run_ids = [store.create_run(experiment).info.run_id for _ in range(4)]
    models = [regression() for _ in run_ids]

    def train(model, run_id):
        try:
            with warnings.catch_warnings():
                model.fit(X, Y, batch_size=8, epochs=3, verbose=0,
                          callbacks=[mlflow_hp.TrainingRecorder(run_id, report=False)])  # fmt: skip
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=train, args=pair) for pair in zip(models, run_ids, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for run_id in run_ids:
        assert [p.step for p in store.get_metric_history(run_id, "batch/loss")] == list(range(15))
        assert mlflow_hp.load_history(run_id).n_steps == 15
        assert "mlflow_hp.recovered" not in store.get_run(run_id).data.tags


def slow(monkeypatch, seconds):
    """A store that takes its time for each call, and all that it is given."""

    def log_batch(self, *arguments, **named):
        time.sleep(seconds)
        return LOG_BATCH(self, *arguments, **named)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)


def rest():
    return [thread for thread in threading.enumerate() if thread.name == "mlflow_hp-rest"]


def test_a_store_that_takes_all_and_is_slow_does_not_hold_the_program(store, monkeypatch, capsys):
    monkeypatch.setattr(metric_sender, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(metric_sender, "FIRST_SECONDS", 60.0)
    monkeypatch.setattr(metric_sender, "FULL_BATCH", 10)
    slow(monkeypatch, 0.1)
    run_ids, histories = [], []
    for _ in range(2):
        fitted = record(regression(), epochs=4, wait=False)
        assert fitted.recorder.flush_seconds < 20  # on a loaded machine; all that is left takes some 2 s or more
        assert "MLflow is still taking what was recorded" in capsys.readouterr().err
        run_ids.append(fitted.run_id)
        histories.append(fitted.recorder.history)
    assert rest()
    assert list(recovery.left_behind()) == []  # it is held
    wait_for_the_rest()
    for run_id, history in zip(run_ids, histories, strict=True):
        assert [p.step for p in store.get_metric_history(run_id, "batch/loss")] == list(range(20))
        assert history.steps["batch_loss"].shape == (20,)
        assert mlflow_hp.load_history(run_id).n_steps == 20
        assert store.get_run(run_id).data.tags["mlflow_hp.steps"] == "20"
    assert list(recovery.left_behind()) == []


def test_a_store_that_hangs_behind_that_is_left_to_be_recovered(store, monkeypatch):
    monkeypatch.setattr(metric_sender, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(metric_sender, "FIRST_SECONDS", 60.0)
    monkeypatch.setattr(metric_sender, "FULL_BATCH", 10)
    calls, goes_on = [], threading.Event()

    def log_batch(self, *arguments, **named):
        calls.append(1)
        time.sleep(0.1)
        if len(calls) > 15:
            goes_on.wait(60)
        return LOG_BATCH(self, *arguments, **named)

    with monkeypatch.context() as patched, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        patched.setattr(mlflow.MlflowClient, "log_batch", log_batch)
        fitted = record(regression(), epochs=4)
        goes_on.set()
    assert any("mlflow-hp recover" in str(one.message) for one in told)
    (left,) = recovery.left_behind()
    recovery.recover(left)
    assert sorted({p.step for p in store.get_metric_history(fitted.run_id, "batch/loss")}) == list(range(20))


def test_a_program_waits_for_the_rest_before_it_ends(store, tracking_uri, tmp_path):
    program = f"""
        import sys, time
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        import mlflow
        from mlflow_hp.delivery import metric_sender as sender
        from fakes import record, regression
        mlflow.set_tracking_uri(sys.argv[1])
        mlflow.set_experiment("tests")
        sender.PATIENCE_SECONDS, sender.FIRST_SECONDS, sender.FULL_BATCH = 1.0, 60.0, 10
        log_batch = mlflow.MlflowClient.log_batch
        def slow(self, *arguments, **named):
            time.sleep(0.1)
            return log_batch(self, *arguments, **named)
        mlflow.MlflowClient.log_batch = slow
        print(record(regression(), epochs=4).run_id)
    """
    words = [sys.executable, "-c", textwrap.dedent(program), tracking_uri]
    done = subprocess.run(words, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert "which waits for it before it ends" in done.stderr
    run_id = done.stdout.split()[-1]
    assert [p.step for p in store.get_metric_history(run_id, "batch/loss")] == list(range(20))
    assert mlflow_hp.load_history(run_id).n_steps == 20
    assert list(recovery.left_behind()) == []
