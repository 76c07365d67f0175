"""Code that a function consists of: its own, and that of the user's functions and classes which it names."""

from __future__ import annotations

import functools
import inspect
import types
from typing import TYPE_CHECKING, Any

from mlflow_hp.search.resume.bytecode import code_digest, reads
from mlflow_hp.search.resume.fingerprint import short
from mlflow_hp.search.resume.sources import library

if TYPE_CHECKING:
    from collections.abc import Iterator

SIMPLE = (bool, int, float, complex, str, bytes, type(None))
"""Types of the attributes of a class that count as its code."""


def user_code_digest(train: Any) -> str:
    """Digest of the code of a callable; the same in every process of one Python version.

    Functions and classes of the user's count as far as names in the code tell. Values of variables do not, as a
    training may change them; nor does the code of libraries.

    Parameters
    ----------
    train : callable
        A function, a method, a partial, or an object that can be called.

    Returns
    -------
    str
        16 hexadecimal digits.

    Examples
    --------
    >>> from mlflow_hp.improvement.user_code import user_code_digest
    >>> user_code_digest(lambda lr: lr + 1) == user_code_digest(lambda lr: lr + 2)
    False
    """
    digests: dict[str, set[str]] = {}
    todo, seen = [train], set[int]()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, functools.partial):
            todo.append(value.func)
        elif isinstance(value, types.MethodType | staticmethod | classmethod):
            todo.append(value.__func__)
        elif isinstance(value, property):
            todo += [each for each in (value.fget, value.fset, value.fdel) if each is not None]
        elif isinstance(value, types.FunctionType) and library(value.__module__) is None:
            digests.setdefault(value.__qualname__, set()).add(code_digest(value.__code__))
            todo += _named_in(value)
        elif isinstance(value, type) and library(value.__module__) is None:
            plain = sorted((k, v) for k, v in vars(value).items() if isinstance(v, SIMPLE) and not k.startswith("__"))
            digests.setdefault(value.__qualname__, set()).add(short(plain))
            todo += [*vars(value).values(), *value.__bases__]
        elif callable(value) and not isinstance(value, type):
            todo.append(type(value))
    return short(sorted((name, sorted(each)) for name, each in digests.items()))


def _named_in(function: types.FunctionType) -> Iterator[Any]:
    """Functions, classes and members of modules that the code of a function names, and those in its closure."""
    read = reads(function.__code__)
    cells = (cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType())
    named = [function.__globals__[name] for name in read.variables if name in function.__globals__]
    yield inspect.unwrap(function)
    for value in (*named, *cells):
        if isinstance(value, types.ModuleType):
            if library(value.__name__) is None:
                yield from (vars(value)[name] for name in read.names if name in vars(value))
        else:
            yield value
