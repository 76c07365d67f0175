"""The table of epochs: one line of CSV each, readable while training runs and after a kill, and sealed line by line."""

from __future__ import annotations

import csv
import io
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

_SEAL = "crc32:"
"""So begins the name of the last column: behind it, in the head, and behind an x, in each line, stands the CRC-32 of
the cells before it and of all lines above. What is no number can't be mistaken for one, if the head is damaged."""


class EpochTable(NamedTuple):
    """The table of epochs as it was read.

    Attributes
    ----------
    columns : dict of str to ndarray of shape (n_epochs,)
        float64, nan for an empty cell; "epoch" (0-based) is int64. Empty where there is no table.
    whole : bool
        False where lines were left out since they are not what was written.
    """

    columns: dict[str, np.ndarray]
    whole: bool


class EpochsWriter:
    """Appends epochs to the table at `path`; one writer, any readers beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: list[str] = []
        self._sum = 0

    def append(self, row: Mapping[str, float]) -> None:
        """Write one epoch: "epoch" (0-based) and numbers by name, also such as earlier epochs had not.

        Raises
        ------
        ValueError
            For a row without "epoch".
        OSError
            Where it can't be written.
        """
        if "epoch" not in row:
            raise ValueError(f"a row of epochs needs 'epoch'; it has {sorted(row)}")
        if new := [name for name in row if name not in self._names]:
            rows, _ = _rows(self._path)
            self._names += new
            draft = self._path.with_suffix(".csv.part")  # a wider head: the whole file anew, swapped in at once
            text, self._sum = _sealed([self._names, *([*line[:-1], *[""] * len(new)] for line in rows[1:])])
            draft.write_text(text, encoding="utf-8", newline="")
            draft.replace(self._path)
        text, self._sum = _sealed([_cells(row, self._names)], self._sum, in_head=False)
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(text)


def read_epochs(path: Path, *, check: bool = False) -> EpochTable:
    """Read the table at `path`; a last line without its end was cut off, and is left out.

    Parameters
    ----------
    path : Path
    check : bool
        Whether to leave out all from the first line on that is not what was written; by default that is an error.

    Raises
    ------
    ValueError
        For other text, and for a line that is not what was written, as far as the table has seals: those of earlier
        versions have none.
    """
    rows, problem = _rows(path)
    whole = True
    if rows and any(name.startswith(_SEAL) for name in rows[0]):
        sound = _count_sound(rows)
        whole = sound == len(rows) and problem is None
        if not whole and not check:
            what = f"its line of epoch number {sound - 1}, from 0," if sound else "its head"
            raise ValueError(
                f"{path} is damaged: {what} is not what was written. Copy it again; or read what is sound before that "
                "with TrainingHistory.open(folder, check=True)"
            )
        rows = [row[:-1] for row in rows[:sound]]
    elif problem is not None:
        raise ValueError(
            f"{path} is no table of epochs, or damaged: {problem}. Copy it again, or remove it"
        ) from problem
    head, *lines = rows or [[]]
    if head and ("epoch" not in head or len(set(head)) < len(head)):
        raise ValueError(f"{path} is damaged: its head, {head}, has to have 'epoch', and each name once")
    try:
        numbers = [dict(zip(head, map(_number, line), strict=True)) for line in lines]
        return EpochTable({name: epoch_column(name, [row[name] for row in numbers]) for name in head}, whole)
    except ValueError as error:
        raise ValueError(f"{path} has a line that is not a number under each name: {error}") from error


def write_epochs(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the whole table anew: a line for each of `rows`, by name; an empty cell where one has no such number."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text, _ = _sealed([names, *(_cells(row, names) for row in rows)])
    path.write_text(text, encoding="utf-8", newline="")


def epoch_column(name: str, values: Any) -> np.ndarray:
    """A column as an array: whole numbers for "epoch", float64 for all else."""
    column = np.asarray(values, np.float64)
    if name != "epoch":
        return column
    if not np.all(np.abs(column) < 2**53) or not np.all(column == np.floor(column)):
        raise ValueError(f"epochs are numbered by whole numbers, not {column.tolist()}")
    return column.astype(np.int64)


def _rows(path: Path) -> tuple[list[list[str]], Exception | None]:
    """The cells of the whole lines up to the first that is no CSV in UTF-8, and what is wrong with that."""
    content = path.read_bytes() if path.is_file() else b""
    content, rows, problem = content[: content.rfind(b"\n") + 1], list[list[str]](), None
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        problem = error
        text = content[: content.rfind(b"\n", 0, error.start) + 1].decode()
    try:
        for row in csv.reader(io.StringIO(text, newline=""), strict=True):
            rows.append(row)
    except csv.Error as error:
        return rows, error
    return rows, problem


def _sealed(rows: Iterable[Sequence[str]], before: int = 0, *, in_head: bool = True) -> tuple[str, int]:
    """The lines of rows that come behind a line whose CRC-32 is `before`, and the CRC-32 of the last."""
    text = io.StringIO()
    for row in rows:
        before = zlib.crc32(_line(row).encode(), before)
        text.write(_line([*row, f"{_SEAL if in_head else 'x'}{before:08x}"]))
        in_head = False
    return text.getvalue(), before


def _count_sound(rows: Sequence[Sequence[str]]) -> int:
    """How many rows, from the first, are what was written."""
    before = 0
    for number, row in enumerate(rows):
        before = zlib.crc32(_line(row[:-1]).encode(), before)
        if not row or row[-1] != f"{'x' if number else _SEAL}{before:08x}":
            return number
    return len(rows)


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cells(row: Mapping[str, float], names: Iterable[str]) -> list[str]:
    """The numbers of an epoch as they are written, with all their digits; nothing where it has none."""
    return [_text(name, row[name]) if name in row else "" for name in names]


def _text(name: str, value: float) -> str:
    return str(int(value)) if name == "epoch" else repr(float(value))


def _number(text: str) -> float:
    """What `repr` of a float or an int gave; nothing for none. Python alone would also read "1_0"."""
    if "_" in text or not text.isascii():
        raise ValueError(f"could not convert string to float: {text!r}")
    return float(text or "nan")
