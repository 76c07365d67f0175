"""Private names of other libraries stand in `_compat` alone."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
from pathlib import Path

import pytest

from mlflow_hp._compat.private_name import PrivateName
from tests.helpers.private_names import names_of, private_names

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("mlflow_hp", "projects", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py")]
ELSEWHERE = sorted(path for path in FILES if "_compat" not in path.parts)
OURS = frozenset().union(*(names_of(ast.parse(path.read_text("utf-8"))) for path in FILES))


@pytest.mark.parametrize("path", ELSEWHERE, ids=lambda path: str(path.relative_to(ROOT)))
def test_private_names_of_libraries_stand_in_compat_alone(path):
    assert private_names(path.read_text("utf-8"), OURS) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import keras\nkeras.Model._x", ["_x"]),
        ("model._x", ["_x"]),
        ("f(model)[0].a._x()", ["_x"]),
        ("model._x = 1", ["_x"]),
        ("del model._x", ["_x"]),
        ("model._x += 1", ["_x"]),
        ("type(model)._x", ["_x"]),
        ("model._Model__x", ["_Model__x"]),
        ("from keras import Model as M\ndef _x(): pass\nM()._x", ["_x"]),  # a name that we have, too
        ("def _flatten_layers(): pass\nmodel._flatten_layers", ["_flatten_layers"]),
        ("class A:\n    def f(self): self._own = self._theirs", ["_theirs"]),
        ("getattr(model, '_x', None)", ["_x"]),
        ("hasattr(model, '_' 'x')", ["_x"]),
        ("getattr(model, f'_{name}')", ["_..."]),
        ("setattr(model, '_' + name, 1)", ["_..."]),
        ("delattr(model, '_x')", ["_x"]),
        ("operator.attrgetter('a._x')(model)", ["_x"]),
        ("object.__getattribute__(model, '_x')", ["_x"]),
        ("vars(model)['_flatten_layers']", ["_flatten_layers"]),
        ("model.__dict__.get('_loss_tracker')", ["_loss_tracker"]),
        ("patch.setattr(model, '_x', 1)", ["_x"]),
        ("mock.patch('keras.src.trainers.trainer.Trainer')", ["keras.src.trainers.trainer.Trainer"]),
        ("sys.modules['tensorflow.python.eager.context']", ["tensorflow.python.eager.context"]),
        ("import_module('sklearn.model_selection._search')", ["sklearn.model_selection._search"]),
        ("load('scikeras._utils:route_params')", ["scikeras._utils:route_params"]),
        ("import keras.src.trainers", ["keras.src.trainers"]),
        ("import dask._x as x", ["dask._x"]),
        ("from sklearn.model_selection import _search", ["sklearn.model_selection._search"]),
        ("from sklearn.model_selection._search import BaseSearchCV", ["sklearn.model_selection._search.BaseSearchCV"]),
        ("from tensorflow.python.framework import config", ["tensorflow.python.framework.config"]),
        ("import tensorflow as tf\nimport tensorflow\ntensorflow.python.eager", ["tensorflow.python"]),
        ("f(model, _use_cached=1)", ["_use_cached"]),
        ("match model:\n    case Model(_x=1): pass", ["_x"]),
        ("NAMES = {'_fit_keras_model'}", ["_fit_keras_model"]),
        ("lambda: [m._x for m in models]", ["_x"]),
        # what is ours, or documented
        ("class A:\n    def f(self, other): self._own = other._own", []),
        ("class A(B):\n    def f(self): return self._of_b", ["_of_b"]),
        ("from mlflow_hp._lazy import x", []),
        ("from mlflow_hp import journal\ndef _open(): pass\njournal._open()", []),
        ("point._replace(x=1)._asdict()", []),
        ("import sys\nsys._getframe(1)", []),
        ("import os\nos._exit(0)", []),
        ("f'{name}_x'", []),
        ("label = '_mine'", []),
        ("'''A docstring about _flatten_layers.'''", []),
        ("_, a = f(__name__, x.__class__)", []),
    ],
)
def test_the_finder(source, names):
    assert [name for _, name in private_names(source)] == names


def test_a_name_that_a_class_of_another_file_defines_is_ours_on_self():
    assert private_names("class A(B):\n    def f(self): return self._of_b", frozenset({"_of_b"})) == []


LIBRARIES = sorted((ROOT / "mlflow_hp" / "_compat").glob("*.py"))


def stated(path):
    """Each `PrivateName` of a file: its variable, its value, and the docstring behind it."""
    module = importlib.import_module(f"mlflow_hp._compat.{path.stem}")
    body = ast.parse(path.read_text("utf-8")).body
    for node, following in itertools.pairwise([*body, ast.Pass()]):
        if isinstance(node, ast.Assign) and isinstance(getattr(module, node.targets[0].id, None), PrivateName):
            docstring = following.value.value if isinstance(following, ast.Expr) else ""
            yield node.targets[0].id, getattr(module, node.targets[0].id), docstring


@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: path.stem)
def test_each_is_stated_with_its_fallback(path):
    names = list(stated(path))
    for variable, name, docstring in names:
        assert "Fallback: " in docstring, variable
        assert name.library.replace("scikit-learn", "sklearn") == path.stem
        assert name.fallback
    known = {part for _, name, _ in names for part in (name.name, name.owner)}
    used = {name for _, name in private_names(path.read_text("utf-8"), OURS)}
    assert used <= known


@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: path.stem)
def test_each_is_taken_away_in_a_test(path):
    tests = "\n".join(
        file.read_text("utf-8")
        for file in [*Path(__file__).parent.glob("*.py"), ROOT / "tests/search/test_search_guard.py"]
    )
    for variable, _, _ in stated(path):
        assert re.search(rf'(of_{path.stem}\.{variable}\b|"{variable}": )', tests), variable
