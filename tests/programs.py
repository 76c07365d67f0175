"""Programs of a user's, written into a folder and run: as a fork of a process that has the libraries loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import mlflow

import mlflow_hp

SERVER = """
import json, os, runpy, sys, traceback
sys.path[:0] = {paths!r}
import mlflow, numpy, pandas, scipy.stats, yaml, sklearn.model_selection, mlflow_hp, mlflow_hp.search.record_search
import alembic.command, mlflow.store.tracking.sqlalchemy_store, mlflow.store.db.utils
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        status = 1
        try:
            out = os.open(asked["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1), os.dup2(out, 2)
            os.chdir(asked["cwd"])
            for name in [name for name in os.environ if name.startswith(("MLFLOW_EXPERIMENT", "MLFLOW_RUN"))]:
                del os.environ[name]  # of a test that ran before
            os.environ.update(asked["environment"])
            sys.argv = [asked["script"], *asked["arguments"]]
            sys.path[0] = os.path.dirname(asked["script"])
            runpy.run_path(asked["script"], run_name="__main__")
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Ran(NamedTuple):
    """What a program printed, how often it fitted, the scores that it found, and the error that ended it."""

    text: str
    n_fits: int
    scores: list[float] | None
    error: str


class Programs:
    """Runs programs; `close` ends what runs them."""

    def __init__(self, folder):
        self.out = folder / "out.txt"
        paths = [str(Path(mlflow_hp.__file__).parents[1])]
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER.format(paths=paths)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},  # what workers print is not lost with them
        )  # fmt: skip

    def run(self, script, *arguments, cwd=None, **environment):
        asked = {
            "script": str(script), "arguments": arguments, "cwd": str(cwd or Path(script).parent),
            "out": str(self.out), "environment": {"MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(), **environment},
        }  # fmt: skip
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        assert self.server.stdout.readline()
        return ran(self.out.read_text())

    def close(self):
        self.server.stdin.close()
        self.server.wait(timeout=60)
        self.server.stdout.close()


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

    def __init__(self, programs, folder, experiment, files, shift, before="", after="", search=""):
        self.programs, self.folder = programs, folder
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
        return self.programs.run(self.folder / "train.py", how, *arguments, **self.environment, **environment)

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
