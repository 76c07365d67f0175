"""Tables in CSV files of any common layout, with sentences on how they were read."""

from __future__ import annotations

import contextlib
import io
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from mlflow_hp.errors import UserError
from mlflow_hp.tracking import masked
from projects import arguments
from projects.arguments import Parameter
from projects.datasets import cells, encodings, files, headers, layouts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HEADER = Parameter("header", "auto", arguments.one_of(lambda: ["auto", "true", "false"]),
                   "of a CSV: whether its first row has the names of the columns; auto: if it looks like it; without "
                   "names, columns are called 1, 2, ...", several=False)  # fmt: skip
"""Parameter of experiments that read tables."""
_REMEMBERED: ContextVar[dict[tuple[str, str], Table] | None] = ContextVar("remembered_tables", default=None)


class Table(NamedTuple):
    """Table as it was read.

    Attributes
    ----------
    frame : DataFrame
        Columns of Int64, Float64, boolean or string; NA where a cell is missing.
    source : str
        Path or address, secrets masked.
    has_header : bool
        Whether the file has names of columns.
    notes : list of str
        What was decided about separator, encoding, header and decimal sign, in sentences.
    """

    frame: pd.DataFrame
    source: str
    has_header: bool
    notes: list[str]

    def check_column(self, name: str, parameter: str) -> None:
        """Raise a UserError if there is no column called `name`, the value of `parameter`."""
        if name in self.frame.columns:
            return
        names = files.list_names(self.frame.columns)
        if self.has_header:
            raise UserError(f"{parameter}={name!r}: {self.source} has the columns {names}; choose one of them")
        raise UserError(
            f"{parameter}={name!r}: {self.source} has no header, so its columns are numbered, {names}: choose one of "
            f"them ({parameter}={self.frame.columns[-1]} is the last), or give header=true if the first row has names"
        )


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Read each table once within the block, however often it is asked for."""
    token = _REMEMBERED.set({})
    try:
        yield
    finally:
        _REMEMBERED.reset(token)


def read(data: str, header: str = "auto") -> Table:
    """Read the CSV that the parameter `data` names.

    Separator, encoding, decimal sign and header are found out; see `layouts.read`, `encodings.decode`,
    `headers.looks_like_names` and `cells`.

    Parameters
    ----------
    data : str
        Path or address.
    header : {"auto", "true", "false"}
        Whether the first row has the names of the columns. Defaults to ``"auto"``.

    Returns
    -------
    Table
        The table.

    Raises
    ------
    UserError
        If it is not a CSV.
    """
    earlier = _REMEMBERED.get()
    if earlier is not None and (data, header) in earlier:
        return earlier[data, header]
    table = _read(data, header)
    if earlier is not None:
        earlier[data, header] = table
    return table


def in_lines(data: str, notes: Sequence[str]) -> list[str]:
    """Lines for the terminal on what was decided about the table that `data` names; none if nothing was."""
    return [f"{files.name_of(data)}, as it was read:", *(f"  {note}" for note in notes)] if notes else []


def _read(data: str, header: str) -> Table:
    content, data = files.read_bytes(data), masked(data)
    decoded = encodings.decode(content, data)
    layout = layouts.read(decoded.text, data)
    names = headers.read(layout.sample, header)
    frame = _parse(layout, names, data)
    notes = [*decoded.notes, *layout.notes, *names.notes]
    unnamed = [name for name in frame.columns if name.startswith("Unnamed: ") and frame[name].isna().all()]
    frame = frame.drop(columns=unnamed)  # after separators at the ends of the rows
    is_empty = frame.isna().all(axis=1)
    if is_empty.any() and not is_empty.all():
        notes.append(f"{_rows(int(is_empty.sum()))} without any value left out")
        frame = frame[~is_empty].reset_index(drop=True)
    notes += _convert(frame, layout, names)
    return Table(frame, data, names.is_first_row, notes)


def _parse(
    layout: layouts.Layout, header: headers.Header, data: str, *, as_text: list[str] | None = None
) -> pd.DataFrame:
    """Parse the rows; all cells of the columns in `as_text`, and only these, as text."""
    try:
        return pd.read_csv(
            io.StringIO(layout.text),
            sep=layout.separator,
            header=0 if header.is_first_row else None,
            names=header.names,
            usecols=header.names if as_text is None else as_text,
            dtype=None if as_text is None else "string",
            index_col=False,
            skipinitialspace=True,
            na_values=sorted(cells.MISSING),
            low_memory=False,
            dtype_backend="numpy_nullable",
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError, OverflowError) as error:
        raise UserError(
            f"data={data!r} cannot be read as CSV ({files.line_of(error)}): name a comma-separated text file"
        ) from None


def _convert(frame: pd.DataFrame, layout: layouts.Layout, header: headers.Header) -> list[str]:
    """Convert the texts of a table to numbers where all of a column are; return what was decided, in sentences."""
    texts = [name for name in frame.columns if not _is_number_like(frame[name])]
    for name in texts:
        frame[name] = cells.without_missing(frame[name].astype("string"))
    commas = [name for name in texts if cells.decimal_commas(frame[name], layout.separator)]
    notes = [f"decimal commas in {files.list_names(commas)}"] if commas else []
    for name in texts:
        numbers = cells.to_numbers(frame[name], "," if commas else ".")
        if numbers is not None:
            frame[name] = numbers
    pointed = [name for name in frame.columns if name not in texts and pd.api.types.is_float_dtype(frame[name])]
    if commas and pointed:
        raw = _parse(layout, header, "", as_text=pointed)
        dotted = [name for name in pointed if cells.are_thousands(raw[name].dropna())]
        for name in dotted:
            written = pd.to_numeric(raw[name].str.strip().str.replace(".", "", regex=False), errors="coerce")
            frame[name] = written.iloc[: len(frame)].astype("Int64")
        if dotted:
            notes.append(f"dots between thousands, as in 1.234, in {files.list_names(dotted)}")
    return notes


def _is_number_like(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)


def _rows(n: int) -> str:
    return f"{n:,} row{'s' * (n != 1)}"
