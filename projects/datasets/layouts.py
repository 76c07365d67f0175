"""Layout of a CSV: its separator, lines that are comments, and the number of values in its rows."""

from __future__ import annotations

import csv
import re
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from mlflow_hp.errors import UserError
from projects.datasets import cells, files

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE_ROWS = 1000
"""Rows by which the separator and the header are chosen."""
_SEPARATORS = {"\t": "tabs", ";": "semicolons", "|": "vertical bars", ",": "commas"}
"""Separators and their names: the rare ones first, since a comma may also be a decimal sign."""
_SHARE = 0.9
"""Least share of the rows with one number of values."""
_TOKEN = re.compile(r'"[^"]*"|\S+')


class Layout(NamedTuple):
    """Text of a CSV to be parsed.

    Attributes
    ----------
    text : str
        Rows, without comments; whitespace between values is replaced by tabs.
    separator : str
        Character between values.
    sample : list of list of str
        Values of the first rows, at most ``SAMPLE_ROWS``; not empty.
    n_columns : int
        Number of columns.
    notes : list of str
        What was decided, in sentences.
    """

    text: str
    separator: str
    sample: list[list[str]]
    n_columns: int
    notes: list[str]


def read(text: str, data: str) -> Layout:
    """Find the layout of the `text` of a CSV.

    Of tabs, semicolons, vertical bars and commas, the first that splits nearly all rows into one number of values is
    the separator; else whitespace, if it does. ``sep=;`` in the first line, as Excel writes it, decides.

    Parameters
    ----------
    text : str
        Text with line feeds at the ends of its lines.
    data : str
        Name of the data in error messages.

    Returns
    -------
    Layout
        The layout.

    Raises
    ------
    UserError
        If there is no row, or the rows have different numbers of values.
    """
    notes: list[str] = []
    lines = [line for line in text.split("\n") if line.strip()]
    declared = re.fullmatch(r'"?sep=(.)"?', lines[0].strip("\ufeff ")) if lines else None
    if declared:
        lines = lines[1:]
    plain = [line for line in lines if not _is_comment(line)]
    if not plain:
        raise UserError(f"data={data!r} is empty: name a CSV file with a header and rows")
    separator = declared[1] if declared else _separator(plain)
    if separator == " ":
        lines = ["\t".join(_TOKEN.findall(line)) for line in lines]
        notes.append("the columns are separated by whitespace")
        separator = "\t"
    elif separator != ",":
        notes.append(f"the columns are separated by {_SEPARATORS.get(separator, repr(separator))}")
    lines, n_comments, names = _without_comments(lines, separator)
    if n_comments:
        notes.append(f"{n_comments} comment line{'s' * (n_comments != 1)} left out")
    if names:
        notes.append("the names of the columns are those of the comment line above the rows")
    clean = "\n".join(lines) + "\n"
    sample, n_columns = _count(clean, separator, data)
    return Layout(clean, separator, sample, n_columns, notes)


def _separator(lines: list[str]) -> str:
    """Choose a separator; a space stands for whitespace."""
    sample = lines[:SAMPLE_ROWS]
    shares = {}
    for separator in _SEPARATORS:
        try:
            counts = [len(row) for row in _rows(sample, separator)]
        except csv.Error:
            continue
        usual, n_usual = Counter(counts[1:] or counts).most_common(1)[0]
        share = n_usual / max(1, len(counts) - (len(counts) > 1))
        if usual > 1 and counts[0] > 1 and share >= _SHARE:
            shares[separator] = share
    best = max(shares, key=lambda separator: shares[separator] == 1, default="")
    if best not in ("", "\t"):
        return best
    tokens = [_TOKEN.findall(line) for line in sample]
    is_regular = len(tokens[0]) > 1 and len({len(row) for row in tokens}) == 1
    if not best:
        of_numbers = [cells.is_number(token) for row in tokens for token in row if len(row) > 1]
        is_numeric = len(of_numbers) > len(sample) and sum(of_numbers) >= _SHARE * len(of_numbers)
        return (
            " " if is_regular or is_numeric else max(_SEPARATORS, key=lambda sign: (sample[0].count(sign), sign == ","))
        )
    # aligned numbers with a tab in front of the last column, as in the original auto-mpg.data
    inner = [part.split() for line in sample for part in line.split("\t") if '"' not in part]
    several = [parts for parts in inner if len(parts) > 1]
    is_aligned = is_regular and len(several) >= len(sample)
    return " " if is_aligned and all(cells.is_number(p) or p == "?" for parts in several for p in parts) else best


def _is_comment(line: str) -> bool:
    return line.startswith("#") and len(line) > 1 and line[1] not in ",;\t|"


def _without_comments(lines: list[str], separator: str) -> tuple[list[str], int, bool]:
    """Remove comment lines, but for one with as many values as the row under it: names, without their sign.

    Returns
    -------
    list of str
        Remaining lines.
    int
        Number of lines that were removed.
    bool
        Whether the first of the remaining lines was a comment with names.
    """
    first = next(index for index, line in enumerate(lines) if not _is_comment(line))
    names = False
    if first > 0:
        above = re.sub(r"^#\s*", "", lines[first - 1])
        n_values = [len(next(_rows([line], separator), [])) for line in (above, lines[first])]
        if n_values[0] == n_values[1] > 1:
            lines, names = [*lines[: first - 1], above, *lines[first:]], True
    rows = [line for line in lines if not _is_comment(line)]
    return rows, len(lines) - len(rows), names


def _rows(lines: list[str], separator: str) -> Iterator[list[str]]:
    reader = csv.reader((line + "\n" for line in lines), delimiter=separator, skipinitialspace=True)
    return (row for row in reader if row)


def _count(text: str, separator: str, data: str) -> tuple[list[list[str]], int]:
    """Check that all rows have as many values; return the first of them, and the number of columns."""
    counts: list[int] = []
    last_is_empty = True
    sample: list[list[str]] = []
    reader = csv.reader(text.splitlines(keepends=True), delimiter=separator, skipinitialspace=True)
    try:
        for row in reader:
            counts.append(len(row))
            if len(sample) < SAMPLE_ROWS:
                sample.append(row)
            if len(row) > counts[0] and any(row[counts[0] :]):
                last_is_empty = False
    except csv.Error as error:
        raise UserError(
            f"data={data!r} cannot be read as CSV ({error} in row {len(counts) + 1}): name a text file with one row "
            "in a line"
        ) from None
    n_first, others = counts[0], counts[1:]
    if not others or set(others) == {n_first}:
        return sample, n_first
    usual = Counter(others).most_common(1)[0][0]
    if len(set(others)) == 1 and others[0] > n_first:
        if last_is_empty:  # separators at the ends of the rows
            return [row[:n_first] for row in sample], n_first
        raise UserError(
            f"data={data!r} has more values in its rows than columns in its header ({usual} and {n_first}): fix either"
        )
    odd = next(index for index, count in enumerate(counts) if count != usual)
    row = sample[odd] if odd < len(sample) else []
    shown = f" ({files.abbreviate(separator.join(row))})" if row else ""
    raise UserError(
        f"data={data!r} cannot be read as CSV: row {odd + 1}{shown} has {counts[odd]} value{'s' * (counts[odd] != 1)}, "
        f"and most have {usual}: fix such rows ({sum(count != usual for count in counts)} of {len(counts)})"
    )
