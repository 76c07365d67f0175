"""The command mlflow-hp: what it prints, and its exit status."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings

import mlflow
import pytest
from click.testing import CliRunner

from mlflow_hp.cli import main as cli
from mlflow_hp.cli.command import MLFLOW_SETTINGS
from tests.helpers.forked_python import python


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
    assert capsys.readouterr().out == ("1 run new, 0 completed, 0 unchanged; 1 metric point and 0 artifacts sent\n")
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
    assert "metric 'more_0': 1 point more at the target" in said
    assert "... and 10 more" in said
    assert said.endswith("30 differences\n")


@pytest.mark.timeout(100)  # MLflow's own retries take four minutes
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["f00"], "run 'f00' is not in the source store"),
        (["--experiment", "none"], "there is no experiment 'none'"),
        (["--to", "http://127.0.0.1:9"], "the tracking server http://127.0.0.1:9 does not answer"),
        (["--to", "/dev/null/nonsense"], "/dev/null/nonsense cannot be opened as a tracking store"),
        (["--from", "sqlite:///none.db"], "/none.db to copy from: name it with --from"),
    ],
)
def test_bad_input_is_a_line_and_status_2(source, to, capsys, words, complaint):
    assert cli.main(["sync", "--to", to, *words]) == cli.EXIT_BAD_INPUT
    (said,) = (line for line in capsys.readouterr().err.splitlines() if " INFO mlflow." not in line)  # a new database
    assert said.startswith("mlflow-hp sync: ")
    assert complaint in said


def test_one_store_on_both_sides(source, tracking_uri, capsys):
    assert cli.main(["sync", "--to", tracking_uri]) == cli.EXIT_BAD_INPUT
    assert "is the source store itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), cli.EXIT_KILLED, "interrupted; run the same command again to continue"),
        (RuntimeError("http://u:geheim@h broke\nand more"), cli.EXIT_DIFFERS, "RuntimeError: http://u:***@h broke\n"),
    ],
)
def test_other_ends(source, to, capsys, monkeypatch, error, status, said):
    from mlflow_hp.sync import transfer

    def copy_missing(*words, **named):
        raise error

    monkeypatch.setattr(transfer, "copy_missing", copy_missing)
    assert cli.main(["sync", "--to", to]) == status
    assert said in capsys.readouterr().err


def test_an_ended_command_leaves_the_environment_as_it_was(source, to, monkeypatch):
    for name in MLFLOW_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    before, filters = dict(os.environ), list(warnings.filters)
    assert cli.main(["sync", "--to", to]) == 0
    assert dict(os.environ) == before
    assert warnings.filters == filters


def as_user(*words, **environment):
    """The command in a process of its own."""
    command = [python(), "-m", "mlflow_hp.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Commands:"),
        (["synch"], "No such command 'synch'."),
        (["--verbose"], "No such option"),
        (["sync"], "Missing option '--to'."),
        (["sync", "--to"], "Option '--to' requires an argument."),
        (["sync", "--to", "x", "--verfy"], "--verfy"),
        (["compare", "--goal", "best"], "'best' is not one of 'min', 'max'."),
        (["repeat"], "Missing argument 'RUN'."),
        (["repeat", "a", "b"], "unexpected extra argument"),
        (["repeat", "a", "--run", "--here"], "--here is not allowed with --run."),
        (["repeat", "a", "--against", "", "--here"], "--against is not allowed with --here."),
        (["recover", "--take-over", "--discard", "a"], "--discard is not allowed with --take-over."),
    ],
)
def test_wrong_usage_is_status_2(words, said):
    ended = CliRunner().invoke(cli.commands, words)
    assert (ended.exit_code, ended.stdout) == (cli.EXIT_BAD_INPUT, "")
    assert said in ended.stderr
    assert ended.stderr.startswith(("Usage: mlflow-hp ", "Error: Option"))
    assert cli.main(words) == cli.EXIT_BAD_INPUT


def test_wrong_usage_as_a_user_sees_it():
    done = as_user("sync", "--verfy")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: mlflow-hp sync [OPTIONS] [RUN]...\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [[], *([name] for name in cli.commands.commands)])
@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help(command, flag):
    shown = CliRunner().invoke(cli.commands, [*command, flag])
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"Usage: {' '.join(['mlflow-hp', *command])} [OPTIONS]")
    assert "..." not in shown.stdout.partition("Commands:")[2]  # no sentence is cut
    assert cli.main([*command, flag]) == 0


@pytest.mark.parametrize("name", cli.commands.commands)
def test_every_option_says_what_it_does(name):
    for parameter in cli.commands.commands[name].params:
        assert parameter.param_type_name == "argument" or parameter.help


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes(shell):
    assert "mlflow-hp" in as_user(_MLFLOW_HP_COMPLETE=f"{shell}_source").stdout
    line = {"COMP_WORDS": "mlflow-hp sync --ve", "COMP_CWORD": "--ve" if shell == "fish" else "2"}
    shown = as_user(_MLFLOW_HP_COMPLETE=f"{shell}_complete", **line).stdout
    assert re.match(r"plain[,\n]--verify(\tCompare|\nCompare|\n)", shown)


def test_ctrl_c():
    """The user's view: a signal while the command waits for a server."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {**os.environ, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        words = [python(), "-m", "mlflow_hp.cli", "compare", "--experiment", "any"]
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with subprocess.Popen(words, env=environment, **piped) as process:
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                out, err = process.communicate()
    assert process.returncode == cli.EXIT_KILLED
    assert (out, err) == ("", "mlflow-hp compare: interrupted; run the same command again to continue\n")


def test_help_loads_nothing_heavy():
    program = "import sys; from mlflow_hp.cli import main as cli\ncli.main(['--help'])\n"
    program += "print([m for m in ('mlflow', 'tensorflow', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "sync" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"
