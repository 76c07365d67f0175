"""Repeating a run: what is told, what is run, and how differences are told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlflow_hp.cli import main as cli
from mlflow_hp.errors import UserError
from mlflow_hp.history import STATISTICS, TrainingHistory
from mlflow_hp.reproduce import recipe, rerun
from mlflow_hp.reproduce.run_comparison import Series, compare, history_differences, series_difference
from mlflow_hp.tracking import git_repository, provenance, seal
from mlflow_hp.tracking.artifact_paths import UNCOMMITTED_FILE
from mlflow_hp.tracking.tags import REPEATS_TAG, TAG_PREFIX, UNCOMMITTED_TAG
from tests.helpers.forked_python import commands, python

ROOT = Path(__file__).parents[2]
PROGRAM = """
import random, sys
import mlflow, mlflow_hp.tracking.runs
rate, seed = float(sys.argv[1]), int(sys.argv[2])
random.seed(seed)
with mlflow.start_run(tags={"mlflow_hp.kind": "sweep"}) as top:
    mlflow_hp.tracking.runs.log_code(top.info.run_id)
    mlflow.log_params({"rate": rate})
    mlflow.log_metric("fit_seconds", random.SystemRandom().random())
    for factor in (1, 2):
        with mlflow.start_run(nested=True, tags={"mlflow_hp.kind": "training"}) as below:
            mlflow.log_params({"rate": rate * factor})
            for step in range(3):
                mlflow.log_metric("loss", rate * factor * random.random(), step=step)
print("RUN", top.info.run_id, below.info.run_id)
"""


def series(*values, steps=None):
    return Series(np.arange(len(values)) if steps is None else np.array(steps), np.array(values))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (series(1.0, 2.0), series(1.0, 2.0)),
        (series(np.nan, np.inf), series(-np.nan, np.inf)),
        (series(1, 2), series(1, 2)),
        (series([[1.0, 2.0]]), series([[1.0, 2.0]])),
        (series(), series()),
    ],
)
def test_no_difference(one, other):
    assert series_difference("x", one, other) is None


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (series(1.0, 2.0, 4.0), series(1.0, 2.5, 3.0), (2, 3, 1.0, 0.25, 2)),
        (series(1.0, 1e-9), series(1.5, 2e-9), (2, 2, 0.5, 0.5, 0)),
        (series([1.0, 2.0], [3.0, 4.0]), series([1.0, 2.0], [3.0, 4.5]), (1, 2, 0.5, 1 / 9, 1)),
        (series(1.0, 2.0, steps=[0, 2]), series(1.0, 2.0, 3.0), (2, 3, 1.0, 1 / 3, 2)),
        (series(0.0, 1.0), series(-0.0, 1.0), (1, 2, np.nan, np.nan, 0)),
        (series(1.0, np.nan), series(1.0, 2.0), (1, 2, np.nan, np.nan, 1)),
        (series(1.0, np.inf), series(1.0, 2.0), (1, 2, np.nan, np.nan, 1)),
        (series(1.0), series(1.0, 5.0), (1, 2, np.nan, np.nan, 1)),
        (series([1.0, 2.0]), series([1.0, 2.0, 3.0]), (1, 1, np.nan, np.nan, 0)),
    ],
)
def test_difference(one, other, expected):
    np.testing.assert_allclose(series_difference("x", one, other)[1:], expected)
    np.testing.assert_allclose(series_difference("x", other, one)[1:], expected)


def test_a_difference_in_words():
    assert str(series_difference("loss", series(1.0, 2.0), series(1.0, 2.5))) == (
        "loss: 1 of 2 steps differ, by at most 0.5 at step 1 (relative: 0.2)"
    )
    assert str(series_difference("loss", series(1.0), series(1.0, 2.0))) == "loss: 1 of 2 steps differ, first at step 1"


def history(last=1.0, name="w", seconds=1.0, **kinds):
    weights = {name: np.array([[0.0], [0.5], [last]], np.float32)}
    kinds = kinds or {"weights": weights}
    steps = {"step": [0, 1], "time": [seconds, seconds], "batch_loss": np.array([2.0, last])}
    return TrainingHistory.from_arrays(steps, {"epoch": [0], "loss": [last], "seconds": [seconds]}, **kinds)


def test_histories():
    assert list(history_differences(history(), history(seconds=2.0))) == []
    told = list(map(str, history_differences(history(), history(1.5))))
    assert [line.partition(":")[0] for line in told] == ["step batch_loss", "epoch loss", "weights w"]
    assert told[2].endswith("by at most 0.5 at step 1 (relative: 0.333)")
    assert [each.name for each in history_differences(history(), history(name="v"))] == ["weights w", "weights v"]


def test_shares_of_units_are_compared_where_both_were_measured():
    def measured(*shares):
        steps, epochs = {"step": [0], "batch_loss": [1.0]}, {"epoch": np.arange(3), "loss": np.ones(3)}
        return TrainingHistory.from_arrays(steps, epochs | ({"dead_units/a": shares} if shares else {}))

    nan = np.nan
    for one, other in (((0.5, nan, 0.1), (0.5, 0.2, nan)), ((0.5, nan, nan), ()), ((), (nan, nan, 0.1))):
        assert list(history_differences(measured(*one), measured(*other))) == []
    (difference,) = history_differences(measured(0.5, nan, 0.1), measured(nan, 0.2, 0.4))
    assert (difference.name, difference.n_differing, difference.step) == ("epoch dead_units/a", 1, 2)


def test_histories_that_have_only_statistics_in_common():
    four = {key: np.array([0.0, 0.5, 1.0]) for key in ("norm", "mean")} | {
        "std": np.zeros(3),
        "update_ratio": np.array([np.nan, np.inf, 1.0]),
    }
    both = history(), history(statistics={"w": four})
    names = {each.name for each in history_differences(*both)}
    assert names <= {"weights w/update_ratio"}
    four["mean"][2] = 9.0
    assert "weights w/mean" in {each.name for each in history_differences(history(), history(statistics={"w": four}))}


def recorded(loss=1.0, seconds=1.0, children=(0.1, 0.2), **tags):
    """A run with metrics and nested runs; its id."""
    with mlflow.start_run(tags={f"mlflow_hp.{name}": value for name, value in tags.items()}) as top:
        for step in range(3):
            mlflow.log_metric("loss", loss * step, step)
        mlflow.log_metrics({"fit_seconds": seconds, "fold/score_time": seconds, "system/cpu": seconds})
        for rate in children:
            with mlflow.start_run(nested=True, tags={"mlflow_hp.kind": "candidate"}):
                mlflow.log_param("rate", rate)
                mlflow.log_metric("score", loss * rate)
    return mlflow.get_run(top.info.run_id)


def test_runs_that_are_alike_but_for_their_times(store):
    found = compare(recorded(seconds=1.0), recorded(seconds=2.0, children=(0.2, 0.1)))
    assert found.differences == []
    assert found.compared == "3 metrics, in 3 runs, 3 metrics of time left out"


def test_statistics_are_compared_where_both_runs_have_them():
    """How often those of large tensors are taken depends on the time that steps take."""
    rows = np.linspace(1, 2, 9)
    histories = [
        TrainingHistory.from_arrays(
            {"step": np.arange(8)}, statistics={"w": dict.fromkeys(STATISTICS, np.ma.masked_array(values, missing))}
        )
        for values, missing in (
            (rows, np.arange(9) % 2 > 0),
            (rows, np.arange(9) % 3 > 0),
            (rows * 2, np.arange(9) % 3 > 0),
        )
    ]
    assert list(history_differences(*histories[:2])) == []
    one, *_ = history_differences(histories[0], histories[2])
    assert (one.name, one.n_differing, one.n_points) == ("weights w/norm", 2, 2)  # rows 0 and 6


def test_runs_that_differ(store):
    one, other = recorded(data_digest="a"), recorded(1.5, children=(0.1,), data_digest="b")
    told = compare(one, other).differences
    assert told[:2] == [
        "data digest: a, b",
        "metric loss: 2 of 3 steps differ, by at most 1 at step 2 (relative: 0.333)",
    ]
    assert "metric score: 1 of 1 step differs, by at most 0.05 at step 0" in told[2]
    assert told[3].startswith(f"run {other.info.run_id} has no nested run like ")


def test_params_are_compared_as_the_program_got_them(store):
    ids = []
    for value in ("'0.1, 0.2'", "0.1, 0.2", "0.3", "it's"):
        with mlflow.start_run() as run:
            mlflow.log_param("rate", value)
        ids.append(run.info.run_id)
    quoted, plain, other, odd = map(mlflow.get_run, ids)
    assert compare(quoted, plain).differences == []
    assert compare(plain, other).differences == ["param rate: 0.1, 0.2, 0.3"]
    assert compare(odd, odd).differences == []


def test_a_run_of_which_nothing_is_known(store, monkeypatch):
    monkeypatch.setenv(provenance.SWITCH, "0")
    with mlflow.start_run() as run:
        pass
    with pytest.raises(UserError, match=r"has no recorded command.*MLFLOW_HP_TAGS=0"):
        recipe.recipe_of(run.info.run_id)
    with pytest.raises(UserError, match=r"'nowhere'.*MLFLOW_TRACKING_URI"):
        recipe.recipe_of("nowhere")


@pytest.mark.parametrize(
    ("command", "patch", "obstacle"),
    [
        ("python x.py --token '***'", None, r"a secret in the command was redacted to \*\*\*"),
        ("python -m ipykernel_launcher -f x.json", None, "in a notebook or at a prompt"),
        ("python", None, "in a notebook or at a prompt"),
        ("python x.py", f"# a\n{git_repository.LEFT_OUT}Binary files a and b\n", "its code lack Binary files a and b"),
    ],
)
def test_what_can_not_be_run_by_itself(command, patch, obstacle, store, capsys):
    with mlflow.start_run(tags={"mlflow_hp.command": command}) as run:
        if patch:
            mlflow.log_text(patch, UNCOMMITTED_FILE)
            mlflow.set_tag(UNCOMMITTED_TAG, UNCOMMITTED_FILE)
    made = recipe.recipe_of(run.info.run_id)
    with pytest.raises(UserError, match=obstacle):
        rerun.run_again(made, here=True)
    assert any("It cannot be repeated automatically" in line for line in recipe.describe(made))


def test_what_may_come_out_otherwise(store):
    tags = {"command": "python x.py", "versions": "python 3.1.0, numpy 1.0.0, other 2.0", "device": "9 x Abacus",
            "git_dirty": "true"}  # fmt: skip
    with mlflow.start_run(tags={f"mlflow_hp.{name}": value for name, value in tags.items()}) as run:
        pass
    told = "\n".join(recipe.describe(recipe.recipe_of(run.info.run_id)))
    assert f"numpy 1.0.0, here {np.__version__}" in told
    assert "other 2.0, here absent" in told
    assert "another device: 9 x Abacus, here " in told
    assert "there were uncommitted changes, and they are not in the run" in told


def git(folder, *words):
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org")
    subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch, store, tracking_uri):
    """A repository with PROGRAM in a folder, changed since the commit; it is the working folder."""
    folder = tmp_path / "repository"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "train.py").write_text("raise SystemExit('the commit alone')\n")
    (folder / "odd.txt").write_bytes(b"1\r\n2\r\n")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a")
    (folder / "src" / "train.py").write_text(PROGRAM)
    (folder / "odd.txt").write_bytes(b"1\r\n\xe9\r\n")
    monkeypatch.chdir(folder / "src")
    monkeypatch.setattr(sys, "executable", python())
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", store.get_experiment_by_name("tests").experiment_id)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return folder


def run(*words, cwd):
    done = subprocess.run([python(), *words], capture_output=True, text=True, cwd=cwd, env=os.environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tag(run_id, **tags):
    """What the plugin tags where it is installed, sealed; here for a program that runs without it."""
    tags["seal"] = seal.seal("command", *(tags.get(name.removeprefix(TAG_PREFIX)) for name in provenance.SEALED_TAGS))
    for name, value in tags.items():
        mlflow.MlflowClient().set_tag(run_id, f"mlflow_hp.{name}", value)


@pytest.fixture
def original(repository):
    """PROGRAM's run, and the last below it."""
    top, below = run("train.py", "0.5", "7", cwd=repository / "src").split()[1:]
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    tag(top, command="python train.py 0.5 7", git_commit=head, git_folder="src", git_program="src/train.py")
    return top, below


def test_a_program_run_again_in_a_copy_of_its_code(original, repository, capfd):
    (repository / "src" / "train.py").write_text("raise SystemExit('the code of today')\n")
    before = sorted(path for path in repository.rglob("*") if ".git" not in path.parts)
    assert cli.main(["repeat", original[0], "--run", "--yes"]) == 0
    said = capfd.readouterr().out
    assert "2 metrics, in 3 runs, 1 metric of time left out" in said
    assert said.endswith("the same, bit for bit\n")
    assert sorted(path for path in repository.rglob("*") if ".git" not in path.parts) == before
    worktrees = subprocess.run(["git", "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert len(worktrees.splitlines()) == 1
    assert (repository / "src" / "train.py").read_text().startswith("raise")


def test_a_nested_run_is_found_among_those_of_the_program(original, capfd):
    assert cli.main(["repeat", original[1], "--here", "--yes"]) == 0
    said = capfd.readouterr().out
    assert f"part of run {original[0]}" in said
    new = said.rpartition("and ")[2].partition(":")[0]
    assert mlflow.get_run(new).data.params == {"rate": "1.0"}
    assert mlflow.get_run(new).data.tags[REPEATS_TAG] == original[0]


def test_the_same_program_with_other_settings_differs(original, repository, capfd):
    other = run("train.py", "0.6", "7", cwd=repository / "src").split()[1]
    capfd.readouterr()
    assert cli.main(["repeat", original[0], "--against", other]) == 1
    said = capfd.readouterr().out.splitlines()
    assert "param rate: 0.5, 0.6" in said
    assert said[-1].endswith(" differences")


def test_a_commit_that_is_not_here(original, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["repeat", original[0]]) == 0
    assert "go to a checkout of its repository and `git fetch` it" in capsys.readouterr().out
    assert cli.main(["repeat", original[0], "--run", "--yes"]) == 2
    assert "go to a checkout of its repository" in capsys.readouterr().err


def test_a_program_that_fails(original, repository, capfd):
    (repository / "src" / "train.py").write_text("raise SystemExit('what went wrong')\n")
    assert cli.main(["repeat", original[0], "--here", "--yes"]) == 2
    said = capfd.readouterr().err
    assert "what went wrong" in said
    assert "ended with status 1, and recorded no run like" in said


def test_a_patch_that_does_not_apply(original, capfd):
    mlflow.MlflowClient().log_text(
        original[0], "# a\ndiff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-1\n+2\n", UNCOMMITTED_FILE
    )
    assert cli.main(["repeat", original[0], "--run", "--yes"]) == 2
    assert "--trust" in capfd.readouterr().err  # another patch than was sealed
    assert cli.main(["repeat", original[0], "--run", "--yes", "--trust"]) == 2
    assert "` failed in " in capfd.readouterr().err
    assert len(subprocess.run(["git", "worktree", "list"], capture_output=True, text=True).stdout.splitlines()) == 1


def test_a_run_of_no_repository(original, capsys):
    mlflow.MlflowClient().delete_tag(original[0], "mlflow_hp.git_commit")
    mlflow.MlflowClient().delete_tag(original[0], UNCOMMITTED_TAG)
    tag(original[0], command="python train.py 0.5 7", git_folder="src", git_program="src/train.py")
    assert cli.main(["repeat", original[0], "--run", "--yes"]) == 2
    assert "with --here its command is run in this folder" in capsys.readouterr().err


@pytest.fixture
def project(tmp_path, monkeypatch, tracking_uri, store):
    """This project's experiments in a repository of their own, with an uncommitted change; it is the working folder."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "projects", folder / "projects", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("MLproject", "conda.yaml"):
        shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a")
    with (folder / "projects" / "cost_contour.py").open("a") as file:
        file.write("# changed\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "executable", python())
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("PATH", f"{commands()}:{os.environ['PATH']}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    return folder


def newest(kind):
    query = f"tags.`mlflow_hp.kind` = '{kind}' and tags.`mlflow_hp.experiment` != ''"
    return mlflow.search_runs(experiment_names=["tests"], filter_string=query, output_format="list")[0]


@pytest.mark.slow
def test_a_seeded_training_repeats_bit_for_bit(project, capfd):
    settings = ["--epochs", "2", "--animate", "false", "--seed", "3"]
    run("-m", "projects.cost_contour", *settings, cwd=project)
    first = newest("training")
    assert cli.main(["repeat", first.info.run_id, "--run", "--yes"]) == 0
    said = capfd.readouterr().out
    assert "72 recorded steps" in said
    assert said.endswith("the same, bit for bit\n")
    run("-m", "projects.cost_contour", *settings, "--learning_rate", "0.011", cwd=project)
    assert cli.main(["repeat", first.info.run_id, "--against", newest("training").info.run_id]) == 1
    said = capfd.readouterr().out
    assert "param learning_rate: 0.01, 0.011" in said
    assert "metric batch/learning_rate: 72 of 72 steps differ, by at most 0.001" in said


@pytest.mark.thorough
@pytest.mark.slow
def test_a_combination_of_mlflow_run_repeats_bit_for_bit(project, capfd):
    given = ["-P", "schedule=constant", "-P", "learning_rate=0.1,0.05", "-P", "epochs=1"]
    run("-m", "mlflow", "run", ".", "-e", "learning_rate", "--env-manager", "local", *given, cwd=project)
    one = newest("training")
    assert cli.main(["repeat", one.info.run_id, "--run", "--yes"]) == 0
    said = capfd.readouterr().out
    assert f"part of run {newest('sweep').info.run_id}" not in said  # that is the repetition's
    assert "42 recorded steps" in said
    assert said.endswith("the same, bit for bit\n")
