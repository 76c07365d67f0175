"""Digests of compiled code, independent of its position, comments and formatting."""

from __future__ import annotations

import dis
import functools
import hashlib
import itertools
import types
from typing import Any, NamedTuple

FIRST_LINE = "__firstlineno__"
"""Attribute of a class: the number of its first line."""


class Reads(NamedTuple):
    """Names and strings in a function's code and in the functions nested in it.

    Attributes
    ----------
    variables : frozenset of str
        Global variables read or set.
    imports : frozenset of str
        Modules imported.
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
    """Digest of a code object; the same in every process of one Python version."""
    constants = _constants(code)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    table = getattr(code, "co_exceptiontable", b"")
    return hashlib.sha256(repr((code.co_code, constants, names, counts, table)).encode()).hexdigest()[:16]


def all_digests(code: types.CodeType) -> set[str]:
    """Digests of a code object and of all code objects nested in it."""
    nested = (each for each in code.co_consts if isinstance(each, types.CodeType))
    return {code_digest(code)}.union(*map(all_digests, nested))


@functools.lru_cache(maxsize=8192)
def reads(code: types.CodeType) -> Reads:
    """Collect the names and strings in a code object."""
    variables, imports = set(), set()
    names, strings = set(code.co_names), set()
    for instruction in dis.get_instructions(code):
        if instruction.opname in (
            "LOAD_GLOBAL",
            "LOAD_NAME",
            "STORE_GLOBAL",
            "STORE_NAME",
            "LOAD_FROM_DICT_OR_GLOBALS",
        ):
            variables.add(instruction.argval)
        elif instruction.opname == "IMPORT_NAME":
            imports.add(instruction.argval)
    for constant in _flat(code.co_consts):
        if isinstance(constant, str):
            strings.add(constant)
        elif isinstance(constant, types.CodeType):
            nested = reads(constant)
            variables |= nested.variables
            imports |= nested.imports
            names |= nested.names
            strings |= nested.strings
    return Reads(*map(frozenset, (variables, imports, names, strings)))


def _flat(constants: Any) -> list[Any]:
    flat = []
    for each in constants:
        flat += _flat(each) if isinstance(each, (tuple, frozenset)) else [each]
    return flat


def _constants(code: types.CodeType) -> tuple[Any, ...]:
    """Constants of a code object, without the first line of a class, which its code sets since Python 3.13."""
    constants = [_constant(each) for each in code.co_consts]
    if FIRST_LINE in code.co_names:
        instructions = list(dis.get_instructions(code))
        loads = [each.arg for each in instructions if each.opname == "LOAD_CONST"]
        for load, store in itertools.pairwise(instructions):
            # a constant of the class itself may be equal to the line: then it stays
            if store.argval == FIRST_LINE and load.opname == "LOAD_CONST" and loads.count(load.arg) == 1:
                assert load.arg is not None
                constants[load.arg] = FIRST_LINE
    return tuple(constants)


def _constant(value: Any) -> Any:
    if isinstance(value, types.CodeType):
        return code_digest(value)
    if isinstance(value, tuple):
        return tuple(_constant(each) for each in value)
    if isinstance(value, frozenset):  # its order differs between processes
        return "frozenset", tuple(sorted(repr(each) for each in value))
    return repr(value)
