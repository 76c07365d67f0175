"""Objects that need a look of their own before they can be known again."""

from __future__ import annotations

import hashlib
import random
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np

_HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: a class that was made by Python code."""


class NoFingerprintError(Exception):
    """A value has nothing by which a later process could know it again."""


def unknown(value: Any, error: Exception) -> NoFingerprintError:
    """The error of a value that can't be looked at."""
    return NoFingerprintError(f"a {type(value).__name__} can't be known again: {type(error).__name__}: {error}")


def keeps_fitted(estimator: Any) -> bool:
    """Whether the clones of an estimator keep what it has learned, as those of scikit-learn's FrozenEstimator do."""
    from sklearn.base import BaseEstimator

    own = getattr(type(estimator), "__sklearn_clone__", None)
    return own is not None and own is not getattr(BaseEstimator, "__sklearn_clone__", None)


def holds_more(value: Any) -> bool:
    """Whether a value is of a type written in C, or derived from one: its attributes do not tell all of it."""
    return any(base is not object and not base.__flags__ & _HEAP_TYPE for base in type(value).__mro__)


def is_of_numpy(ufunc: Any) -> bool:
    """Whether a function of NumPy's kind is NumPy's or SciPy's own, and was not made of a Python function."""
    modules = map(sys.modules.get, ("numpy", "scipy.special"))
    return any(getattr(module, ufunc.__name__, None) is ufunc for module in modules)


def draws(value: Any) -> bool:
    """Whether a value is a random generator."""
    generators = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
    return isinstance(value, generators) or type(value).__name__ in ("SeedGenerator", "StatelessScope")


_were_empty: weakref.WeakSet[Any] = weakref.WeakSet()


def n_kept(cached: Any) -> int:
    """How many results a function under `functools.lru_cache` keeps; those from before the search can't be seen."""
    n = int(cached.cache_info().currsize)
    if n == 0:
        _were_empty.add(cached)
    elif cached not in _were_empty:
        raise NoFingerprintError(
            f"it keeps {n} results from before, which can't be seen; call {cached.__qualname__}.cache_clear() first"
        )
    return n


def open_file(value: Any) -> Any:
    """An open file, by what is in it and how far it was read; one that is only written, by its kind."""
    if value.closed or not value.readable():
        return ()
    name = getattr(value, "name", None)
    if isinstance(name, str) and Path(name).is_file():
        return hashlib.sha256(Path(name).read_bytes()).hexdigest(), value.tell()
    if hasattr(value, "getvalue"):
        return repr(value.getvalue()), value.tell()
    if value in (sys.stdin, sys.stdout, sys.stderr):
        return ()
    raise NoFingerprintError(f"what a {type(value).__name__} will read is not known")


def without_names(config: Any) -> Any:
    """A configuration of Keras' without the names of objects, which count up from one to the next."""
    if isinstance(config, dict):
        return {key: without_names(value) for key, value in config.items() if key != "name"}
    if isinstance(config, (list, tuple)):
        return [without_names(each) for each in config]
    return np.asarray(config) if hasattr(config, "__array__") and not isinstance(config, np.generic) else config
