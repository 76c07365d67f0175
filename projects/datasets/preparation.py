"""Preparation of a table for a network: missing cells imputed, numbers standardised, texts one-hot."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count
from projects.datasets import files

if TYPE_CHECKING:
    from projects.datasets.columns import Columns

MISSING_CATEGORY = "(missing)"
"""Category of the missing cells of a column of texts."""


class Preparation:
    """Preparation of the features, fitted on the training part.

    Numbers: missing ones become the median (scikit-learn's `SimpleImputer`), then all are standardised. Texts: 0 and 1
    in a column for each (`OneHotEncoder`), in a single column if there are two; missing ones are a text of their own;
    one that the training part lacks is 0 in all columns.

    Parameters
    ----------
    columns : Columns
        Features, all rows.
    train : ndarray of int
        Numbers of the rows to train on.
    source : str
        Name of the data in error messages.

    Raises
    ------
    UserError
        If a column of numbers varies by too little for float32.
    """

    def __init__(self, columns: Columns, train: np.ndarray, source: str) -> None:
        from sklearn.impute import SimpleImputer
        from sklearn.preprocessing import OneHotEncoder

        self._columns, self._source = columns, source
        self._imputer = SimpleImputer(strategy="median", keep_empty_features=True)
        self._encoder = OneHotEncoder(handle_unknown="ignore", drop="if_binary", sparse_output=False)
        x = self._imputer.fit_transform(self._numbers(train)) if columns.numbers else np.zeros((len(train), 0))
        self._mean = x.mean(axis=0)
        self._deviation = np.where(np.ptp(x, axis=0) > 0, x.std(axis=0), 1.0)
        if columns.texts:
            self._encoder.fit(self._texts(train))

    @property
    def features(self) -> list[str]:
        """Names of the features, in the order of `transform`: numbers, then ``column=text``."""
        return [*self._columns.numbers, *(f"{name}={text}" for name, text in self._encoded())]

    def transform(self, rows: np.ndarray) -> np.ndarray:
        """Prepare the features of some rows, by their numbers.

        Parameters
        ----------
        rows : ndarray of int, shape (n,)
            Numbers of rows.

        Returns
        -------
        ndarray of float32, shape (n, n_features)
            Features.
        """
        parts = [np.zeros((len(rows), 0), np.float32)]
        if self._columns.numbers:
            parts.append(self._standardised(self._imputer.transform(self._numbers(rows))))
        if self._columns.texts:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Found unknown categories")
                parts.append(self._encoder.transform(self._texts(rows)).astype(np.float32))
        return np.concatenate(parts, axis=1)

    def description(self) -> dict[str, Any]:
        """All that is needed to prepare other rows in the same way, for JSON."""
        columns = self._columns
        medians = dict(zip(columns.numbers, self._imputer.statistics_, strict=True)) if columns.numbers else {}
        missing = columns.frame.isna().sum()
        return {
            "features": self.features,
            "numbers": {
                name: {
                    "imputed_cells": int(missing[name]),
                    "median": float(medians[name]),
                    "mean": float(self._mean[index]),
                    "standard_deviation": float(self._deviation[index]),
                }
                for index, name in enumerate(columns.numbers)
            },
            "texts": {
                name: {"missing_cells": int(missing[name]), "categories": [str(text) for text in categories]}
                for name, categories in zip(columns.texts, self._categories(), strict=True)
            },
            "left_out": columns.left_out,
        }

    def _categories(self) -> list[np.ndarray]:
        return self._encoder.categories_ if self._columns.texts else []

    def _encoded(self) -> list[tuple[str, str]]:
        """Column and text of each one-hot feature."""
        pairs = zip(self._columns.texts, self._categories(), strict=True)
        return [(name, str(text)) for name, texts in pairs for text in (texts[1:] if len(texts) == 2 else texts)]

    def _numbers(self, rows: np.ndarray) -> np.ndarray:
        return self._columns.frame[self._columns.numbers].to_numpy(np.float64)[rows]

    def _texts(self, rows: np.ndarray) -> np.ndarray:
        return self._columns.frame[self._columns.texts].fillna(MISSING_CATEGORY).to_numpy(object)[rows]

    def _standardised(self, x: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            scaled = ((x - self._mean) / self._deviation).astype(np.float32)
        broken = np.flatnonzero(~np.isfinite(scaled).all(axis=0))
        if len(broken):
            raise UserError(
                f"column {files.abbreviate(self._columns.numbers[broken[0]])} of {self._source} varies by too little "
                "for float32 among the samples to train on: scale or drop it"
            )
        return scaled


def sentences(columns: Columns) -> list[str]:
    """Say what is imputed, one-hot, and left out."""
    missing = columns.frame.isna().sum()
    lines = []
    imputed = [f"{name} ({missing[name]:,})" for name in columns.numbers if missing[name]]
    if imputed:
        lines.append(
            f"missing cells become the median of the training part: {files.list_names(imputed)} of "
            f"{count(len(columns.frame), 'row')}"
        )
    counts = {name: columns.frame[name].nunique() + bool(missing[name]) for name in columns.texts}
    one_hot = [
        f"{name} ({count(counts[name], 'value')}"
        + (f", one for {missing[name]:,} missing cells)" if missing[name] else ")")
        for name in columns.texts
    ]
    if one_hot:
        lines.append(f"text is one-hot: {files.list_names(one_hot)}")
    left_out = [f"{name} ({reason})" for name, reason in columns.left_out.items()]
    if left_out:
        lines.append(f"left out: {files.list_names(left_out)}")
    return lines
