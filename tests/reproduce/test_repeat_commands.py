"""Hostile commands, folders and commits of a run that is repeated."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from mlflow_hp.cli import main as cli
from mlflow_hp.reproduce import program
from tests.helpers.hostile_runs import EVIL

COMMANDS = [
    "touch {evil}",
    "sh -c 'touch {evil}'",
    "git fetch https://x; touch {evil}",
    "env python train.py",
    'python -c \'open("{evil}", "w")\'',
    'python -uc \'open("{evil}", "w")\'',
    "python -ic 'x'",
    "python -i train.py",
    "python -",
    "python -- train.py",
    "python -m",
    "python -m http.server",
    "python -mhttp.server",
    "python -um http.server",
    "python -m pip install evil",
    'python -m timeit \'open("{evil}", "w")\'',
    "python -m pdb train.py",
    "python -m ..outside.evil",
    "python -m .train",
    "python -m link",
    "python -m away.evil",
    "python -m train.py",
    "python -m 'a file'",
    "python -m train;touch",
    "python -X pycache_prefix=/tmp train.py",
    "python -X presite=evil train.py",
    "python -W ignore::evil.Evil train.py",
    "python -Wignore::evil.Evil train.py",
    "python -E train.py",
    "python -I train.py",
    "python --check-hash-based-pycs never train.py",
    "./python train.py",
    "/tmp/python train.py",
    "../outside/python train.py",
    "pythonw train.py",
    "python train.py\0",
    "python 'train.py",
    "python ../outside/evil.py",
    "python {outside}/evil.py",
    "python /proc/self/cwd/train.py/../../outside/evil.py",
    "python away/evil.py",
    "python link.py",
    "python loop",
    "python src",
    "python .git/config",
    "python src/../.git/config",
    "python nothing.py",
    "python 'train.py\n'",
    "python 'train.py;touch {evil}'",
    "PATH=/tmp python train.py",
    "PYTHONPATH={outside} python -m evil",
    "PYTHONSTARTUP={outside}/evil.py python train.py",
    "LD_PRELOAD={outside}/evil.so python train.py",
    "MLFLOW_TRACKING_URI=http://evil python train.py",
    "KERAS_BACKEND=../evil python train.py",
    "PYTHONHASHSEED='0 evil' python train.py",
    "XLA_FLAGS=--xla_gpu_cuda_data_dir=/tmp python train.py",
    "XLA_FLAGS=--xla_dump_to=here python train.py",
    "XLA_FLAGS='--xla_a=1 --other=2' python train.py",
    "KERAS_BACKEND=jax",
    "mlflow run . -e main -P x=1",
    "mlflow run . -P 'x;touch {evil}=1'",
    "mlflow run git+ext::sh%20-c%20touch",
    "python -m mlflow run . --env-manager virtualenv",
    "",
    " ",
    "python train.py " + "x" * 9000,
]


@pytest.mark.thorough
def test_commands_that_are_no_program_of_the_repository(place, capfd):
    for text in COMMANDS:
        command = text.replace("{evil}", str(place.evil)).replace("{outside}", str(place.folder.parent / "outside"))
        for how in ("--run", "--here"):
            capfd.readouterr()
            assert place.refused(place.run(command[:8000]), how), text
            said = capfd.readouterr()
            assert "mlflow-hp repeat: " in said.err, text
            assert "Traceback" not in said.err, text


def test_what_was_refused_is_told_and_how_to_run_it(place, capsys):
    run_id = place.run("sh -c 'touch x\x1b[2J'")
    assert cli.main(["repeat", run_id]) == 0
    said = capsys.readouterr().out
    assert r"It was sh -c 'touch x\x1b[2J'; if you know what that does, and want it, run it yourself" in said
    assert "\nsh " not in said


@pytest.mark.parametrize(
    ("command", "folder"),
    [
        ("python train.py {}", "."),
        ("python3.11 -u -O -W error -X dev train.py {}", "."),
        ("KERAS_BACKEND=jax XLA_FLAGS='--xla_cpu_x=true --xla_y' PYTHONHASHSEED=0 python ../train.py {}", "src"),
        ("python 'a file.py' {}", "."),
        ("python -m tool.deep {}", "."),
        ("python -m tool.mod {}", "src"),
        ("python -m part {}", "."),
        ("python -m train {}", "not/tracked"),
    ],
)
def test_arguments_are_a_list_whatever_they_are(place, command, folder, capfd):
    given = [
        "; touch {evil}",
        "$(touch x)",
        "`touch y`",
        "*",
        "-c",
        "--upload-pack=x",
        "a\nb",
        "it's",
        '"',
        "",
        "\\",
        "~",
    ]
    run_id = place.run(command.format(shlex.join(given)), git_folder=folder, sealed=True)
    assert place.arguments(run_id) == given
    assert list(place.folder.glob("[xy]")) == []
    assert "Will be run: " in capfd.readouterr().out


def test_a_script_that_was_started_by_its_whole_path(place, capfd):
    given = {"git_program": "src/part.py", "sealed": True}
    assert place.arguments(place.run("python /home/ada/code/src/part.py 1", **given)) == ["1"]
    assert "Will be run: python src/part.py 1" in capfd.readouterr().out
    assert place.arguments(place.run("python /home/ada/code/src/part.py 1", git_folder="tool/deep", **given)) == ["1"]
    assert "Will be run: python ../../src/part.py 1" in capfd.readouterr().out
    for elsewhere in ("../outside/evil.py", "away/evil.py", "link.py", "/etc/passwd", ".git/config"):
        name = Path(elsewhere).name
        place.canary.unlink(missing_ok=True)
        assert place.refused(place.run(f"python /home/ada/code/{name}", git_program=elsewhere))
    assert place.refused(place.run("python /home/ada/evil.py", git_program="src/part.py"))


@pytest.mark.parametrize(
    "folder",
    ["..", "../outside", "src/../..", "/tmp", "/", "away", "away/x", "loop", ".git", "src/.GIT", "~", "-x", "C:\\x",
     "src\\..\\..", "src\0", "train.py", "x" * 300],
)  # fmt: skip
def test_folders_that_leave_the_repository(place, folder, capsys):
    (place.folder.parent / "outside" / "train.py").write_text(EVIL)
    run_id = place.run(git_folder=folder)
    assert place.refused(run_id)
    capsys.readouterr()
    assert cli.main(["repeat", run_id]) == 0
    told, _, pasted = capsys.readouterr().out.partition("\n\n")
    assert "leads out of its repository" not in told or not pasted.strip()
    assert not (place.folder.parent / "outside" / "x").exists()


@pytest.mark.parametrize(
    "commit",
    ["HEAD", "main", "{head:.12}", "{head}^", "{head}\n", "--upload-pack=touch x", "-h", "@", "", "{head} --force",
     "refs/heads/master", ":/a", "0" * 40, "0" * 64, "{upper}"],
)  # fmt: skip
def test_commits_that_are_none(place, commit, capsys):
    run_id = place.run(git_commit=commit.format(head=place.head, upper=place.head.upper()))
    assert cli.main(["repeat", run_id]) == 0
    assert "--upload-pack" not in capsys.readouterr().out.partition("\n\n")[2]
    assert place.refused(run_id)


URLS = ["x; touch {evil}", "$(touch {evil})", "--upload-pack=touch {evil}", "ext::sh -c touch% {evil}", "a\nb",
        "-oProxyCommand=x", "file:///etc", "../other", "https://evil.org/x.git", "ssh://-oProxyCommand=touch/x",
        "`touch {evil}`"]  # fmt: skip


def test_nothing_that_is_printed_for_pasting_does_more(place, tmp_path, capsys):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("git", "mlflow", "python", "cd"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    evil = f"; touch {place.evil} #"
    hostile = [
        "{}",
        "'{}'",
        '"{}"',
        "$({})",
        "`{}`",
        "\n{}\n",
        "\r{}",
        "\x1b{}",
        "\\'{}",
        "!{}",
        "' {} '",
        "ü{}",
    ]
    texts = [text.format(evil) for text in hostile]
    cases = [{"command": f"python train.py {shlex.join(texts)}"}, {"command": f"python train.py {evil}"}]
    cases += [{"git_folder": text.encode(errors="replace").decode()} for text in texts]
    cases += [
        {"git_commit": "1" * 40, "mlflow.source.git.repoURL": url.replace("{evil}", str(place.evil))} for url in URLS
    ]
    for case in cases:
        run_id = place.run(**{"command": "python train.py", **case})
        assert cli.main(["repeat", run_id]) == 0
        told, _, pasted = capsys.readouterr().out.partition("\n\n")
        assert "git fetch" not in pasted
        assert "`git fetch`" in told or "git_commit" not in case
        subprocess.run(
            ["bash", "-c", pasted], cwd=tmp_path, env={"PATH": f"{tools}:/usr/bin:/bin"}, capture_output=True
        )
        assert not place.evil.exists(), case


def test_our_own_remote_is_named(place, capsys):
    run_id = place.run(git_commit="1" * 40, **{"mlflow.source.git.repoURL": "https://example.org/ours"})
    assert cli.main(["repeat", run_id]) == 0
    assert "`git fetch origin` may bring it" in capsys.readouterr().out


def test_words_are_read_back_by_a_shell():
    words = [
        "",
        "a b",
        "it's",
        "$x `y` $(z)",
        "\n\t\r",
        "\x1b[2J1f",
        "\u202e",
        "é🎉",
        "\\n",
        "!!",
        "\udcff",
        "'\n'",
        "\\\n",
    ]
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {program.shell_line(words)}"], capture_output=True, check=True
    )
    assert done.stdout.split(b"\0")[:-1] == [word.encode(errors="surrogateescape") for word in words]
