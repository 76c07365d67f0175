"""Values of functions of one object, computed once for as long as the object lives."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

Function = TypeVar("Function", bound="Callable[..., Any]")


def computed_once(function: Function) -> Function:
    """Remember the values of a function by its first argument, which never changes, and by its other arguments."""
    values: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()

    @functools.wraps(function)
    def remembered(subject: Any, *arguments: Any, **named: Any) -> Any:
        of_subject = values.setdefault(subject, {})
        key = arguments, tuple(sorted(named.items()))
        if key not in of_subject:
            of_subject[key] = function(subject, *arguments, **named)
        return of_subject[key]

    return remembered  # type: ignore[return-value]
