"""Finds private names of other libraries in Python source."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from pathlib import Path

LIBRARIES = (
    "keras", "tensorflow", "sklearn", "scikeras", "joblib", "dask", "distributed", "mlflow", "numpy", "pandas",
    "pyarrow", "matplotlib", "plotly", "optuna", "flask", "tqdm", "scipy", "PIL", "click", "jinja2", "pooch",
    "requests",
)  # fmt: skip
OURS = ("mlflow_hp", "projects")
DOCUMENTED = {
    "_asdict", "_field_defaults", "_fields", "_make", "_replace",  # of named tuples
    "_current_frames", "_exit", "_getframe",  # of sys and os
}  # fmt: skip
"""Names with an underscore that Python's documentation promises."""
SCANNED = (
    "keras/src/backend/common", "keras/src/backend/tensorflow", "keras/src/callbacks", "keras/src/layers/layer.py",
    "keras/src/metrics/metric.py", "keras/src/models", "keras/src/ops/operation.py", "keras/src/optimizers",
    "keras/src/trainers", "keras/src/utils", "sklearn/base.py", "sklearn/callback", "sklearn/model_selection",
    "sklearn/utils/parallel.py", "scikeras", "joblib", "dask/sizeof.py", "distributed/client.py",
    "distributed/worker.py", "mlflow/client.py", "mlflow/entities", "mlflow/server/handlers.py", "mlflow/tracking",
)  # fmt: skip
"""Source of the libraries whose objects we are given: what it defines may be meant where we have the same name."""


def is_private(name):
    """Whether a name begins with an underscore, and is neither special, nor a throw-away, nor a mark of ours."""
    is_special = name.startswith("__") and name.endswith("__")
    return name.startswith("_") and bool(name.strip("_")) and not is_special and "mlflow_hp" not in name


def is_private_path(path):
    """Whether a dotted path leads to a private module, or to a private name in a public one."""
    parts = path.split(".")
    return (
        parts[0] in LIBRARIES
        and all(part.isidentifier() for part in parts)
        and (any(map(is_private, parts)) or "src" in parts or path.startswith("tensorflow.python"))
    )


@functools.cache
def defined_by_libraries():
    """Private names of functions, classes and attributes in what is scanned of the libraries."""
    found = set()
    for place in SCANNED:
        package, _, rest = place.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None:
            continue
        at = Path(spec.submodule_search_locations[0], rest)
        for path in [at] if at.is_file() else at.rglob("*.py"):
            if "test" in path.parts or "tests" in path.parts:
                continue
            source = path.read_text("utf-8", errors="replace")
            found |= set(re.findall(r"(?:\bself\.|\bdef |\bclass |^)(_[A-Za-z]\w*)", source, re.MULTILINE))
    return {name for name in found if is_private(name)}


def names_of(tree):
    """What a file defines: functions, classes, arguments, variables, attributes of ``self`` and ``cls``."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
            found.add(node.attr)
    return found


def is_self(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


GETTERS = {"getattr", "hasattr", "setattr", "delattr", "attrgetter", "__getattribute__", "__setattr__"}


class Finder(ast.NodeVisitor):
    """Keeps the lines of a file on which a private name of a library stands.

    Ours is a name that our code defines, where it is one of ``self`` or ``cls``, or is defined in the same file. It
    counts as a library's even so where it is looked up in something imported from one, or where a library defines it,
    too, and nothing says whose it is.
    """

    def __init__(self, tree, ours):
        self.found = []
        self._ours = ours
        self._here = names_of(tree)
        self._foreign = set()
        self._docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [(alias.asname or alias.name.partition(".")[0], alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [(alias.asname or alias.name, node.module or "") for alias in node.names]
            else:
                continue
            self._foreign |= {name for name, module in names if module.partition(".")[0] not in OURS}
        self.visit(tree)

    def visit_Import(self, node):
        for alias in node.names:
            if alias.name.partition(".")[0] not in OURS and (
                is_private_path(alias.name) or any(map(is_private, alias.name.split(".")))
            ):
                self._keep(node, alias.name)

    def visit_ImportFrom(self, node):
        module = node.module or ""
        if module.partition(".")[0] in OURS or node.level:
            return
        for alias in node.names:
            if is_private_path(f"{module}.{alias.name}") or is_private(alias.name):
                self._keep(node, f"{module}.{alias.name}")

    def visit_Attribute(self, node):
        self._judge(node, node.attr, node.value)
        if node.attr in ("src", "python") and is_private_path(ast.unparse(node)):
            self._keep(node, ast.unparse(node))
        self.generic_visit(node)

    def visit_Call(self, node):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in GETTERS:
            base = node.args[0] if node.args else ast.Constant(None)
            for argument in node.args:
                for name in beginnings(argument):
                    self._judge(node, name, base)
        self.generic_visit(node)

    def visit_keyword(self, node):
        if node.arg and is_private(node.arg) and node.arg not in self._ours:
            self._keep(node.value, node.arg)
        self.generic_visit(node)

    def visit_MatchClass(self, node):
        for name in node.kwd_attrs:
            self._judge(node, name, node.cls)
        self.generic_visit(node)

    def visit_JoinedStr(self, node):
        for value in node.values:  # its parts are no names by themselves
            if isinstance(value, ast.FormattedValue):
                self.visit(value)

    def visit_Constant(self, node):
        if not isinstance(node.value, str) or id(node) in self._docstrings:
            return
        name = node.value
        if is_private_path(name.replace(":", ".")) or (
            is_private(name)
            and name in defined_by_libraries()
            and name not in self._here
            and name not in sys.stdlib_module_names
        ):
            self._keep(node, name)

    def _judge(self, node, name, base):
        if not is_private(name) or (name in DOCUMENTED and name not in self._here):
            return
        root = base
        while isinstance(root, (ast.Attribute, ast.Call, ast.Subscript)):
            root = root.func if isinstance(root, ast.Call) else root.value
        if isinstance(root, ast.Name) and root.id in self._foreign:
            self._keep(node, name)
        elif is_self(base):
            if name not in self._ours:
                self._keep(node, name)
        elif name not in self._here or name in defined_by_libraries():
            self._keep(node, name)

    def _keep(self, node, name):
        if (node.lineno, name) not in self.found:
            self.found.append((node.lineno, name))


def beginnings(node):
    """Strings that an expression is, or begins with."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from node.value.split(".")
    elif isinstance(node, ast.JoinedStr) and node.values:
        yield from (f"{name}..." for name in beginnings(node.values[0]))
    elif isinstance(node, ast.BinOp):
        yield from (f"{name}..." for name in beginnings(node.left))


def private_names(source, ours=frozenset()):
    """Line and name of each private name of a library in `source`; `ours` are names that our code defines."""
    tree = ast.parse(source)
    return Finder(tree, ours | names_of(tree)).found
