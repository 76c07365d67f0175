"""Keywords of the function that trains: which it has, their values, and new values in the form of the old ones."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mlflow_hp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_hp.analysis.diagnosis.finding import Change

WHOLE = ("batch_size", "epochs", "units", "last_units")
"""Parameters that are whole numbers."""
_KEYWORD_KINDS = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class UnfitError(ValueError):
    """A new value cannot replace a keyword's value."""


def keyword_values(train: Callable[..., Any], start: Mapping[str, Any]) -> dict[str, Any]:
    """Read the keywords that a function has, with the values that it starts with.

    Parameters
    ----------
    train : callable
        The function.
    start : mapping of str to object
        Values that it is called with first.

    Returns
    -------
    dict of str to object
        Keyword -> value in `start`, else its default.

    Raises
    ------
    UserError
        If `train` cannot be called with `start`.
    """
    if not callable(train):
        raise UserError(
            f"train={train!r:.200} is a {type(train).__name__}; give a function of hyperparameters that builds and "
            "fits a model, and returns it"
        )
    if not isinstance(start, Mapping) or not all(isinstance(name, str) for name in start):
        raise UserError(
            f"start={start!r:.200} is a {type(start).__name__}; give a dict of the keywords of train and the values "
            "to start with"
        )
    try:
        signature = inspect.signature(train)
    except (TypeError, ValueError):  # a function in C
        return dict(start)
    named = {name: each for name, each in signature.parameters.items() if each.kind in _KEYWORD_KINDS}
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in signature.parameters.values())
    unknown = [name for name in start if name not in named and not takes_any]
    if unknown:
        raise UserError(
            f"start has {unknown[0]!r}, which {_name(train)} does not take; it takes {', '.join(named) or 'nothing'}"
        )
    missing = [name for name, each in named.items() if each.default is each.empty and name not in start]
    if missing:
        raise UserError(f"start lacks {missing[0]!r}, which {_name(train)} needs; add its value to start")
    return {name: each.default for name, each in named.items() if each.default is not each.empty} | dict(start)


def fitted_value(change: Change, current: Any) -> Any:
    """Convert the new value of a change to the form of the keyword's current value.

    Parameters
    ----------
    change : Change
        The change.
    current : object
        Value of the keyword now.

    Returns
    -------
    object
        The new value.

    Raises
    ------
    UnfitError
        If it has none that fits: only the user knows it, or the keyword holds something else.

    Examples
    --------
    >>> from mlflow_hp.analysis.diagnosis import Change
    >>> from mlflow_hp.improvement.keywords import fitted_value
    >>> fitted_value(Change("units", 2, 16.0, "dense"), (2, 8))
    (16, 8)
    """
    new = change.new
    if new is None:
        raise UnfitError("only the user knows the value")
    if current is None:
        return _whole(change, new)
    if isinstance(current, bool) or isinstance(new, bool):
        if isinstance(current, (bool, int)) and current in (0, 1) and isinstance(new, (bool, int)):
            return type(current)(bool(new))
    elif isinstance(current, (int, float)):
        if isinstance(new, (int, float)):
            return _whole(change, new)
    elif isinstance(current, (list, tuple)):
        if isinstance(new, (int, float)) and all(type(value) is int for value in current):
            whole = _whole(change, new)
            is_all = change.old not in current
            return type(current)([whole if is_all or value == change.old else value for value in current])
    elif isinstance(new, str):
        return new.lower() if change.parameter == "optimizer" and str(current).islower() else new
    raise UnfitError(f"{new!r:.100} does not fit in place of {current!r:.100}")


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values of a keyword are equal; arrays, and others that do not say so, by their text."""
    try:
        return type(one) is type(other) and bool(one == other)
    except Exception:  # noqa: BLE001 - of the user's class
        return repr(one) == repr(other)


def _whole(change: Change, new: Any) -> Any:
    is_number = isinstance(new, (int, float)) and not isinstance(new, bool)
    return max(1, round(new)) if is_number and change.parameter in WHOLE else new


def _name(train: Any) -> str:
    return str(getattr(train, "__name__", None) or type(train).__name__)
