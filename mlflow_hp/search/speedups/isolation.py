"""Check that no outside code can reach the state of an object, by reference counts, as in the garbage collector.

Of all objects reachable from the one in question, those matter from which a part of its state is reachable in turn: its
parts, their dicts and lists, bound methods, closures, tensors that refer to their layers. Any holder of the state, even
an indirect one, holds one of these. So each of them must have exactly as many references as come from within their set;
one more comes from outside: a variable of a running function, a module, another object, or C++.

The proof holds for any set that includes the state: objects left out of it count as outside. So types whose objects
never lead back to the state (such as operations of TensorFlow graphs) can be skipped the next time.
"""

from __future__ import annotations

import builtins
import gc
import sys
import types
from typing import Any

from mlflow_hp.search.speedups.model_signature import NotShareableError

MAX_OBJECTS = 1_000_000
"""Limit of objects to inspect."""
SHARED = (
    type, types.ModuleType, types.CodeType, types.BuiltinFunctionType, types.FrameType, types.NoneType,
    str, bytes, int, float,
)  # fmt: skip
"""Types whose objects are not followed: they belong to the whole program, or refer to nothing."""


def is_isolated(thing: list[Any], n_known: int, state: tuple[type, ...], barren: set[type]) -> bool:
    """Whether an object's state is unreachable but through known references.

    Parameters
    ----------
    thing : list of one object
        The object. Variables of the caller that hold it count among `n_known`.
    n_known : int
        Number of known references to the object itself, without that of `thing`.
    state : tuple of type
        Types of objects that hold state; the object itself always does.
    barren : set of type
        Types to skip, since their objects never led back to the state; updated.

    Raises
    ------
    NotShareableError
        If there are more than ``MAX_OBJECTS`` objects.
    """
    return _is_closed(thing, n_known, state, barren, frozenset(barren)) or (
        bool(barren) and _is_closed(thing, n_known, state, barren, frozenset())
    )


def _is_closed(
    thing: list[Any], n_known: int, state: tuple[type, ...], barren: set[type], passed_over: frozenset[type]
) -> bool:
    """Whether all references to objects leading to the state come from within; updates `barren`."""
    members, expected, others = _leading_to_state(thing, state, passed_over)
    expected[0] += n_known
    if list(map(sys.getrefcount, members)) != [n + _OWN for n in expected]:
        return False
    barren.difference_update(map(type, members))
    barren.update(others)
    return True


def _leading_to_state(
    thing: list[Any], state: tuple[type, ...], passed_over: frozenset[type]
) -> tuple[list[Any], list[int], set[type]]:
    """Find the objects reachable from a thing that lead to its state, itself first.

    Returns
    -------
    members : list of object
    references : list of int
        Number of references to each from members, or from `thing`.
    barren : set of type
        Types without a member.
    """
    reachable, index_of = [thing[0]], {id(thing[0]): 0}
    edges: list[list[int]] = []
    skipped: dict[type, bool] = {}
    while len(edges) < len(reachable):
        to = []
        for each in _referents(reachable[len(edges)]):
            kind = type(each)
            skip = skipped.get(kind)
            if skip is None:
                skip = skipped[kind] = issubclass(kind, SHARED) or kind in passed_over
            if not skip:
                index = index_of.setdefault(id(each), len(reachable))
                if index == len(reachable):
                    reachable.append(each)
                to.append(index)
        edges.append(to)
        if len(reachable) > MAX_OBJECTS:
            raise NotShareableError("the model refers to too many objects to check who refers to it")
    sources: list[list[int]] = [[] for _ in reachable]
    for index, to in enumerate(edges):
        for other in to:
            sources[other].append(index)
    state_types = {kind for kind in skipped if issubclass(kind, state)}
    todo = [0, *(index for index, each in enumerate(reachable) if index and type(each) in state_types)]
    leading = dict.fromkeys(todo)
    while todo:
        for index in sources[todo.pop()]:
            if index not in leading:
                leading[index] = None
                todo.append(index)
    references = dict.fromkeys(leading, 0)
    for index in leading:
        for other in edges[index]:
            if other in references:
                references[other] += 1
    references[0] += 1
    members = [reachable[index] for index in leading]
    return members, list(references.values()), set(skipped) - {type(each) for each in members}


def _referents(thing: Any) -> list[Any]:
    """Objects that an object refers to; of a function without its module's variables."""
    referents = gc.get_referents(thing)
    if type(thing) is types.FunctionType:
        return [each for each in referents if each is not thing.__globals__ and each is not vars(builtins)]
    return referents


_OWN: int = next(map(sys.getrefcount, [object()]))
"""Reference count of a list's element without any other reference."""
