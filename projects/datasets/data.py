"""Data of a regression: embedded in scikit-learn, or a CSV by path or URL."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count
from mlflow_hp.tracking import artifact_paths
from projects.datasets import columns, files, tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projects.arguments import Settings


class Regression(NamedTuple):
    """One feature and one target, split.

    Attributes
    ----------
    x_train, y_train, x_test, y_test : ndarray of float32, shape (n, 1) and (n,)
        In the order of the split; x is standardised on request.
    feature, target : str
        Titles of the columns, for axes.
    table : DataFrame
        Both columns, unchanged.
    source : str
        Name, path or address of the data.
    digest, split_digest : str
        Shortened SHA-256 of the values, and of the row numbers in either part.
    notes : sequence of str
        What was decided about a CSV, in sentences. Defaults to none.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    feature: str
    target: str
    table: pd.DataFrame
    source: str
    digest: str
    split_digest: str
    notes: Sequence[str] = ()


def regression(settings: Settings) -> Regression:
    """Load the data that `settings` name: data, header, task, feature, target, test_size, seed, standardize.

    The test part is ``ceil(test_size * n)`` rows, drawn with `seed`; mean and standard deviation for
    standardising are those of the training part.

    Raises
    ------
    UserError
        The data cannot be read or trained on.
    """
    if settings["task"] == "classification":
        raise UserError(
            "task=classification: a line is fitted here, which is a regression; mlflow run . -e train classifies"
        )
    read = _table(settings)
    frame, source = read.frame, read.source
    feature, target = settings["feature"], settings["target"]
    for column, parameter in ((feature, "feature"), (target, "target")):
        read.check_column(column, parameter)
    if feature == target:
        raise UserError(f"feature and target are both {feature!r}: choose two columns of {source}")
    notes = list(read.notes)
    frame = frame.loc[:, [feature, target]]
    if len(frame) and frame.isna().all().any():
        empty: str = feature if frame[feature].isna().all() else target
        raise UserError(f"column {empty!r} of {source} is missing in all rows: choose another")
    is_whole = frame.notna().all(axis=1)
    if not is_whole.all():
        notes.append(
            f"{(~is_whole).sum():,} of {count(len(frame), 'row')} left out, since {feature} or {target} is missing"
        )
        frame = frame[is_whole].reset_index(drop=True)
    for column in (feature, target):
        if not pd.api.types.is_numeric_dtype(frame[column]) and not pd.api.types.is_bool_dtype(frame[column]):
            columns.refuse_dates(frame.loc[:, column], source)
    table = pd.DataFrame({column: files.numbers(frame.loc[:, column], source) for column in (feature, target)})
    n, n_test = len(table), math.ceil(settings["test_size"] * len(table))
    if n - n_test < 2:
        raise UserError(
            f"{source} has {n} row{'s' * (n != 1)}: with test_size={settings['test_size']:g}, {max(n - n_test, 0)} of "
            "them would be left to train on, and a line needs two"
        )
    train, test = train_test_split(np.arange(n), test_size=n_test, random_state=settings["seed"])
    x, y = table[feature].to_numpy(), table[target].to_numpy()
    if np.ptp(x[train]) == 0:
        raise UserError(f"feature={feature!r} has the same value, {x[0]:g}, in all rows to train on: choose another")
    title = feature
    if settings["standardize"]:
        x = (x - x[train].mean()) / x[train].std()
        title = f"{feature}, standardised"
    x32, y32 = x.astype(np.float32)[:, None], y.astype(np.float32)
    return Regression(
        x32[train], y32[train], x32[test], y32[test], title, target, table, source,
        files.digest_of(table.to_numpy()), files.digest_of(train, test), notes,
    )  # fmt: skip


def check(settings: Settings) -> list[str]:
    """Load the data that `settings` name; return what was decided about a CSV, in sentences.

    Raises
    ------
    UserError
        If the data cannot be read or trained on.
    """
    return tables.in_lines(settings["data"], regression(settings).notes)


def log_input(regression: Regression, data: str) -> None:
    """Log the part to train on to the active run: its digest, shapes and source."""
    import mlflow

    files.log_input(regression.x_train, regression.y_train, data, is_file=data != "diabetes")
    if regression.notes:
        columns = {"feature": str(regression.table.columns[0]), "target": regression.target}
        mlflow.log_dict({"notes": list(regression.notes), **columns}, artifact_paths.PREPARATION_FILE)


def _table(settings: Settings) -> tables.Table:
    """Table that `settings` name."""
    if settings["data"] == "diabetes":
        from sklearn.datasets import load_diabetes

        if settings["header"] != "auto":
            raise UserError(f"header={settings['header']} is for CSV files, and data=diabetes is none")
        return tables.Table(load_diabetes(as_frame=True, scaled=False).frame, "scikit-learn's diabetes data", True, [])
    return tables.read(settings["data"], settings["header"])
