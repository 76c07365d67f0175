"""Names, tags, reachability, and loading back."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading
from pathlib import Path

import mlflow
import numpy as np
import pytest

import mlflow_hp
from mlflow_hp.delivery.metric_sender import MetricSender
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import git_repository, names, provenance, runs, uncommitted_code
from mlflow_hp.tracking.artifact_paths import UNCOMMITTED_FILE
from mlflow_hp.tracking.tags import UNCOMMITTED_TAG
from tests.helpers.fits import record, regression
from tests.helpers.waiting import wait_for


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
    assert names.metric_name(name) == mapped
    with mlflow.start_run():
        mlflow.log_metric(mapped, 1.0)


def test_a_long_name_is_cut_and_told_from_others(store):
    one, other = (names.metric_name("x" * 10_000 + end) for end in "ab")
    assert one != other
    assert len(one) == 250
    with mlflow.start_run():
        mlflow.log_metric(one, 1.0)


def test_distinct_metric_names():
    found = names.distinct_metric_names(["a[0]", "a(0)", "b", "x" * 300, "x" * 300 + "y"])
    assert list(found.values())[:3] == ["a_0_", "a_0__2", "b"]
    assert len(set(found.values())) == 5
    assert max(map(len, found.values())) <= 250


@pytest.mark.timeout(60)  # MLflow's own retries take four minutes
def test_a_server_that_is_down_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(UserError, match=f"127.0.0.1:{port} does not answer.*MLFLOW_TRACKING_URI") as told:
        runs.ensure_reachable(f"http://me:secret@127.0.0.1:{port}")
    assert "secret" not in str(told.value)


def test_a_server_that_hangs_is_told_when_patience_is_over():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(UserError, match="does not answer"):
            runs.ensure_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", seconds=0.2)


@pytest.mark.parametrize("uri", ["http://", "http://[", "https://no such host"])
def test_an_address_that_is_none(uri):
    with pytest.raises(UserError, match="does not answer"):
        runs.ensure_reachable(uri)


@pytest.mark.parametrize("status", [200, 404, 502])
def test_a_server_that_answers(status):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    asked: list[str] = []
    down = pytest.raises(UserError, match="it answers 502") if status == 502 else contextlib.nullcontext()
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with down:
            runs.ensure_reachable(f"http://127.0.0.1:{server.server_port}/base/")
        thread.join()
    assert asked == ["/base/health"]


def test_run_tags(monkeypatch, tmp_path):
    tags = runs.run_tags("training", {"mlflow_hp.extra": "x"})
    assert tags["mlflow_hp.kind"] == "training"
    assert tags["mlflow_hp.extra"] == "x"
    assert f"numpy {np.__version__}" in tags["mlflow_hp.versions"]
    monkeypatch.chdir(tmp_path)
    assert "mlflow_hp.git_commit" not in runs.run_tags("training")
    monkeypatch.setenv("PATH", "")
    git_repository.forget()
    assert "mlflow_hp.git_dirty" not in runs.run_tags("training")


def test_no_secret_lands_in_a_run(store, monkeypatch):
    url, secret = "https://me:pa55word@host/x.csv?token=t0ken", "pa55word"
    monkeypatch.setattr(provenance.sys, "executable", "/usr/bin/python")
    monkeypatch.setattr(provenance.sys, "orig_argv", ["python", "-m", "x", "--password", secret, "--data", url])
    monkeypatch.setenv("SOME_SERVICE_KEY", "0123456789abc")
    with mlflow.start_run(tags={"mlflow.source.git.repoURL": "https://me:pa55word@host/repo.git"}) as active:
        tags = runs.run_tags("training", {"mlflow_hp.note": "of 0123456789abc"})
        runs.log_once(active, {"data": url, "estimator__api_key": "abc", "rate": 0.1}, tags)
        runs.set_tags(active.info.run_id, {"mlflow_hp.recording_error": f"no answer of {url}"})
        runs.set_description(active.info.run_id, f"**To repeat it**: `mlflow run . -P 'data={url}' -P token=t0ken`")
    kept = store.get_run(active.info.run_id).data
    shown = "https://me:***@host/x.csv?token=***"
    assert kept.params == {"data": shown, "estimator__api_key": "***", "rate": "0.1"}
    assert kept.tags["mlflow_hp.command"] == f"python -m x --password '***' --data '{shown}'"
    assert kept.tags["mlflow_hp.note"] == "of ***"
    assert kept.tags["mlflow_hp.recording_error"] == f"no answer of {shown}"
    assert kept.tags["mlflow.source.git.repoURL"] == "https://me:***@host/repo.git"
    assert kept.tags["mlflow.note.content"] == f"**To repeat it**: `mlflow run . -P 'data={shown}' -P token=***`"
    assert not any(text in str(kept.to_dictionary()) for text in (secret, "t0ken", "0123456789abc"))


def test_uncommitted_changes_go_to_the_topmost_run_once(store, monkeypatch):
    monkeypatch.setattr(uncommitted_code, "uncommitted", lambda: "# a\ndiff --git a/x b/x\n+\udce9\n")
    with mlflow.start_run() as top, mlflow.start_run(nested=True), mlflow.start_run(nested=True) as lowest:
        runs.log_code(lowest.info.run_id)
    assert store.list_artifacts(lowest.info.run_id) == []
    path = mlflow.artifacts.download_artifacts(run_id=top.info.run_id, artifact_path=UNCOMMITTED_FILE)
    assert Path(path).read_bytes() == b"# a\ndiff --git a/x b/x\n+\xe9\n"
    assert store.get_run(top.info.run_id).data.tags[UNCOMMITTED_TAG] == UNCOMMITTED_FILE
    monkeypatch.setattr(uncommitted_code, "uncommitted", lambda: "another")
    runs.log_code(top.info.run_id)
    assert Path(mlflow.artifacts.download_artifacts(f"runs:/{top.info.run_id}/{UNCOMMITTED_FILE}")).stat().st_size > 9


def test_changes_that_can_not_be_logged_are_told(store, monkeypatch):
    monkeypatch.setattr(uncommitted_code, "uncommitted", lambda: "x")
    with pytest.warns(RuntimeWarning, match=r"run nowhere lacks the uncommitted changes .*commit them"):
        runs.log_code("nowhere")


def test_a_clean_repository_has_no_artifact(store, monkeypatch):
    monkeypatch.setattr(uncommitted_code, "uncommitted", lambda: None)
    with mlflow.start_run() as run:
        runs.log_code(run.info.run_id)
    assert store.list_artifacts(run.info.run_id) == []


def test_a_secret_that_mlflow_run_has_logged_is_told(store):
    with mlflow.start_run() as active:
        mlflow.log_param("data", "'https://me:pa55word@host/x.csv'")
    run = store.get_run(active.info.run_id)
    with pytest.warns(RuntimeWarning, match=r"a password or token in its param 'data'.*Delete the run.*token=\$TOKEN"):
        runs.log_once(run, {"data": "https://me:***@host/x.csv"})


def test_a_long_description_is_whole_in_an_artifact(store):
    with mlflow.start_run() as active:
        runs.set_description(active.info.run_id, "word " * 3000)
    shown = store.get_run(active.info.run_id).data.tags["mlflow.note.content"]
    assert len(shown) == 8000
    assert shown.endswith("… (15000 characters: all are in the artifact description.md)")
    assert mlflow.artifacts.load_text(f"{active.info.artifact_uri}/description.md") == "word " * 3000


def test_numbers_whose_names_meet_are_all_there(store):
    with mlflow.start_run() as active:
        runs.log_numbers(active.info.run_id, {"f1/a|b": 1.0, "f1/a<b": 2.0, **{f"n{i}": float(i) for i in range(1200)}})
    kept = store.get_run(active.info.run_id).data.metrics
    assert (kept["f1/a_b"], kept["f1/a_b_2"], len(kept)) == (1.0, 2.0, 1202)


def test_load_history_from_another_store(store, tracking_uri, tmp_path):
    fitted = record(regression())
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/other.db")
    history = mlflow_hp.load_history(fitted.run_id, tracking_uri)
    assert history.n_steps == 10
    assert history.to_pandas().shape == (10, 15)


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

    monkeypatch.setattr("mlflow_hp.delivery.time_share.FIRST_SECONDS", 0)
    monkeypatch.setattr("mlflow_hp.delivery.metric_sender.OLDEST_SECONDS", 0)
    monkeypatch.setattr("mlflow_hp.delivery.retry.LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", log_batch)
    with mlflow.start_run() as run:
        sender = MetricSender(run.info.run_id)
        sender.submit(2, lambda: [("a", float(i), 0, i) for i in range(2)])
        wait_for(lambda: sender.n_sent == 2)
        sender.flush()
    assert [m.value for m in store.get_metric_history(run.info.run_id, "a")] == [0.0, 1.0]


@pytest.mark.usefixtures("gives_up_soon")
def test_the_sender_tells_what_the_store_refuses(store):
    sender = MetricSender("no such run")
    sender.submit(1, lambda: [("a", 1.0, 0, 0)])
    with pytest.raises(mlflow.exceptions.MlflowException, match="no such run"):
        sender.flush()
    assert (sender.n_submitted, sender.n_sent) == (1, 0)


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
    assert max(sizes) == 990
    assert sum(sizes) == 2400
    assert [m.step for m in store.get_metric_history(run.info.run_id, "a")] == list(range(2400))
