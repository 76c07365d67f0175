"""The user's seal on a run that is repeated, which others lack, and the question before anything runs."""

from __future__ import annotations

import io
import sys

import mlflow
import pytest

from mlflow_hp.cli import main as cli
from mlflow_hp.reproduce import recipe
from mlflow_hp.tracking import git_repository, provenance, runs, seal, uncommitted_code
from mlflow_hp.tracking.home import local_home
from tests.helpers.hostile_runs import PROGRAM, diff, git


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
    key = local_home() / seal.KEY_FILE
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
    assert not seal.is_valid("", "command", "x")
    monkeypatch.setenv("MLFLOW_HP_FOLDER", "/proc/none")
    assert seal.seal("command", "x") == ""
    assert "mlflow_hp.seal" not in provenance.tags()
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
        assert "stdin is not a terminal. In a script, give --yes" in said.err
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
    assert "theirs (which is not in the history of the branch checked out here)" in capfd.readouterr().out.replace(
        r"\x1b[2J", ""
    )


def test_the_recorder_seals_what_it_records(place, monkeypatch):
    monkeypatch.setattr(provenance, "command", lambda: "python train.py 5")
    monkeypatch.setattr(uncommitted_code, "uncommitted", lambda: diff("src/kept.txt", "+2"))
    git_repository.forget()
    mlflow.set_experiment(experiment_id=place.experiment)
    with mlflow.start_run(tags=runs.run_tags("training")) as run:
        runs.log_code(run.info.run_id)
    found = recipe.recipe_of(run.info.run_id)
    assert found.is_sealed
    assert place.arguments(run.info.run_id) == ["5"]
