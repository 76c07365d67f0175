"""Programs of a user's, written into a folder and run: as a fork of a process that has the libraries loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import mlflow

from tests.helpers.forked_python import python


class Ran(NamedTuple):
    """What a program printed, how often it fitted, the scores that it found, and the error that ended it."""

    text: str
    n_fits: int
    scores: list[float] | None
    error: str


def run(script, *arguments, **environment):
    """Run a script in its folder, with the store that is in use."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_EXPERIMENT", "MLFLOW_RUN"))
    }
    done = subprocess.run(
        [python(), str(script), *arguments], cwd=Path(script).parent, text=True, check=False,
        env={**kept, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), **environment},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return ran(done.stdout or f"nothing was printed; exit status {done.returncode}")


def ran(text):
    scores = re.findall(r"^scores (.*)$", text, re.MULTILINE)
    error = re.findall(r"^(?:\w+\.)*(?:UserError|Error|\w+Error|KeyboardInterrupt)\b.*", text, re.MULTILINE)
    return Ran(
        text,
        len(re.findall("^fit$", text, re.MULTILINE)),
        json.loads(scores[-1]) if scores else None,
        error[-1] if error else "",
    )


TRAIN = """
import json, os, sys
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV
import mlflow_hp
{before}

class Model(BaseEstimator):
    def __init__(self, rate=1.0):
        self.rate = rate

    def fit(self, x, y):
        print("fit")
        if self.rate > 1 and os.path.exists("stop"):
            raise KeyboardInterrupt
        self.shift_ = self.shift()
        return self

    def shift(self):
        {shift}

    def score(self, x, y):
        return float(self.shift_ * self.rate)

def main():
    x, y = np.arange(24.0).reshape(12, 2), np.arange(12)
    search = GridSearchCV(Model(), {{"rate": [1.0, 2.0]}}, cv=2, refit=False{search})
    if sys.argv[1] == "bare":
        search.fit(x, y)
    else:
        with mlflow_hp.record_search(search, progress=False, report=False{resume}):
            search.fit(x, y)
    results = search.cv_results_
    print("scores", json.dumps([results[f"split{{i}}_test_score"][k] for i in range(2) for k in range(2)]))

{after}
if __name__ == "__main__":
    main()
"""


class Program:
    """A search in a folder: ``train.py`` with files beside it."""

    def __init__(self, folder, experiment, files, shift, before="", after="", search=""):
        self.folder = folder
        self.environment = {"MLFLOW_EXPERIMENT_NAME": experiment}
        self.parts = {"shift": shift.replace("\n", "\n" + 8 * " "), "before": before, "after": after, "search": search}
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            self.write(name, text)
        self.write_train()

    def write(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if callable(content):
            content(path)
        else:
            path.write_text(content)
        # Python does not see an edit within the second of the last compilation, if the file's size stays
        shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)

    def write_train(self, resume="", **parts):
        self.write("train.py", TRAIN.format(resume=resume, **{**self.parts, **parts}))

    def edit(self, name, old, new):
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def run(self, how, *arguments, **environment):
        return run(self.folder / "train.py", how, *arguments, **self.environment, **environment)

    @property
    def run_id(self):
        """Of the parent run that its experiment has."""
        client = mlflow.MlflowClient()
        experiment = client.get_experiment_by_name(self.environment["MLFLOW_EXPERIMENT_NAME"])
        (run,) = client.search_runs([experiment.experiment_id], "tags.`mlflow_hp.kind` = 'search'")
        return run.info.run_id

    def interrupted(self, *arguments, **environment):
        """Run it until half of its four folds are done."""
        (self.folder / "stop").touch()
        done = self.run("first", *arguments, **environment)
        assert done.error.startswith("KeyboardInterrupt"), done.text
        (self.folder / "stop").unlink()
        self.write_train(", resume=True")
        return done
