"""The table of epochs: one line of CSV each, readable while training runs and after a kill."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


def csv_lines(path: Path) -> list[list[str]]:
    """Read the whole lines of a CSV file; a last one without its end was cut off. No file: no lines.

    Raises
    ------
    ValueError
        For what is no CSV in UTF-8.
    """
    text = path.read_bytes() if path.is_file() else b""
    try:
        whole = text[: text.rfind(b"\n") + 1].decode()
        return list(csv.reader(io.StringIO(whole, newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table of epochs, or damaged: {error}. Copy it again, or remove it") from error


def read_epochs(path: Path) -> dict[str, np.ndarray]:
    """The columns of the table at `path`, each (n_epochs,); empty where there is none. ValueError for other text."""
    head, *lines = csv_lines(path) or [[]]
    if head and ("epoch" not in head or len(set(head)) < len(head)):
        raise ValueError(f"{path} is damaged: its head, {head}, has to have 'epoch', and each name once")
    try:
        rows = [dict(zip(head, map(_number, line), strict=True)) for line in lines]
        return {name: epoch_column(name, [row[name] for row in rows]) for name in head}
    except ValueError as error:
        raise ValueError(f"{path} has a line that is not a number under each name: {error}") from error


def write_epochs(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the whole table anew: a line for each of `rows`, by name; an empty cell where one has no such number."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(names)
        table.writerows([epoch_text(name, row[name]) if name in row else "" for name in names] for row in rows)


def epoch_text(name: str, value: float) -> str:
    """A number of the table as it is written, with all its digits."""
    return str(int(value)) if name == "epoch" else repr(float(value))


def epoch_column(name: str, values: Any) -> np.ndarray:
    """A column as an array: whole numbers for "epoch", float64 for all else."""
    column = np.asarray(values, np.float64)
    if name != "epoch":
        return column
    if not np.all(np.abs(column) < 2**53) or not np.all(column == np.floor(column)):
        raise ValueError(f"epochs are numbered by whole numbers, not {column.tolist()}")
    return column.astype(np.int64)


def _number(text: str) -> float:
    """What `repr` of a float or an int gave; nothing for none. Python alone would also read "1_0"."""
    if "_" in text or not text.isascii():
        raise ValueError(f"could not convert string to float: {text!r}")
    return float(text or "nan")
