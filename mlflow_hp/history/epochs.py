"""The table of epochs: one line of CSV each, readable while training runs and after a kill."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def csv_lines(path: Path) -> list[list[str]]:
    """Read the whole lines of a CSV file; a last one without its end was cut off. No file: no lines."""
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return list(csv.reader(text[: text.rfind("\n") + 1].splitlines()))


def read_epochs(path: Path) -> dict[str, np.ndarray]:
    """The columns of the table at `path`, each (n_epochs,); empty where there is none. ValueError for other text."""
    head, *lines = csv_lines(path) or [[]]
    try:
        rows = [dict(zip(head, map(float, (text or "nan" for text in line)), strict=True)) for line in lines]
    except ValueError as error:
        raise ValueError(f"{path} has a line that is not a number under each name: {error}") from error
    return {name: epoch_column(name, [row[name] for row in rows]) for name in head}


def epoch_column(name: str, values: Any) -> np.ndarray:
    """A column as an array: whole numbers for "epoch", float64 for all else."""
    return np.asarray(values, np.float64).astype(np.int64 if name == "epoch" else np.float64)
