"""The rules of the house: who knows which library, heavy ones load late, and what is declared is what there is."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]

KNOWN_IN = {
    "keras": {"_compat", "training", "search", "autologging"},
    "tensorflow": {"_compat", "training", "search"},
    "mlflow": {
        "_compat", "tracking", "history", "delivery", "training", "search", "sync", "compare", "server", "reproduce",
        "cli", "autologging", "improvement", "assistant",
    },
    "sklearn": {"_compat", "search"},
    "joblib": {"_compat", "analysis", "search"},
    "distributed": {"search"},
    "scikeras": {"search"},
    "optuna": {"analysis", "search"},
    "matplotlib": {"plots"},
    "PIL": {"plots"},
    "pandas": {"history", "analysis", "search", "tracking"},
    "pyarrow": {"history"},
    "plotly": {"compare", "run_page", "server"},
    "flask": {"server"},
    "click": {"cli"},
    "jinja2": {"compare", "run_page"},
}  # fmt: skip
"""Libraries that only some packages know. Which package may import which: import-linter, in pyproject.toml."""


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
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_share_code_through_their_helpers_only(path):
    test_files = {other.stem for other in (ROOT / "tests").rglob("test_*.py")} | {"conftest", "benchmarks"}
    in_programs = re.findall(r"^\s*(?:from|import) (\w[\w.]*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    for name in [*imported(path), *in_programs]:
        assert not test_files & set(name.split(".")), f"{path.name} imports {name}"
        assert not re.match(r"tests\b(?!\.helpers\b)", name), f"{path.name} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_are_known_where_they_belong(path):
    for name in imported(path):
        library = name.partition(".")[0]
        if library in KNOWN_IN:
            assert room(path) in KNOWN_IN[library], f"{path.name} imports {name}"


def programs():
    """What users read: the experiments, and the Python in the documentation."""
    for path in sorted((ROOT / "projects").rglob("*.py")):
        yield pytest.param(path.read_text(encoding="utf-8"), id=str(path.relative_to(ROOT)))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        blocks = re.findall(r"```(?:python|py)\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
        yield from (pytest.param(block, id=f"{path.relative_to(ROOT)}-{n}") for n, block in enumerate(blocks))


@pytest.mark.parametrize("program", list(programs()))
def test_users_are_shown_public_names_only(program):
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Import):
            assert not any(alias.name.startswith("mlflow_hp.") for alias in node.names), ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mlflow_hp":
            assert {alias.name for alias in node.names} <= set(public_names(node.module)), ast.unparse(node)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "mlflow_hp":
            assert node.attr in public_names("mlflow_hp"), ast.unparse(node)


def public_names(package):
    """The names in the `__all__` of mlflow_hp or of a package in it; none of any deeper module."""
    assert package.count(".") < 2, f"{package} is not public"
    return importlib.import_module(package).__all__


@pytest.mark.parametrize(
    "statement", ["import mlflow_hp", "import mlflow, mlflow_hp", "import mlflow_hp.tracking.runs"]
)
def test_importing_loads_nothing_heavy(statement):
    heavy = "[m for m in ('tensorflow', 'keras', 'matplotlib', 'sklearn') if m in sys.modules]"
    program = f"{statement}\nimport sys\nprint({heavy})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names():
    import mlflow_hp

    for package in sorted({room(path) for path in modules()}):
        public = importlib.import_module(f"mlflow_hp.{package}")
        assert inspect.getdoc(public), package
        assert package.startswith("_") != hasattr(public, "__all__"), package
        for name in getattr(public, "__all__", ()):
            assert hasattr(public, name), f"{package}.{name}"
        assert set(getattr(public, "__all__", ())) <= set(dir(public))
    assert re.match(r"\d+\.", mlflow_hp.__version__)
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
    assert pip == [".[all,dask]"]
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"][
        "find"
    ]
    assert found["include"] == ["mlflow_hp", "mlflow_hp.*"]  # the experiments run from the checkout
    assert all((path.parent / "__init__.py").exists() for path in modules())


def test_the_gate_and_the_readme_call_the_same_tests():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_picture_of_the_packages_is_that_of_the_code():
    with_diagram = runpy.run_path(str(ROOT / "docs" / "tree.py"))["with_diagram"]
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert "```mermaid" in text
    assert with_diagram(text) == text, "python docs/tree.py --write"


def test_the_tables_of_findings_are_those_of_the_rules():
    findings = runpy.run_path(str(ROOT / "docs" / "findings.py"))
    text = (ROOT / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    assert text.count("<!-- findings: ") == text.count("<!-- end -->") > 10
    assert findings["with_tables"](text) == text, "python docs/findings.py --write"
    assert findings["undescribed"]() == [], "docs/curve_findings.py lacks them"


def test_contributing_names_files_that_exist():
    paths = re.findall(r"`(mlflow_hp/[\w/.]+)`", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert len(paths) > 5
    assert [path for path in paths if not (ROOT / path).exists()] == []
