"""Where a run comes from: what is gathered, masked, bounded, and left out where it can't be had."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types

import pytest

from mlflow_hp.tracking import devices, git_repository, provenance, uncommitted_code


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Nothing of the developer's settings, and nothing kept from another test."""
    for name in (provenance.AUTHOR_VARIABLE, provenance.SWITCH, "GIT_AUTHOR_NAME", *provenance.SETTINGS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    git_repository.forget()


def git(folder, *words):
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one committed file, which is the working folder."""
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "a.py").write_text("x = 1\n")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a")
    monkeypatch.chdir(folder)
    return folder


def changed():
    git_repository.forget()
    return uncommitted_code.uncommitted()


def test_of_a_clean_repository(repository):
    tags = provenance.tags()
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert tags["mlflow_hp.git_commit"] == head
    assert tags["mlflow_hp.git_dirty"] == "false"
    assert tags["mlflow_hp.git_folder"] == "."
    assert tags["mlflow_hp.host"]
    assert tags["mlflow_hp.device"].partition(" x ")[0].isdigit()
    assert "python 3." in tags["mlflow_hp.versions"]
    assert uncommitted_code.uncommitted() is None


def test_where_in_the_repository_it_was_started(repository, monkeypatch):
    (repository / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(repository / "deep" / "er")
    assert provenance.tags()["mlflow_hp.git_folder"] == "deep/er"


def test_of_a_program_in_another_repository(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(__file__=str(repository / "a.py")))
    tags = provenance.tags()
    assert len(tags["mlflow_hp.git_commit"]) == 40
    assert "mlflow_hp.git_folder" not in tags


def test_of_a_tool_of_the_environment(repository, monkeypatch):
    tool = f"{sys.prefix}/bin/jupyter"
    monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(__file__=tool))
    assert git_repository.find().root == repository


def test_the_patch_makes_of_the_commit_what_there_was(repository, tmp_path):
    (repository / "b.py").write_text("größe = 2\r\n")
    git(repository, "add", "b.py")
    (repository / "b.py").write_text("größe = 3\r\n")
    (repository / "a.py").write_bytes(b"x = '\xe9'\n")  # not UTF-8
    (repository / "new.txt").write_text("not tracked")
    text = changed()
    assert provenance.tags()["mlflow_hp.git_dirty"] == "true"
    assert f"{git_repository.UNTRACKED}new.txt\n" in text
    assert git_repository.LEFT_OUT not in text
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", str(repository), str(copy))
    (tmp_path / "patch").write_bytes(text.encode(errors="surrogateescape"))
    git(copy, "apply", str(tmp_path / "patch"))
    assert (copy / "b.py").read_bytes() == "größe = 3\r\n".encode()
    assert (copy / "a.py").read_bytes() == b"x = '\xe9'\n"


def test_users_settings_of_git_do_not_matter(repository):
    git(repository, "config", "diff.renames", "copies")
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "diff.external", "false")
    git(repository, "config", "color.ui", "always")
    (repository / "a.py").write_text("x = 2\n")
    (repository / "b.py").write_text("x = 1\n")
    git(repository, "add", "b.py")
    text = changed()
    assert "\ndiff --git a/a.py b/a.py\n" in text
    assert "\ndiff --git a/b.py b/b.py\nnew file mode 100644\n" in text


def test_a_secret_in_a_change_is_masked(repository):
    (repository / "a.py").write_text("password = 'hunter2hunter2'\n")
    text = changed()
    assert "hunter2" not in text
    assert git_repository.MASKED in text.splitlines()


def test_long_and_binary_changes_are_named(repository, monkeypatch):
    for name, content in (("b.py", b"y = 1\n" * 100), ("c.py", b"y\n" * 10_000), ("p.png", bytes(range(256)))):
        (repository / name).write_bytes(content)
    git(repository, "add", "-A")
    monkeypatch.setattr(git_repository, "MAX_PATCH_BYTES", 5_000)
    text = changed()
    assert "\ndiff --git a/b.py" in text
    assert "\ndiff --git a/c.py" not in text
    assert f"{git_repository.LEFT_OUT}all that comes after the first" in text
    assert len(text) < 5_500
    monkeypatch.setattr(git_repository, "MAX_PATCH_BYTES", 1_000_000)
    assert f"{git_repository.LEFT_OUT}Binary files /dev/null and b/p.png differ" in changed()


def test_many_untracked_files_are_counted(repository):
    for i in range(250):
        (repository / f"{i}.txt").touch()
    assert changed().splitlines()[-1] == f"{git_repository.UNTRACKED}50 more"


@pytest.mark.parametrize("case", ["no git", "no repository", "no commit", "damaged", "folder gone", "slow"])
def test_what_git_does_not_tell_is_left_out(case, repository, tmp_path, monkeypatch):
    if case == "no git":
        monkeypatch.setenv("PATH", "")
    elif case == "no repository":
        monkeypatch.chdir(tmp_path)
    elif case == "no commit":
        git(tmp_path, "init", "-q", "empty")
        monkeypatch.chdir(tmp_path / "empty")
    elif case == "damaged":
        (repository / ".git" / "HEAD").unlink()
    elif case == "folder gone":
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
    else:
        (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(git_repository, "GIT_SECONDS", 0.1)
    tags = provenance.tags()
    assert {f"mlflow_hp.{name}" for name in ("host", "command", "versions", "device")} <= set(tags)
    assert not [name for name in tags if name.startswith("git")]
    assert uncommitted_code.uncommitted() is None


def test_where_only_the_status_fails_the_commit_is_known(repository, tmp_path, monkeypatch):
    (tmp_path / "git").write_text(
        f'#!/bin/sh\ncase "$*" in *" status "*) exit 1;; *) exec {shutil.which("git")} "$@";; esac\n'
    )
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    tags = provenance.tags()
    assert len(tags["mlflow_hp.git_commit"]) == 40
    assert "mlflow_hp.git_dirty" not in tags


def test_git_of_a_hook_is_not_asked_for_the_hooks_repository(repository, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nothing"))
    assert "mlflow_hp.git_commit" in provenance.tags()


def test_author(repository, monkeypatch):
    monkeypatch.setattr(provenance.getpass, "getuser", lambda: "login")
    assert provenance.author() == "login"
    (repository / "config").write_text("[user]\nname = Ada\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(repository / "config"))
    git_repository.forget()
    assert provenance.author() == "Ada"
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Grace")
    assert provenance.author() == "Grace"
    monkeypatch.setenv(provenance.AUTHOR_VARIABLE, "Ben")
    assert provenance.author() == "Ben"


def test_a_user_without_a_name(tmp_path, monkeypatch):
    def nobody():
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance.getpass, "getuser", nobody)
    assert "mlflow_hp.author" not in provenance.tags()


def test_the_command(monkeypatch):
    monkeypatch.setattr(provenance.sys, "executable", "/usr/bin/python3.12")
    monkeypatch.setattr(provenance.sys, "orig_argv", ["x", "-m", "a b", "--token", "t0psecret"])
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("XLA_FLAGS", "--a --b")
    assert provenance.command() == "KERAS_BACKEND=jax XLA_FLAGS='--a --b' python3.12 -m 'a b' --token '***'"


@pytest.mark.parametrize(("visible", "expected"), [(None, 2), ("-1", 0), ("", 0), ("1", 1), ("0,1", 2)])
def test_graphics_processors_are_named_without_tensorflow(visible, expected, tmp_path, monkeypatch):
    for i in range(2):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "information").write_text("Model: \t\t NVIDIA H200\nIRQ:   16\n")
    monkeypatch.setattr(devices, "DRIVER_GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    cards = devices.describe().split("; ")[1:]
    assert cards == ([f"{expected} x NVIDIA H200"] if expected else [])


def test_what_tensorflow_uses_counts(tmp_path, monkeypatch):
    class Config:
        experimental = types.SimpleNamespace(get_device_details=lambda gpu: {"device_name": "GPU of the test"})

        @staticmethod
        def list_physical_devices(kind):
            return [types.SimpleNamespace(name=f"/physical_device:{kind}:{i}") for i in range(3)]

    begun = types.SimpleNamespace(_initialized=False)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "information").write_text("Model: from the driver\n")
    monkeypatch.setattr(devices, "DRIVER_GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(config=Config))
    eager = types.SimpleNamespace(context=lambda: begun)
    monkeypatch.setitem(sys.modules, "tensorflow.python.eager.context", eager)
    assert devices.describe().endswith("; 1 x from the driver")
    begun._initialized = True
    assert devices.describe().endswith("; 3 x GPU of the test")


@pytest.mark.parametrize("value", ["0", "false", " OFF "])
def test_it_can_be_turned_off(value, repository, monkeypatch):
    (repository / "a.py").write_text("x = 2\n")
    monkeypatch.setenv(provenance.SWITCH, value)
    assert provenance.tags() == {}
    assert uncommitted_code.uncommitted() is None


@pytest.mark.thorough
@pytest.mark.slow
def test_the_real_tensorflow_is_asked_only_when_it_has_begun(tmp_path):
    program = (
        "import os, pathlib, tensorflow as tf; from tensorflow.python.eager import context as eager\n"
        "from mlflow_hp.tracking import devices\n"
        "pathlib.Path('0').mkdir(); pathlib.Path('0/information').write_text('Model: the card')\n"
        "devices.DRIVER_GPUS = pathlib.Path(); os.environ.pop('CUDA_VISIBLE_DEVICES', None)\n"
        "print('the card' in devices.describe(), eager.context()._initialized)\n"
        "tf.constant(1.0); print('the card' in devices.describe())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.splitlines() == ["True False", "False"]
