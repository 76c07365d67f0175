"""Query parameters of a request, validated: texts and numbers that a database accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import request

from mlflow_hp.errors import UserError
from mlflow_hp.tracking.params_and_tags import storable

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LENGTH = 10_000
"""Most characters of a parameter; the ids of a hundred runs are a third of that."""
MAX_STEP = 2**62
"""Largest step; databases store 64 bits."""
_MAX_QUOTED = 80
"""Most characters of a parameter that an error quotes."""


def text(name: str) -> str:
    """Get the text parameter `name`; empty if it is missing.

    Raises
    ------
    UserError
        If it is repeated, longer than ``MAX_LENGTH``, or contains a NUL or a lone surrogate, which databases refuse.
    """
    values = request.args.getlist(name)
    if len(values) > 1:
        raise UserError(f"{name}= is given {len(values)} times: give it once")
    value = "".join(values)
    if len(value) > MAX_LENGTH:
        raise UserError(f"{name}= has {len(value)} characters: at most {MAX_LENGTH} are allowed")
    if storable(value) != value:
        raise UserError(f"{name}={quoted(value)} contains a NUL or half a character, as no name does: leave that out")
    return value


def texts(name: str) -> list[str]:
    """Split the comma-separated parameter `name`, dropping empty texts."""
    return [value for value in text(name).split(",") if value]


def one_of(name: str, choices: Sequence[str], default: str | None = None) -> str:
    """Get the text parameter `name`, one of `choices`; if it is missing, `default` or else the first choice.

    Raises
    ------
    UserError
        If it is none of them.
    """
    value = text(name) or default or choices[0]
    if value not in choices:
        raise UserError(f"{name}={quoted(value)} is not known: use {', '.join(choices)}")
    return value


def integer(name: str) -> int | None:
    """Get the integer parameter `name`, clipped to the range of steps; None if it is missing.

    Raises
    ------
    UserError
        If it is not an integer.
    """
    value = text(name)
    if not value and name not in request.args:
        return None
    try:
        return min(max(int(value), -MAX_STEP), MAX_STEP)
    except ValueError:
        raise UserError(f"{name}={quoted(value)} is not an integer") from None


def quoted(value: str) -> str:
    """Quote a parameter for an error: escaped, and cut if it is long."""
    return repr(value if len(value) <= _MAX_QUOTED else f"{value[:_MAX_QUOTED]}…")
