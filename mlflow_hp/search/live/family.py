"""A search and its copies: clones are noted when they are made, other copies recognised by equal parameters.

Clones may be changed after they are made: a meta-estimator sets a random state, an outer search sets parameters, and
metadata requests are added. So clones cannot be recognised by their parameters.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import weakref
from typing import TYPE_CHECKING, Any

import joblib

from mlflow_hp._compat.patch import MethodPatch
from mlflow_hp._compat.sklearn import search_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Family:
    """Set of a search, its clones and their clones made within `watch_clones`, and searches with equal parameters.

    Parameters
    ----------
    search : BaseSearchCV
        The original.
    """

    def __init__(self, search: Any) -> None:
        self._search = search
        self._members: dict[int, weakref.ref[Any]] = {}
        self.add(search)

    def add(self, search: Any) -> None:
        """Add a clone, by a weak reference."""
        key = id(search)
        self._members[key] = weakref.ref(search, lambda _: self._members.pop(key, None))

    def has_noted(self, search: Any) -> bool:
        """Whether `search` is the original or a noted clone."""
        member = self._members.get(id(search))
        return member is not None and member() is search

    def __contains__(self, search: Any) -> bool:
        return self.has_noted(search) or are_equal(search, self._search)

    @contextlib.contextmanager
    def watch_clones(self) -> Iterator[None]:
        """Note the clones made inside the block, in any thread."""
        with _patch.on(search_class()):
            _watching.append(self)
            try:
                yield
            finally:
                _watching.remove(self)


_watching: list[Family] = []


def is_watched(search: Any) -> bool:
    """Return whether a search, or one that it is a clone of, is being recorded."""
    return any(search in family for family in (*_watching,))


def _noted_clone(original: Callable[[Any], Any], search: Any) -> Any:
    """Clone a search as scikit-learn does, and note the clone."""
    clone = original(search)
    for family in (*_watching,):
        if family.has_noted(search):
            family.add(clone)
    return clone


_patch = MethodPatch("__sklearn_clone__", _noted_clone)


def are_equal(one: Any, other: Any) -> bool:
    """Whether two values are the same object or copies: compared by parameters, functions by identity."""
    try:
        return _are_equal(one, other)
    except Exception:  # noqa: BLE001 - a user's object may raise anything
        return False


def _are_equal(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other) or isinstance(one, (type, types.FunctionType, types.ModuleType)):
        return False
    if hasattr(one, "get_params"):
        return _are_equal(one.get_params(deep=False), other.get_params(deep=False))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_are_equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_are_equal, one, other))
    if isinstance(one, functools.partial):
        return _are_equal((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    if inspect.ismethod(one):
        return one.__func__ is other.__func__ and _are_equal(one.__self__, other.__self__)
    try:
        return bool(joblib.hash(one) == joblib.hash(other))
    except Exception:  # noqa: BLE001 - cannot be pickled, such as a lambda or an open file
        return hasattr(one, "__dict__") and _are_equal(vars(one), vars(other))
