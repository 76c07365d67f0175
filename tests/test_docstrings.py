"""The docstrings of all public names: in numpydoc's form, with defaults and what is raised, and examples that run."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import textwrap
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from numpydoc.docscrape import get_doc_object
from numpydoc.validate import Validator, validate

import mlflow_hp

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
CHECKS = set(tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["tool"]["numpydoc_validation"]["checks"])
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Documented(Validator):
    """What numpydoc knows of a docstring; the parameters of a named tuple are its attributes."""

    def __init__(self, obj_name):
        super().__init__(get_doc_object(self._load_obj(obj_name)))

    @property
    def signature_parameters(self):
        return () if getattr(self.obj, "_is_protocol", False) else super().signature_parameters

    @property
    def doc_all_parameters(self):
        return self._of_section("Attributes") if is_tuple(self.obj) else super().doc_all_parameters

    @property
    def doc_parameters(self):
        return self._of_section("Attributes") if is_tuple(self.obj) else super().doc_parameters

    def _of_section(self, section):
        return {name: (each.type, each.desc) for each in self.doc[section] for name in each.name.split(", ")}


def is_tuple(thing):
    return inspect.isclass(thing) and hasattr(thing, "_fields")


def public_things():
    """Each public function and class of ours by its full name, with those of public modules, and the methods.

    Returns
    -------
    things : dict of str to object
    names : list of str
        Those of them in the ``__all__`` of mlflow_hp or of a package in it: each has an example.
    """
    things, names = {}, []

    def add(thing):
        if isinstance(thing, ModuleType):
            for each in getattr(thing, "__all__", None) or own_names(thing):
                add(getattr(thing, each))
        elif callable(thing) and thing.__module__.startswith("mlflow_hp"):
            full = f"{thing.__module__}.{thing.__qualname__}"
            things[full] = thing
            if inspect.isclass(thing):
                things.update({f"{full}.{each}": vars(thing)[each] for each in own_names(thing)})
            return full
        return None

    packages = [each.name for each in pkgutil.iter_modules(mlflow_hp.__path__) if not each.name.startswith("_")]
    for package in [mlflow_hp, *(importlib.import_module(f"mlflow_hp.{name}") for name in packages)]:
        names.extend(add(getattr(package, name)) for name in package.__all__)
    return things, sorted({name for name in names if name})


def own_names(where):
    """Names of the functions, classes and properties that are defined in a module or class and not private.

    What overrides a method of a library, as Keras' hooks, is documented there.
    """
    for name, value in vars(where).items():
        thing = getattr(value, "__func__", value)
        if name.startswith("_") or not (callable(thing) or isinstance(thing, property)):
            continue
        if isinstance(where, ModuleType):
            is_own = thing.__module__ == where.__name__
        else:
            is_own = thing.__doc__ or not any(hasattr(base, name) for base in where.__bases__)
        if is_own:
            yield name


THINGS, NAMES = public_things()
EXAMPLES = [name for name, thing in THINGS.items() if ">>>" in (inspect.getdoc(thing) or "")]


def undocumented_defaults(doc):
    """Names of parameters with a default of which the docstring says nothing."""
    try:
        parameters = inspect.signature(doc.code_obj).parameters
    except ValueError:  # of a class with the constructor of a built-in one
        return
    for name, parameter in parameters.items():
        told = " ".join(text for text in (doc.doc_all_parameters.get(name) or ("", []))[1])
        if parameter.default is not inspect.Parameter.empty and not re.search(r"\b[Dd]efaults? to\b", told):
            yield name


def undocumented_errors(doc):
    """What the body raises itself, as ``raise Name(...)``, and the docstring does not name."""
    told = {each.type or each.name for each in doc.doc["Raises"]}
    body = ast.parse(textwrap.dedent(inspect.getsource(doc.code_obj))).body[0].body
    outer = [node for node in body if not isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    for node in (node for top in outer for node in ast.walk(top)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) not in told:
            yield ast.unparse(node.exc.func)


@pytest.mark.parametrize("name", THINGS)
def test_the_docstring_says_all(name):
    thing, doc = THINGS[name], Documented(name)
    faults = [f"{code} {text}" for code, text in validate(name, Documented)["errors"] if code in CHECKS]
    if not isinstance(thing, property):
        faults += [f"{each} has a default: say 'Defaults to ...'" for each in undocumented_defaults(doc)]
        faults += [f"{each} is raised: say so under Raises" for each in undocumented_errors(doc)]
    assert not faults


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_run(name, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (test,) = doctest.DocTestFinder(recurse=False).find(THINGS[name], name, globs={})
    report = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert not report, "".join(report)


def test_each_name_of_a_package_has_an_example():
    assert [name for name in NAMES if name not in EXAMPLES] == []
