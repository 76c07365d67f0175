"""Target of a table: classes, or numbers to predict."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count
from projects import arguments
from projects.arguments import Parameter
from projects.datasets import columns, files

MAX_CLASSES = 20
"""Most distinct whole numbers in a CSV's target that count as classes, not as numbers to predict."""
MIN_CLASS_MEAN = 5
"""Least mean number of samples per class for the same; a mean, so that one rare class does not decide."""
MIN_LABEL_MEAN = 2
"""Least mean number of samples per class of texts, or by task=classification."""
TASK = Parameter(
    "task",
    "auto",
    arguments.one_of(lambda: ["auto", "classification", "regression"]),
    f"of a CSV; auto: classification of text, of true and false, and of at most {MAX_CLASSES} different whole numbers "
    f"with {MIN_CLASS_MEAN} rows each on average; else regression",
    several=False,
)
"""Parameter of experiments that read tables."""


class Target(NamedTuple):
    """Class numbers (int64), or numbers to predict (float32); names of the classes, or none; and a sentence on it."""

    y: np.ndarray
    classes: list[str]
    note: str


def read(column: pd.Series, task: str, source: str) -> Target:
    """Read a target without missing cells.

    Parameters
    ----------
    column : Series of Int64, Float64, boolean or string
        Target.
    task : {"auto", "classification", "regression"}
        Task; ``auto``: see `TASK`.
    source : str
        Name of the data in error messages.

    Returns
    -------
    Target
        The target.

    Raises
    ------
    UserError
        If it does not suit the task, or has only one value.
    """
    title = f"target={column.name!r} of {source}"
    counts = column.value_counts()
    if len(counts) == 1:
        raise UserError(f"{title} is {str(counts.index[0])[:80]} in all rows: choose a target with two or more values")
    is_bool = pd.api.types.is_bool_dtype(column)
    is_text = is_bool or not pd.api.types.is_numeric_dtype(column)
    if is_text and not is_bool:
        columns.refuse_dates(column, source)
        if pd.to_numeric(column, errors="coerce").notna().mean() > 0.5 and not (
            len(counts) <= MAX_CLASSES and counts.mean() >= MIN_CLASS_MEAN
        ):
            files.numbers(column, source)  # raises: it names the first that is no number
    is_whole = pd.api.types.is_integer_dtype(column)
    if task == "regression":
        if is_text:
            files.numbers(column.astype("string"), source)  # raises the same
        return _numbers(column, source, is_chosen=True)
    looks_like_classes = is_whole and len(counts) <= MAX_CLASSES and counts.mean() >= MIN_CLASS_MEAN
    if task == "auto" and not is_text and not looks_like_classes:
        return _numbers(column, source, is_chosen=False)
    if counts.mean() < MIN_LABEL_MEAN:
        advice = "choose another target" if is_text else "give task=regression"
        raise UserError(
            f"{title} has {len(counts):,} different values in {count(len(column), 'row')}, such as "
            f"{files.abbreviate(str(column.iloc[0]))}: too few rows for each to be a class; {advice}"
        )
    if not is_text:
        files.numbers(column, source)
    names, y = np.unique(column.astype(str if is_text else float if not is_whole else int), return_inverse=True)
    classes = [str(name) if is_text or is_whole else f"{name:.12g}" for name in names]
    note = f"classification: {column.name} has {count(len(classes), 'class')}, {files.list_names(classes)}"
    if task == "auto" and not is_text and len(classes) > 2:
        note += "; task=regression predicts the number instead"
    return Target(y.astype(np.int64), classes, note)


def scale(y: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of numbers to predict; 1 if it is 0 or not finite."""
    mean, deviation = float(np.mean(y, dtype=np.float64)), float(np.std(y, dtype=np.float64))
    return mean, deviation if deviation > 0 and np.isfinite(deviation) else 1.0


def _numbers(column: pd.Series, source: str, *, is_chosen: bool) -> Target:
    y = files.numbers(column, source).to_numpy(np.float32)
    note = f"regression: {column.name} is predicted as a number, from {y.min():.6g} to {y.max():.6g}"
    is_whole = pd.api.types.is_integer_dtype(column)
    if not is_chosen and (is_whole or column.nunique() == 2):
        note += "; task=classification takes each value for a class"
    return Target(y, [], note)
