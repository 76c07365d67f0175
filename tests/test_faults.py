"""Servers that fail, hang, vanish and forget while something is recorded: in the end MLflow has all of it, once."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import threading
import warnings

import keras
import mlflow
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GridSearchCV

import mlflow_hp
from mlflow_hp.delivery import journal
from mlflow_hp.delivery.metric_sender import MetricSender
from mlflow_hp.search.recovery import KINDS
from mlflow_hp.training import recovery
from tests.helpers.cut_line import Line
from tests.helpers.failing_proxy import Proxy
from tests.helpers.fits import X, Y, record, regression
from tests.helpers.needs import database_of_its_own
from tests.helpers.servers import Server
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.usefixtures("impatient")
MOODS = ["fails", "hangs", "gone", "forgets"]
TOLD, BACK = "MLflow does not accept the recorded data", "MLflow accepts the recorded data again"


class Stub(Proxy):
    """A tracking server that takes metrics, and nothing else."""

    def __init__(self):
        super().__init__("")
        self.metrics = []

    def hand_on(self, request, body):
        if request.path.endswith("/log-batch"):
            self.metrics += json.loads(body)["metrics"]
        return 200, "application/json", b"{}"


@pytest.mark.parametrize("mood", MOODS)
def test_metrics_arrive_when_the_server_is_well_again(mood):
    stub, said = Stub(), []
    with contextlib.closing(stub):
        sending = MetricSender("1" * 32, stub.uri, on_trouble=said.append)
        for start in range(0, 5000, 500):
            points = [("loss", 1 / (step + 1), 1_700_000_000_000 + step, step) for step in range(start, start + 500)]
            sending.submit(len(points), lambda points=points: points)
            if start == 1000:
                stub.mood = mood
            if start == 3000:
                wait_for(lambda: stub.refused)
                stub.mood = "well"
        sending.flush()
    steps = [metric["step"] for metric in stub.metrics]
    assert stub.refused
    assert sorted(set(steps)) == list(range(5000))
    assert len(steps) == 5000 or mood == "forgets"  # then it is sent again, as it was: MLflow keeps it once
    assert len({json.dumps(metric) for metric in stub.metrics}) == 5000
    assert (sending.n_sent, sending.error, sending.n_refused) == (5000, None, 0)
    assert [line.split(":")[0] for line in said] in (
        [],
        [f"{TOLD}, which is kept meanwhile", "MLflow accepts the recorded data again"],
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
    server.refused = server.answered = 0
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
    """When a server's mood changes: it has each bad one until it is asked in it, and is well until it has answered."""

    def turn(mood):
        wait_for(lambda: proxy.answered if proxy.mood == "well" else proxy.refused)
        proxy.answered, proxy.refused, proxy.mood = 0, 0, mood

    happens = {}
    for mood in MOODS:
        happens[first], happens[first + length] = functools.partial(turn, mood), functools.partial(turn, "well")
        first += length + pause
    return happens


@pytest.mark.thorough
@pytest.mark.slow
def test_a_training_outlives_a_server_in_bad_moods(proxy, tmp_path):
    run_id = trained(in_every_mood(proxy, 10, 8, 4))
    check_training(run_id, tmp_path)


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:mlflow_hp")
def test_a_training_whose_server_is_away_at_its_end_is_recovered(proxy, gives_up_soon, tmp_path):
    client = mlflow.MlflowClient()
    run_id = client.create_run(client.get_experiment_by_name("faults").experiment_id).info.run_id
    leave = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: setattr(proxy, "mood", "gone"))
    recorder = mlflow_hp.TrainingRecorder(report=False, run_id=run_id)
    with pytest.warns(RuntimeWarning, match="MLflow lacks a part of the record; `mlflow-hp recover`"):
        regression().fit(X, Y, batch_size=4, epochs=60, verbose=0, callbacks=[recorder, leave])
    gives_up_soon()
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
    with contextlib.ExitStack() as stack:
        uri = stack.enter_context(database_of_its_own(f"mlflow_hp_faults_{os.getpid()}"))
        line = stack.enter_context(contextlib.closing(Line()))
        served = Server(tmp_path, uri.replace(":5432", f":{line.port}"))
        served.start()
        stack.callback(served.kill)
        yield from in_use(line, served.uri, tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_training_outlives_the_database_of_the_server(postgres, tmp_path):
    def mend():
        wait_for(lambda: postgres.refused)
        postgres.mend()

    run_id = trained({20: postgres.cut, 45: mend})
    check_training(run_id, tmp_path)


class Happens(ClassifierMixin, BaseEstimator):
    """Scores what it is told to; at one of its fits something happens."""

    happens = {}  # noqa: RUF012 - of all that are cloned
    fits = 0

    def __init__(self, a=0, b=0):
        self.a, self.b = a, b

    def fit(self, x, y):
        Happens.happens.get(Happens.fits, lambda: None)()
        Happens.fits += 1
        self.classes_ = np.unique(y)
        return self

    def predict(self, x):
        return np.zeros(len(x), int)

    def score(self, x, y):
        return self.a / 10 + self.b / 100


def searched(monkeypatch, happens):
    """A recorded search of 12 combinations and 36 folds; the parent's id, and what was warned of."""
    monkeypatch.setattr(Happens, "happens", happens)
    monkeypatch.setattr(Happens, "fits", 0)
    search = GridSearchCV(Happens(), {"a": [1, 2, 3], "b": [1, 2, 3, 4]}, cv=3, refit=False)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with mlflow_hp.record_search(search, progress=False, report=False) as recording:
            search.fit(np.zeros((12, 1)), np.arange(12) % 2)
    said = [str(one.message) for one in told]
    assert sum(TOLD in line for line in said) - sum(BACK in line for line in said) in (0, 1)
    return recording.run_id, [line for line in said if TOLD not in line and BACK not in line]


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


@pytest.mark.thorough
@pytest.mark.slow
def test_a_search_outlives_a_server_in_bad_moods(proxy, monkeypatch):
    run_id, told = searched(monkeypatch, in_every_mood(proxy, 3, 6, 2))
    assert told == []
    check_search(run_id)


@pytest.mark.thorough
@pytest.mark.slow
def test_a_search_waits_a_while_at_its_end_for_a_server_that_is_away(proxy, monkeypatch):
    def leave():
        proxy.mood = "gone"
        returns.start()

    def come_back():
        wait_for(lambda: proxy.refused > 5)
        proxy.mood = "well"

    returns = threading.Thread(target=come_back)
    run_id, told = searched(monkeypatch, {30: leave})
    returns.join()
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
        wait_for(lambda: proxy.refused)
        met.append(proxy.mood)
        proxy.refused, proxy.mood = 0, "well"

    for number, answer in enumerate(REFUSALS):
        happens[2 + 2 * number], happens[3 + 2 * number] = functools.partial(refuse, answer), take
    run_id, told = searched(monkeypatch, happens)
    assert met == REFUSALS
    assert told == []
    check_search(run_id)


@pytest.mark.sampled(5)
@pytest.mark.slow
@pytest.mark.parametrize("mood", ["gone", "hangs", "fails", "hangs behind a good health", refusing(403)], ids=str)
def test_a_search_whose_server_is_away_at_its_end_is_recovered(proxy, monkeypatch, gives_up_soon, mood):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3600")  # a call that hangs does so until the search has ended
    monkeypatch.setattr(proxy, "healthy", "good health" in mood)

    def leave():
        proxy.mood = mood[:5] if "hangs" in mood else mood

    run_id, told = searched(monkeypatch, {35: leave})
    (said,) = told
    assert "MLflow lacks a part of the search" in said
    gives_up_soon()
    proxy.mood = "well"
    wait_for(lambda: list(recovery.left_behind()))  # until then a thread that waits for an answer holds the record
    (left,) = recovery.left_behind()
    assert recovery.recover(left, kinds=KINDS).status == "FINISHED"
    check_search(run_id)
    assert not list(recovery.recordings())
