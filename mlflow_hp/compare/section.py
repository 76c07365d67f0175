"""One part of a comparison, as pure data: what a page and a report both draw from."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class RunCell(NamedTuple):
    """A run in a cell of a table: its name, and where it is."""

    run_id: str
    experiment_id: str
    name: str


Cell = str | int | float | None | RunCell


class Table(NamedTuple):
    """A table.

    Attributes
    ----------
    caption : str
        What it shows, in a line.
    columns : list of str
        Their headings.
    rows : list of list
        Each as long as `columns`. Numbers are given whole: whoever shows them rounds.
    """

    caption: str
    columns: list[str]
    rows: list[list[Cell]]


class Section(NamedTuple):
    """One part of a comparison. Every text is plain: whoever shows it escapes it.

    Attributes
    ----------
    key : str
        Names the part within a comparison, as ``scores-1``; the same for the same part of the same runs.
    title : str
        Its heading.
    level : {2, 3}
        Of the heading: 3 stands below the 2 before it.
    words : list of str
        What was found, a sentence or two each; the most important first.
    table : Table or None
    figure : dict or None
        Plotly's ``{"data": [...], "layout": {...}}``, of JSON's types, without colours of background and text: whoever
        draws it sets these, for light or dark.
    alt : str
        What the figure shows, for who can't see it; empty without one.
    """

    key: str
    title: str
    level: int
    words: list[str]
    table: Table | None = None
    figure: dict[str, Any] | None = None
    alt: str = ""


def to_json(section: Section) -> dict[str, Any]:
    """A section of JSON's types: what is not finite becomes None, a run ``{"run_id", "experiment_id", "name"}``."""
    plain: dict[str, Any] = finite(section._asdict())
    return plain


def finite(value: Any) -> Any:
    """The value with named tuples as dicts, other tuples as lists, and what is not finite as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return finite(value._asdict())
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
