"""Names, tags, reachability, and loading back."""

from __future__ import annotations

import http.server
import socket
import threading
import time

import mlflow
import numpy as np
import pytest
from fakes import record, regression

import mlflow_hp
from mlflow_hp import runs
from mlflow_hp.errors import UserError
from mlflow_hp.sender import MetricSender


@pytest.mark.parametrize(
    ("name", "mapped"),
    [
        ("dense/kernel", "dense/kernel"),
        ("loss (mse) [%]", "loss _mse_ ___"),
        ("/a//b/", "a/b"),
        ("../../x", "x"),
        ("a..b", "a__b"),
        ("<script>", "_script_"),
        ("größe 🎉", "größe _"),
        ("", "_"),
        ("//", "_"),
    ],
)
def test_metric_name(name, mapped, store):
    assert runs.metric_name(name) == mapped
    with mlflow.start_run():
        mlflow.log_metric(mapped, 1.0)


def test_a_long_name_is_cut_and_told_from_others(store):
    one, other = (runs.metric_name("x" * 10_000 + end) for end in "ab")
    assert one != other
    assert len(one) == 250
    with mlflow.start_run():
        mlflow.log_metric(one, 1.0)


def test_distinct_metric_names():
    names = runs.distinct_metric_names(["a[0]", "a(0)", "b", "x" * 300, "x" * 300 + "y"])
    assert list(names.values())[:3] == ["a_0_", "a_0__2", "b"]
    assert len(set(names.values())) == 5
    assert max(map(len, names.values())) <= 250


def test_a_server_that_is_down_is_told_in_seconds():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.perf_counter()
    with pytest.raises(UserError, match=f"127.0.0.1:{port} does not answer.*MLFLOW_TRACKING_URI") as told:
        runs.ensure_reachable(f"http://me:secret@127.0.0.1:{port}")
    assert time.perf_counter() - began < 5
    assert "secret" not in str(told.value)


def test_a_server_that_hangs_is_told_in_seconds():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(UserError, match="does not answer"):
            runs.ensure_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.2)


@pytest.mark.parametrize("uri", ["http://", "http://[", "https://no such host"])
def test_an_address_that_is_none(uri):
    with pytest.raises(UserError, match="does not answer"):
        runs.ensure_reachable(uri)


def test_a_server_that_answers():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    asked: list[str] = []
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        runs.ensure_reachable(f"http://127.0.0.1:{server.server_port}/base/")
        thread.join()
    assert asked == ["/base/health"]


def test_run_tags(monkeypatch, tmp_path):
    tags = runs.run_tags("training", extra="x")
    assert tags["mlflow_hp.kind"] == "training"
    assert tags["mlflow_hp.extra"] == "x"
    assert f"numpy {np.__version__}" in tags["mlflow_hp.versions"]
    monkeypatch.chdir(tmp_path)
    assert "mlflow_hp.git_commit" not in runs.run_tags("training")
    monkeypatch.setenv("PATH", "")
    runs._git.cache_clear()
    assert "mlflow_hp.git_dirty" not in runs.run_tags("training")


def test_load_history_from_another_store(store, tracking_uri, tmp_path):
    fitted = record(regression())
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/other.db")
    history = mlflow_hp.load_history(fitted.run_id, tracking_uri)
    assert history.n_steps == 10
    assert history.to_pandas().shape == (10, 11)


def test_load_history_of_what_is_not_there(store):
    with pytest.raises(UserError, match="'nowhere'"):
        mlflow_hp.load_history("nowhere")
    with mlflow.start_run() as run:
        pass
    with pytest.raises(UserError, match=r"holds no training history.*TrainingRecorder"):
        mlflow_hp.load_history(run.info.run_id)


def test_the_sender_waits_for_a_store_that_fails_for_a_while(store, monkeypatch):
    real, failures = mlflow.MlflowClient.log_batch, iter([OSError("gone"), OSError("still gone")])

    def log_batch(self, run_id, metrics=(), **more):
        for error in failures:
            raise error
        return real(self, run_id, metrics, **more)

    monkeypatch.setattr("mlflow_hp.sender.FIRST_SECONDS", 0)
    monkeypatch.setattr("mlflow_hp.sender.OLDEST_SECONDS", 0)
    monkeypatch.setattr("mlflow_hp.sender.LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    with mlflow.start_run() as run:
        sender = MetricSender(run.info.run_id)
        sender.submit(2, lambda: [("a", float(i), 0, i) for i in range(2)])
        until = time.monotonic() + 20
        while sender.sent < 2 and time.monotonic() < until:
            time.sleep(0.01)
        sender.flush()
    assert [m.value for m in store.get_metric_history(run.info.run_id, "a")] == [0.0, 1.0]


def test_the_sender_tells_what_the_store_refuses(store):
    sender = MetricSender("no such run")
    sender.submit(1, lambda: [("a", 1.0, 0, 0)])
    with pytest.raises(mlflow.exceptions.MlflowException, match="no such run"):
        sender.flush()
    assert (sender.submitted, sender.sent) == (1, 0)


def test_the_sender_writes_full_batches_in_order(store, monkeypatch):
    sizes = []
    real = mlflow.MlflowClient.log_batch

    def log_batch(self, run_id, metrics=(), **more):
        sizes.append(len(metrics))
        return real(self, run_id, metrics, **more)

    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    with mlflow.start_run() as run:
        sender = MetricSender(run.info.run_id)
        for start in range(0, 2400, 300):
            sender.submit(300, lambda start=start: [("a", float(i), i, i) for i in range(start, start + 300)])
        sender.flush()
    assert sizes == [1000, 1000, 400]
    assert [m.step for m in store.get_metric_history(run.info.run_id, "a")] == list(range(2400))
