"""Table of epochs: a CSV line per epoch with a checksum, readable during training and after a kill."""

from __future__ import annotations

import contextlib
import csv
import io
from array import array
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import xxhash

from mlflow_hp.errors import UserError
from mlflow_hp.history.checksums import Checksum, Crc32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_CHECKSUMS: dict[str, Callable[[], Checksum]] = {"xxh3:": xxhash.xxh3_64, "crc32:": Crc32}
"""Prefix of the name of the last column -> its kind of checksum; the first kind is written now.

Each cell is a checksum of all cells before it, in its line and in all earlier ones: after the prefix in the header,
after an "x" in other lines, so that a checksum cannot be mistaken for a number if the header is damaged."""
_PREFIX = next(iter(_CHECKSUMS))

_MAX_NAMES = 100_000


class EpochTable(NamedTuple):
    """Contents of a table of epochs.

    Attributes
    ----------
    columns : dict of str to ndarray of shape (n_epochs,)
        float64, nan for an empty cell; "epoch" (0-based) is int64. Empty if there is no table.
    intact : bool
        False if damaged lines were left out.
    """

    columns: dict[str, np.ndarray]
    intact: bool


class EpochsWriter:
    """Appends epochs to the table at `path`; others may read it meanwhile."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._names: list[str] = []
        self._checksum: Checksum = _CHECKSUMS[_PREFIX]()

    def append(self, row: Mapping[str, float]) -> None:
        """Write one epoch: "epoch" (0-based) and numbers by name; names may be new.

        Raises
        ------
        ValueError
            If `row` has no "epoch".
        OSError
            If the file cannot be written.
        """
        if "epoch" not in row:
            raise ValueError(f"a row of epochs needs 'epoch'; it has {sorted(row)}")
        if new_names := [name for name in row if name not in self._names]:
            self._add_names(new_names)
        line = _with_checksums([_cells(row, self._names)], self._checksum, in_header=False)
        with self._path.open("a", encoding="utf-8", newline="") as file:
            file.write(line)

    def _add_names(self, names: Sequence[str]) -> None:
        """Replace the file by one with these columns added: it is written again, and swapped in at once."""
        rows = list[list[str]]()
        with contextlib.suppress(csv.Error, UnicodeDecodeError):
            rows.extend(_read_rows(self._path))
        self._names += names
        draft, checksum = self._path.with_suffix(".csv.part"), _CHECKSUMS[_PREFIX]()
        wider = [[*cells[:-1], *[""] * len(names)] for cells in rows[1:]]
        draft.write_text(_with_checksums([self._names, *wider], checksum), encoding="utf-8", newline="")
        draft.replace(self._path)
        self._checksum = checksum


def read_epochs(path: Path, *, check: bool = False) -> EpochTable:
    """Read the table at `path`; an unterminated last line is left out.

    Parameters
    ----------
    path : Path
        The file.
    check : bool
        Whether to leave out the first damaged line and all later ones instead of raising. Defaults to False.

    Raises
    ------
    UserError
        If the file is not a table of epochs, or a line is damaged. The earliest tables have no checksums.
    """
    names: list[str] = []
    columns: list[array[float]] = []
    checksum: Checksum | None = None
    prefix = damaged = ""
    rows = _read_rows(path)  # one at a time: a list of all takes many times the file's size
    try:
        for number, cells in enumerate(rows):
            if number == 0 and (prefix := _checksum_prefix(cells)):
                checksum = _CHECKSUMS[prefix]()
            if checksum is not None:
                *cells, seal = cells or [""]  # noqa: PLW2901
                checksum.update(_line(cells).encode())
                if seal != f"{'x' if number else prefix}{checksum.hexdigest()}":
                    damaged = _line_name(number)
                    break
            if number == 0:
                names = _checked_names(path, cells) if cells or checksum is None else []  # [] if no epoch had ended
                columns = [array("d") for _ in names]
                continue
            for column, value in zip(columns, _numbers(path, cells, len(names)), strict=True):
                column.append(value)
    except (csv.Error, UnicodeDecodeError) as error:
        if checksum is None:
            raise UserError(
                f"{path} is not a table of epochs, or is damaged: {error}. Copy it again, or remove it"
            ) from error
        damaged = _line_name(1 + len(columns[0]) if columns else 1)
    if damaged and not check:
        raise UserError(
            f"{path} is damaged: {damaged} differs from what was written. Copy it again, or read the part before the "
            "damage with TrainingHistory.open(folder, check=True)"
        )
    try:
        arrays = {name: epoch_column(name, column) for name, column in zip(names, columns, strict=True)}
    except ValueError as error:
        raise UserError(f"{path} has a line that is not a number under each name: {error}") from error
    return EpochTable(arrays, not damaged)


def _line_name(number: int) -> str:
    return f"its line of epoch number {number - 1} (0-based)" if number else "its header"


def _checked_names(path: Path, names: list[str]) -> list[str]:
    """Return the names of the columns; raise if a table cannot have them."""
    if "epoch" not in names or len(set(names)) < len(names) or len(names) > _MAX_NAMES:
        shown = str(names) if len(names) < 100 else f"of {len(names)} names"
        raise UserError(
            f"{path} is damaged: its header, {shown}, needs 'epoch', each name once, and {_MAX_NAMES} at most"
        )
    return names


def _numbers(path: Path, cells: Sequence[str], n_names: int) -> list[float]:
    why = f"{path} has a line that is not a number under each name"
    if len(cells) != n_names:
        raise UserError(f"{why}: {len(cells)} cells under {n_names} names")
    try:
        return [_number(cell) for cell in cells]
    except ValueError as error:
        raise UserError(f"{why}: {error}") from error


def write_epochs(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the whole table again: a line for each of `rows`, an empty cell for a missing number.

    Without rows, there is no table.

    Parameters
    ----------
    path : Path
        File to write.
    rows : sequence of mapping of str to float
        Epochs: numbers by name, ``"epoch"`` among them.

    Examples
    --------
    >>> from pathlib import Path
    >>> from mlflow_hp.history import write_epochs
    >>> write_epochs(Path("epochs.csv"), [{"epoch": 0, "loss": 0.5}, {"epoch": 1, "loss": 0.25}])
    >>> Path("epochs.csv").read_text().splitlines()[0].startswith("epoch,loss")
    True
    """
    if not rows:
        path.unlink(missing_ok=True)
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = _with_checksums([names, *(_cells(row, names) for row in rows)], _CHECKSUMS[_PREFIX]())
    path.write_text(text, encoding="utf-8", newline="")


def epoch_column(name: str, values: Any) -> np.ndarray:
    """Convert a column to an array: int64 for "epoch", float64 for any other."""
    column = np.asarray(values, np.float64)
    if name != "epoch":
        return column
    if not np.all(np.abs(column) < 2**53) or not np.all(column == np.floor(column)):
        raise ValueError(f"epochs have whole numbers, not {column.tolist()}")
    return column.astype(np.int64)


def _read_rows(path: Path) -> Iterator[list[str]]:
    """Read the cells of all complete lines, up to the first that is not CSV in UTF-8.

    Raises
    ------
    csv.Error, UnicodeDecodeError
        After the lines before that one.
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


def _checksum_prefix(header: Sequence[str]) -> str:
    """Return the prefix of the name of the column with checksums; empty if there is none."""
    return next((prefix for prefix in _CHECKSUMS if any(name.startswith(prefix) for name in header)), "")


def _with_checksums(rows: Iterable[Sequence[str]], checksum: Checksum, *, in_header: bool = True) -> str:
    """Format rows as lines with their checksums; `checksum` is that of all lines before, and is updated."""
    text = io.StringIO()
    for row in rows:
        checksum.update(_line(row).encode())
        text.write(_line([*row, f"{_PREFIX if in_header else 'x'}{checksum.hexdigest()}"]))
        in_header = False
    return text.getvalue()


def _line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _cells(row: Mapping[str, float], names: Iterable[str]) -> list[str]:
    """Format the numbers of an epoch with all their digits; empty for a missing one."""
    return [_text(name, row[name]) if name in row else "" for name in names]


def _text(name: str, value: float) -> str:
    return str(int(value)) if name == "epoch" else repr(float(value))


def _number(text: str) -> float:
    """Parse the `repr` of a float or an int; nan if empty. Python's `float` alone would also accept "1_0"."""
    if "_" in text or not text.isascii():
        raise ValueError(f"could not convert string to float: {text!r}")
    return float(text or "nan")
