"""The rules of the house: imports run one way, heavy libraries load late, and what is declared is what there is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]

FROM_THE_GROUND_UP = [
    "terminal", "errors", "notice", "forks", "interrupts", "observer", "process", "folder_lock", "entropy",
    "masking", "home", "seal", "server_health", "provenance", "plugin", "names", "texts", "history",
    "snapshots", "surfaces", "diagnosis", "plots", "hyperparameters", "capture", "activations", "landscape",
    "journal", "left_behind", "runs", "late_params", "points", "duplicates", "fit_numbers", "sender",
    "recording", "report", "training_recovery", "recovery", "fit", "recorder", "search", "sync", "compare",
    "page", "repeat", "cli",
]  # fmt: skip
"""Rooms of mlflow_hp: each may import those before it."""

KNOWN_IN = {
    "keras": {"recorder", "fit", "capture", "activations", "landscape", "search"},
    "tensorflow": {"capture", "landscape", "search"},
    "mlflow": {
        "observer", "server_health", "runs", "late_params", "sender", "recording", "report", "training_recovery",
        "recovery", "recorder", "search", "sync", "compare", "page", "repeat",
    },
    "sklearn": {"search"},
    "joblib": {"search"},
    "distributed": {"search"},
    "scikeras": {"search"},
    "optuna": {"search"},
    "matplotlib": {"plots"},
    "PIL": {"plots"},
    "pandas": {"history", "search"},
    "pyarrow": {"history"},
    "plotly": {"compare", "page"},
    "flask": {"page"},
}  # fmt: skip
"""Libraries that only some rooms know."""


def modules():
    return [path for path in (ROOT / "mlflow_hp").rglob("*.py") if path != ROOT / "mlflow_hp" / "__init__.py"]


def room(path):
    return path.relative_to(ROOT / "mlflow_hp").parts[0].removesuffix(".py")


def imported(path):
    """What a file imports anywhere but for type checking alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "mlflow_hp":
                yield from (f"mlflow_hp.{alias.name}" for alias in node.names)
            else:
                yield node.module


def test_test_files_have_names_of_their_own():
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names))


def test_every_room_has_its_place():
    assert {room(path) for path in modules()} == set(FROM_THE_GROUND_UP)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path):
    allowed = {"errors", "interrupts", "terminal", *FROM_THE_GROUND_UP[: FROM_THE_GROUND_UP.index(room(path)) + 1]}
    for name in imported(path):
        library, _, rest = name.partition(".")
        assert library != "projects"
        if library == "mlflow_hp":
            assert rest.split(".")[0] in allowed, f"{path.name} imports {name}, which stands above it"
        if library in KNOWN_IN:
            assert room(path) in KNOWN_IN[library], f"{path.name} imports {name}"


@pytest.mark.parametrize("statement", ["import mlflow_hp", "import mlflow, mlflow_hp", "import mlflow_hp.runs"])
def test_importing_loads_nothing_heavy(statement):
    heavy = "[m for m in ('tensorflow', 'keras', 'matplotlib', 'sklearn') if m in sys.modules]"
    program = f"{statement}\nimport sys\nprint({heavy})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names():
    import mlflow_hp

    assert set(mlflow_hp.__all__) <= set(dir(mlflow_hp))
    for name in mlflow_hp.__all__:
        assert inspect.getdoc(getattr(mlflow_hp, name)), name
    with pytest.raises(AttributeError, match="TrainingRecorder"):
        _ = mlflow_hp.nothing


def entry_points():
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    return project["entry_points"].items()


@pytest.mark.parametrize(("name", "entry"), entry_points(), ids=[name for name, _ in entry_points()])
def test_what_mlproject_declares_is_what_the_program_takes(name, entry):
    module = re.search(r"python -m ([\w.]+)", entry["command"]).group(1)
    program = importlib.import_module(module)
    takes = {parameter.name: parameter.default for parameter in program.PARAMETERS}
    assert {key: value["default"] for key, value in entry["parameters"].items()} == takes
    assert re.findall(r"--(\w+) \{(\w+)\}", entry["command"]) == [(key, key) for key in takes]
    assert entry["description"]


def test_nothing_is_pinned_twice():
    pip = yaml.safe_load((ROOT / "conda.yaml").read_text(encoding="utf-8"))["dependencies"][-1]["pip"]
    assert pip == ["."]
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for top in ("mlflow_hp", "projects")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(packages) == found


def test_the_gate_and_the_readme_call_the_same_tests():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")
