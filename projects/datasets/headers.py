"""Header of a CSV: whether its first row has the names of the columns, and these names."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from projects.datasets import cells

_SHARE = 0.9
"""Least share of numbers in a column of numbers."""
_REPEATED = 0.5
"""Most distinct values per row of a column that repeats its values."""


class Header(NamedTuple):
    """Names of the columns, whether the first row has them, and sentences on what was decided."""

    names: list[str]
    is_first_row: bool
    notes: list[str]


def read(rows: list[list[str]], header: str) -> Header:
    """Find the names of the columns.

    Without a header, they are ``1``, ``2``, ...

    Parameters
    ----------
    rows : list of list of str
        First rows, of one length.
    header : {"auto", "true", "false"}
        Whether the first of them has the names; ``auto``: as `looks_like_names` finds.

    Returns
    -------
    Header
        The names.
    """
    n_columns = len(rows[0])
    is_header, sure = (header == "true", True) if header != "auto" else looks_like_names(rows)
    if not is_header:
        why = "header=false" if header != "auto" else "the first row looks like the others: header=true if it has names"
        return Header(
            [str(index + 1) for index in range(n_columns)],
            False,
            [f"no header ({why}): the columns are numbered 1 to {n_columns}"],
        )
    notes = [] if sure else ["the first row is taken for the names of the columns: header=false if it is data"]
    names: dict[str, None] = {}
    counts: Counter[str] = Counter()
    for index, cell in enumerate(rows[0]):
        title = cell.strip() or f"Unnamed: {index}"
        name = title if not counts[title] else f"{title}.{counts[title]}"
        while name in names:
            name += "_"
        if name != title:
            notes.append(f"column {index + 1} is called {name!r}, since there is another {title!r}")
        counts[title] += 1
        names[name] = None
    return Header(list(names), True, notes)


def looks_like_names(rows: list[list[str]]) -> tuple[bool, bool]:
    """Tell whether the first row is unlike the others, as names are, and whether that is sure.

    It has names if it has text above numbers, or counts 0, 1, 2, ...; it is data if it has numbers above numbers, or
    texts that the columns below have, too. Else it is taken for names, which is sure if a column below repeats others.

    Parameters
    ----------
    rows : list of list of str
        First rows, of one length.

    Returns
    -------
    bool
        Whether it looks like names.
    bool
        Whether that is sure.
    """
    first, others = [cell.strip() for cell in rows[0]], rows[1:]
    numbers_above, texts_above, repeated, unlike = 0, 0, 0, 0
    for index, cell in enumerate(first):
        below = [row[index].strip() for row in others if not cells.is_missing(row[index])]
        above_numbers = len(below) > 0 and sum(map(cells.is_number, below)) >= _SHARE * len(below)
        if cells.is_number(cell):
            numbers_above += above_numbers or not below
        elif not cells.is_missing(cell) and cell not in cells.MISSING_NUMBERS:
            texts_above += above_numbers
            if not above_numbers and cell in below:
                repeated += 1
            elif not above_numbers and below and len(set(below)) <= _REPEATED * len(below):
                unlike += 1
    if texts_above:
        return True, True
    counted = [cell for cell in first if cell]
    if len(counted) > 2 and counted == [str(number) for number in range(len(counted))]:
        return True, False
    if numbers_above:
        return False, True
    if repeated > unlike or (unlike == 0 and any(cells.is_number(cell) for cell in first)):
        return False, True
    return True, unlike > 0 or len(rows) == 1
