"""Data for networks: images or tables with classes or numbers to predict, split for training, validation and test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import train_test_split

from mlflow_hp.errors import UserError
from mlflow_hp.tracking import masked, runs, tags
from projects import arguments
from projects.arguments import Parameter
from projects.datasets import files

if TYPE_CHECKING:
    from mlflow_hp.training import Report
    from projects.arguments import Settings

PARAMETERS = [
    Parameter("data", "digits", str,
              "digits (8x8, in scikit-learn), mnist, fashion_mnist, or path or URL of an .npz like mnist.npz or a CSV",
              several=False),
    Parameter("target", "target", str, "of a CSV: the column to predict; the others are the features", several=False),
    Parameter("max_samples", "none", arguments.optional(arguments.whole(10)), "use so many samples, for a quick look",
              several=False),
    Parameter("test_size", "0.2", arguments.number(0, 1, open_low=True, open_high=True),
              "share kept for testing, where the data have no test part of their own", several=False),
    Parameter("validation_size", "0.2", arguments.number(0, 1, open_low=True, open_high=True),
              "share of the rest that validates", several=False),
]  # fmt: skip
MAX_CLASSES = 100
"""Most distinct whole numbers in a CSV's target that count as classes, not as numbers to predict."""
MIN_CLASS_MEAN = 5
"""Least mean number of samples per class for the same; a mean, so that one rare class does not decide."""
PARTS = ("x_train", "y_train", "x_test", "y_test")
"""Arrays in an .npz file."""


class Samples(NamedTuple):
    """Samples to train, validate and test on.

    Attributes
    ----------
    x_train, x_validation, x_test : ndarray of float32, shape (n, n_features)
        Pixels scaled to 0..1, flattened; a table's features standardised by the training part.
    y_train, y_validation, y_test : ndarray of shape (n,)
        int64 class numbers, from 0, or float32 values.
    classes : list of str
        Names of the classes; empty if numbers are predicted.
    image_shape : tuple of int or None
        Height and width (and channels) of the picture in each row; None for a table.
    features : list of str
        Names of a table's features; empty for pictures.
    source, digest, split_digest : str
        Name, path or address of the data; shortened SHA-256 of the values, and of the row numbers in each part.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_validation: np.ndarray
    y_validation: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: list[str]
    image_shape: tuple[int, ...] | None
    features: list[str]
    source: str
    digest: str
    split_digest: str

    @property
    def counts(self) -> dict[str, int]:
        """Samples of each class in all three parts."""
        y = np.concatenate([self.y_train, self.y_validation, self.y_test])
        return {name: int(np.count_nonzero(y == index)) for index, name in enumerate(self.classes)}

    @property
    def sizes(self) -> str:
        """Sentence on the number of samples in each part."""
        return (
            f"{len(self.x_train)} samples to train on, {len(self.x_validation)} to validate, {len(self.x_test)} to test"
        )


class _Raw(NamedTuple):
    """Samples before the split; if the data have a test part, it follows the first `n_train` samples."""

    x: np.ndarray
    y: np.ndarray
    classes: list[str]
    image_shape: tuple[int, ...] | None
    features: list[str]
    source: str
    n_train: int | None = None


def load(settings: Settings) -> Samples:
    """Load the samples that `settings` name: data, target, max_samples, test_size, validation_size, seed.

    Parts are drawn with `seed`, stratified by class if each has enough samples. A part is
    ``ceil(share * n)`` samples.

    Raises
    ------
    UserError
        If the data cannot be read or trained on.
    """
    raw = _raw(settings["data"], settings["target"])
    x, y, seed = raw.x, raw.y, settings["seed"]
    if raw.n_train is None:
        rest, test = _split(np.arange(len(y)), y, settings["test_size"], raw, seed)
    else:
        rest, test = np.arange(raw.n_train), np.arange(raw.n_train, len(y))
    if settings["max_samples"] is not None and settings["max_samples"] < len(y):
        share = settings["max_samples"] / len(y)
        rest, test = (_split(part, y, 1 - share, raw, seed)[0] for part in (rest, test))
    train, validation = _split(rest, y, settings["validation_size"], raw, seed)
    if raw.classes:
        missing = sorted(set(np.unique(y)) - set(np.unique(y[train])))
        if missing:
            name = raw.classes[missing[0]]
            number = "; if these are numbers to predict, write them as 1.0" if raw.features and name.isdigit() else ""
            raise UserError(
                f"{raw.source}: no sample of class {files.abbreviate(name)} is left to train on: "
                f"{'raise max_samples, ' if settings['max_samples'] else ''}lower test_size or validation_size, "
                f"or bring data with more samples of each class{number}"
            )
    parts = {
        f"{array}_{part}": values
        for part, rows in (("train", train), ("validation", validation), ("test", test))
        for array, values in (("x", _scaled(x, rows, train, raw)), ("y", y[rows]))
    }
    return Samples(
        **parts,
        classes=raw.classes,
        image_shape=raw.image_shape,
        features=raw.features,
        source=raw.source,
        digest=files.digest_of(x, y),
        split_digest=files.digest_of(train, validation, test),
    )


def log_input(samples: Samples, data: str) -> None:
    """Log the part to train on to the active run: its digest, shapes, source and class counts."""
    import mlflow

    files.log_input(samples.x_train, samples.y_train, data, is_file=data != "digits" and data not in files.KERAS_FILES)
    parts = {"train": samples.x_train, "validation": samples.x_validation, "test": samples.x_test}
    counts = {f"{tags.DATA_PARAM_PREFIX}n_{name}": len(part) for name, part in parts.items()}
    counts[f"{tags.DATA_PARAM_PREFIX}n_features"] = samples.x_train.shape[1]
    runs.log_once(mlflow.active_run(), counts)
    if samples.classes:
        mlflow.log_dict(samples.counts, "class_counts.json")


def picture(report: Report, samples: Samples) -> None:
    """Draw ten samples to train on."""
    from mlflow_hp.plots import classification as classes

    labels = (
        [samples.classes[i] for i in samples.y_train]
        if samples.classes
        else [f"{value:.4g}" for value in samples.y_train]
    )
    report.picture(
        "samples",
        classes.draw_samples(classes.samples_info(samples.x_train, labels, samples.image_shape, samples.features)),
    )


def _raw(data: str, target: str) -> _Raw:
    if data == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        names = [str(name) for name in digits.target_names]
        return _Raw(digits.images / 16.0, digits.target.astype(np.int64), names, (8, 8), [], "scikit-learn's digits")
    if data in files.KERAS_FILES:
        return _images(data, *files.from_keras(data))
    if files.path_of(data).lower().endswith(".npz"):
        return _images(masked(data), *files.read_arrays(data, PARTS))
    return _from_table(files.read_table(data), target, masked(data))


def _images(source: str, x_train: np.ndarray, y_train: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> _Raw:
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
    features = [] if shape else [f"x{index}" for index in range(x.shape[1])]
    return _Raw(
        _pixels(x, source) if shape else x, *_classes(y, f"y of {source}"), shape, features, source, len(x_train)
    )


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


def _from_table(table: pd.DataFrame, target: str, source: str) -> _Raw:
    """Read the target as classes if it is text, true or false, or few whole numbers; else as numbers to predict."""
    if target not in table.columns:
        columns = files.list_names(table.columns)
        raise UserError(f"target={target!r}: {source} has the columns {columns}; choose one of them")
    column, title = table[target], f"target={target!r} of {source}"
    if f"{target}.1" in table.columns:  # pandas' name for the second of two
        raise UserError(f"target={target!r}: {source} has it twice, and one reveals the other: drop or rename one")
    features = [name for name in table.columns if name != target and not _is_row_index(table[name])]
    if not features:
        raise UserError(f"{source} has only the column {target!r}: features are needed next to the target")
    x = np.column_stack([files.numbers(table[name], source) for name in features])
    if column.isna().any():
        row = int(np.argmax(column.isna())) + 1
        raise UserError(f"{title} is missing in row {row}: fix or drop such rows, or choose another target")
    counts = column.value_counts()
    if len(counts) == 1:
        raise UserError(f"{title} is {str(counts.index[0])[:80]} in all rows: choose a target with two or more values")
    is_text = not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)
    has_many = len(counts) > MAX_CLASSES
    if is_text and (counts.max() == 1 or (has_many and pd.to_numeric(column, errors="coerce").notna().mean() > 0.5)):
        is_text = False  # numbers, except for some rows, which `files.numbers` names
    if is_text or (pd.api.types.is_integer_dtype(column) and not has_many and counts.mean() >= MIN_CLASS_MEAN):
        labels = column.astype(str) if is_text else column
        return _Raw(x, *_classes(labels.to_numpy(), title), None, features, source)
    return _Raw(x, files.numbers(column, source).to_numpy(np.float32), [], None, features, source)


def _is_row_index(column: pd.Series) -> bool:
    """Whether a column is an index written by pandas: without a name, increasing by one."""
    is_unnamed = str(column.name).startswith("Unnamed: ") and pd.api.types.is_integer_dtype(column)
    return bool(is_unnamed and (np.diff(column) == 1).all())


def _split(rows: np.ndarray, y: np.ndarray, share: float, raw: _Raw, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split row numbers in two, ``ceil(share * n)`` in the second part."""
    n_second = math.ceil(share * len(rows))
    if len(rows) - n_second < 2 or n_second < 1:
        raise UserError(
            f"{raw.source} has {len(raw.y)} sample{'s' * (len(raw.y) != 1)}: too few for the requested shares; lower "
            "test_size or validation_size, raise max_samples, or bring more data"
        )
    smallest = np.unique(y[rows], return_counts=True)[1].min() if raw.classes else 0
    can_stratify = raw.classes and smallest > 1 and min(n_second, len(rows) - n_second) >= len(raw.classes)
    return tuple(
        train_test_split(rows, test_size=n_second, random_state=seed, stratify=y[rows] if can_stratify else None)
    )


def _scaled(x: np.ndarray, rows: np.ndarray, train: np.ndarray, raw: _Raw) -> np.ndarray:
    if raw.image_shape is not None:
        return x[rows].reshape(len(rows), -1).astype(np.float32)
    x_train = x[train].astype(np.float64)
    varies = np.ptp(x_train, axis=0) > 0
    deviation = np.where(varies, x_train.std(axis=0), 1.0)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        scaled = ((x[rows] - x_train.mean(axis=0)) / deviation).astype(np.float32)
    broken = np.flatnonzero(~np.isfinite(scaled).all(axis=0))
    if len(broken):
        raise UserError(
            f"column {files.abbreviate(raw.features[broken[0]])} of {raw.source} varies by too little for float32 "
            "among the samples to train on: scale or drop it"
        )
    return scaled
