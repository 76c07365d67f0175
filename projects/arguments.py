"""What an experiment takes from the command line: declared once, checked here, one value or several."""

from __future__ import annotations

import argparse
import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_hp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Settings = dict[str, Any]
"""One value for each parameter."""


class Parameter(NamedTuple):
    """One parameter of an experiment.

    Attributes
    ----------
    name : str
        As on the command line (``--name value``) and in MLproject.
    default : str
        As the user would write it.
    read : callable
        Turns what the user wrote into the value; raises ValueError with what is wanted instead.
    help : str
        A line for ``--help``.
    several : bool
        Whether several values, comma-separated, make a run for each.
    """

    name: str
    default: str
    read: Callable[[str], Any]
    help: str
    several: bool = True


def number(low: float = -math.inf, high: float = math.inf, *, open_low: bool = False, open_high: bool = False) -> Any:
    """A reader of finite numbers from `low` to `high`, without the bounds that are open."""
    bounds = [f"over {low:g}" if open_low else f"of {low:g} or more"] if low > -math.inf else []
    bounds += [f"under {high:g}" if open_high else f"up to {high:g}"] if high < math.inf else []
    wanted = f"a number {' and '.join(bounds)}".strip()

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(wanted) from None
        below = value < low or (open_low and value == low)
        above = value > high or (open_high and value == high)
        if not math.isfinite(value) or below or above:
            raise ValueError(wanted)
        return value

    return read


def whole(low: int, high: int = 10**9) -> Any:
    """A reader of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"a whole number of {low} or more") from None
        if not low <= value <= high:
            raise ValueError(f"a whole number from {low} to {high}")
        return value

    return read


def flag(text: str) -> bool:
    """Read true or false."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError("true or false")
    return known[text.lower()]


def sizes(text: str) -> tuple[int, ...]:
    """Read whole numbers of 1 or more with dashes between them: ``64-64``."""
    try:
        found = tuple(int(part) for part in text.split("-"))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise ValueError("sizes with dashes between them, such as 64-64")
    return found


def one_of(names: Callable[[], Sequence[str]]) -> Any:
    """A reader of one of `names` (asked for when needed), whatever the case."""

    def read(text: str) -> str:
        found = {name.lower(): name for name in names()}
        if text.lower() not in found:
            raise ValueError(f"one of {', '.join(names())}")
        return found[text.lower()]

    return read


def optional(read: Any) -> Any:
    """A reader of what `read` takes, or of ``none``, which gives None."""
    return lambda text: None if text.lower() in ("", "none") else read(text)


def parse(argv: Sequence[str] | None, parameters: Sequence[Parameter], description: str) -> dict[str, str]:
    """The command line as it was written: parameter name -> text. Unknown options end the program, with usage."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    for parameter in parameters:
        many = "; several values, comma-separated, make a run each" if parameter.several else ""
        parser.add_argument(f"--{parameter.name}", default=parameter.default, help=parameter.help + many)
    return vars(parser.parse_args(argv))


def combinations(written: dict[str, str], parameters: Sequence[Parameter]) -> list[Settings]:
    """Every combination of the values written, in the order in which they were written.

    Raises
    ------
    UserError
        For a value that its parameter can't be.
    """
    values: list[list[Any]] = []
    for parameter in parameters:
        text = written[parameter.name]
        texts = [part.strip() for part in text.split(",")] if parameter.several else [text.strip()]
        read: list[Any] = []
        for part in texts:
            try:
                value = parameter.read(part)
            except ValueError as error:
                raise UserError(f"{parameter.name}={part!r} has to be {error}") from None
            if value not in read:
                read.append(value)
        values.append(read)
    names = [parameter.name for parameter in parameters]
    return [dict(zip(names, chosen, strict=True)) for chosen in itertools.product(*values)]


def varied(settings: Sequence[Settings]) -> list[str]:
    """The parameters whose values differ between `settings`."""
    return [name for name in settings[0] if any(other[name] != settings[0][name] for other in settings)]


def label(settings: Settings, names: Sequence[str]) -> str:
    """A name for a combination: ``learning_rate=0.1 batch_size=10``."""
    return " ".join(f"{name}={shown(settings[name])}" for name in names)


def usual(parameter: Parameter) -> set[str]:
    """The default of a parameter, as it was written and as its value is shown."""
    try:
        return {parameter.default, shown(parameter.read(parameter.default))}
    except ValueError:  # several values, comma-separated
        return {parameter.default}


def shown(value: Any) -> str:
    """A value as the user would write it, exactly: it reads back as itself."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
