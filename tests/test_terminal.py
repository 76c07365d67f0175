"""What reaches a terminal: nothing that steers it, from no store, in no encoding."""

from __future__ import annotations

import functools
import io
import json
import logging
import os
import sqlite3
import subprocess
import sys
import unicodedata
import warnings

import mlflow
import pytest

from mlflow_hp import RecordingWarning, _notice, terminal
from mlflow_hp.cli import main as cli
from mlflow_hp.delivery import journal
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import git_repository
from mlflow_hp.tracking.artifact_paths import UNCOMMITTED_FILE
from mlflow_hp.tracking.home import local_home
from mlflow_hp.tracking.tags import UNCOMMITTED_TAG
from tests.helpers.forked_python import python
from tests.helpers.stored_runs import SAME, add_run, new_experiment

CONTROLS = "".join(map(chr, [*range(32), *range(127, 160)]))
ORDERS = "\x1b[2J\x1b]0;title\x07\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\\x9b31m\x90\r\b\b\bforged\n0 differences\n"
TURNED = "\u202eabc\u202c\u2066x\u2069\u200b\u200d\u2060\ufeff\u00ad\u061c\u2028\u2029\u3164\u115f\U000e0041\U000e0100"
HOSTILE = f"{ORDERS}{TURNED}{CONTROLS[1:]}"


def steering(text, allowed="\n"):
    """The characters of a text that a terminal does not show as they are."""
    kinds = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return {
        c for c in set(text) if c not in allowed and (unicodedata.category(c) in kinds or c in "\u3164\u115f\U000e0100")
    }


@pytest.mark.parametrize("text", [CONTROLS, ORDERS, TURNED, "\ud800 \udc80\udfff", "\ue000\U0010ffff\u0378", HOSTILE])
def test_nothing_steers(text):
    assert steering(terminal.printable(text), "") == set()


@pytest.mark.parametrize("text", ["", "plain", "größe 🎉 ❤️ 学習率 ≤ μ", "C:\\x\\new", "a\\x1bb", "~`'\"$()"])
def test_what_shows_stays(text):
    assert terminal.printable(text) == text


def test_how_it_is_spelled():
    assert terminal.printable("a\x1b[2J\nb\u202e\udc80\0\U000e0041") == r"a\x1b[2J\nb\u202e\udc80\x00\U000e0041"
    assert terminal.printable(3.5) == "3.5"


def test_every_character_there_is():
    text = "".join(map(chr, range(sys.maxunicode + 1)))
    assert steering(terminal.printable(text), "") == set()


def test_an_error_can_be_printed_by_any_program():
    assert str(UserError(f"run {ORDERS!s}\ud800")).count("\n") == 2
    assert steering(str(UserError(HOSTILE))) == set()


def on_ascii(monkeypatch, function):
    """What `function` writes to stdout and stderr of a terminal that knows only ASCII."""
    both = [io.TextIOWrapper(io.BytesIO(), "ascii", "strict", newline="") for _ in range(2)]
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", both[0])
        patched.setattr(sys, "stderr", both[1])
        function()
    for stream in both:
        stream.flush()
    return [stream.buffer.getvalue().decode("ascii") for stream in both]


def test_all_that_is_printed_in_the_block(monkeypatch):
    log = logging.getLogger("hostile")
    log.propagate = False

    def write():
        with terminal.escape_output():
            log.addHandler(logging.StreamHandler())
            print(HOSTILE, "größe", "\ud800")
            print("\rover the line", HOSTILE, file=sys.stderr)
            log.error("%s", HOSTILE)
            sys.stderr.write(warnings.formatwarning(HOSTILE, RuntimeWarning, HOSTILE, 1, HOSTILE))
            sys.stdout.writelines([HOSTILE])
            assert sys.stdout.encoding == "ascii"
            assert not sys.stderr.isatty()

    out, err = on_ascii(monkeypatch, write)
    assert steering(out) == set()
    assert steering(err, "\n\r") == set()
    assert err.startswith("\rover the line")
    assert err.count("\r") == 1
    assert r"gr\xf6\xdfe \ud800" in out


def test_a_line_is_said_in_any_encoding(monkeypatch):
    out, _ = on_ascii(monkeypatch, lambda: terminal.say("größe\n", HOSTILE, 3))
    assert out.startswith("gr\\xf6\\xdfe\\n\n")
    assert out.count("\n") == 3
    assert steering(out) == set()


@pytest.fixture
def hostile(store, tmp_path, monkeypatch):
    """A store of which every text is hostile, the names too, which MLflow's client would refuse; ids of its runs."""
    uri = f"sqlite:///{tmp_path}/hostile.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(tmp_path / f"home {ORDERS.replace('/', '').replace(chr(10), '')}"))
    mlflow.set_tracking_uri(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    client = mlflow.MlflowClient()
    experiment = new_experiment(client, tmp_path)
    ids = []
    for number, data in enumerate(("d", "d", "e", "e")):
        tags = {**SAME, "data_digest": data + HOSTILE, "author": HOSTILE + str(number), "command": f"python {HOSTILE}",
                "host": HOSTILE, "versions": f"python {HOSTILE}, {HOSTILE} 1.0", "device": HOSTILE,
                "git_commit": HOSTILE, "git_folder": HOSTILE, "git_dirty": "true",
                "mlflow.source.git.repoURL": HOSTILE, "kind": "training"}  # fmt: skip
        params = {"rate": f"{number}{HOSTILE}", "param": HOSTILE}
        name = f"{number} {HOSTILE}"
        ids.append(add_run(client, experiment, name, params=params, tags=tags, metrics={"val_loss": [1.0, number]}))
    patch = f"# a\n{git_repository.UNTRACKED}{HOSTILE}\udcff\ndiff --git a/x b/x\n{HOSTILE}\n"
    path = tmp_path / "uncommitted.diff"
    path.write_bytes(patch.encode(errors="surrogateescape"))
    client.log_artifact(ids[0], str(path), "code")
    client.set_tag(ids[0], UNCOMMITTED_TAG, UNCOMMITTED_FILE)
    with sqlite3.connect(tmp_path / "hostile.db") as database:
        database.execute("update params set key = ? where key = 'param'", [HOSTILE])
        database.execute("update experiments set name = ? where experiment_id = ?", [HOSTILE, experiment])
        database.execute("update experiments set name = ? where experiment_id = 0", [HOSTILE * 2])
    yield ids
    mlflow.set_tracking_uri(None)


def leave_behind(run_id, folder):
    """A journal of a process that has died, and one that is none, both hostile."""
    head = {"journal": journal.VERSION, "run_id": run_id, "tracking_uri": f"sqlite:///{HOSTILE}", "fit": 0,
            "metrics_every": 1, "report": False, "process": json.dumps([HOSTILE, 1, 1.0])}  # fmt: skip
    for name in ("training_a", "training_b"):
        (local_home() / folder / name).mkdir(parents=True)
    with journal.Journal(local_home() / folder / "training_a", head) as made:
        made.append({"kind": HOSTILE})
    (local_home() / folder / "training_b" / journal.FILE).write_text(HOSTILE)


def test_every_subcommand_in_a_hostile_store(hostile, monkeypatch, tmp_path):
    leave_behind(f"{hostile[0]}\ud800{HOSTILE}", "x" + ORDERS.replace("/", "").replace("\n", ""))
    lines = [
        ["compare", *hostile],
        ["compare", *hostile, "--by", HOSTILE],
        ["compare", *hostile, "--metric", HOSTILE],
        ["compare", "--experiment", HOSTILE],
        ["compare", "--experiment", HOSTILE, "--filter", HOSTILE],
        ["compare", "--experiment", "nothing like it"],
        ["diagnose", hostile[0]],
        ["diagnose", hostile[0], "--json"],
        ["diagnose", HOSTILE],
        ["improve", hostile[0]],
        ["improve", HOSTILE],
        ["recover"],
        ["recover", HOSTILE],
        ["recover", "--discard", "--take-over", HOSTILE],
        ["recover", f"--{HOSTILE}"],
        ["repeat", hostile[0]],
        ["repeat", hostile[0], "--run"],
        ["repeat", hostile[1], "--here"],
        ["repeat", hostile[0], "--against", hostile[1]],
        ["repeat", HOSTILE],
        ["repeat", hostile[0], "--against", HOSTILE],
        ["sync", "--to", f"sqlite:///{tmp_path}/to.db", hostile[0]],
        ["sync", "--to", f"sqlite:///{tmp_path}/to.db", "--experiment", HOSTILE, "--verify"],
        ["sync", "--to", f"sqlite:///{tmp_path}/to.db", "--experiment", "nothing like it"],
        ["sync", "--to", HOSTILE],
        ["compare", "--goal", HOSTILE],
        ["review", hostile[0]],
        ["review", HOSTILE],
        ["show", hostile[0]],
        ["show", HOSTILE],
        ["ui", "--port", HOSTILE],
        ["mcp", "--seconds", HOSTILE],
    ]
    assert {words[0] for words in lines} == set(cli.commands.commands)
    for words in lines:
        out, err = on_ascii(monkeypatch, functools.partial(cli.main, words))
        assert steering(out) == set(), words
        assert steering(err, "\n\r") == set(), words
        assert "Traceback" not in err
        assert "UnicodeEncodeError" not in err, words
        assert "\n0 differences\n" not in out, words  # a line that the store made up


def test_the_program_itself_on_a_terminal_of_ascii(hostile):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0"}
    words = [python(), "-m", "mlflow_hp.cli", "repeat", hostile[0]]
    done = subprocess.run(words, capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert steering(done.stdout.decode("ascii")) == set()
    assert steering(done.stderr.decode("ascii"), "\n\r") == set()


def test_warnings_of_ours_can_be_told_from_others():
    with pytest.warns(RecordingWarning, match="mlflow_hp: of ours"):
        assert _notice.warn("of ours")
    assert issubclass(RecordingWarning, RuntimeWarning)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", RecordingWarning)
        _notice.warn("of ours")
        warnings.warn("of another", RuntimeWarning, stacklevel=1)
    assert [str(each.message) for each in told] == ["of another"]
