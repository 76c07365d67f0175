"""Whether anybody else can still reach the state of an object, by the reasoning of Python's garbage collector.

Of all objects that can be reached from the one in question, those matter from which a piece of its state can be reached
in turn: its parts, their dicts and lists, bound methods, closures, tensors that know their layers. Whoever holds the
state, however far round, holds one of these. So each of them is to have exactly as many references as come from within
their set; one more is somebody's outside: a variable of a running function, a module's, an object's, one in C++.

The proof holds for any set that includes the state: what is left out of it only counts as outside. So a type whose
objects were never on a way back to the state (operations of TensorFlow's graphs) can be passed over the next time.
"""

from __future__ import annotations

import builtins
import gc
import sys
import types
from typing import Any

from mlflow_hp.search.speedups.model_signature import NotShareableError

MOST_OBJECTS = 1_000_000
"""Objects looked at, at most."""
SHARED = (type, types.ModuleType, types.CodeType, types.BuiltinFunctionType, types.FrameType, str, bytes, int, float)
"""What belongs to the whole program, or refers to nothing, is not gone into."""


def is_isolated(thing: list[Any], n_known: int, state: tuple[type, ...], barren: set[type]) -> bool:
    """Whether nobody but those who are known to can reach an object's state.

    Parameters
    ----------
    thing : list of one object
        The object. It must be in no variable of the caller's, unless that is among `n_known`.
    n_known : int
        References to the object itself that are known, besides that of `thing`.
    state : tuple of type
        Types of objects that hold state; the object itself does in any case.
    barren : set of type
        Types that are passed over; what is learnt of them is put in.

    Raises
    ------
    NotShareableError
        Where there is too much to look at.
    """
    return _is_closed(thing, n_known, state, barren, frozenset(barren)) or (
        bool(barren) and _is_closed(thing, n_known, state, barren, frozenset())
    )


def _is_closed(
    thing: list[Any], n_known: int, state: tuple[type, ...], barren: set[type], passed_over: frozenset[type]
) -> bool:
    """Whether all references to what leads to the state come from within; what is learnt of types is put in."""
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
    """The objects reachable from a thing that lead to its state, itself first.

    Returns
    -------
    members : list of object
    references : list of int
        How many references to each come from members, or from `thing`.
    barren : set of type
        Those of which no object is a member.
    """
    found, place = [thing[0]], {id(thing[0]): 0}
    edges: list[list[int]] = []
    skipped: dict[type, bool] = {}
    while len(edges) < len(found):
        to = []
        for each in _referents(found[len(edges)]):
            kind = type(each)
            skip = skipped.get(kind)
            if skip is None:
                skip = skipped[kind] = issubclass(kind, SHARED) or kind in passed_over
            if not skip:
                index = place.setdefault(id(each), len(found))
                if index == len(found):
                    found.append(each)
                to.append(index)
        edges.append(to)
        if len(found) > MOST_OBJECTS:
            raise NotShareableError("the model refers to too many objects for it to be known who refers to it")
    sources: list[list[int]] = [[] for _ in found]
    for index, to in enumerate(edges):
        for other in to:
            sources[other].append(index)
    held = {kind for kind in skipped if issubclass(kind, state)}
    todo = [0, *(index for index, each in enumerate(found) if index and type(each) in held)]
    chosen = dict.fromkeys(todo)
    while todo:
        for index in sources[todo.pop()]:
            if index not in chosen:
                chosen[index] = None
                todo.append(index)
    references = [sum(source in chosen for source in sources[index]) for index in chosen]
    references[0] += 1
    members = [found[index] for index in chosen]
    return members, references, set(skipped) - {type(each) for each in members}


def _referents(thing: Any) -> list[Any]:
    """What an object refers to; of a function not the names of its module."""
    found = gc.get_referents(thing)
    if type(thing) is types.FunctionType:
        return [each for each in found if each is not thing.__globals__ and each is not vars(builtins)]
    return found


_OWN: int = next(map(sys.getrefcount, [object()]))
"""What is counted for a list's element to which nobody else refers."""
