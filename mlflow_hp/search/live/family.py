"""A search and its copies: clones are noted where they are made, other copies are known by equal parameters.

Who clones a search may then change it: a meta-estimator sets a random state, an outer search sets parameters, metadata
requests come along. So a clone is not known by what it is like, but by having been seen made.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import types
import weakref
from typing import TYPE_CHECKING, Any

import joblib

if TYPE_CHECKING:
    from collections.abc import Iterator


class Family:
    """A search, the clones made of it and of its clones inside of `followed`, and whatever has the same parameters.

    Parameters
    ----------
    search : BaseSearchCV
        The one that the others come from.
    """

    def __init__(self, search: Any) -> None:
        self._search = search
        self._members: dict[int, weakref.ref[Any]] = {}
        self.add(search)

    def add(self, search: Any) -> None:
        """Count a search among the clones, as long as it lives."""
        key = id(search)
        self._members[key] = weakref.ref(search, lambda _: self._members.pop(key, None))

    def has_made(self, search: Any) -> bool:
        """Whether it is the search, or a clone that was seen made."""
        member = self._members.get(id(search))
        return member is not None and member() is search

    def __contains__(self, search: Any) -> bool:
        return self.has_made(search) or alike(search, self._search)

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Note the clones that are made inside the block, in any thread."""
        from sklearn.model_selection._search import BaseSearchCV

        with _lock:
            if not _followed:
                _before.append(vars(BaseSearchCV).get("__sklearn_clone__"))
                BaseSearchCV.__sklearn_clone__ = _noted_clone
            _followed.append(self)
        try:
            yield
        finally:
            with _lock:
                _followed.remove(self)
                if not _followed:
                    before = _before.pop()
                    if before is not None:
                        BaseSearchCV.__sklearn_clone__ = before
                    else:
                        del BaseSearchCV.__sklearn_clone__


_lock = threading.Lock()
_followed: list[Family] = []
_before: list[Any] = []


def _noted_clone(self: Any) -> Any:
    """Clone a search as scikit-learn does, and note the clone."""
    from sklearn.model_selection._search import BaseSearchCV

    before = _before[-1] if _before else None
    clone = super(BaseSearchCV, self).__sklearn_clone__() if before is None else before(self)
    for family in (*_followed,):
        if family.has_made(self):
            family.add(clone)
    return clone


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same, or one is a copy of the other: by parameters, functions by identity."""
    try:
        return _alike(one, other)
    except Exception:  # noqa: BLE001 - objects of the user's may raise anything when they are looked at
        return False


def _alike(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if type(one) is not type(other) or isinstance(one, (type, types.FunctionType, types.ModuleType)):
        return False
    if hasattr(one, "get_params"):
        return _alike(one.get_params(deep=False), other.get_params(deep=False))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, functools.partial):
        return _alike((one.func, one.args, one.keywords), (other.func, other.args, other.keywords))
    if inspect.ismethod(one):
        return one.__func__ is other.__func__ and _alike(one.__self__, other.__self__)
    try:
        return bool(joblib.hash(one) == joblib.hash(other))
    except Exception:  # noqa: BLE001 - it holds a function without a name, or something open
        return hasattr(one, "__dict__") and _alike(vars(one), vars(other))
