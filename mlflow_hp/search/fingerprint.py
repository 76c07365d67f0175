"""What a value is, for a later process to know it again: parameters by value, functions and classes by their code.

The addresses of objects, the names that Keras counts up, the lines that code stands on: nothing of that counts, so that
the same program gives the same fingerprints. What a library defines is known by its name and the library's version.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import sys
import sysconfig
import types
from pathlib import Path
from typing import Any

import joblib
import numpy as np

LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
KNOWN = ("sklearn", "numpy", "scipy", "pandas", "joblib", "keras", "tensorflow", "scikeras")
PLAIN = (bool, int, float, complex, str, bytes, type(None))


class NoFingerprintError(Exception):
    """A value has nothing by which a later process could know it again."""


def digest(value: Any) -> str:
    """A short text that is the same for equal values, in another process too.

    Parameters
    ----------
    value : object
        Made up of plain values, containers and arrays.

    Raises
    ------
    NoFingerprintError
        Where that can't be done.
    """
    looked = Look()
    found = looked.at(value)
    return short((found, looked.codes))


def short(found: Any) -> str:
    """A digest of what `Look.at` gave: 16 hexadecimal digits."""
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


class Look:
    """Looks at values, and keeps apart what they are and what code they bring.

    Attributes
    ----------
    codes : list
        Name and code of each function and class that the user wrote, with what their globals and closures hold.
    packages : set of str
        The libraries that were met.
    """

    def __init__(self) -> None:
        self.codes: list[Any] = []
        self.packages: set[str] = set()
        self._seen: set[Any] = set()
        self._within: list[int] = []

    def at(self, value: Any) -> Any:
        """What `value` is, as nested tuples of texts.

        Raises
        ------
        NoFingerprintError
            Where something within it can't be known again.
        """
        if isinstance(value, PLAIN):
            return type(value).__name__, repr(value)
        if id(value) in self._within:
            return "within itself", len(self._within) - self._within.index(id(value))
        self._within.append(id(value))
        try:
            return self._at(value)
        finally:
            self._within.pop()

    def _at(self, value: Any) -> Any:
        kind = type(value).__name__
        if isinstance(value, dict):
            return kind, tuple(sorted((repr(self.at(key)), self.at(each)) for key, each in value.items()))
        if isinstance(value, (list, tuple)):
            return kind, tuple(self.at(each) for each in value)
        if isinstance(value, (set, frozenset)):
            return kind, tuple(sorted(repr(self.at(each)) for each in value))
        if isinstance(value, types.ModuleType):
            return "module", self._library(value.__name__)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return "method", self.at(value.__func__), self.at(value.__self__)
        if isinstance(value, functools.partial):
            return "partial", self.at(value.func), self.at(value.args), self.at(value.keywords)
        return self._object(value)

    def _object(self, value: Any) -> Any:
        kind = self.at(type(value))
        if all(hasattr(value, name) for name in ("rvs", "dist", "args", "kwds")):  # a frozen distribution of scipy's
            return kind, self.at(type(value.dist)), self.at(value.args), self.at(value.kwds)
        if hasattr(value, "get_params"):
            return kind, self.at(value.get_params(deep=False))
        if hasattr(value, "get_config"):  # Keras' objects; their own names count up from one to the next
            weights = [joblib.hash(each) for each in value.get_weights()] if hasattr(value, "get_weights") else []
            return kind, self.at(_without_names(value.get_config())), tuple(weights)
        if hasattr(value, "__dict__") and not hasattr(value, "__array__") and not hasattr(value, "shape"):
            return kind, self.at(vars(value))
        if callable(value) and hasattr(value, "__name__"):  # written in C
            return kind, value.__name__
        try:
            return kind, joblib.hash(value)
        except Exception as error:
            raise NoFingerprintError(f"a {type(value).__name__} can't be known again: {error}") from error

    def _class(self, value: type) -> Any:
        name = f"{value.__module__}.{value.__qualname__}"
        if not self._is_library(value.__module__) and value not in self._seen:
            self._seen.add(value)
            members = []
            for key, member in sorted(vars(value).items()):
                plain = isinstance(member, PLAIN) and not key.startswith("__")
                within = getattr(member, "__func__", getattr(member, "fget", member))
                if plain or isinstance(within, types.FunctionType):
                    members.append((key, self.at(member if plain else within)))
            bases = tuple(self.at(base) for base in value.__bases__)
            self.codes.append((name, bases, tuple(members)))
        return "class", name

    def _function(self, function: types.FunctionType) -> Any:
        name = f"{function.__module__}.{function.__qualname__}"
        if not self._is_library(function.__module__) and function not in self._seen:
            self._seen.add(function)
            found = (self.at(function.__defaults__), self.at(function.__kwdefaults__))
            cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
            used = tuple((each, self._global(function.__globals__[each])) for each in _globals_of(function))
            self.codes.append((name, _code(function.__code__), found, self.at(cells), used))
        return "function", name

    def _global(self, value: Any) -> Any:
        """What code refers to: constants, functions, classes and modules; of others, which may change, the kind."""
        constant = isinstance(value, (*PLAIN, tuple, frozenset))
        known = constant or isinstance(value, (type, types.FunctionType, types.ModuleType, functools.partial))
        return self.at(value) if known else type(value).__name__

    def _is_library(self, module: str | None) -> bool:
        return self._library(module or "builtins") is not None

    def _library(self, module: str) -> str | None:
        """The name of a module that is no code of the user's."""
        file = getattr(sys.modules.get(module), "__file__", None)
        if module.partition(".")[0] in KNOWN:  # wherever they are installed
            self.packages.add(module.partition(".")[0])
            return module
        if module == "__main__" or (file is None and module not in sys.builtin_module_names):
            return None
        installed = file is None or any(part in Path(file).parts for part in ("site-packages", "dist-packages"))
        if not installed and not str(file).startswith(LIBRARIES):
            return None
        self.packages.add(module.partition(".")[0])
        return module


def _globals_of(function: types.FunctionType) -> list[str]:
    """Names of the globals that a function reads and doesn't set."""
    read: set[str] = set()
    written: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                read.add(step.argval)
            elif step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
                written.add(step.argval)
    return sorted(name for name in read - written if name in function.__globals__)


def _code(code: types.CodeType) -> Any:
    """What code does, without where it stands."""
    constants = tuple(_constant(each) for each in code.co_consts)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return code.co_code.hex(), constants, names, code.co_argcount, code.co_kwonlyargcount, code.co_flags


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, tuple):
        return tuple(_constant(each) for each in value)
    if isinstance(value, frozenset):  # its order is another in each process
        return "frozenset", tuple(sorted(repr(each) for each in value))
    return repr(value)


def _without_names(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _without_names(value) for key, value in config.items() if key != "name"}
    if isinstance(config, (list, tuple)):
        return [_without_names(each) for each in config]
    return np.asarray(config) if hasattr(config, "__array__") and not isinstance(config, np.generic) else config
