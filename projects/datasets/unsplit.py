"""Samples of all sources before they are split: pictures and rows in arrays, and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count
from mlflow_hp.tracking import masked
from projects import arguments
from projects.datasets import columns, files, preparation, tables, targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from projects.arguments import Settings

PARTS = ("x_train", "y_train", "x_test", "y_test")
"""Arrays in an .npz file."""


class Unsplit(NamedTuple):
    """Samples before the split; if the data have a test part, it follows the first `n_train` samples.

    `x` are the arrays of the features: pixels, or the `columns` of a table.
    """

    x: list[np.ndarray]
    y: np.ndarray
    classes: list[str]
    image_shape: tuple[int, ...] | None
    source: str
    columns: columns.Columns | None = None
    n_train: int | None = None
    notes: Sequence[str] = ()


def is_table(data: str) -> bool:
    """Whether the parameter `data` names a CSV."""
    return data != "digits" and data not in files.KERAS_FILES and not files.path_of(data).lower().endswith(".npz")


def read(settings: Settings) -> Unsplit:
    """Read the samples that `settings` name: data, target, task, header, drop.

    Raises
    ------
    UserError
        If they cannot be read.
    """
    data = settings["data"]
    if is_table(data):
        return _from_table(tables.read(data, settings["header"]), settings)
    refuse_table_settings(settings)
    if data == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        names = [str(name) for name in digits.target_names]
        return Unsplit([digits.images / 16.0], digits.target.astype(np.int64), names, (8, 8), "scikit-learn's digits")
    if data in files.KERAS_FILES:
        return _images(data, *files.from_keras(data))
    return _images(masked(data), *files.read_arrays(data, PARTS))


def refuse_table_settings(settings: Settings) -> None:
    """Raise a UserError if settings of a CSV are given for other data."""
    data = masked(settings["data"])
    if settings["task"] == "regression":
        raise UserError(f"task=regression: data={data} has classes, so nothing but a classifier can be trained on it")
    for name, default in (("header", "auto"), ("drop", None)):
        if settings[name] != default:
            raise UserError(f"{name}={arguments.text_of(settings[name])} is for CSV files, and data={data} is none")


def _images(source: str, x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> Unsplit:
    """Check and join two parts of images (n, height, width[, channels]) or rows (n, features), and classes (n,)."""
    for name, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        description = f"{source}: x_{name} is {x.dtype} {x.shape} and y_{name} {y.dtype} {y.shape}; "
        if x.dtype.kind not in "uif" or x.ndim < 2 or not x.size:
            raise UserError(
                f"{description}x has to be numbers of shape (samples, height, width) or (samples, features)"
            )
        if y.dtype.kind not in "uib" or y.shape not in ((len(x),), (len(x), 1)):
            raise UserError(f"{description}y has to be a whole number for each sample of x, the number of its class")
    if x_train.shape[1:] != x_test.shape[1:] or x_train.dtype != x_test.dtype:
        raise UserError(
            f"{source}: x_train is {x_train.dtype} {x_train.shape} and x_test {x_test.dtype} {x_test.shape}; "
            "both have to be of one type and their samples of one size"
        )
    x, y = np.concatenate([x_train, x_test]), np.concatenate([y_train.ravel(), y_test.ravel()])
    with np.errstate(over="ignore"):
        if not np.isfinite(x.astype(np.float32)).all():
            raise UserError(f"{source} has values in x that are NaN, infinite or over 3e38: fix or drop these samples")
    shape = x.shape[1:] if x.ndim > 2 else None
    if shape:
        return Unsplit([_pixels(x, source)], *_classes(y, f"y of {source}"), shape, source, n_train=len(x_train))
    frame = pd.DataFrame(x, columns=[f"x{index}" for index in range(x.shape[1])]).astype(np.float64)
    of_rows = columns.Columns(frame, list(frame.columns), [], {})
    return Unsplit([x], *_classes(y, f"y of {source}"), None, source, of_rows, len(x_train))


def _pixels(x: np.ndarray, source: str) -> np.ndarray:
    """Scale pixels to 0..1: bytes by 255, others by the largest, unless all are in 0..1 already."""
    if x.min() < 0:
        raise UserError(f"{source} has pixels from {x.min():g} to {x.max():g}: shift them so that the smallest is 0")
    largest = x.max()
    divisor = 1 if largest <= 1 else 255 if x.dtype == np.uint8 else largest
    return x.astype(np.float32) / np.float32(divisor)


def _classes(labels: np.ndarray, title: str) -> tuple[np.ndarray, list[str]]:
    """Class numbers from 0, and the names of the classes."""
    names, y = np.unique(labels, return_inverse=True)
    if len(names) < 2:
        raise UserError(
            f"{title} has only one class, {files.abbreviate(str(names[0]))}: a classifier needs two or more"
        )
    return y.astype(np.int64), [str(name) for name in names]


def _from_table(table: tables.Table, settings: Settings) -> Unsplit:
    """Take the target and the features of a table; rows without a target are left out."""
    frame, source, name = table.frame, table.source, settings["target"]
    table.check_column(name, "target")
    if f"{name}.1" in frame.columns:  # the second of two
        raise UserError(f"target={name!r}: {source} has it twice, and one reveals the other: drop or rename one")
    leave_out = [part.strip() for part in (settings["drop"] or "").split(",") if part.strip()]
    for column in leave_out:
        table.check_column(column, "drop")
    if name in leave_out:
        raise UserError(f"drop={name}: it is the target; choose another column to predict, or to leave out")
    notes = list(table.notes)
    has_target = frame[name].notna()
    if not len(frame):
        raise UserError(f"{source} has a header and no rows: name data with rows")
    if not has_target.any():
        raise UserError(f"target={name!r} of {source} is missing in all rows: choose another target")
    if not has_target.all():
        frame = frame[has_target].reset_index(drop=True)
        notes.append(
            f"{(~has_target).sum():,} of {count(len(has_target), 'row')} left out, since {name} is missing in them"
        )
    if len(frame.columns) == 1:
        raise UserError(f"{source} has only the column {name!r}: features are needed next to the target")
    target = targets.read(frame[name], settings["task"], source)
    features = columns.sort(frame.drop(columns=[name]), source, leave_out)
    notes += [*preparation.sentences(features), target.note]
    if not target.classes:
        notes.append("networks learn it standardised by the training part; test scores are in its own units")
    return Unsplit(features.values, target.y, target.classes, None, source, features, notes=notes)
