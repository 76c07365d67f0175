"""Data of a regression: embedded in scikit-learn, or a CSV by path or URL."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from mlflow_hp.errors import UserError
from mlflow_hp.tracking import masked
from projects.datasets import files

if TYPE_CHECKING:
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


def regression(settings: Settings) -> Regression:
    """Load the data that `settings` name: data, feature, target, test_size, seed, standardize.

    The test part is ``ceil(test_size * n)`` rows, drawn with `seed`; mean and standard deviation for
    standardising are those of the training part.

    Raises
    ------
    UserError
        The data cannot be read or trained on.
    """
    table, source = _table(settings["data"])
    feature, target = settings["feature"], settings["target"]
    for column, parameter in ((feature, "feature"), (target, "target")):
        if column not in table.columns:
            columns = textwrap.shorten(", ".join(map(str, table.columns)), 300, placeholder=" ...")
            raise UserError(f"{parameter}={column!r}: {source} has the columns {columns}")
    if feature == target:
        raise UserError(f"feature and target are both {feature!r}: choose two columns of {source}")
    table = pd.DataFrame({column: files.numbers(table.loc[:, column], source) for column in (feature, target)})
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
        files.digest_of(table.to_numpy()), files.digest_of(train, test),
    )  # fmt: skip


def log_input(regression: Regression, data: str) -> None:
    """Log the part to train on to the active run: its digest, shapes and source."""
    files.log_input(regression.x_train, regression.y_train, data, is_file=data != "diabetes")


def _table(data: str) -> tuple[pd.DataFrame, str]:
    """Table that `data` names, and its source."""
    if data == "diabetes":
        from sklearn.datasets import load_diabetes

        return load_diabetes(as_frame=True, scaled=False).frame, "scikit-learn's diabetes data"
    return files.read_table(data), masked(data)
