"""What a request asks for, read from its address: texts and numbers that a database takes, or an error in words."""

from __future__ import annotations

from flask import request

from mlflow_hp.errors import UserError
from mlflow_hp.tracking.params_and_tags import storable

LONGEST = 10_000
"""Characters of a parameter: the ids of a hundred runs are a third of it."""
STEPS = 2**62
"""Steps are numbers of 64 bits."""
_SHOWN = 80
"""Characters of a parameter in an error."""


def text(name: str) -> str:
    """The parameter `name`; empty where it is not there.

    Raises
    ------
    UserError
        Where it is there twice, longer than ``LONGEST``, or has a NUL or half a character in it, which no database
        takes.
    """
    values = request.args.getlist(name)
    if len(values) > 1:
        raise UserError(f"{name}= is there {len(values)} times: name it once")
    value = "".join(values)
    if len(value) > LONGEST:
        raise UserError(f"{name}= has {len(value)} characters: {LONGEST} are the most")
    if storable(value) != value:
        raise UserError(f"{name}={shown(value)} has a NUL or half a character in it, which no name has: leave it out")
    return value


def texts(name: str) -> list[str]:
    """The texts of the parameter `name`, with commas between them; the empty ones left out."""
    return [value for value in text(name).split(",") if value]


def integer(name: str) -> int | None:
    """The number of the parameter `name`, as near as a step can be; None where it is not there.

    Raises
    ------
    UserError
        Where it is no integer.
    """
    value = text(name)
    if not value and name not in request.args:
        return None
    try:
        return min(max(int(value), -STEPS), STEPS)
    except ValueError:
        raise UserError(f"{name}={shown(value)} is not an integer") from None


def shown(value: str) -> str:
    """A parameter as an error shows it: in quotes, escaped, and not all of a long one."""
    return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…")
