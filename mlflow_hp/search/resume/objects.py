"""Objects that need their own rule to be fingerprinted."""

from __future__ import annotations

import contextvars
import hashlib
import random
import sys
import threading
import types
import weakref
from pathlib import Path
from typing import Any

import numpy as np

_C_MEMBERS = (types.MethodDescriptorType, types.WrapperDescriptorType, types.BuiltinFunctionType)
"""Kinds of members that classes defined in C have, and those defined in Python have not."""


class NoFingerprintError(Exception):
    """Raised for a value that has no fingerprint by which a later process could recognise it."""


def no_fingerprint(value: Any, error: Exception) -> NoFingerprintError:
    """Make the exception for a value that raised `error` when it was inspected."""
    return NoFingerprintError(f"a {type(value).__name__} cannot be fingerprinted: {type(error).__name__}: {error}")


def keeps_fitted(estimator: Any) -> bool:
    """Whether clones of an estimator keep its fitted state, as those of scikit-learn's FrozenEstimator do."""
    from sklearn.base import BaseEstimator

    clone = getattr(type(estimator), "__sklearn_clone__", None)
    return clone is not None and clone is not getattr(BaseEstimator, "__sklearn_clone__", None)


def has_c_state(value: Any) -> bool:
    """Whether a value's type is written in C or derived from such a type, so that attributes do not show its state."""
    members = [member for base in type(value).__mro__ if base is not object for member in vars(base).values()]
    return any(isinstance(member, _C_MEMBERS) for member in members)


def is_of_numpy(ufunc: Any) -> bool:
    """Whether a ufunc is NumPy's or SciPy's own, not one made from a Python function."""
    modules = map(sys.modules.get, ("numpy", "scipy.special"))
    return any(getattr(module, ufunc.__name__, None) is ufunc for module in modules)


def draws(value: Any) -> bool:
    """Whether a value is a random generator."""
    generators = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
    return isinstance(value, generators) or type(value).__name__ in ("SeedGenerator", "StatelessScope")


def referent(value: Any) -> tuple[Any, ...] | None:
    """Content of what only refers to it: a context variable, a thread's own attributes, weak references; else None."""
    if isinstance(value, contextvars.ContextVar):
        return tuple(value.get(each) for each in (None, 0))  # which differ where it has no value
    if isinstance(value, threading.local):
        return (vars(value),)
    if isinstance(value, (weakref.WeakKeyDictionary, weakref.WeakValueDictionary)):
        return (dict(value),)
    if isinstance(value, weakref.WeakSet):
        return (set(value),)
    if isinstance(value, weakref.ref):
        return (value(),)
    if type(value) in weakref.ProxyTypes:
        return (value.__repr__.__self__,)
    return None


_once_empty: weakref.WeakSet[Any] = weakref.WeakSet()


def n_cached(function: Any) -> int:
    """Number of results cached by a `functools.lru_cache`; refused if some are older than the first look at it."""
    n = int(function.cache_info().currsize)
    if n == 0:
        _once_empty.add(function)
    elif function not in _once_empty:
        raise NoFingerprintError(
            f"it caches {n} earlier results, which are not visible; call {function.__qualname__}.cache_clear() first"
        )
    return n


def open_file(value: Any) -> Any:
    """Content and position of an open file; empty for a file that is closed or only written."""
    if value.closed or not value.readable():
        return ()
    name = getattr(value, "name", None)
    if isinstance(name, str) and Path(name).is_file():
        return hashlib.sha256(Path(name).read_bytes()).hexdigest(), value.tell()
    if hasattr(value, "getvalue"):
        return repr(value.getvalue()), value.tell()
    if value in (sys.stdin, sys.stdout, sys.stderr):
        return ()
    raise NoFingerprintError(f"the content that a {type(value).__name__} will read is unknown")


def is_made(cls: type) -> bool:
    """Whether a call made a class, such as `dataclasses.make_dataclass`, which then seems to be of its module."""
    module = sys.modules.get(cls.__module__)
    return cls.__module__ in ("abc", "types") and getattr(module, cls.__name__, None) is not cls
