"""File of a loss landscape: the loss on the grid and the paths, rounded, for the page of a run."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.analysis.surfaces.plane import Landscape

VERSION = 1
"""Version of the format."""
MAX_BYTES = 200_000
"""Bytes of a file that is written."""
MAX_GRID = 101
"""Points of the grid along each axis."""
MAX_POINTS = 2400
"""Points of all paths together."""
MAX_PATHS = 60
"""Paths; more are left out."""
MAX_LABEL = 200
"""Characters of a label."""
DIGITS = 5
"""Significant digits."""


class StoredPath(NamedTuple):
    """Path of a training on a plane.

    Attributes
    ----------
    label : str
        Its label in the picture.
    run_id : str
        Id of its run; empty if unknown.
    steps : ndarray of shape (n,)
        Number of steps done before each point.
    a, b : ndarray of shape (n,)
        Coordinates on the plane.
    """

    label: str
    run_id: str
    steps: np.ndarray
    a: np.ndarray
    b: np.ndarray


class StoredLandscape(NamedTuple):
    """Landscape as its file has it.

    Attributes
    ----------
    a, b : ndarray of shape (n,)
        Axes of the grid, evenly spaced.
    loss : ndarray of shape (len(b), len(a))
        Loss; NaN where it is not finite.
    paths : tuple of StoredPath
        Paths of the trainings.
    kind : str
        Kind of the plane: "principal" or "random".
    variance_shares : tuple of float, or None
        Shares of the paths' variance along the two directions of a principal plane.
    n_samples : int
        Rows of data that the loss is the mean of.
    """

    a: np.ndarray
    b: np.ndarray
    loss: np.ndarray
    paths: tuple[StoredPath, ...]
    kind: str
    variance_shares: tuple[float, float] | None
    n_samples: int


def to_json(landscape: Landscape, run_ids: Mapping[str, str]) -> str:
    """Write a landscape as JSON, in at most ``MAX_BYTES``: a finer grid and longer paths are thinned evenly.

    Parameters
    ----------
    landscape : Landscape
        From `mlflow_hp.training.landscape`.
    run_ids : mapping of str to str
        Label of a path -> id of its run, as far as known.

    Returns
    -------
    str
        The JSON.

    Examples
    --------
    >>> import numpy as np
    >>> from mlflow_hp.analysis.surfaces.landscape_file import from_json, to_json
    >>> from mlflow_hp.analysis.surfaces.plane import Landscape
    >>> axis, path, steps = np.array([0.0, 1.0]), np.zeros((3, 2)), np.arange(3)
    >>> plane = Landscape(axis, axis, np.eye(2), {"sgd": path}, {"sgd": steps}, "principal", (0.9, 0.1), "", 8, 4)
    >>> from_json(to_json(plane, {"sgd": "0f3a"})).paths[0].run_id
    '0f3a'
    """
    columns, rows = (slice(None, None, -(-len(axis) // MAX_GRID)) for axis in (landscape.a, landscape.b))
    chosen = dict(list(landscape.paths.items())[:MAX_PATHS])
    content = {
        "version": VERSION,
        "kind": landscape.kind,
        "variance_shares": landscape.variance_shares and _rounded(np.array(landscape.variance_shares)),
        "n_samples": landscape.n_samples,
        "a": _rounded(landscape.a[columns]),
        "b": _rounded(landscape.b[rows]),
        "loss": [_rounded(row) for row in landscape.loss[rows, columns]],
        "paths": [
            _path(label, run_ids.get(label, ""), path, landscape.steps[label], MAX_POINTS // max(1, len(chosen)))
            for label, path in chosen.items()
        ],
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _path(label: str, run_id: str, path: np.ndarray, steps: np.ndarray, limit: int) -> dict[str, Any]:
    index = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), limit)).astype(int))
    index = index[np.isfinite(path[index]).all(axis=1)]
    a, b = path[index].T
    return {
        "label": label[:MAX_LABEL],
        "run_id": run_id,
        "steps": steps[index].tolist(),
        "a": _rounded(a),
        "b": _rounded(b),
    }


def from_json(text: str) -> StoredLandscape | None:
    """Read what `to_json` wrote; None from another text, or one of a newer version.

    Parameters
    ----------
    text : str
        Content of a file.
    """
    try:
        read = json.loads(text)
        paths = tuple(_read_path(each) for each in read["paths"][:MAX_PATHS])
        shares = read["variance_shares"]
        landscape = StoredLandscape(
            np.array(read["a"], float),
            np.array(read["b"], float),
            np.array(read["loss"], float),
            paths,
            str(read["kind"]),
            None if shares is None else (float(shares[0]), float(shares[1])),
            int(read["n_samples"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, RecursionError):
        return None
    return landscape if read["version"] == VERSION and _is_sound(landscape) else None


def _read_path(read: Mapping[str, Any]) -> StoredPath:
    steps, a, b = np.array(read["steps"], np.int64), np.array(read["a"], float), np.array(read["b"], float)
    if steps.ndim != 1 or not len(steps) == len(a) == len(b) > 0 or not np.isfinite([a, b]).all():
        raise ValueError("a path needs finite points")
    if (np.diff(steps) <= 0).any() or steps[0] < 0:
        raise ValueError("its steps are not ascending")
    run_id = str(read["run_id"])
    if not re.fullmatch("[0-9a-zA-Z]{0,64}", run_id):
        raise ValueError("it names no run")
    return StoredPath(str(read["label"])[:MAX_LABEL], run_id, steps, a, b)


def _is_sound(landscape: StoredLandscape) -> bool:
    axes = landscape.a, landscape.b
    are_axes = all(axis.ndim == 1 and 2 <= len(axis) <= MAX_GRID and np.isfinite(axis).all() for axis in axes)
    if not are_axes or landscape.loss.shape != (len(landscape.b), len(landscape.a)):
        return False
    ascend = all((np.diff(axis) > 0).all() for axis in axes)
    return ascend and bool(np.isfinite(landscape.loss).any()) and bool(landscape.paths)


def _rounded(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in np.asarray(values, float)]
