"""Repeating a run of which every tag, the recorded changes too, was written by somebody who wants more than that."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from comparisons import add_run, new_experiment

from mlflow_hp.cli import main as cli
from mlflow_hp.reproduce import program, recipe
from mlflow_hp.tracking import provenance, runs, seal

PROGRAM = "import json, os, sys\nopen(os.environ['CANARY'], 'w').write(json.dumps(sys.argv[1:]))\n"
EVIL = "open(__import__('os').environ['EVIL'], 'w')"


def git(folder, *words):
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    done = subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeat") / "repository"
    (folder / "src").mkdir(parents=True)
    (folder / "tool" / "deep").mkdir(parents=True)
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "evil.py").write_text(EVIL)
    for name in ("train.py", "src/part.py", "tool/deep/__main__.py", "tool/mod.py", "a file.py"):
        (folder / name).write_text(PROGRAM)
    (folder / "src" / "kept.txt").write_text("1\n")
    (folder / "link.py").symlink_to(outside / "evil.py")
    (folder / "away").symlink_to(outside)
    (folder / "loop").symlink_to("loop")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a")
    git(folder, "remote", "add", "origin", "https://example.org/ours.git")
    return folder


class Place:
    """A repository, what is written where evil succeeds or the program runs, and a run that says anything."""

    def __init__(self, folder, store, experiment, tmp_path):
        self.folder, self.store, self.experiment = folder, store, experiment
        self.evil, self.canary = tmp_path / "evil", tmp_path / "canary"
        self.head = git(folder, "rev-parse", "HEAD")

    def run(self, command="python train.py", *, patch=None, sealed=False, **tags):
        """A run; the tags are as of the recorder, but for those given."""
        tags = {"command": command, "git_commit": self.head, "git_folder": ".", "kind": "training", **tags}
        tags = {name: value for name, value in tags.items() if value is not None}
        if sealed:
            tags["seal"] = seal.seal("command", *map(tags.get, provenance.SEALED))
        run_id = add_run(self.store, self.experiment, tags=tags)
        if patch is not None:
            self.log_patch(run_id, patch)
        return run_id

    def log_patch(self, run_id, patch, *, sealed=False):
        self.store.log_text(run_id, patch, provenance.DIFF_PATH)
        self.store.set_tag(run_id, runs.CODE_TAG, provenance.DIFF_PATH)
        if sealed:
            self.store.set_tag(run_id, runs.CODE_SEAL_TAG, seal.seal("patch", self.head, patch))

    def refused(self, run_id, *words):
        """Whether nothing at all is run, however much it is trusted."""
        assert cli.main(["repeat", run_id, *(words or ["--run"]), "--yes", "--trust"]) == 2
        assert not self.evil.exists()
        assert not self.canary.exists()
        assert len(git(self.folder, "worktree", "list").splitlines()) == 1
        return True

    def arguments(self, run_id, *words):
        """What the program was given; it is none that records, so that the status is 2."""
        self.canary.unlink(missing_ok=True)
        assert cli.main(["repeat", run_id, *(words or ["--run"]), "--yes"]) == 2
        return json.loads(self.canary.read_text()) if self.canary.exists() else None


@pytest.fixture
def place(made_once, store, tmp_path, monkeypatch):
    monkeypatch.chdir(made_once)
    found = Place(made_once, store, new_experiment(store, tmp_path), tmp_path)
    monkeypatch.setenv("EVIL", str(found.evil))
    monkeypatch.setenv("CANARY", str(found.canary))
    for name in ("PYTHONPATH", *provenance.SETTINGS):
        monkeypatch.delenv(name, raising=False)
    return found


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


def diff(path, new="+1", old="-1", mode="", to=None):
    other = to or path
    return f"# x\ndiff --git a/{path} b/{other}\n{mode}--- a/{path}\n+++ b/{other}\n@@ -1 +1 @@\n{old}\n{new}\n"


def created(path, line, mode="100644"):
    header = f"# x\ndiff --git a/{path} b/{path}\nnew file mode {mode}\nindex 0000000..1111111\n"
    return f"{header}--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{line}\n"


PATCHES = {
    "above": created("../outside/new.py", "x"),
    "absolute": created("/tmp/mlflow_hp_new.py", "x"),
    "hook": created(".git/hooks/post-checkout", "touch x"),
    "hook in capitals": created(".GIT/hooks/post-checkout", "touch x"),
    "hidden in HFS": created(".g\u200cit/config", "x"),
    "hidden in NTFS": created("git~1/config", "x"),
    "beyond a link": created("away/new.py", "x"),
    "link": created("new.py", "../outside/evil.py", "120000") + "\\ No newline at end of file\n",
    "submodule": created("new", f"Subproject commit {'1' * 40}", "160000"),
    "link moved": "# x\ndiff --git a/link.py b/link.py\nindex 1..2 120000\n--- a/link.py\n+++ b/link.py\n"
    "@@ -1 +1 @@\n-{outside}/evil.py\n\\ No newline at end of file\n+/etc/passwd\n\\ No newline at end of file\n",
    "link without its mode": "# x\ndiff --git a/link.py b/link.py\n--- a/link.py\n+++ b/link.py\n"
    "@@ -1 +1 @@\n-{outside}/evil.py\n\\ No newline at end of file\n+/etc/passwd\n\\ No newline at end of file\n",
    "renamed to above": "# x\ndiff --git a/train.py b/../outside/x.py\nsimilarity index 100%\n"
    "rename from train.py\nrename to ../outside/x.py\n",
    "copied from above": "# x\ndiff --git a/../outside/evil.py b/x.py\nsimilarity index 100%\n"
    "copy from ../outside/evil.py\ncopy to x.py\n",
    "copied from a whole path": "# x\ndiff --git a/new.py b/new.py\nsimilarity index 100%\n"
    "copy from {outside}/evil.py\ncopy to new.py\n",
    "copied from a quoted path": "# x\ndiff --git a/new.py b/new.py\nsimilarity index 100%\n"
    "copy from \"\\057{outside}/evil.py\"\ncopy to new.py\n",
    "renamed from a whole path": "# x\ndiff --git a/new.py b/new.py\nsimilarity index 100%\n"
    "rename from {outside}/evil.py\nrename to new.py\n",
    "link of another mode": created("new.py", "{outside}/evil.py", "120777") + "\\ No newline at end of file\n",
    "link with zeros": created("new.py", "{outside}/evil.py", "000120000") + "\\ No newline at end of file\n",
    "device": created("new.py", "x", "020666"),
    "binary": "# x\ndiff --git a/x b/x\nnew file mode 100644\nindex 0000000..1111111\nGIT binary patch\n"
    "literal 1\nIcmZPo000310RR91\n\n"
    "literal 0\nHcmV?d00001\n\n",
    "of other lines": diff("src/kept.txt", old="-2"),
    "no diff at all": "# x\ndiff --git a/x b/x\nrubbish\n",
    "too long": "# x\n" + "+" * (recipe.LONGEST_PATCH + 1),
    "empty": "",
}  # fmt: skip


@pytest.mark.parametrize("name", PATCHES)
def test_changes_that_leave_the_copy(place, name, capsys):
    outside = place.folder.parent / "outside"
    before = {path: path.read_bytes() for path in outside.rglob("*")}
    run_id = place.run("python new.py", patch=PATCHES[name].replace("{outside}", str(outside)))
    assert place.refused(run_id)
    assert "only those are run" not in capsys.readouterr().err  # it is the changes that are refused
    assert {path: path.read_bytes() for path in outside.rglob("*")} == before
    assert not Path("/tmp/mlflow_hp_new.py").exists()
    assert list((place.folder / ".git" / "hooks").glob("post-checkout")) == []


def test_changes_that_are_in_another_artifact(place):
    for path in ("../../x", "/etc/passwd", "code", "other.diff", "--help"):
        run_id = place.run(patch=diff("src/kept.txt"))
        place.store.set_tag(run_id, runs.CODE_TAG, path)
        assert place.refused(run_id)
    run_id = place.run()
    place.store.log_text(run_id, "x", f"{provenance.DIFF_PATH}/x")
    place.store.set_tag(run_id, runs.CODE_TAG, provenance.DIFF_PATH)
    assert place.refused(run_id)


def test_changes_before_the_first_header_are_not_applied(place):
    sneaked = "--- a/src/kept.txt\n+++ b/src/kept.txt\n@@ -1 +1 @@\n-1\n+2\n"
    run_id = place.run("python -c 1", patch=f"# x\n{sneaked}{diff('src/kept.txt', '+3')[4:]}")
    assert place.refused(run_id)


def test_changes_of_others_are_shown_in_full_before_they_run(place, capfd):
    evil = created("new.py", f"{EVIL} # \u202e\x1b[2J")
    run_id = place.run("python new.py", patch=evil)
    assert cli.main(["repeat", run_id, "--run", "--yes"]) == 2
    said = capfd.readouterr()
    assert "does not bear your seal" in said.err
    assert "--trust" in said.err
    assert not place.evil.exists()
    assert cli.main(["repeat", run_id, "--run", "--yes", "--trust"]) == 2
    said = capfd.readouterr().out
    assert f"+{EVIL} # " + r"\u202e\x1b[2J" in said
    assert said.index(EVIL) < said.index("Will be run: python new.py")
    assert said.endswith("does not bear your seal\n")
    assert place.evil.exists()


def test_who_is_not_me(place, capsys):
    me = provenance.author()
    patch = diff("src/kept.txt", "+2")
    mine = place.run("python train.py 1", sealed=True)
    tags = place.store.get_run(mine).data.tags
    forged = {
        "my name": place.run(author=me, **{"mlflow.user": provenance.login()}),
        "another command": place.run("python train.py 2", seal=tags["mlflow_hp.seal"]),
        "another folder": place.run("python train.py 1", git_folder="src", seal=tags["mlflow_hp.seal"]),
        "another file": place.run("python train.py 1", git_program="a", seal=tags["mlflow_hp.seal"]),
        "added changes": place.run("python train.py 1", seal=tags["mlflow_hp.seal"], patch=patch),
        "no seal": place.run("python train.py 1", seal=""),
        "a long one": place.run("python train.py 1", seal="é" * 5000),
    }
    altered = place.run("python train.py 1", sealed=True)
    place.log_patch(altered, patch, sealed=True)
    assert place.arguments(altered) == ["1"]
    place.log_patch(altered, patch.replace("+2", "+3"))
    forged["altered changes"] = altered
    for name, run_id in forged.items():
        assert place.arguments(run_id) is None, name
        assert "does not bear your seal" in capsys.readouterr().err
    assert place.arguments(mine) == ["1"]
    assert "bear your seal" in capsys.readouterr().out


def test_a_key_that_others_have_seals_nothing(place, tmp_path, monkeypatch):
    run_id = place.run(sealed=True)
    assert place.arguments(run_id) == []
    key = runs.local_home() / seal.KEY_FILE
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    assert seal.seal("command", "x") == ""
    assert place.arguments(run_id) is None
    key.chmod(0o600)
    key.rename(tmp_path / "key")
    key.symlink_to(tmp_path / "key")
    assert seal.seal("command", "x") == ""
    key.unlink()
    key.write_text("short")
    key.chmod(0o600)
    assert seal.seal("command", "x") == ""
    assert not seal.is_ours("", "command", "x")
    monkeypatch.setenv("MLFLOW_HP_FOLDER", "/proc/none")
    assert seal.seal("command", "x") == ""
    assert "seal" not in provenance.tags()
    monkeypatch.setenv("MLFLOW_HP_FOLDER", str(tmp_path / "another machine"))
    assert place.arguments(run_id) is None


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stdin", "runs_it"),
    [(None, False), (io.StringIO("y\n"), False), (Terminal("n\n"), False), (Terminal("\n"), False),
     (Terminal(""), False), (Terminal("yellow\n"), False), (Terminal("y\n"), True), (Terminal(" YES \n"), True)],
)  # fmt: skip
def test_it_is_asked_for(place, stdin, runs_it, monkeypatch, capfd):
    run_id = place.run(sealed=True)
    monkeypatch.setattr(sys, "stdin", stdin)
    assert cli.main(["repeat", run_id, "--run"]) == 2
    said = capfd.readouterr()
    assert place.canary.exists() == runs_it
    assert "Will be run: python train.py\nin: " in said.out
    assert f"with: commit {place.head[:7]} by Ada, " in said.out
    if not isinstance(stdin, Terminal):
        assert "stdin is no terminal. In a script, give --yes" in said.err
    elif not runs_it:
        assert "nothing was run" in said.err
    assert place.folder.exists()


def test_a_commit_of_another_branch_is_told(place, capfd):
    git(place.folder, "checkout", "-q", "--detach")
    (place.folder / "train.py").write_text(PROGRAM + "# evil\n")
    git(place.folder, "commit", "-qam", "theirs\x1b[2J")
    theirs = git(place.folder, "rev-parse", "HEAD")
    git(place.folder, "checkout", "-q", "-")
    assert place.arguments(place.run(git_commit=theirs, sealed=True)) == []
    assert "theirs (which is not in the history of what is checked out here)" in capfd.readouterr().out.replace(
        r"\x1b[2J", ""
    )


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


def test_the_recorder_seals_what_it_records(place, monkeypatch):
    monkeypatch.setattr(provenance, "command", lambda: "python train.py 5")
    monkeypatch.setattr(provenance, "uncommitted", lambda: diff("src/kept.txt", "+2"))
    provenance._state.cache_clear()
    mlflow.set_experiment(experiment_id=place.experiment)
    with mlflow.start_run(tags=runs.run_tags("training")) as run:
        runs.log_code(run.info.run_id)
    found = recipe.recipe(run.info.run_id)
    assert found.is_ours
    assert place.arguments(run.info.run_id) == ["5"]
