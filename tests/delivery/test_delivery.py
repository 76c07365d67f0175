"""Delivery of a training to MLflow: refusals, deleted runs, servers that are down, removed folders."""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

import mlflow_hp
from mlflow_hp.cli.main import main
from mlflow_hp.delivery.metric_sender import MetricSender
from mlflow_hp.history import STEPS_FILE
from mlflow_hp.tracking import runs
from mlflow_hp.training import recovery
from tests.helpers.callbacks import AtEpoch
from tests.helpers.failing_proxy import Proxy
from tests.helpers.fits import X, Y, bare, record, regression, same_weights
from tests.helpers.refusals import refusals
from tests.helpers.waiting import wait_for

LOG_BATCH = mlflow.MlflowClient.log_batch
RUN = "1" * 32

pytestmark = pytest.mark.usefixtures("impatient")


class Answers(Proxy):
    """Tracking server that accepts metrics; while it `is_off`, it gives another answer."""

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


@pytest.mark.sampled(6)
@pytest.mark.parametrize("phase", PHASES)
def test_temporary_refusal_is_retried_and_not_acknowledged(phase):
    acknowledged = []
    with contextlib.closing(Answers(PHASES[phase])) as server:
        sending = MetricSender(RUN, server.uri, on_acknowledged=acknowledged.append, set_aside=pytest.fail)
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
        assert (sending.n_sent, sending.n_refused, sending.is_complete) == (20, 0, True)


def test_connections_are_reused():
    with contextlib.closing(Answers(None)) as server:
        sending = MetricSender(RUN, server.uri)
        for start in range(0, 200, 10):
            sending.submit(10, lambda start=start: points(start, 10))
            wait_for(lambda start=start: sending.n_sent == start + 10)
        sending.flush()
        assert len(server.connections) <= 3


@pytest.mark.usefixtures("gives_up_soon")
@pytest.mark.parametrize("phase", ["403 of MLflow", "an unknown run", "hangs"])
def test_permanent_refusal_stays_in_the_journal(phase):
    def hang(server):
        wait_for(lambda: not server.is_off)
        return 0, "", b""

    acknowledged = []
    with contextlib.closing(Answers(PHASES.get(phase, hang))) as server:
        server.is_off = True
        sending = MetricSender(RUN, server.uri, on_acknowledged=acknowledged.append, set_aside=pytest.fail)
        sending.submit(10, lambda: points(0, 10), 0)
        with pytest.raises((MlflowException, TimeoutError)):
            sending.flush()
        assert not sending.is_complete
        assert acknowledged == []
        server.is_off = False


def refuses(monkeypatch, is_bad, code="INVALID_PARAMETER_VALUE"):
    """Have MLflow refuse every call with a bad item."""
    from mlflow.protos import databricks_pb2

    def log_batch(self, run_id, metrics=(), params=(), tags=(), **more):
        if any(map(is_bad, [*metrics, *params, *tags])):
            raise MlflowException("it is bad", databricks_pb2.ErrorCode.Value(code))
        return LOG_BATCH(self, run_id, metrics, params, tags, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("code", ["INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INTERNAL_ERROR"])
def test_bad_metric_is_set_aside(store, monkeypatch, code):
    refuses(monkeypatch, lambda item: item.key == "batch/loss" and item.step == 3, code)
    model = regression()
    with pytest.warns(RuntimeWarning, match=r"MLflow refuses 1 value .*training/refused\.jsonl"):
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
    assert "MLflow refuses 1 value " in run.data.tags["mlflow_hp.recording_error"]
    assert list(recovery.left_behind()) == []


def test_forbidden_metric_is_left_to_recovery_which_duplicates_nothing(store, monkeypatch):
    """A training acknowledges nothing after a forbidden item, so its recovery sends points that MLflow has."""
    with monkeypatch.context() as patched:
        refuses(patched, lambda item: item.key == "batch/loss" and item.step == 3, "PERMISSION_DENIED")
        with pytest.warns(RuntimeWarning, match="does not accept a part of its metrics|MLflow lacks a part"):
            fitted = record(regression())
    names = store.get_run(fitted.run_id).data.metrics
    before = {name: points_of(store, fitted.run_id, name) for name in names}
    assert sorted({point[0] for point in before["batch/loss"]}) == [0, 1, 2, *range(4, 10)]
    (recording,) = recovery.left_behind()
    recovered = recovery.recover(recording)
    assert (recovered.n_steps, recovered.problems) == (10, [])
    after = {name: points_of(store, fitted.run_id, name) for name in names}
    (added,) = set(after["batch/loss"]) - set(before["batch/loss"])
    assert added[0] == 3
    assert after == before | {"batch/loss": sorted([*before["batch/loss"], added])}
    assert len(after["loss"]) == 2


def points_of(store, run_id, name):
    return sorted((p.step, p.value, p.timestamp) for p in store.get_metric_history(run_id, name))


def test_bad_tag_and_param_are_set_aside(store, monkeypatch):
    refuses(monkeypatch, lambda item: item.key in ("optimizer", "mlflow_hp.weights"))
    with pytest.warns(RuntimeWarning) as told:
        fitted = record(regression())
    said = [str(one.message) for one in told]
    assert any("MLflow refuses 1 value (metrics, params or tags)" in line for line in said), said
    assert any("refuses the param 'optimizer'" in line for line in said), said
    assert fitted.history.n_steps == 10
    assert len(store.get_metric_history(fitted.run_id, "batch/loss")) == 10
    assert store.get_run(fitted.run_id).data.tags["mlflow_hp.fits"] == "1"


@pytest.mark.thorough
def test_deleted_and_restored_run_has_every_step(store, monkeypatch):
    refused = refusals(monkeypatch)
    with mlflow.start_run() as run:

        def restore():
            wait_for(lambda: refused)
            store.restore_run(run.info.run_id)

        at = AtEpoch(epoch_2=lambda: store.delete_run(run.info.run_id), epoch_20=restore)
        recorder = mlflow_hp.TrainingRecorder(report=False)
        with pytest.warns(RuntimeWarning, match="does not accept the recorded data|accepts the recorded data again"):
            regression().fit(X, Y, batch_size=8, epochs=30, verbose=0, callbacks=[recorder, at])
    assert [p.step for p in store.get_metric_history(run.info.run_id, "batch/loss")] == list(range(150))
    assert mlflow_hp.load_history(run.info.run_id).n_steps == 150
    assert list(recovery.left_behind()) == []


@pytest.mark.thorough
def test_recording_of_a_deleted_run_is_kept(store, capsys, gives_up_soon):
    run_ids = []
    for _ in range(2):
        with mlflow.start_run() as run:
            at = AtEpoch(epoch_1=lambda run=run: store.delete_run(run.info.run_id))
            recorder = mlflow_hp.TrainingRecorder(report=False)
            with pytest.warns(RuntimeWarning, match="mlflow_hp"):
                regression().fit(X, Y, batch_size=8, epochs=4, verbose=0, callbacks=[recorder, at])
            store.restore_run(run.info.run_id)
        store.delete_run(run.info.run_id)
        run_ids.append(run.info.run_id)
    one, other = run_ids
    gives_up_soon()
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


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", ["gone", "hangs"])
def test_server_down_at_the_begin_of_training(store, monkeypatch, gives_up_soon, how):
    """MLflow has created the run; the recorder gets no answers."""
    model, uri = regression(), mlflow.get_tracking_uri()
    monkeypatch.setattr("mlflow_hp.training.earlier_recordings.PATIENCE_SECONDS", 1.0)
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
    gives_up_soon()
    said = [str(one.message) for one in told if "mlflow_hp" in str(one.message)]
    assert [line for line in said if "recover` brings it" in line]
    assert len(said) <= 3  # that it is away, what that leaves undone, and that the run's params wait in a tag
    assert same_weights(model, bare(regression()))
    assert recorder.history.n_steps == 10
    (left,) = recovery.left_behind()
    assert left.tracking_uri == proxy.uri
    header = {**left.entries.header, "tracking_uri": uri}
    assert recovery.recover(left._replace(entries=left.entries._replace(header=header))).n_steps == 10
    assert [p.step for p in store.get_metric_history(run.info.run_id, "batch/loss")] == list(range(10))


@pytest.mark.thorough
def test_histories_stay_readable_after_their_fits(store, tmp_path):
    kept = [record(regression()).recorder.history for _ in range(3)]
    assert [history.weights("out/kernel").shape for history in kept] == [(11, 3, 1)] * 3
    assert len({history.steps["time"][0] for history in kept}) == 3
    assert main(["recover"]) == 0
    assert kept[0].steps["batch_loss"].shape == (10,)


@pytest.mark.filterwarnings("ignore:mlflow_hp")
def test_removed_folder_is_restored(store, monkeypatch, tmp_path):
    monkeypatch.setattr("mlflow_hp.training.capture.graph_reader.FETCH_SECONDS", 0.0)
    recorder = mlflow_hp.TrainingRecorder(report=False)

    def remove():
        wait_for(lambda: list((tmp_path / "on-its-way").rglob(STEPS_FILE)))
        (tmp_path / "on-its-way").rename(tmp_path / "removed")  # at once: it is written to
        shutil.rmtree(tmp_path / "removed", ignore_errors=True)

    at = AtEpoch(epoch_3=remove)
    fitted = record(regression(), recorder=recorder, epochs=12, callbacks=[at])
    assert [p.step for p in store.get_metric_history(fitted.run_id, "batch/loss")] == list(range(60))
    assert [p.step for p in store.get_metric_history(fitted.run_id, "loss")] == list(range(12))
    assert (fitted.history.n_steps, fitted.history.n_epochs) == (60, 12)
    np.testing.assert_array_equal(
        [p.value for p in store.get_metric_history(fitted.run_id, "batch/loss")], fitted.history.steps["batch_loss"]
    )
    assert "removed" in store.get_run(fitted.run_id).data.tags["mlflow_hp.recording_error"]
