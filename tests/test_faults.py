"""Servers that fail, hang, vanish and forget while something is recorded: in the end MLflow has all of it, once."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import time
import warnings

import keras
import mlflow
import numpy as np
import pytest
from fakes import X, Y, record, regression
from servers import Line, Proxy, Server, database
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

import mlflow_hp
from mlflow_hp.delivery import journal, metric_sender, run_writer
from mlflow_hp.delivery.metric_sender import Sender
from mlflow_hp.search.recovery import KINDS
from mlflow_hp.training import recovery

MOODS = ["fails", "hangs", "gone", "forgets"]
TOLD, BACK = "MLflow does not take what is recorded", "MLflow takes again what is recorded"


class Stub(Proxy):
    """A tracking server that takes metrics, and nothing else."""

    def __init__(self):
        super().__init__("")
        self.metrics = []

    def hand_on(self, request, body):
        if request.path.endswith("/log-batch"):
            self.metrics += json.loads(body)["metrics"]
        return 200, "application/json", b"{}"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """MLflow gives up on a call in seconds, not in minutes, and metrics are sent as soon as they are there."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setattr(metric_sender, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(metric_sender, "OLDEST_SECONDS", 0.2)
    monkeypatch.setattr(metric_sender, "SHARE_OF_TIME", 0.9)
    monkeypatch.setattr(run_writer, "EVERY_SECONDS", 0.2)
    monkeypatch.setattr(run_writer, "LONGEST_PAUSE_SECONDS", 0.5)


@pytest.mark.parametrize("mood", MOODS)
def test_metrics_arrive_when_the_server_is_well_again(mood):
    stub, said = Stub(), []
    with contextlib.closing(stub):
        sending = Sender("1" * 32, stub.uri, on_trouble=said.append)
        for start in range(0, 5000, 500):
            points = [("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(start, start + 500)]
            sending.submit(len(points), lambda points=points: points)
            if start == 1000:
                stub.mood = mood
            if start == 3000:
                until = time.monotonic() + 30
                while not stub.refused and time.monotonic() < until:
                    time.sleep(0.01)
                time.sleep(0.2)
                stub.mood = "well"
        sending.flush()
    steps = [metric["step"] for metric in stub.metrics]
    assert stub.refused
    assert sorted(set(steps)) == list(range(5000))
    assert len(steps) == 5000 or mood == "forgets"  # then it is sent again, as it was: MLflow keeps it once
    assert len({json.dumps(metric) for metric in stub.metrics}) == 5000
    assert (sending.sent, sending.error, sending.n_refused) == (5000, None, 0)
    assert [line.split(":")[0] for line in said] in (
        [],
        [f"{TOLD}, which is kept meanwhile", "MLflow takes again what is recorded"],
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """An `mlflow server` on SQLite, behind a proxy."""
    served = Server(tmp_path_factory.mktemp("server"))
    served.start()
    proxy = Proxy(served.uri)
    yield proxy
    proxy.close()
    served.kill()


@pytest.fixture
def proxy(server, tmp_path, monkeypatch):
    """It is MLflow's store, and well."""
    server.refused = 0
    yield from in_use(server, server.uri, tmp_path, monkeypatch)


def in_use(given, uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(tmp_path / "on-its-way"))
    for name in ("EXPERIMENT_ID", "EXPERIMENT_NAME", "RUN_ID"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("faults")
    yield given
    mlflow.set_tracking_uri(None)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


def trained(happens, epochs=60):
    """A recorded training, at whose epochs things happen: epoch -> function; the run's id."""

    class Happens(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            happens.get(epoch, lambda: None)()
            time.sleep(0.1)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with mlflow.start_run() as run:
            recorder = mlflow_hp.TrainingRecorder(report=False)
            regression().fit(X, Y, batch_size=4, epochs=epochs, verbose=0, callbacks=[recorder, Happens()])
    assert sum(TOLD in str(one.message) for one in told) <= len(MOODS)  # once for each time that it is away
    assert [str(one.message) for one in told if "lacks" in str(one.message)] == []
    return run.info.run_id


def check_training(run_id, tmp_path, epochs=60):
    """All of a training is in MLflow, each point once, and nothing is left to be recovered."""
    client, history = mlflow.MlflowClient(), mlflow_hp.load_history(run_id)
    assert (history.n_steps, history.n_epochs, history.complete) == (10 * epochs, epochs, True)
    for name, values in (
        ("batch/loss", history.steps["batch_loss"]),
        ("weights/out/bias", history.weights("out/bias")[1:, 0]),
        ("loss", history.epochs["loss"]),
    ):
        found = client.get_metric_history(run_id, name)
        assert [point.step for point in found] == list(range(len(values))), name
        np.testing.assert_array_equal([point.value for point in found], np.asarray(values, float))
    run = client.get_run(run_id)
    assert (run.info.status, run.data.params["optimizer"]) == ("FINISHED", "RMSprop")
    assert "mlflow_hp.recording_error" not in run.data.tags
    assert all("done" in journal.read(path.parent).records[-1] for path in tmp_path.rglob(journal.FILE))


def in_every_mood(proxy, first, length, pause):
    """When a server's mood changes: it has each bad one until it was asked in it, and is well for a while after it."""
    met = {}

    def turn(mood):
        until = time.monotonic() + 30
        while proxy.mood != "well" and not proxy.refused and time.monotonic() < until:
            time.sleep(0.02)
        met[proxy.mood], proxy.refused, proxy.mood = proxy.refused, 0, mood

    happens = {}
    for mood in MOODS:
        happens[first], happens[first + length] = functools.partial(turn, mood), functools.partial(turn, "well")
        first += length + pause
    return happens, met


@pytest.mark.slow
def test_a_training_outlives_a_server_in_bad_moods(proxy, tmp_path):
    happens, met = in_every_mood(proxy, 10, 8, 4)
    run_id = trained(happens)
    assert all(met[mood] for mood in MOODS), met
    check_training(run_id, tmp_path)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:mlflow_hp")
def test_a_training_whose_server_is_away_at_its_end_is_recovered(proxy, monkeypatch, tmp_path):
    monkeypatch.setattr(metric_sender, "PATIENCE_SECONDS", 1.0)
    client = mlflow.MlflowClient()
    run_id = client.create_run(client.get_experiment_by_name("faults").experiment_id).info.run_id
    leave = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: setattr(proxy, "mood", "gone"))
    recorder = mlflow_hp.TrainingRecorder(report=False, run_id=run_id)
    with pytest.warns(RuntimeWarning, match="MLflow lacks a part of what was recorded; `mlflow-hp recover`"):
        regression().fit(X, Y, batch_size=4, epochs=60, verbose=0, callbacks=[recorder, leave])
    proxy.mood = "well"
    assert client.get_run(run_id).info.status == "RUNNING"
    (left,) = recovery.left_behind()
    assert recovery.recover(left).status == "FINISHED"
    check_training(run_id, tmp_path)


def test_early_stopping_loses_nothing(store):
    stop = keras.callbacks.EarlyStopping("loss", min_delta=1e9, patience=2)
    fitted = record(regression(), epochs=50, callbacks=[stop])
    assert (fitted.history.n_steps, fitted.history.n_epochs, fitted.history.complete) == (15, 3, True)
    assert [point.step for point in store.get_metric_history(fitted.run_id, "batch/loss")] == list(range(15))


@pytest.fixture
def postgres(tmp_path, monkeypatch):
    """The line between an `mlflow server` and its PostgreSQL; the server is MLflow's store."""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    pytest.importorskip("psycopg2", reason="psycopg2-binary is not installed")
    with contextlib.ExitStack() as stack:
        try:
            name = stack.enter_context(database(f"mlflow_hp_faults_{os.getpid()}"))
        except sqlalchemy.exc.OperationalError as error:
            pytest.skip(f"PostgreSQL does not answer at 127.0.0.1:5432: {error.orig}")
        line = stack.enter_context(contextlib.closing(Line()))
        served = Server(tmp_path, f"postgresql+psycopg2://postgres@127.0.0.1:{line.port}/{name}")
        served.start()
        stack.callback(served.kill)
        yield from in_use(line, served.uri, tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_training_outlives_the_database_of_the_server(postgres, tmp_path):
    run_id = trained({20: postgres.cut, 45: postgres.mend})
    check_training(run_id, tmp_path)


class Slow(ClassifierMixin, BaseEstimator):
    """Takes a while, and scores what it is told to; at one of its fits something happens."""

    happens = {}  # noqa: RUF012 - of all that are cloned
    fits = 0
    seconds = 0.3

    def __init__(self, a=0, b=0):
        self.a, self.b = a, b

    def fit(self, x, y):
        Slow.happens.get(Slow.fits, lambda: None)()
        Slow.fits += 1
        self.classes_ = np.unique(y)
        time.sleep(self.seconds)
        return self

    def predict(self, x):
        return np.zeros(len(x), int)

    def score(self, x, y):
        return self.a / 10 + self.b / 100


def searched(monkeypatch, happens, seconds=0.03):
    """A recorded search of 12 combinations and 36 folds; the parent's id, and what was warned of."""
    monkeypatch.setattr(Slow, "happens", happens)
    monkeypatch.setattr(Slow, "fits", 0)
    monkeypatch.setattr(Slow, "seconds", seconds)
    search = GridSearchCV(Slow(), {"a": [1, 2, 3], "b": [1, 2, 3, 4]}, cv=3, refit=False)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with mlflow_hp.record_search(search, progress=False, report=False) as recording:
            search.fit(np.zeros((12, 1)), np.arange(12) % 2)
    return recording.run_id, [str(one.message) for one in told]


def check_search(run_id):
    """Each combination is there once, with all its folds."""
    client = mlflow.MlflowClient()
    parent = client.get_run(run_id)
    below = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert sorted((run.data.params["a"], run.data.params["b"]) for run in below) == [
        (str(a), str(b)) for a in (1, 2, 3) for b in (1, 2, 3, 4)
    ]
    for run in below:
        score = int(run.data.params["a"]) / 10 + int(run.data.params["b"]) / 100
        folds = client.get_metric_history(run.info.run_id, "score")
        assert [(point.step, point.value) for point in folds] == [(0, score), (1, score), (2, score)]
        assert run.info.status == "FINISHED"
        assert run.data.metrics["mean_score"] == pytest.approx(score)
    assert parent.info.status == "FINISHED"
    assert "cv_results.csv" in [file.path for file in client.list_artifacts(run_id)]
    assert "mlflow_hp.recording_error" not in parent.data.tags


@pytest.mark.slow
def test_a_search_outlives_a_server_in_bad_moods(proxy, monkeypatch):
    happens, met = in_every_mood(proxy, 3, 6, 2)
    run_id, told = searched(monkeypatch, happens, 0.3)
    assert all(met[mood] for mood in MOODS), met
    assert told == []
    check_search(run_id)


@pytest.mark.slow
def test_a_search_waits_a_while_at_its_end_for_a_server_that_is_away(proxy, monkeypatch):
    def leave():
        proxy.mood = "gone"
        threading.Timer(4.0, lambda: setattr(proxy, "mood", "well")).start()

    run_id, told = searched(monkeypatch, {30: leave})
    assert told == []
    check_search(run_id)


def refusing(status, kind="text/html", body=b"<html>no</html>"):
    return status, kind, body


def in_words(code):
    return "application/json", json.dumps({"error_code": code, "message": "no"}).encode()


REFUSALS = [
    *map(refusing, (400, 401, 403, 404, 413, 429, 502, 302, 200)),
    refusing(404, *in_words("RESOURCE_DOES_NOT_EXIST")),
    refusing(403, *in_words("PERMISSION_DENIED")),
    refusing(400, *in_words("INVALID_PARAMETER_VALUE")),
]


@pytest.mark.slow
def test_a_search_outlives_a_server_that_refuses_everything_for_a_while(proxy, monkeypatch):
    happens, met = {}, []
    monkeypatch.setattr(proxy, "healthy", True)

    def refuse(answer):
        proxy.mood = answer

    def take():
        until = time.monotonic() + 30
        while not proxy.refused and time.monotonic() < until:
            time.sleep(0.02)
        met.append(proxy.refused)
        proxy.refused, proxy.mood = 0, "well"

    for number, answer in enumerate(REFUSALS):
        happens[2 + 2 * number], happens[3 + 2 * number] = functools.partial(refuse, answer), take
    run_id, told = searched(monkeypatch, happens)
    assert len(met) == len(REFUSALS)
    assert all(met)
    assert told == []
    check_search(run_id)


@pytest.mark.slow
@pytest.mark.parametrize("mood", ["gone", "hangs", "fails", "hangs behind a good health", refusing(403)], ids=str)
def test_a_search_whose_server_is_away_at_its_end_is_recovered(proxy, monkeypatch, mood):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")  # as it is by default: a call that hangs does so for long
    monkeypatch.setattr(run_writer, "PATIENCE_SECONDS", 3.0)
    monkeypatch.setattr(proxy, "healthy", "good health" in mood)
    ended = []

    def leave():
        proxy.mood = mood[:5] if "hangs" in mood else mood
        ended.append(time.monotonic())

    run_id, told = searched(monkeypatch, {35: leave})
    assert time.monotonic() - ended[0] < 3.0 + 15  # a loaded machine
    (said,) = told
    assert "MLflow lacks a part of the search" in said
    proxy.mood = "well"
    until = time.monotonic() + 60
    while not (left := list(recovery.left_behind())) and time.monotonic() < until:
        time.sleep(0.1)  # a thread that waits for an answer holds the record
    assert recovery.recover(left[0], kinds=KINDS).status == "FINISHED"
    check_search(run_id)
    assert not list(recovery.recordings())
