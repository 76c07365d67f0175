"""Every entry point, as its user starts it: `mlflow run`, at a small size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import yaml

from projects import runner
from tests.helpers.forked_python import commands

ROOT = Path(__file__).parents[2]
SMALL_NETWORK = {"max_samples": "200", "hidden": "8", "epochs": "2"}
SMALL = {
    "main": ({"epochs": "1", "animate": "false", "improve": "1"}, "cost_contour"),
    "cost_contour": ({"epochs": "1", "learning_rate": "0.1,0.01", "animate": "false"}, "cost_contour"),
    "beale": ({"method": "BFGS,Adam", "iterations": "50", "animate": "false"}, "paths"),
    "learning_rate": ({**SMALL_NETWORK, "schedule": "constant,restarts", "landscape": "true"}, "landscape"),
    "learning_rate_range": (SMALL_NETWORK, "loss_by_learning_rate"),
    "train": ({**SMALL_NETWORK, "patience": "1", "register": "small"}, "confusion_matrix"),
    "grid_search": ({**SMALL_NETWORK, "grid": '{"dropout": [0, 0.2, 0.5]}', "cv": "2", "then": "review"},
                    "scores_by_fold"),
    "random_search": ({**SMALL_NETWORK, "space": '{"dropout": {"low": 0, "high": 0.5}}', "n_iter": "2", "cv": "2"},
                      "accuracy_by_epoch"),
    "adaptive_search": ({**SMALL_NETWORK, "space": '{"dropout": {"low": 0, "high": 0.5}}', "n_iter": "3", "cv": "2",
                         "time_budget": "1h"}, "scores_by_fold"),
    "atlas": ({**SMALL_NETWORK, "n_rates": "3", "n_batch_sizes": "2", "seeds": "2"}, "atlas"),
}  # fmt: skip
"""Entry point -> parameters that make it small, and a picture that its run then has."""


def test_all_are_here():
    declared = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))["entry_points"]
    assert set(declared) == set(SMALL) | {"compare"}  # it needs runs that are there: test_comparison.py


@pytest.mark.sampled(9)
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SMALL if name != "main"])  # main is tested with cost_contour
def test_mlflow_run(name, tmp_path):
    settings, picture = SMALL[name]
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    environment = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID")}
    environment |= {"MLFLOW_TRACKING_URI": uri, "PATH": f"{commands()}:{os.environ['PATH']}"}
    options = [word for key, value in settings.items() for word in ("-P", f"{key}={value}")]
    done = subprocess.run(
        ["mlflow", "run", str(ROOT), "-e", name, "--env-manager", "local", *options],
        env=environment, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    store = mlflow.MlflowClient(uri)
    found = store.search_runs(["0"])
    assert {run.info.status for run in found} == {"FINISHED"}
    top = next(run for run in found if "mlflow.parentRunId" not in run.data.tags)
    assert f"plots/{picture}.png" in [a.path for a in store.list_artifacts(top.info.run_id, "plots")]
    assert "**To repeat it**" in top.data.tags["mlflow.note.content"]
    assert top.data.tags["mlflow_hp.command"]
    if "register" in settings:
        assert [model.name for model in store.search_registered_models()] == ["small"]


def test_the_end_says_how_to_look_at_a_run(store, monkeypatch):
    monkeypatch.setenv(runner.UI_COMMAND, "make ui")
    assert runner.where_to_look("0" * 32)[0] == "Look at it: make ui"
    monkeypatch.delenv(runner.UI_COMMAND)
    assert runner.where_to_look("0" * 32)[0].startswith("Look at it: mlflow-hp ui --store ")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"{runner.UI_COMMAND}='make ui'" in makefile
    assert "\nui:" in makefile


@pytest.mark.thorough
@pytest.mark.slow
def test_libraries_print_nothing_before_a_sentence(tmp_path):
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run_id = client.create_run("0").info.run_id
    done = subprocess.run(
        [sys.executable, "-m", "projects.cost_contour", "--feature", "none such"],  # loads the libraries itself
        env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "MLFLOW_RUN_ID": run_id},
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == runner.EXIT_BAD_INPUT
    assert done.stderr.startswith("cost_contour: ")
    assert len(done.stderr.splitlines()) == 1
