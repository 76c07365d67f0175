"""Two authors record from a checkout each into one store, and their runs are compared."""

from __future__ import annotations

import os
import shutil
import subprocess

import mlflow
import pytest

from mlflow_hp.compare import open_source, sections
from tests.helpers.forked_python import python
from tests.helpers.stored_runs import facts_of

PROGRAM = """
import warnings
warnings.filterwarnings("ignore")
import mlflow, mlflow_hp
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

search = GridSearchCV(LogisticRegression(max_iter=500), {"C": STRENGTHS}, cv=3)
with mlflow_hp.record_search(search, report=False, progress=False):
    search.fit(*load_iris(return_X_y=True))
"""


def git(folder, *words):
    return subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def checkout(origin, folder, author):
    git(origin.parent, "clone", "--quiet", str(origin), str(folder))
    git(folder, "config", "user.name", author)
    git(folder, "config", "user.email", f"{author}@example.org")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed: apt-get install git")
def test_two_checkouts_in_one_store(store, tmp_path):
    git(tmp_path, "init", "--quiet", "origin")
    ada = checkout(tmp_path / "origin", tmp_path / "ada", "Ada Lovelace")
    (ada / "search.py").write_text(PROGRAM.replace("STRENGTHS", "[0.001, 1.0]"))
    git(ada, "add", ".")
    git(ada, "commit", "--quiet", "--message", "Search")
    git(ada, "push", "--quiet", "origin", "HEAD:refs/heads/shared")
    git(tmp_path / "origin", "symbolic-ref", "HEAD", "refs/heads/shared")
    grace = checkout(tmp_path / "origin", tmp_path / "grace", "Grace Hopper")
    (grace / "search.py").write_text(PROGRAM.replace("STRENGTHS", "[0.01, 10.0]"))  # not committed
    experiment = mlflow.create_experiment("iris of two")
    known = {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), "MLFLOW_EXPERIMENT_ID": experiment}
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "GIT_"))}
    for folder in (ada, grace):
        subprocess.run([python(), "search.py"], cwd=folder, env={**ours, **known}, check=True)
    found = {each.key: each for each in sections(facts_of(store, experiment), open_source(store))}
    scores = found["scores-1"].table
    authors = {row[scores.columns.index("author")] for row in scores.rows}
    assert authors == {"Ada Lovelace", "Grace Hopper"}
    assert "of the 3 others with the same 3 folds" in " ".join(found["scores-1"].words)  # paired across the checkouts
    assert {row[0] for row in found["differences-1"].table.rows} == {"C", "author", "uncommitted changes"}
    top = {run.data.tags["mlflow_hp.author"]: run for run in store.search_runs(
        [experiment], "tags.`mlflow_hp.kind` = 'search'")}  # fmt: skip
    tags = {author: run.data.tags for author, run in top.items()}
    assert tags["Ada Lovelace"]["mlflow_hp.git_dirty"] == "false"
    assert tags["Grace Hopper"]["mlflow_hp.git_dirty"] == "true"
    uri = top["Grace Hopper"].info.artifact_uri
    patch = mlflow.artifacts.load_text(f"{uri}/{tags['Grace Hopper']['mlflow_hp.uncommitted']}")
    assert "+search = " in patch
    assert "[0.01, 10.0]" in patch
