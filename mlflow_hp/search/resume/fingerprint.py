"""Fingerprints of values, equal in different processes: parameters by value, functions and classes by their code.

Addresses of objects, names numbered by Keras, line numbers and the program's folder do not count, so that an unchanged
program gives the same fingerprints. Anything defined by a library is known by its name and the library's version.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import hashlib
import io
import os
import re
import types
import warnings
from pathlib import Path, PurePath
from typing import Any

import joblib
import numpy as np

from mlflow_hp.search.resume.bytecode import code_digest, reads
from mlflow_hp.search.resume.keras_objects import configuration, hidden_state
from mlflow_hp.search.resume.objects import (
    NoFingerprintError,
    draws,
    has_c_state,
    is_made,
    is_of_numpy,
    keeps_fitted,
    n_cached,
    no_fingerprint,
    open_file,
    referent,
)
from mlflow_hp.search.resume.sources import content, library, loaded, roots

PLAIN = (bool, int, float, complex, str, bytes, type(None))
BY_KIND = (
    "threading",
    "_thread",
    "logging",
    "mlflow",
    "mlflow_hp",
)
"""Modules whose objects do not affect results: locks, loggers, recording."""
C_MEMBERS = (types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType,
             types.MethodDescriptorType, types.ClassMethodDescriptorType)  # fmt: skip
NOT_OF_A_CLASS = ("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "_abc_impl", "__slotnames__",
                  "__firstlineno__", "__static_attributes__")  # fmt: skip
_CACHED = type(functools.cache(lambda: None))
NAME = re.compile(r"[\w.]{1,100}")
MAX_OBJECTS = 1_000_000
"""Limit of objects to inspect, so that a program's data does not delay a search."""


def short(value: Any) -> str:
    """Digest of a fingerprint: 16 hexadecimal digits."""
    return hashlib.sha256(repr(value).encode(errors="surrogatepass")).hexdigest()[:16]


class Fingerprinter:
    """Computes fingerprints of values, and collects the code met on the way.

    Attributes
    ----------
    functions : list of function
        User-written functions, in order.
    entries : dict of str to list of str
        Module and name of user-written functions and classes -> their digests, in order.
    modules : dict of str to module
        The user's modules met as values, by name.
    packages : set of str
        Libraries.
    strings : set of str
        Strings that may be names.
    asks_environment : bool
        Whether `os.environ` or `os.getenv` was met.
    """

    def __init__(self) -> None:
        self.functions: list[types.FunctionType] = []
        self.entries: dict[str, list[str]] = {}
        self.modules: dict[str, types.ModuleType] = {}
        self.packages: set[str] = set()
        self.strings: set[str] = set()
        self.asks_environment = False
        self._of_code = False
        self._n_objects = 0
        self._within: dict[int, int] = {}
        self._open: dict[tuple[int, bool], tuple[Any, int]] = {}
        self._lowest = 0
        self._known: dict[tuple[int, bool], tuple[Any, str]] = {}

    def of(self, value: Any) -> Any:
        """Fingerprint of a value: a digest as from `short`, or a tuple of strings.

        Each object is inspected once, however many references there are to it. Cycles of references are found by
        Tarjan's algorithm (SIAM J. Comput. 1, 1972): a reference back into a cycle is represented by the number of
        objects since, so that a fingerprint does not depend on what was inspected before.

        Raises
        ------
        NoFingerprintError
            If a part of the value has no fingerprint, or it consists of more than ``MAX_OBJECTS`` objects.
        """
        if isinstance(value, PLAIN) and type(value) in PLAIN:
            return self._plain(value)
        if value is os.environ or value is os.getenv:  # `referenced` decides which variables count
            self.asks_environment = True
            return "os.environ"
        key, is_code = (id(value), self._of_code), isinstance(value, (type, types.FunctionType))
        if key in self._known:
            return self._known[key][1]
        if is_code and id(value) in self._within:
            return "within", f"{value.__module__}.{value.__qualname__}"
        number = self._within.get(id(value), self._open.get(key, (None, None))[1])
        if number is not None:
            self._lowest = min(self._lowest, number)
            return "within itself", len(self._open) - number
        self._n_objects += 1
        if self._n_objects > MAX_OBJECTS:
            raise NoFingerprintError(f"it refers to more than {MAX_OBJECTS:,} objects, too many to inspect")
        number, before = len(self._open), self._lowest
        self._open[key] = value, number
        self._within[id(value)] = self._lowest = number
        try:
            fingerprint = short(self._of(value))
        except NoFingerprintError:
            self._close(number)
            raise
        except Exception as error:  # a user's object may raise anything
            self._close(number)
            raise no_fingerprint(value, error) from error
        finally:
            del self._within[id(value)]
        if self._lowest >= number:  # no reference to an object that contains it
            for n, (each, member) in enumerate(self._close(number)):
                self._known.setdefault(each, (member, short((fingerprint, n)) if n else fingerprint))
        elif is_code:
            self._known[key] = value, fingerprint
        self._lowest = min(self._lowest, before)
        return fingerprint

    def _close(self, number: int) -> list[tuple[tuple[int, bool], Any]]:
        """Remove the open objects from `number` on, and return them in order."""
        closed = []
        while len(self._open) > number:
            key, (value, _) = self._open.popitem()
            closed.append((key, value))
        return closed[::-1]

    def of_code(self, value: Any) -> Any:
        """Fingerprint of a value that code refers to: it is not cloned for each fit, and the order of a dict counts."""
        before, self._of_code = self._of_code, True
        try:
            return self.of(value)
        finally:
            self._of_code = before

    def is_library(self, module: str | None) -> bool:
        """Whether a module belongs to a library, which is added to `packages`."""
        name = library(module)
        if name is not None:
            self.packages.add(name.partition(".")[0])
        return name is not None

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str):
            if len(value) <= 100 and NAME.fullmatch(value):
                self.strings.add(value)
            elif len(value) < 4096 and Path(value).is_absolute():
                value = self._without_root(value)
        return type(value).__name__, repr(value)

    def _without_root(self, path: str) -> str:
        for root in [*roots(), str(Path.home())]:
            if path == root or path.startswith(root + os.sep):
                return "{root}" + path[len(root) :]
        return path

    def _of(self, value: Any) -> Any:
        kind = type(value).__name__
        if (referred := referent(value)) is not None:
            return kind, self.of_code(referred)
        if isinstance(value, (dict, types.MappingProxyType)):
            return self._dict(kind, value)
        if isinstance(value, (list, tuple)):
            return kind, tuple(self.of(each) for each in value), self._attributes(value)
        if isinstance(value, (set, frozenset)):
            return kind, tuple(sorted(repr(self.of(each)) for each in value)), self._attributes(value)
        if isinstance(value, types.ModuleType):
            if not self.is_library(value.__name__):
                self.modules[value.__name__] = value
            return "module", value.__name__
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return "method", self.of(value.__func__), self.of_code(value.__self__)
        if isinstance(value, functools.partial):
            return "partial", self.of(value.func), self.of_code(value.args), self.of_code(value.keywords)
        if isinstance(value, (staticmethod, classmethod)):
            return kind, self.of(value.__func__)
        if isinstance(value, property):
            return kind, self.of((value.fget, value.fset, value.fdel))
        if isinstance(value, functools.singledispatchmethod):
            return kind, self.of((value.func, value.dispatcher))
        if isinstance(value, PurePath):
            return kind, self._without_root(str(value))
        if isinstance(value, C_MEMBERS):
            return kind, value.__name__
        if isinstance(value, enum.Enum):
            return kind, self.of(type(value)), value.name
        if isinstance(value, np.generic):
            return kind, repr(value)
        return self._object(value)

    def _dict(self, kind: str, value: Any) -> Any:
        counted = [(k, v) for k, v in list(value.items()) if not (self._of_code and str(k).lower() == "resume")]
        items = [(repr(self.of(key)), self.of(each)) for key, each in counted]
        factory = self.of(getattr(value, "default_factory", None))
        return kind, tuple(items if self._of_code else sorted(items)), factory, self._attributes(value)

    def _attributes(self, value: Any) -> Any:
        """Fingerprint of an instance's attributes, including slots; empty for built-in containers."""
        attributes = dict(getattr(value, "__dict__", {}))
        for base in type(value).__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if isinstance(vars(base).get(name), types.MemberDescriptorType) and hasattr(value, name):
                    attributes[name] = getattr(value, name)
        is_user_class = type(value) not in (list, tuple, dict, set, frozenset, *PLAIN)
        return (self.of(type(value)), self.of(attributes)) if is_user_class else ()

    def _object(self, value: Any) -> Any:
        kind, module = self.of(type(value)), str(type(value).__module__)
        if module.partition(".")[0] in BY_KIND and not module.startswith("mlflow.data"):
            return kind
        if self._of_code and draws(value):
            raise NoFingerprintError(
                f"a {type(value).__name__} keeps its state from one fit to the next, so that the scores of a fold "
                "depend on the folds before it; create it where it is used"
            )
        if all(hasattr(value, name) for name in ("rvs", "dist", "args", "kwds")):  # SciPy's frozen distributions
            return kind, self.of(type(value.dist)), self.of(value.args), self.of(value.kwds)
        if hasattr(value, "get_params"):
            if self._of_code:  # not cloned: its fitted state counts
                return kind, self._attributes(value)
            if keeps_fitted(value):
                return kind, self.of_code(vars(value))
            return kind, self.of(value.get_params(deep=False))
        if hasattr(value, "get_config"):
            return kind, *self._keras_object(value)
        if isinstance(value, io.IOBase):
            return kind, open_file(value)
        if isinstance(value, np.ufunc) and not is_of_numpy(value):
            raise NoFingerprintError(f"the function that {value.__name__} was made from is not visible")
        if isinstance(value, (types.BuiltinFunctionType, np.ufunc)):  # written in C
            owner = getattr(value, "__self__", None)
            return kind, value.__name__, () if isinstance(owner, types.ModuleType) else self.of(owner)
        if isinstance(value, _CACHED):
            return kind, self.of(value.__wrapped__), n_cached(value)
        if isinstance(value, np.lib.npyio.NpzFile):
            return kind, self.of({name: value[name] for name in value.files})
        if isinstance(value, np.ma.MaskedArray):
            return kind, self.of((value.data, np.ma.getmaskarray(value), value.fill_value))
        if hasattr(value, "__array__") or hasattr(value, "shape"):
            return kind, self._array(value), () if self.is_library(module) else self._attributes(value)
        if self.is_library(module) and callable(value) and hasattr(value, "__wrapped__"):
            return kind, self.of(value.__wrapped__)
        if hasattr(value, "__dict__") and not isinstance(value, BaseException):
            attributes = self._attributes(value)
            hidden = has_c_state(value) or self.is_library(module)
            return kind, (attributes, self._reduced(value)) if hidden else attributes
        return kind, self._reduced(value)

    def _keras_object(self, value: Any) -> Any:
        weights = [joblib.hash(each) for each in value.get_weights()] if hasattr(value, "get_weights") else []
        parts = self.of(configuration(value)), tuple(weights)
        hidden = hidden_state(value)
        return (*parts, self.of_code(hidden)) if hidden else parts

    def _array(self, value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype == object:
            return "array", value.shape, self.of(value.tolist())
        try:
            is_tensor = hasattr(value, "numpy") or "keras" in type(value).__module__
            return joblib.hash(np.asarray(value) if is_tensor else value)
        except Exception as error:
            raise no_fingerprint(value, error) from error

    def _reduced(self, value: Any) -> Any:
        """Fingerprint of the parts that pickle would store."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reduce = copyreg.dispatch_table.get(type(value))
                parts = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception as error:
            raise no_fingerprint(value, error) from error
        if isinstance(parts, str):
            return parts
        return tuple(self.of(list(part) if n > 2 and part is not None else part) for n, part in enumerate(parts[:5]))

    def _class(self, value: type) -> Any:
        name = f"{value.__module__}.{value.__qualname__}"
        if self.is_library(value.__module__ if isinstance(value.__module__, str) else None) and not is_made(value):
            return "class", name
        members = {k: member for k, member in vars(value).items() if k not in NOT_OF_A_CLASS}
        fingerprints = []
        for key, member in sorted(members.items()):
            try:
                fingerprints.append((key, self.of_code(member)))
            except NoFingerprintError as error:
                raise NoFingerprintError(f"{name}.{key}: {error}") from error
        return (
            "class",
            name,
            self._note(name, short((self.of_code(value.__bases__), self.of_code(type(value)), fingerprints))),
        )

    def _function(self, function: types.FunctionType) -> Any:
        name = f"{function.__module__}.{function.__qualname__}"
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
        home = function.__globals__.get("__name__")  # None for code that a program compiled itself
        by_library = home is not None and self.is_library(home)
        if by_library and self.is_library(function.__module__):
            callables = [each for each in cells if callable(each) and not isinstance(each, types.BuiltinFunctionType)]
            by_user = [each for each in callables if library(getattr(each, "__module__", None)) is None]
            return ("function", name, self.of_code(by_user)) if by_user else ("function", name)
        state: Any = (function.__defaults__, function.__kwdefaults__, cells, vars(function))
        if hasattr(function, "dispatch") and hasattr(function, "registry"):  # by `functools.singledispatch`: no cache
            state = function.registry
        if not by_library:
            self.functions.append(function)
        try:
            digest = short((_code(function), self.of_code(state)))
        except NoFingerprintError as error:
            raise NoFingerprintError(f"{name}: {error}") from error
        return "function", name, self._note(name, digest)

    def _note(self, name: str, digest: str) -> Any:
        """Note the digest of a function or class, and return it where code refers to it.

        For a parameter, return its number among those of the same name instead: a change of code is reported as that,
        not as a change of the search space.
        """
        digests = self.entries.setdefault(name, [])
        if digest not in digests:
            digests.append(digest)
        return digest if self._of_code else digests.index(digest)


def _code(function: types.FunctionType) -> str:
    """Digest of a function's code; for a function that records a search, of its module without recording settings."""
    names = reads(function.__code__).names
    module = function.__globals__.get("__name__")
    if any(name == "record_search" or name.endswith("SearchCV") for name in names) and module in loaded():
        return content(*loaded()[module]).digest
    return code_digest(function.__code__)
