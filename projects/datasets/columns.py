"""Columns of a table that a network learns from: numbers, texts of few values, and those that are left out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count
from projects.datasets import cells, files

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_CATEGORIES = 50
"""Most different texts of a column that become columns of their own."""
MIN_CATEGORY_MEAN = 2
"""Least mean number of rows per text for the same."""
FEW_CATEGORIES = 20
"""Most different values of a column that is text because of some of them, such as 2, 3, 4 and 5more."""
_ID = re.compile(r"(.*[\W_])?(id|uuid|uid|index|rownames)|unnamed: \d+|row ?(number|no|nr|id)|#", re.IGNORECASE)
_CAMEL_ID = re.compile(r".*[a-z](Id|ID)")


class Columns(NamedTuple):
    """Columns of a table's features.

    Attributes
    ----------
    frame : DataFrame
        All rows of these columns: float64 with NaN, or objects of str with None.
    numbers, texts : list of str
        Names of the columns of numbers and of texts.
    left_out : dict of str to str
        Name of each column that is left out, and the reason.
    """

    frame: pd.DataFrame
    numbers: list[str]
    texts: list[str]
    left_out: dict[str, str]

    @property
    def values(self) -> list[np.ndarray]:
        """Arrays of the numbers, and of the texts if there are any, for a digest."""
        arrays = [self.frame[self.numbers].to_numpy(np.float64)]
        return [*arrays, self.frame[self.texts].fillna("").to_numpy(str)] if self.texts else arrays


def sort(frame: pd.DataFrame, source: str, leave_out: Sequence[str] = ()) -> Columns:
    """Sort the columns of features: numbers, true and false as 1 and 0, and texts of few values.

    Those are left out that have one value or none, that number or name the rows, and texts of more than
    ``MAX_CATEGORIES`` values, or with fewer than ``MIN_CATEGORY_MEAN`` rows per value.

    Parameters
    ----------
    frame : DataFrame
        Columns as `tables.read` returns them.
    source : str
        Name of the data in error messages.
    leave_out : sequence of str
        Columns that the user leaves out. Defaults to none.

    Returns
    -------
    Columns
        Sorted columns.

    Raises
    ------
    UserError
        If a column has dates, or numbers among which are other texts; or none is left.
    """
    numbers, texts, left_out = [], [], dict.fromkeys(leave_out, "by drop=")
    for name in [name for name in frame.columns if name not in leave_out]:
        column = frame[name]
        if reason := _useless(column):
            left_out[name] = reason
        elif pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            numbers.append(name)
        else:
            refuse_dates(column, source)
            if reason := _too_many(column):
                _refuse_broken_numbers(column, source)
                left_out[name] = reason
            else:
                texts.append(name)
    if not numbers and not texts:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise UserError(f"{source} has no column to learn from ({files.list_names([reasons])}): bring other features")
    values = {name: files.numbers(frame[name], source, missing=True) for name in numbers}
    values |= {name: frame[name].astype(object).where(frame[name].notna(), None) for name in texts}
    return Columns(
        pd.DataFrame({name: values[name] for name in frame.columns if name in values}), numbers, texts, left_out
    )


def refuse_dates(column: pd.Series, source: str) -> None:
    """Raise a UserError if a column has dates."""
    if cells.are_dates(column):
        raise UserError(
            f"column {files.abbreviate(column.name)} of {source} has dates or times "
            f"({files.abbreviate(str(column.dropna().iloc[0]))}), which are no numbers: leave it out with "
            f"drop={column.name}, or write numbers instead, such as the year, or days since the first"
        )


def _useless(column: pd.Series) -> str:
    """Reason why nothing can be learnt from a column; empty if there is none."""
    n_values = column.nunique()
    if n_values == 0:
        return "all values are missing"
    if n_values == 1 and column.notna().all():
        return f"all values are {str(column.iloc[0])[:40]}"
    if pd.api.types.is_integer_dtype(column) and n_values == len(column) > 1:
        name = str(column.name)
        if str(name).startswith("Unnamed: ") and not (np.diff(column.to_numpy(np.int64)) == 1).all():
            return ""
        if _ID.fullmatch(name) or _CAMEL_ID.fullmatch(name):
            return "it numbers the rows"
    return ""


def _too_many(column: pd.Series) -> str:
    """Reason why a column of texts has too many of them; empty if it has not."""
    n_values, n_rows = column.nunique(), int(column.notna().sum())
    if n_values == n_rows > 1:
        return f"text that differs in all {count(n_rows, 'row')}"
    share = pd.to_numeric(column.dropna(), errors="coerce").notna().mean()
    if share > 0.5 and n_values > FEW_CATEGORIES:
        return "numbers and texts"
    if n_values > MAX_CATEGORIES or n_rows < MIN_CATEGORY_MEAN * n_values:
        return f"text with {n_values:,} different values in {count(n_rows, 'row')}"
    if share > 0.5 and n_rows < 5 * n_values:
        return "numbers and texts"
    return ""


def _refuse_broken_numbers(column: pd.Series, source: str) -> None:
    """Raise a UserError that names the first cell that is no number, if most are."""
    if pd.to_numeric(column.dropna(), errors="coerce").notna().mean() > 0.5:
        files.numbers(column, source, missing=True)
