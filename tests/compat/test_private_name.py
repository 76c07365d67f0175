"""What a private name that is not as expected comes to: an error that names library, version and fallback."""

from __future__ import annotations

import pickle
import subprocess
import sys
import types

import pytest

from mlflow_hp._compat import private_name
from mlflow_hp._compat.private_name import PrivateName, UnsupportedVersionError, call, unsupported, warn_once


@pytest.fixture(autouse=True)
def library(monkeypatch):
    module = types.ModuleType("library")
    module.__version__ = "3.99.0"
    module._aim = lambda a, b=1: a
    monkeypatch.setitem(sys.modules, "library", module)
    return module


def function(**settings):
    return PrivateName("library", "library", "_aim", fallback="it is done by hand", **settings)


def test_a_name_that_is_as_expected():
    name = function(takes=call(None, b=2))
    assert name.of()(5) == 5
    assert name.call(None, 6) == 6


@pytest.mark.parametrize(
    ("settings", "change", "problem"),
    [
        ({}, lambda m: delattr(m, "_aim"), "was not found"),
        ({}, lambda m: sys.modules.__setitem__("library", None), "was not found"),
        (
            {"takes": call(None)},
            lambda m: setattr(m, "_aim", lambda: 1),
            "cannot be called as expected: too many",
        ),
        (
            {"takes": call(None)},
            lambda m: setattr(m, "_aim", lambda a, b: 1),
            "cannot be called as expected: missing",
        ),
        (
            {"takes": call(None)},
            lambda m: setattr(m, "_aim", 3),
            "cannot be called as expected: 3 is not a callable",
        ),
        ({"kind": types.FunctionType}, lambda m: setattr(m, "_aim", 3), "is a int"),
        ({}, lambda m: setattr(m, "_aim", lambda a: 1 / 0), "raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_name_that_is_not(library, settings, change, problem):
    name = function(**settings)
    change(library)
    version = "of an unknown version" if sys.modules["library"] is None else "3.99.0"
    with pytest.raises(UnsupportedVersionError) as raised:
        name.call(None, 1)
    assert str(raised.value).startswith(f"library {version} is not supported: library._aim {problem}")
    assert str(raised.value).endswith("; it is done by hand")
    assert raised.value.problem == str(raised.value).removesuffix("; it is done by hand")


def test_a_function_is_probed_once(monkeypatch, library):
    probed = []
    signature = private_name.inspect.signature
    monkeypatch.setattr(private_name.inspect, "signature", lambda f: probed.append(f) or signature(f))
    name = function(takes=call(None))
    for _ in range(3):
        name.of()
    assert len(probed) == 1
    library._aim = lambda: None  # another one
    with pytest.raises(UnsupportedVersionError):
        name.of()


def test_it_is_told_once(monkeypatch):
    monkeypatch.setattr(private_name, "issued_warnings", set())
    error = unsupported("library", "_aim was not found", "it is done by hand")
    with pytest.warns(RuntimeWarning, match=r"mlflow_hp: library 3\.99\.0 is not supported: _aim was not found; it is"):
        warn_once(error)
    warn_once(error)


def test_the_error_comes_back_from_a_worker():
    error = unsupported("library", "_aim was not found", "it is done by hand")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert (str(copy), copy.problem) == (str(error), error.problem)


def test_stating_what_is_relied_on_loads_no_library():
    program = (
        "import importlib, pkgutil, sys, mlflow_hp._compat as c\n"
        "for each in pkgutil.iter_modules(c.__path__): importlib.import_module(f'mlflow_hp._compat.{each.name}')\n"
        "print(sorted(sys.modules.keys() & {'keras', 'tensorflow', 'sklearn', 'scikeras', 'joblib', 'dask', 'mlflow'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
