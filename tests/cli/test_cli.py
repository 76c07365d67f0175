"""The command mlflow-hp: what it prints, and its exit status."""

from __future__ import annotations

import subprocess
import sys
import time

import mlflow
import pytest

from mlflow_hp.cli import main as cli


@pytest.fixture
def source(tracking_uri, tmp_path, monkeypatch):
    """A store with a run in an experiment of its own; the folder and the environment are the test's."""
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(tracking_uri)
    for name in ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "MLFLOW_LOGGING_LEVEL"):
        monkeypatch.setenv(name, "1")
    name = f"cli {time.time_ns()}"
    client = mlflow.MlflowClient(tracking_uri)
    experiment = client.create_experiment(name, (tmp_path / "artifacts").as_uri())
    mlflow.set_experiment(name)
    run = client.create_run(experiment, run_name="r")
    client.log_metric(run.info.run_id, "loss", 0.5)
    client.set_terminated(run.info.run_id)
    yield client.get_run(run.info.run_id)
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def to(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('to')}/mlflow.db"


def test_sync(source, to, capsys):
    assert cli.main(["sync", "--to", to]) == 0
    assert capsys.readouterr().out == ("1 runs new, 0 completed, 0 unchanged; 1 metric points and 0 artifacts sent\n")
    assert cli.main(["sync", "--to", to, "--verify", source.info.run_id]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "0 runs new, 0 completed, 1 unchanged; 0 metric points and 0 artifacts sent"
    assert said[1].split() == ["source", "target"]
    assert said[2].split() == ["runs", "1", "1"]
    assert said[5].split() == ["metric", "points", "1", "1"]
    assert said[-1] == "no differences"


def test_a_difference_is_status_1(source, to, capsys):
    cli.main(["sync", "--to", to])
    target = mlflow.MlflowClient(to)
    (experiment,) = [e.experiment_id for e in target.search_experiments() if e.name.startswith("cli")][:1]
    (copy,) = target.search_runs([experiment])
    for step in range(30):
        target.log_metric(copy.info.run_id, f"more_{step}", 1.0)
    assert cli.main(["sync", "--to", to, "--verify"]) == cli.EXIT_DIFFERS
    said = capsys.readouterr().out
    assert "metric 'more_0': 1 points more at the target" in said
    assert "... and 10 more" in said
    assert said.endswith("30 differences\n")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["f00"], "run 'f00' is not in the store"),
        (["--experiment", "none"], "there is no experiment 'none'"),
        (["--to", "http://127.0.0.1:9"], "the tracking server http://127.0.0.1:9 does not answer"),
        (["--to", "nonsense"], "/nonsense can't be opened as a tracking store"),
        (["--from", "sqlite:///none.db"], "/none.db to copy from: name it with --from"),
    ],
)
def test_bad_input_is_a_line_and_status_2(source, to, capsys, words, complaint):
    began = time.monotonic()
    assert cli.main(["sync", "--to", to, *words]) == cli.EXIT_BAD_INPUT
    said = capsys.readouterr().err
    assert said.startswith("mlflow-hp sync: ")
    assert complaint in said
    assert said.count("\n") == 1
    assert time.monotonic() - began < 30


def test_one_store_on_both_sides(source, tracking_uri, capsys):
    assert cli.main(["sync", "--to", tracking_uri]) == cli.EXIT_BAD_INPUT
    assert "is the store that is copied from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), cli.EXIT_KILLED, "interrupted; the same command goes on where it was"),
        (RuntimeError("http://u:geheim@h broke\nand more"), cli.EXIT_DIFFERS, "RuntimeError: http://u:***@h broke\n"),
    ],
)
def test_other_ends(source, to, capsys, monkeypatch, error, status, said):
    from mlflow_hp.sync import transfer

    def bring(*words, **named):
        raise error

    monkeypatch.setattr(transfer, "bring", bring)
    assert cli.main(["sync", "--to", to]) == status
    assert said in capsys.readouterr().err


def test_help_loads_nothing_heavy():
    program = "import sys; from mlflow_hp.cli import main as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    program += "print([m for m in ('mlflow', 'tensorflow', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "sync" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
