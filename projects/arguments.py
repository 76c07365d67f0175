"""Parameters of an experiment: declared once, read from the command line, with one value or several."""

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
        Text of the default value.
    read : callable
        Converts the text of a value; raises ValueError with a description of valid texts.
    help : str
        Line for ``--help``.
    several : bool
        Whether it takes several values, comma-separated, with a run for each.
    """

    name: str
    default: str
    read: Callable[[str], Any]
    help: str
    several: bool = True


def number(low: float = -math.inf, high: float = math.inf, *, open_low: bool = False, open_high: bool = False) -> Any:
    """Make a reader of finite numbers from `low` to `high`, without the bounds that are open."""
    bounds = [f"over {low:g}" if open_low else f"of {low:g} or more"] if low > -math.inf else []
    bounds += [f"under {high:g}" if open_high else f"up to {high:g}"] if high < math.inf else []
    expected = f"a number {' and '.join(bounds)}".strip()

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(expected) from None
        below = value < low or (open_low and value == low)
        above = value > high or (open_high and value == high)
        if not math.isfinite(value) or below or above:
            raise ValueError(expected)
        return value

    return read


def whole(low: int, high: int = 10**9) -> Any:
    """Make a reader of whole numbers from `low` to `high`."""

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
    flags = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in flags:
        raise ValueError("true or false")
    return flags[text.lower()]


def sizes(text: str) -> tuple[int, ...]:
    """Read whole numbers of 1 or more with dashes between them: ``64-64``."""
    try:
        numbers = tuple(int(part) for part in text.split("-"))
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise ValueError("sizes with dashes between them, such as 64-64")
    return numbers


def one_of(names: Callable[[], Sequence[str]]) -> Any:
    """Make a reader of one of `names`, which is called when needed; ignores case."""

    def read(text: str) -> str:
        spellings = {name.lower(): name for name in names()}
        if text.lower() not in spellings:
            raise ValueError(f"one of {', '.join(names())}")
        return spellings[text.lower()]

    return read


def optional(read: Any) -> Any:
    """Make a reader of the values of `read`, and of ``none``, which is None."""
    return lambda text: None if text.lower() in ("", "none") else read(text)


def parse(argv: Sequence[str] | None, parameters: Sequence[Parameter], description: str) -> dict[str, str]:
    """Read the command line into parameter name -> text. An unknown option ends the program with its usage."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False
    )
    for parameter in parameters:
        hint = "; several values, comma-separated, make a run each" if parameter.several else ""
        parser.add_argument(f"--{parameter.name}", default=parameter.default, help=parameter.help + hint)
    return vars(parser.parse_args(argv))


def combinations(texts: dict[str, str], parameters: Sequence[Parameter]) -> list[Settings]:
    """Make every combination of the values, in the order of the command line.

    Raises
    ------
    UserError
        If the text of a value is invalid.
    """
    values: list[list[Any]] = []
    for parameter in parameters:
        text = texts[parameter.name]
        parts = [part.strip() for part in text.split(",")] if parameter.several else [text.strip()]
        distinct: list[Any] = []
        for part in parts:
            try:
                value = parameter.read(part)
            except ValueError as error:
                raise UserError(f"{parameter.name}={part!r} has to be {error}") from None
            if value not in distinct:
                distinct.append(value)
        values.append(distinct)
    names = [parameter.name for parameter in parameters]
    return [dict(zip(names, combination, strict=True)) for combination in itertools.product(*values)]


def varying_names(settings: Sequence[Settings]) -> list[str]:
    """Names of the parameters whose values differ between `settings`."""
    return [name for name in settings[0] if any(other[name] != settings[0][name] for other in settings)]


def label(settings: Settings, names: Sequence[str]) -> str:
    """Name of a combination: ``learning_rate=0.1 batch_size=10``."""
    return " ".join(f"{name}={text_of(settings[name])}" for name in names)


def default_texts(parameter: Parameter) -> set[str]:
    """Texts of a parameter's default: as declared, and as by `text_of`."""
    try:
        return {parameter.default, text_of(parameter.read(parameter.default))}
    except ValueError:  # several values, comma-separated
        return {parameter.default}


def text_of(value: Any) -> str:
    """Text of a value as the user would write it; reading it returns the same value."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


IMPROVE = Parameter(
    "improve",
    "0",
    whole(0, 100),
    "trainings that follow the advice of the findings, after the first one",
    several=False,
)
"""Parameter of experiments that can follow their own advice."""
