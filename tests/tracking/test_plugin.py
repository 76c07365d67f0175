"""What MLflow loads by entry point."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow.tracking.context.registry import resolve_tags

from mlflow_hp.tracking import provenance, run_context, runs

ROOT = Path(__file__).parents[2]
RUN = """
import sys, mlflow
{more}
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("tests")
with mlflow.start_run() as top, mlflow.start_run(nested=True) as below:
    pass
for run in (top, below):
    tags = mlflow.get_run(run.info.run_id).data.tags
    print(sorted(name for name in tags if name.startswith("mlflow_hp")))
"""


@pytest.fixture
def installed(tmp_path):
    """A folder for PYTHONPATH that has the plugin installed, as pip would, and no other copy of the package."""
    info = tmp_path / "site" / "mlflow_hp_plugin_test-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow-hp-plugin-test\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[mlflow.run_context_provider]\nmlflow-hp-test = mlflow_hp.tracking.run_context:ProvenanceContext\n"
    )
    return os.pathsep.join([str(info.parent), str(ROOT)])


def run(program, installed, tracking_uri, cwd, **environment):
    given = {**os.environ, "PYTHONPATH": installed, "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "1", **environment}
    given = {name: value for name, value in given.items() if not name.startswith("MLFLOW_EXPERIMENT")}
    words = [sys.executable, "-W", "error:Failure attempting to register", "-c", program, tracking_uri]
    done = subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=given)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_runs_of_a_program_that_uses_it(installed, tracking_uri, tmp_path):
    program = RUN.format(more="from mlflow_hp import TrainingRecorder, load_history")
    top, below = run(program, installed, tracking_uri, tmp_path, **{provenance.AUTHOR_VARIABLE: "Ada"})
    assert top == below
    assert {"author", "command", "device", "host", "seal", "versions"} == set(
        top.strip("[]'").replace("mlflow_hp.", "").split("', '")
    )


@pytest.mark.sampled(2)
@pytest.mark.parametrize("more", ["", "import mlflow_hp"])
def test_runs_of_another_program_are_left_alone(more, installed, tracking_uri, tmp_path):
    assert run(RUN.format(more=more), installed, tracking_uri, tmp_path) == ["[]", "[]"]


def test_it_can_be_turned_off(installed, tracking_uri, tmp_path):
    program = RUN.format(more="import mlflow_hp.tracking.runs")
    assert run(program, installed, tracking_uri, tmp_path, **{provenance.SWITCH: "0"}) == ["[]", "[]"]


@pytest.mark.thorough
def test_where_there_is_no_git_and_nothing_can_be_written(installed, tracking_uri):
    program = RUN.format(more="import mlflow_hp.tracking.runs")
    top, _ = run(program, installed, tracking_uri, "/proc", PATH="", HOME="/proc")
    assert "'mlflow_hp.host'" in top
    assert "git" not in top


def test_it_loads_nothing_and_asks_nobody(installed, tracking_uri, tmp_path):
    program = (
        "import subprocess, sys\n"
        "def refuse(*a, **k): raise SystemExit('a process at import')\n"
        "import importlib.metadata\n"
        "found = importlib.metadata.entry_points(group='mlflow.run_context_provider')\n"
        "before = set(sys.modules); subprocess.Popen = refuse\n"
        "[e.load()() for e in found if e.value.startswith('mlflow_hp')]\n"
        "print(sorted(set(sys.modules) - before - {'importlib', 'typing', '__future__'}))"
    )
    loaded = ["mlflow_hp", "mlflow_hp._lazy", "mlflow_hp.tracking", "mlflow_hp.tracking.run_context"]
    assert run(program, installed, tracking_uri, tmp_path) == [str(loaded)]


def test_the_package_declares_it():
    declared = [e.value for e in importlib.metadata.entry_points(group="mlflow.run_context_provider", name="mlflow-hp")]
    if not declared:
        pytest.skip("mlflow-hp is not installed: pip install --editable .")
    assert declared[0] == "mlflow_hp.tracking.run_context:ProvenanceContext"


def test_mlflow_and_the_runs_it_does_not_reach_get_the_same(monkeypatch):
    assert runs is not None
    context = run_context.ProvenanceContext()
    assert context.in_context()
    assert context.tags() == provenance.tags()
    assert provenance.tags().items() <= runs.run_tags("training").items()
    monkeypatch.delitem(sys.modules, "mlflow_hp.tracking.runs")
    assert not context.in_context()


def test_an_error_is_not_the_end_of_a_run(store, monkeypatch):
    def fail():
        raise RuntimeError("at fault")

    registry = mlflow.tracking.context.registry._run_context_provider_registry
    monkeypatch.setattr(registry, "_registry", [run_context.ProvenanceContext()])
    monkeypatch.setattr(provenance, "tags", fail)
    assert resolve_tags({"a": "b"}) == {"a": "b"}
