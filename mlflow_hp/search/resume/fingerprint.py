"""What a value is, for a later process to know it again: parameters by value, functions and classes by their code.

The addresses of objects, the names that Keras counts up, the lines that code stands on, the folder that the program
lies in: nothing of that counts, so that the same program gives the same fingerprints. What a library defines is known
by its name and the library's version.
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
from mlflow_hp.search.resume.objects import (
    NoFingerprintError,
    draws,
    holds_more,
    is_of_numpy,
    keeps_fitted,
    n_kept,
    open_file,
    unknown,
    without_names,
)
from mlflow_hp.search.resume.sources import content, library, loaded, roots

PLAIN = (bool, int, float, complex, str, bytes, type(None))
BY_KIND = (
    "threading",
    "_thread",
    "logging",
    "weakref",
    "_weakref",
    "contextvars",
    "_contextvars",
    "mlflow",
    "mlflow_hp",
)
"""Modules whose objects do not bear on results: locks, loggers, what records."""
C_MEMBERS = (types.MemberDescriptorType, types.GetSetDescriptorType, types.WrapperDescriptorType,
             types.MethodDescriptorType, types.ClassMethodDescriptorType)  # fmt: skip
NOT_OF_A_CLASS = ("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "_abc_impl", "__slotnames__",
                  "__firstlineno__", "__static_attributes__")  # fmt: skip
NAME = re.compile(r"[\w.]{1,100}")
MOST = 1_000_000
"""Objects that are looked at; a search is not held up by a program's data."""


def short(value: Any) -> str:
    """A digest of what `Look.at` gave: 16 hexadecimal digits."""
    return hashlib.sha256(repr(value).encode(errors="surrogatepass")).hexdigest()[:16]


class Look:
    """Looks at values, and keeps the code that they bring.

    Attributes
    ----------
    functions : list of function
        Those met that a user wrote, in the order in which they were met.
    entries : dict of str to list of str
        Digests of the functions and classes met that a user wrote, by module and name, in the order of being met.
    modules : dict of str to module
        The user's modules that were met as values, by name.
    packages : set of str
        The libraries that were met.
    strings : set of str
        Texts met that may be names.
    asks_environment : bool
        Whether what gives the environment was met.
    """

    def __init__(self) -> None:
        self.functions: list[types.FunctionType] = []
        self.entries: dict[str, list[str]] = {}
        self.modules: dict[str, types.ModuleType] = {}
        self.packages: set[str] = set()
        self.strings: set[str] = set()
        self.asks_environment = False
        self._of_code = False
        self._n_looked_at = 0
        self._within: dict[int, int] = {}
        self._open: dict[tuple[int, bool], tuple[Any, int]] = {}
        self._lowest = 0
        self._known: dict[tuple[int, bool], tuple[Any, str]] = {}

    def at(self, value: Any) -> Any:
        """What `value` is: a text as `short` gives it, or a tuple of texts.

        Each object is looked at once, however often it is referred to. Objects that refer to one another in a circle
        are found by Tarjan's algorithm (SIAM J. Comput. 1, 1972): one that is met again says how many of the circle
        came since, so that what the first of them gives does not depend on what else has been looked at.

        Raises
        ------
        NoFingerprintError
            Where something within it can't be known again, or where there is too much to look at.
        """
        if isinstance(value, PLAIN) and type(value) in PLAIN:
            return self._plain(value)
        if value is os.environ or value is os.getenv:  # which variables are read is looked at apart
            self.asks_environment = True
            return "os.environ"
        place, is_code = (id(value), self._of_code), isinstance(value, (type, types.FunctionType))
        if place in self._known:
            return self._known[place][1]
        if is_code and id(value) in self._within:
            return "within", f"{value.__module__}.{value.__qualname__}"
        number = self._within.get(id(value), self._open.get(place, (None, None))[1])
        if number is not None:
            self._lowest = min(self._lowest, number)
            return "within itself", len(self._open) - number
        self._n_looked_at += 1
        if self._n_looked_at > MOST:
            raise NoFingerprintError(f"more than {MOST:,} objects hang together with it, too many to look at")
        number, before = len(self._open), self._lowest
        self._open[place] = value, number
        self._within[id(value)] = self._lowest = number
        try:
            found = short(self._at(value))
        except NoFingerprintError:
            self._close(number)
            raise
        except Exception as error:  # objects may raise anything when they are looked at
            self._close(number)
            raise unknown(value, error) from error
        finally:
            del self._within[id(value)]
        if self._lowest >= number:  # it refers to nothing around it
            for n, (each, kept) in enumerate(self._close(number)):
                self._known.setdefault(each, (kept, short((found, n)) if n else found))
        elif is_code:
            self._known[place] = value, found
        self._lowest = min(self._lowest, before)
        return found

    def _close(self, number: int) -> list[tuple[tuple[int, bool], Any]]:
        """Take the objects from the one of a number on from the open ones."""
        closed = []
        while len(self._open) > number:
            place, (value, _) = self._open.popitem()
            closed.append((place, value))
        return closed[::-1]

    def of_code(self, value: Any) -> Any:
        """What a value is that code refers to: it is not copied for each fit, and the order of a dict's keys counts."""
        before, self._of_code = self._of_code, True
        try:
            return self.at(value)
        finally:
            self._of_code = before

    def is_library(self, module: str | None) -> bool:
        """Whether no user wrote a module; the library is noted."""
        found = library(module)
        if found is not None:
            self.packages.add(found.partition(".")[0])
        return found is not None

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

    def _at(self, value: Any) -> Any:
        kind = type(value).__name__
        if isinstance(value, (dict, types.MappingProxyType)):
            return self._dict(kind, value)
        if isinstance(value, (list, tuple)):
            return kind, tuple(self.at(each) for each in value), self._attributes(value)
        if isinstance(value, (set, frozenset)):
            return kind, tuple(sorted(repr(self.at(each)) for each in value)), self._attributes(value)
        if isinstance(value, types.ModuleType):
            if not self.is_library(value.__name__):
                self.modules[value.__name__] = value
            return "module", value.__name__
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return "method", self.at(value.__func__), self.of_code(value.__self__)
        if isinstance(value, functools.partial):
            return "partial", self.at(value.func), self.of_code(value.args), self.of_code(value.keywords)
        if isinstance(value, (staticmethod, classmethod)):
            return kind, self.at(value.__func__)
        if isinstance(value, property):
            return kind, self.at((value.fget, value.fset, value.fdel))
        if isinstance(value, PurePath):
            return kind, self._without_root(str(value))
        if isinstance(value, C_MEMBERS):
            return kind, value.__name__
        if isinstance(value, enum.Enum):
            return kind, self.at(type(value)), value.name
        if isinstance(value, np.generic):
            return kind, repr(value)
        return self._object(value)

    def _dict(self, kind: str, value: Any) -> Any:
        counted = [(k, v) for k, v in list(value.items()) if not (self._of_code and str(k).lower() == "resume")]
        items = [(repr(self.at(key)), self.at(each)) for key, each in counted]
        factory = self.at(getattr(value, "default_factory", None))
        return kind, tuple(items if self._of_code else sorted(items)), factory, self._attributes(value)

    def _attributes(self, value: Any) -> Any:
        """Attributes of an instance, those in slots too."""
        held = dict(getattr(value, "__dict__", {}))
        for base in type(value).__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if isinstance(vars(base).get(name), types.MemberDescriptorType) and hasattr(value, name):
                    held[name] = getattr(value, name)
        user = type(value) not in (list, tuple, dict, set, frozenset, *PLAIN)
        return (self.at(type(value)), self.at(held)) if user else ()

    def _object(self, value: Any) -> Any:
        kind, module = self.at(type(value)), str(type(value).__module__)
        if module.partition(".")[0] in BY_KIND:
            return kind
        if self._of_code and draws(value):
            raise NoFingerprintError(
                f"a {type(value).__name__} goes on from one fit to the next, so that the scores of a fold depend on "
                "the folds before it; make it where it is used"
            )
        if all(hasattr(value, name) for name in ("rvs", "dist", "args", "kwds")):  # a frozen distribution of scipy's
            return kind, self.at(type(value.dist)), self.at(value.args), self.at(value.kwds)
        if hasattr(value, "get_params"):
            if self._of_code:  # nobody clones it: what it has learned counts
                return kind, self._attributes(value)
            if keeps_fitted(value):
                return kind, self.of_code(vars(value))
            return kind, self.at(value.get_params(deep=False))
        if hasattr(value, "get_config"):  # Keras' objects; their own names count up from one to the next
            weights = [joblib.hash(each) for each in value.get_weights()] if hasattr(value, "get_weights") else []
            return kind, self.at(without_names(value.get_config())), tuple(weights)
        if isinstance(value, io.IOBase):
            return kind, open_file(value)
        if isinstance(value, np.ufunc) and not is_of_numpy(value):
            raise NoFingerprintError(f"the function that {value.__name__} was made from can't be seen")
        if isinstance(value, (types.BuiltinFunctionType, np.ufunc)):  # written in C
            owner = getattr(value, "__self__", None)
            return kind, value.__name__, () if isinstance(owner, types.ModuleType) else self.at(owner)
        if isinstance(value, functools._lru_cache_wrapper):
            return kind, self.at(value.__wrapped__), n_kept(value)
        if isinstance(value, np.lib.npyio.NpzFile):
            return kind, self.at({name: value[name] for name in value.files})
        if isinstance(value, np.ma.MaskedArray):
            return kind, self.at((value.data, np.ma.getmaskarray(value), value.fill_value))
        if hasattr(value, "__array__") or hasattr(value, "shape"):
            return kind, self._array(value), () if self.is_library(module) else self._attributes(value)
        if self.is_library(module) and callable(value) and hasattr(value, "__wrapped__"):
            return kind, self.at(value.__wrapped__)
        if hasattr(value, "__dict__") and not isinstance(value, BaseException):
            attributes = self._attributes(value)
            more = holds_more(value) or self.is_library(module)
            return kind, (attributes, self._reduced(value)) if more else attributes
        return kind, self._reduced(value)

    def _array(self, value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype == object:
            return "array", value.shape, self.at(value.tolist())
        try:
            is_tensor = hasattr(value, "numpy") or "keras" in type(value).__module__
            return joblib.hash(np.asarray(value) if is_tensor else value)
        except Exception as error:
            raise unknown(value, error) from error

    def _reduced(self, value: Any) -> Any:
        """What it would be pickled as."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                reduce = copyreg.dispatch_table.get(type(value))
                parts = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception as error:
            raise unknown(value, error) from error
        if isinstance(parts, str):
            return parts
        return tuple(self.at(list(part) if n > 2 and part is not None else part) for n, part in enumerate(parts[:5]))

    def _class(self, value: type) -> Any:
        name = f"{value.__module__}.{value.__qualname__}"
        if self.is_library(value.__module__ if isinstance(value.__module__, str) else None):
            return "class", name
        members = {k: member for k, member in vars(value).items() if k not in NOT_OF_A_CLASS}
        found = []
        for key, member in sorted(members.items()):
            try:
                found.append((key, self.of_code(member)))
            except NoFingerprintError as error:
                raise NoFingerprintError(f"{name}.{key}: {error}") from error
        return "class", name, self._note(name, short((self.of_code(value.__bases__), self.of_code(type(value)), found)))

    def _function(self, function: types.FunctionType) -> Any:
        name = f"{function.__module__}.{function.__qualname__}"
        cells = [cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType()]
        home = function.__globals__.get("__name__")  # there is none where a program has compiled it for itself
        by_library = home is not None and self.is_library(home)
        if by_library and self.is_library(function.__module__):
            written = [each for each in cells if callable(each) and not isinstance(each, types.BuiltinFunctionType)]
            theirs = [each for each in written if library(getattr(each, "__module__", None)) is None]
            return ("function", name, self.of_code(theirs)) if theirs else ("function", name)
        held = (function.__defaults__, function.__kwdefaults__, cells, vars(function))
        if not by_library:
            self.functions.append(function)
        try:
            digest = short((_code(function), self.of_code(held)))
        except NoFingerprintError as error:
            raise NoFingerprintError(f"{name}: {error}") from error
        return "function", name, self._note(name, digest)

    def _note(self, name: str, digest: str) -> Any:
        """The digest where code refers to it; else which of this name it is: other code is no other parameter."""
        digests = self.entries.setdefault(name, [])
        if digest not in digests:
            digests.append(digest)
        return digest if self._of_code else digests.index(digest)


def _code(function: types.FunctionType) -> str:
    """Digest of a function's code; of one that records a search, which says what does not count, its module's."""
    names = reads(function.__code__).names
    module = function.__globals__.get("__name__")
    if any(name == "record_search" or name.endswith("SearchCV") for name in names) and module in loaded():
        return content(*loaded()[module]).digest
    return code_digest(function.__code__)
