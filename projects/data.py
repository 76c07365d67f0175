"""The data sets: embedded in scikit-learn, or a CSV by path or URL."""

from __future__ import annotations

import hashlib
import http.client
import io
import math
import textwrap
import urllib.request
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from mlflow_hp.errors import UserError

if TYPE_CHECKING:
    from projects.arguments import Settings

URL_SECONDS = 10.0
"""How long a URL may take to answer."""


class Regression(NamedTuple):
    """One feature and one target, split.

    Attributes
    ----------
    x_train, y_train, x_test, y_test : ndarray of float32, shape (n, 1) and (n,)
        In the order of the split; x standardised where that was asked for.
    feature, target : str
        Names of the columns, for axes.
    table : DataFrame
        Both columns as they came.
    source : str
        Where they came from.
    digest, split_digest : str
        SHA-256, shortened, of the values, and of the rows' numbers in either part.
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
    """The data that `settings` name: data, feature, target, test_size, seed, standardize.

    The test part is ``ceil(test_size * n)`` rows, drawn with `seed`; mean and standard deviation for
    standardising are those of the training part.

    Raises
    ------
    UserError
        For data that can't be had or trained on.
    """
    table, source = _table(settings["data"])
    feature, target = settings["feature"], settings["target"]
    for column, parameter in ((feature, "feature"), (target, "target")):
        if column not in table.columns:
            there = textwrap.shorten(", ".join(map(str, table.columns)), 300, placeholder=" ...")
            raise UserError(f"{parameter}={column!r}: {source} has the columns {there}")
    if feature == target:
        raise UserError(f"feature and target are both {feature!r}: choose two columns of {source}")
    table = pd.DataFrame({column: _numbers(table.loc[:, column], source) for column in (feature, target)})
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
    shown = feature
    if settings["standardize"]:
        x = (x - x[train].mean()) / x[train].std()
        shown = f"{feature}, standardised"
    x32, y32 = x.astype(np.float32)[:, None], y.astype(np.float32)
    return Regression(
        x32[train], y32[train], x32[test], y32[test], shown, target, table, source,
        _digest(table.to_numpy()), _digest(train, test),
    )  # fmt: skip


def log_input(table: pd.DataFrame, target: str, data: str) -> None:
    """Log the data set to the active run: its digest, schema and where it is from."""
    import mlflow
    from mlflow.data.sources import LocalArtifactDatasetSource

    source: object = data
    if data == "diabetes":
        source = None  # the code that made it
    elif not data.startswith(("http://", "https://")):
        source = LocalArtifactDatasetSource(str(Path(data).expanduser().resolve()))
    dataset = mlflow.data.from_pandas(table, source=source, targets=target, name=Path(data).name)
    mlflow.log_input(dataset, context="training")


def _table(data: str) -> tuple[pd.DataFrame, str]:
    """The table that `data` names, and where it is from."""
    if data == "diabetes":
        from sklearn.datasets import load_diabetes

        return load_diabetes(as_frame=True, scaled=False).frame, "scikit-learn's diabetes data"
    try:
        text = _download(data) if data.startswith(("http://", "https://")) else _file(data)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            return pd.read_csv(io.BytesIO(text), index_col=False, low_memory=False), data
    except pd.errors.ParserWarning:  # without index_col, pandas would take the first values of the rows for their names
        raise UserError(f"data={data!r} has more values in its rows than columns in its head: mend either") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"data={data!r} is empty: name a CSV file with a head and rows") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise UserError(f"data={data!r} can't be read as CSV ({error}): name a comma-separated text file") from None


def _file(data: str) -> bytes:
    path = Path(data).expanduser()
    if path.is_dir():
        raise UserError(f"data={data!r} is a folder: name the CSV file in it")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(
            f"data={data!r}: there is no file {path.resolve()}; name a CSV file, a URL, or diabetes"
        ) from None
    except OSError as error:
        raise UserError(f"data={data!r} can't be read: {error.strerror}") from None


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=URL_SECONDS) as answer:  # noqa: S310 - http and https alone get here
            body: bytes = answer.read()
            return body
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"data={url!r} does not answer ({reason}): check the address, or name a file") from None


def _numbers(column: pd.Series, source: str) -> pd.Series:
    """The column as float64; an error names the first row that is no finite number in float32, which is trained on."""
    if not len(column):
        raise UserError(f"{source} has a head and no rows: name data with rows")
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    with np.errstate(over="ignore"):
        broken = np.flatnonzero(~np.isfinite(numbers.to_numpy().astype(np.float32)))
    if len(broken):
        value = column.iloc[broken[0]]
        what = "missing" if pd.isna(value) else repr(value) if isinstance(value, str) else str(value)
        raise UserError(
            f"column {column.name!r} of {source} is {what} in row {broken[0] + 1} (of {len(broken)} such rows): "
            "a number is needed in each, so mend or drop them"
        )
    return numbers


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(repr((array.shape, str(array.dtype))).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
