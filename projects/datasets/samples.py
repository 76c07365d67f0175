"""Data for networks: images or tables with classes or numbers to predict, split for training, validation and test."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.model_selection import train_test_split

from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count
from mlflow_hp.tracking import artifact_paths, runs, tags
from projects import arguments
from projects.arguments import Parameter
from projects.datasets import files, preparation, tables, targets, unsplit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.training import Report
    from projects.arguments import Settings
    from projects.datasets.unsplit import Unsplit

PARAMETERS = [
    Parameter("data", "digits", str,
              "digits (8x8, in scikit-learn), mnist, fashion_mnist, or path or URL of an .npz like mnist.npz or a CSV",
              several=False),
    Parameter("target", "target", str, "of a CSV: the column to predict; the others are the features", several=False),
    targets.TASK,
    tables.HEADER,
    Parameter("drop", "none", arguments.optional(str), "of a CSV: columns to leave out, comma-separated",
              several=False),
    Parameter("max_samples", "none", arguments.optional(arguments.whole(10)), "use so many samples, for a quick look",
              several=False),
    Parameter("test_size", "0.2", arguments.number(0, 1, open_low=True, open_high=True),
              "share kept for testing, where the data have no test part of their own", several=False),
    Parameter("validation_size", "0.2", arguments.number(0, 1, open_low=True, open_high=True),
              "share of the rest that validates", several=False),
]  # fmt: skip


class Samples(NamedTuple):
    """Samples to train, validate and test on.

    Attributes
    ----------
    x_train, x_validation, x_test : ndarray of float32, shape (n, n_features)
        Pixels scaled to 0..1, flattened; a table's features prepared by the training part, see
        `preparation.Preparation`.
    y_train, y_validation, y_test : ndarray of shape (n,)
        int64 class numbers, from 0, or float32 values, standardised by the training part: see `in_units`.
    classes : list of str
        Names of the classes; empty if numbers are predicted.
    image_shape : tuple of int or None
        Height and width (and channels) of the picture in each row; None for a table.
    features : list of str
        Names of a table's features; empty for pictures.
    source, digest, split_digest : str
        Name, path or address of the data; shortened SHA-256 of the values, and of the row numbers in each part.
    notes : sequence of str
        What was decided about a table, in sentences. Defaults to none.
    prepared : dict or None
        Preparation of a table, for JSON. Defaults to None.
    target_scale : tuple of float
        Mean and standard deviation of the training part's target, if numbers are predicted. Defaults to 0 and 1.
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
    notes: Sequence[str] = ()
    prepared: dict[str, Any] | None = None
    target_scale: tuple[float, float] = (0.0, 1.0)

    def in_units(self, y: np.ndarray) -> np.ndarray:
        """Convert numbers to predict, or predictions of them, to the target's own units: float64 of the same shape."""
        mean, deviation = self.target_scale
        units: np.ndarray = y.astype(np.float64) * deviation + mean
        return units

    @property
    def counts(self) -> dict[str, int]:
        """Samples of each class in all three parts."""
        y = np.concatenate([self.y_train, self.y_validation, self.y_test])
        return {name: int(np.count_nonzero(y == index)) for index, name in enumerate(self.classes)}

    @property
    def sizes(self) -> str:
        """Sentence on the number of samples in each part."""
        sizes = [f"{count(len(self.x_train), 'sample')} to train on", f"{len(self.x_validation):,} to validate"]
        return ", ".join([*sizes, f"{len(self.x_test):,} to test"])


def load(settings: Settings) -> Samples:
    """Load the samples that `settings` name: those of ``PARAMETERS``, and the seed.

    Parts are drawn with `seed`, stratified by class if each has enough samples. A part is
    ``ceil(share * n)`` samples.

    Raises
    ------
    UserError
        If the data cannot be read or trained on.
    """
    raw = unsplit.read(settings)
    y, seed = raw.y, settings["seed"]
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
            number = "; if these are numbers to predict, give task=regression" if raw.columns and name.isdigit() else ""
            raise UserError(
                f"{raw.source}: no sample of class {files.abbreviate(name)} is left to train on: "
                f"{'raise max_samples, ' if settings['max_samples'] else ''}lower test_size or validation_size, "
                f"or bring data with more samples of each class{number}"
            )
    prepared = None if raw.columns is None else preparation.Preparation(raw.columns, train, raw.source)
    scale = (0.0, 1.0) if raw.classes else targets.scale(y[train])
    labels = y if raw.classes else ((y - scale[0]) / scale[1]).astype(np.float32)
    parts: dict[str, Any] = {
        f"{array}_{part}": values
        for part, rows in (("train", train), ("validation", validation), ("test", test))
        for array, values in (
            ("x", _pixels_of(raw, rows) if prepared is None else prepared.transform(rows)),
            ("y", labels[rows]),
        )
    }
    loaded = Samples(
        **parts,
        classes=raw.classes,
        image_shape=raw.image_shape,
        features=[] if prepared is None else prepared.features,
        source=raw.source,
        digest=files.digest_of(*raw.x, y),
        split_digest=files.digest_of(train, validation, test),
        notes=raw.notes,
        target_scale=scale,
    )
    if prepared is None or not unsplit.is_table(settings["data"]):
        return loaded
    target = {"classes": raw.classes} if raw.classes else {"mean": scale[0], "standard_deviation": scale[1]}
    described = {"notes": list(raw.notes), "target": {"column": settings["target"], **target}}
    return loaded._replace(prepared=described | prepared.description())


def check(settings: Settings) -> list[str]:
    """Load the table that `settings` name, if it is one.

    Returns
    -------
    list of str
        What was decided about it, in sentences.

    Raises
    ------
    UserError
        If it cannot be trained on.
    """
    data = settings["data"]
    if not unsplit.is_table(data):
        unsplit.refuse_table_settings(settings)
        return []
    return tables.in_lines(data, load(settings).notes)


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
    if samples.prepared is not None:
        mlflow.log_dict(samples.prepared, artifact_paths.PREPARATION_FILE)


def picture(report: Report, samples: Samples) -> None:
    """Draw ten samples to train on."""
    from mlflow_hp.plots import classification as classes

    labels = (
        [samples.classes[i] for i in samples.y_train]
        if samples.classes
        else [f"{value:.4g}" for value in samples.in_units(samples.y_train)]
    )
    report.picture(
        "samples",
        classes.draw_samples(classes.samples_info(samples.x_train, labels, samples.image_shape, samples.features)),
    )


def _split(rows: np.ndarray, y: np.ndarray, share: float, raw: Unsplit, seed: int) -> tuple[np.ndarray, np.ndarray]:
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


def _pixels_of(raw: Unsplit, rows: np.ndarray) -> np.ndarray:
    """Flattened pictures of some rows, float32."""
    return raw.x[0][rows].reshape(len(rows), -1).astype(np.float32)
