"""Compiled code, by what it does: where it stands, its comments and its formatting do not count."""

from __future__ import annotations

import dis
import functools
import hashlib
import types
from typing import Any, NamedTuple


class Reads(NamedTuple):
    """Names and texts in a function's code, with those of the functions inside it.

    Attributes
    ----------
    variables : frozenset of str
        Global variables that it reads or sets.
    imports : frozenset of str
        Modules that it imports.
    names : frozenset of str
        All names of attributes, modules and global variables.
    strings : frozenset of str
        String constants.
    """

    variables: frozenset[str]
    imports: frozenset[str]
    names: frozenset[str]
    strings: frozenset[str]


@functools.lru_cache(maxsize=8192)
def code_digest(code: types.CodeType) -> str:
    """Digest of what a code object does; the same in every process of one Python version."""
    constants = tuple(_constant(each) for each in code.co_consts)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    table = getattr(code, "co_exceptiontable", b"")
    return hashlib.sha256(repr((code.co_code, constants, names, counts, table)).encode()).hexdigest()[:16]


def inner(code: types.CodeType) -> set[str]:
    """Digests of a code object and of all that are inside it."""
    return {code_digest(code)}.union(*(inner(each) for each in code.co_consts if isinstance(each, types.CodeType)))


@functools.lru_cache(maxsize=8192)
def reads(code: types.CodeType) -> Reads:
    """The names and texts in a code object."""
    variables, imports = set(), set()
    names, strings = set(code.co_names), set()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "STORE_NAME", "LOAD_FROM_DICT_OR_GLOBALS"):
            variables.add(step.argval)
        elif step.opname == "IMPORT_NAME":
            imports.add(step.argval)
    for constant in _flat(code.co_consts):
        if isinstance(constant, str):
            strings.add(constant)
        elif isinstance(constant, types.CodeType):
            within = reads(constant)
            variables |= within.variables
            imports |= within.imports
            names |= within.names
            strings |= within.strings
    return Reads(*map(frozenset, (variables, imports, names, strings)))


def _flat(constants: Any) -> list[Any]:
    found = []
    for each in constants:
        found += _flat(each) if isinstance(each, (tuple, frozenset)) else [each]
    return found


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return code_digest(value)
    if isinstance(value, tuple):
        return tuple(_constant(each) for each in value)
    if isinstance(value, frozenset):  # its order is another in each process
        return "frozenset", tuple(sorted(repr(each) for each in value))
    return repr(value)
