"""The table of epochs: one line of CSV each, readable while training runs and after a kill, and sealed line by line."""

from __future__ import annotations

import contextlib
import csv
import io
import zlib
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlflow_hp.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_SEAL = "crc32:"
"""So begins the name of the last column: behind it, in the head, and behind an x, in each line, stands the CRC-32 of
the cells before it and of all lines above. What is no number can't be mistaken for one, if the head is damaged."""

_NAMES_AT_MOST = 100_000


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
            rows = list[list[str]]()
            with contextlib.suppress(csv.Error, UnicodeDecodeError):
                rows.extend(_rows(self._path))
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
    UserError
        For other text, and for a line that is not what was written, as far as the table has seals: those of earlier
        versions have none.
    """
    head: list[str] = []
    columns: list[array[float]] = []
    seals, before, problem = False, 0, ""
    rows = _rows(path)  # one at a time: a list of all would take many times the file's size
    try:
        for number, cells in enumerate(rows):
            seals = seals or (number == 0 and any(name.startswith(_SEAL) for name in cells))
            if seals:
                *cells, seal = cells or [""]  # noqa: PLW2901
                before = zlib.crc32(_line(cells).encode(), before)
                if seal != f"{'x' if number else _SEAL}{before:08x}":
                    problem = f"its line of epoch number {number - 1}, from 0," if number else "its head"
                    break
            if number == 0:
                head = _head(path, cells) if cells or not seals else []  # as written where no epoch had ended
                columns = [array("d") for _ in head]
                continue
            for column, number_in_it in zip(columns, _numbers(path, cells, len(head)), strict=True):
                column.append(number_in_it)
    except (csv.Error, UnicodeDecodeError) as error:
        if not seals:
            raise UserError(
                f"{path} is no table of epochs, or damaged: {error}. Copy it again, or remove it"
            ) from error
        problem = f"its line of epoch number {len(columns[0]) if columns else 0}, from 0,"
    if problem and not check:
        raise UserError(
            f"{path} is damaged: {problem} is not what was written. Copy it again; or read what is sound before that "
            "with TrainingHistory.open(folder, check=True)"
        )
    try:
        found = {name: epoch_column(name, column) for name, column in zip(head, columns, strict=True)}
    except ValueError as error:
        raise UserError(f"{path} has a line that is not a number under each name: {error}") from error
    return EpochTable(found, not problem)


def _head(path: Path, names: list[str]) -> list[str]:
    """The names of the columns, if there can be such."""
    if "epoch" not in names or len(set(names)) < len(names) or len(names) > _NAMES_AT_MOST:
        shown = str(names) if len(names) < 100 else f"of {len(names)} names"
        raise UserError(
            f"{path} is damaged: its head, {shown}, has to have 'epoch', each name once, and {_NAMES_AT_MOST} at most"
        )
    return names


def _numbers(path: Path, cells: Sequence[str], count: int) -> list[float]:
    """The numbers of a line of `count` cells."""
    why = f"{path} has a line that is not a number under each name"
    if len(cells) != count:
        raise UserError(f"{why}: {len(cells)} cells under {count} names")
    try:
        return [_number(cell) for cell in cells]
    except ValueError as error:
        raise UserError(f"{why}: {error}") from error


def write_epochs(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the whole table anew: a line for each of `rows`, by name; an empty cell where one has no such number.

    Where there are none, there is no table.
    """
    if not rows:
        path.unlink(missing_ok=True)
        return
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


def _rows(path: Path) -> Iterator[list[str]]:
    """The cells of the whole lines, up to the first that is no CSV in UTF-8.

    Raises
    ------
    csv.Error, UnicodeDecodeError
        Behind the lines before it.
    """
    content, problem = path.read_bytes() if path.is_file() else b"", None
    content = content[: content.rfind(b"\n") + 1]
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        problem = error
        text = content[: content.rfind(b"\n", 0, error.start) + 1].decode()
    yield from csv.reader(io.StringIO(text, newline=""), strict=True)
    if problem is not None:
        raise problem


def _sealed(rows: Iterable[Sequence[str]], before: int = 0, *, in_head: bool = True) -> tuple[str, int]:
    """The lines of rows that come behind a line whose CRC-32 is `before`, and the CRC-32 of the last."""
    text = io.StringIO()
    for row in rows:
        before = zlib.crc32(_line(row).encode(), before)
        text.write(_line([*row, f"{_SEAL if in_head else 'x'}{before:08x}"]))
        in_head = False
    return text.getvalue(), before


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
