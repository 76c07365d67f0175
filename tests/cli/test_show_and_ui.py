"""The commands `show`, `ui` and `--version`."""

from __future__ import annotations

import os
import signal
import socket
import sys
import webbrowser

import pytest

from mlflow_hp import __version__
from mlflow_hp.cli import main as cli
from mlflow_hp.cli import ui as ui_module
from tests.helpers.stored_runs import add_run, new_experiment


@pytest.fixture
def run_id(store, tmp_path):
    tags = {
        "kind": "training",
        "author": "Ann\x1b[2J",
        "mlflow.note.content": r"**val\_loss 0.25** after 3 epochs" + "\n\nmore",
        "recording_error": "one\ntwo",
    }
    params = {"zeta": "1", "learning_rate": 0.1, "url": "https://me:hunter2hunter2@host/"}
    return add_run(store, new_experiment(store, tmp_path), "baseline", params=params, tags=tags)


def test_show(run_id, capsys):
    assert cli.main(["show", run_id]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == r"baseline: training, finished, by Ann\x1b[2J"
    assert said[1] == f"run {run_id}"
    assert said[2].startswith("settings: learning_rate 0.1, ")
    assert "hunter2" not in said[2]
    assert said[3] == r"result: val\_loss 0.25 after 3 epochs"
    assert said[4:6] == ["the recording is incomplete: one", "the recording is incomplete: two"]
    assert said[-1] == f"page: start `mlflow-hp ui`, then open http://127.0.0.1:5000/hp/run/{run_id}"


def test_open_without_a_server_says_how_to_start_one(run_id, capsys, monkeypatch):
    monkeypatch.setattr("mlflow_hp.tracking.server_page.LOCAL_SERVER", "http://127.0.0.1:9")
    assert cli.main(["show", "--open", run_id]) == cli.EXIT_BAD_INPUT
    assert "start `mlflow-hp ui`" in capsys.readouterr().err


def test_open_opens_the_page(run_id, monkeypatch):
    opened = []
    monkeypatch.setattr("mlflow_hp.training.run_account.page_address", lambda run_id, _: f"http://host/hp/run/{run_id}")
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    assert cli.main(["show", "--open", run_id]) == 0
    assert opened == [f"http://host/hp/run/{run_id}"]


def test_a_run_that_does_not_exist(store, capsys):
    assert cli.main(["show", "0" * 32]) == cli.EXIT_BAD_INPUT
    assert "is not in the tracking store" in capsys.readouterr().err


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"mlflow-hp, version {__version__}"


@pytest.fixture
def started(monkeypatch):
    """The commands of the servers that are started, each with its environment; none runs."""
    commands = []

    class Server:
        def __init__(self, command, env):
            commands.append((command, env))

        def wait(self):
            return 0

    monkeypatch.setattr(ui_module.subprocess, "Popen", Server)
    monkeypatch.setattr(ui_module, "is_used", lambda *_: False)
    return commands


def test_ui_serves_the_current_store(store, tracking_uri, started, capsys):
    assert cli.main(["ui", "--port", "5001", "--allowed-hosts", "name:*"]) == 0
    ((command, environment),) = started
    assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
    assert " ".join(command[4:]) == (
        "--app-name mlflow-hp --host 127.0.0.1 --port 5001 --workers 1 --allowed-hosts name:*"
    )
    assert environment["MLFLOW_BACKEND_STORE_URI"] == tracking_uri
    assert "http://127.0.0.1:5001/hp/" in capsys.readouterr().out


def test_the_server_ends_with_the_command(store, monkeypatch):
    class Server:
        ended = False

        def __init__(self, command, env):
            pass

        def wait(self):
            os.kill(os.getpid(), signal.SIGTERM)
            return -signal.SIGTERM if self.ended else 0

        def terminate(self):
            self.ended = True

    monkeypatch.setattr(ui_module.subprocess, "Popen", Server)
    monkeypatch.setattr(ui_module, "is_used", lambda *_: False)
    before = signal.getsignal(signal.SIGTERM)
    assert cli.main(["ui"]) == -signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_relative_store_becomes_absolute(store, started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["ui", "--store", "sqlite:///mine.db"]) == 0
    assert started[0][1]["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/mine.db"


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("./mlruns", "needs a database"),
        ("file:///tmp/mlruns", "needs a database"),
        ("http://127.0.0.1:9", "name another store with --store"),
    ],
)
def test_a_store_without_a_page(store, started, capsys, uri, complaint):
    assert cli.main(["ui", "--store", uri]) == cli.EXIT_BAD_INPUT
    assert complaint in capsys.readouterr().err
    assert not started


def test_a_server_is_named(store, started, capsys, monkeypatch):
    monkeypatch.setattr("mlflow_hp.tracking.server_health.ensure_reachable", lambda *_, **__: None)
    monkeypatch.setattr("mlflow_hp.tracking.server_page.page_address", lambda tracking_uri: f"{tracking_uri}/hp/")
    assert cli.main(["ui", "--store", "http://host:5000"]) == 0
    assert capsys.readouterr().out == "The page is at http://host:5000/hp/\n"
    assert not started


def test_ui_names_another_port_where_oneis_used(store, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert cli.main(["ui", "--port", str(port)]) == cli.EXIT_BAD_INPUT
    said = capsys.readouterr()
    assert f"port {port} of 127.0.0.1 is used by another program: choose one by --port" in said.err
    assert "The page" not in said.out
