"""One part of a comparison as plain data, which both the page and the report render."""

from __future__ import annotations

import math
from typing import Any, NamedTuple


class RunCell(NamedTuple):
    """Link to a run in a cell of a table.

    Attributes
    ----------
    run_id : str
        Id of the run.
    experiment_id : str
        Id of its experiment.
    name : str
        Name of the run.

    Examples
    --------
    >>> from mlflow_hp.compare import RunCell
    >>> RunCell("0f3a", "1", "quick-fox-12").name
    'quick-fox-12'
    """

    run_id: str
    experiment_id: str
    name: str


Cell = str | int | float | None | RunCell


class Table(NamedTuple):
    """Table of a section.

    Attributes
    ----------
    caption : str
        Description in one line.
    columns : list of str
        Headings.
    rows : list of list
        Cells, as many per row as `columns`. Numbers are not rounded; the renderer does that.

    Examples
    --------
    >>> from mlflow_hp.compare import Table
    >>> Table("Losses", ["run", "val_loss"], [["a", 0.1], ["b", 0.2]]).columns
    ['run', 'val_loss']
    """

    caption: str
    columns: list[str]
    rows: list[list[Cell]]


class Section(NamedTuple):
    """One part of a comparison. All texts are plain; the renderer escapes them.

    Attributes
    ----------
    key : str
        Identifier within a comparison, such as ``scores-1``; the same for the same part of the same runs.
    title : str
        Heading.
    level : {2, 3}
        Level of the heading; 3 is below the last 2 before it.
    words : list of str
        Results, a sentence or two each, the most important first.
    table : Table or None
        The table below the words. Defaults to None.
    figure : dict or None
        Plotly's ``{"data": [...], "layout": {...}}`` in JSON types, without colours of background and text, which the
        renderer sets for light or dark. Defaults to None.
    alt : str
        Text alternative of the figure; empty without a figure. Defaults to ``""``.
    code : str
        Text to copy, such as a file, shown below the words in a fixed-width font. Defaults to ``""``.

    Examples
    --------
    >>> from mlflow_hp.compare import Section
    >>> Section("scores-1", "Scores", 3, ["The best run is “a”."]).table is None
    True
    """

    key: str
    title: str
    level: int
    words: list[str]
    table: Table | None = None
    figure: dict[str, Any] | None = None
    alt: str = ""
    code: str = ""


def to_json(section: Section) -> dict[str, Any]:
    """Convert a section to JSON types; numbers that are not finite become None, runs become objects.

    Parameters
    ----------
    section : Section
        A section.

    Returns
    -------
    dict of str to object
        Its fields; a run becomes ``{"run_id", "experiment_id", "name"}``.

    Examples
    --------
    >>> from mlflow_hp.compare import Section, Table, to_json
    >>> section = Section("scores-1", "Scores", 3, ["One run."], Table("Scores", ["loss"], [[float("nan")]]))
    >>> to_json(section)["table"]["rows"]
    [[None]]
    """
    plain: dict[str, Any] = finite(section._asdict())
    return plain


def finite(value: Any) -> Any:
    """Convert named tuples to dicts, other tuples to lists, and numbers that are not finite to None, recursively."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return finite(value._asdict())
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
