"""Descent: the path of a training over its exact cost surface, or on the plane of the path through weight space."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.diagnosis.own_regression import line_path, surface_of
from mlflow_hp.analysis.surfaces.plane import principal_plane, project
from mlflow_hp.errors import UserError
from mlflow_hp.history.weight_snapshots import from_history
from mlflow_hp.plots.surface import surface_info
from mlflow_hp.run_page.numbers import moving_mean, rounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.analysis.surfaces.linear_regression import LinearRegressionSurface
    from mlflow_hp.history import TrainingHistory
    from mlflow_hp.history.weight_snapshots import Snapshots

MAX_POINTS = 10_000
"""Points of a path."""
MAX_SNAPSHOTS = 300
"""Snapshots that a plane is computed from, which takes a second for some 100,000 weights."""
BUDGET = 64 * 2**20
"""Bytes of the weights that are taken from a history with all of them."""
GRID_STEP = 2
"""Every second point of the grid is sent along each axis: 101 by 101."""
SMOOTH = 20
"""Batches that the height of a path is averaged over, where the loss of the batch is all that is known."""
DIGITS = 12
"""Digits to which surfaces agree that are one: on another machine, moments of the same data differ in the last bits."""

Path = tuple[np.ndarray, np.ndarray]


def descent(
    histories: Mapping[str, TrainingHistory], snapshots: Mapping[str, Snapshots | None] | None = None
) -> dict[str, Any] | None:
    """Compute what is drawn of the descents of one or more trainings.

    For linear regressions, that is the exact surface of the first, with the paths of all on the same one. For other
    models whose weights were recorded, the plane of most variance of the path; its height is the loss of the batches.

    Parameters
    ----------
    histories : mapping of str to TrainingHistory
        Recorded trainings by run id, the first of which has its surface drawn.
    snapshots : mapping of str to Snapshots or None, optional
        Weights of these trainings at some steps, as far as they were kept. Defaults to none.

    Returns
    -------
    dict of str to object, or None
        For strict JSON: ``kind`` ("surface" or "plane"), ``labels`` of the axes, ``words``; for a surface ``x``, ``y``,
        ``z`` (log10 of the height above the minimum), ``minimum`` and ``best``; ``paths``, each with ``run``,
        ``steps`` (the number of steps done), ``x``, ``y`` and ``z``. None if no weights were recorded that show it.

    Examples
    --------
    >>> from mlflow_hp import TrainingHistory
    >>> from mlflow_hp.run_page.descent import descent
    >>> history = TrainingHistory.from_arrays(
    ...     {"batch_loss": [4.0, 2.0]}, weights={"dense/kernel": [[[0.0], [0.0]], [[0.5], [1.0]], [[0.8], [1.5]]]}
    ... )
    >>> descent({"0f3a": history})["kind"]
    'plane'
    """
    surfaces = {run: surface for run, each in histories.items() if (surface := surface_of(each)) is not None}
    first = next(iter(histories), None)
    if first in surfaces:
        return _on_surface(histories, surfaces, surfaces[first])
    return _on_plane(histories, snapshots or {})


def shared_with(history: TrainingHistory, *, has_snapshots: bool) -> tuple[Any, ...] | None:
    """Compute what trainings have in common that are drawn together; of the file, only the header is read.

    Parameters
    ----------
    history : TrainingHistory
        Recorded training.
    has_snapshots : bool
        Whether its weights were kept at some steps.

    Returns
    -------
    tuple, or None
        The cost surface of a linear regression, or the shapes of a network's trainable tensors; None if there is no
        descent to draw.
    """
    surface = surface_of(history)
    if surface is not None:
        return ("surface", *_identity(surface))
    shapes = tuple(tensor.shape for tensor in history.tensors if tensor.trainable)
    has_path = has_snapshots or (history.recorded == "values" and history.n_steps > 0)
    return ("plane", shapes) if has_path and sum(math.prod(shape) for shape in shapes) > 1 else None


def _on_surface(
    histories: Mapping[str, TrainingHistory],
    surfaces: Mapping[str, LinearRegressionSurface],
    surface: LinearRegressionSurface,
) -> dict[str, Any]:
    """Draw the paths of the linear regressions that have one surface."""
    identity = _identity(surface)
    paths = {run: line_path(histories[run]) for run, each in surfaces.items() if _identity(each) == identity}
    info = surface_info(surface, paths)
    lowest = info.minimum[2]
    floor = info.levels[0] - lowest

    def height(cost: np.ndarray) -> np.ndarray:
        return np.log10(np.maximum(cost - lowest, floor))

    every = slice(None, None, GRID_STEP)
    drawn = []
    for run, (all_w, all_b) in paths.items():
        index = _thinned(info.paths[run].steps)
        w, b = all_w[index], all_b[index]
        inside = np.isfinite(w) & np.isfinite(b)
        w, b, index = w[inside], b[inside], index[inside]
        z = rounded(height(surface.cost(w, b)), 5)
        drawn.append({"run": run, "steps": index.tolist(), "x": rounded(w), "y": rounded(b), "z": z})
    n_left = len(surfaces) - len(paths)
    words = f"The exact cost surface of the training data, with {_count(len(paths), 'descent')}."
    if n_left:
        words += f" {_count(n_left, 'run')} with other data {'is' if n_left == 1 else 'are'} not on it."
    return {
        "kind": "surface",
        "labels": list(info.labels),
        "height": "log10 of the cost above its minimum",
        "words": words,
        "x": rounded(info.w[every]),
        "y": rounded(info.b[every]),
        "z": [rounded(row, 5) for row in height(info.cost[every, every])],
        "minimum": rounded(info.minimum),
        "best": f"{info.best} = {lowest:.4g}",
        "paths": drawn,
    }


def _thinned(chosen: np.ndarray) -> np.ndarray:
    """Indices of the points of a path that are sent: all, or those that a picture of it keeps."""
    if len(chosen) == 0:
        return np.zeros(0, int)
    end = int(chosen[-1]) + 1
    return np.arange(end) if end <= MAX_POINTS else np.asarray(chosen)


def _identity(surface: LinearRegressionSurface) -> tuple[float, ...]:
    best = surface.minimum
    moments = surface.hessian[0]
    return tuple(float(f"{value:.{DIGITS}g}") for value in (*best, *moments))


def _on_plane(
    histories: Mapping[str, TrainingHistory], snapshots: Mapping[str, Snapshots | None]
) -> dict[str, Any] | None:
    """Draw the paths on the plane of most variance; of runs of another architecture than the first, nothing."""
    kept = {run: _weights(history, snapshots.get(run)) for run, history in histories.items()}
    of_first = next(iter(kept.values()), None)
    shapes = None if of_first is None else _shapes(of_first)
    runs = {run: each for run, each in kept.items() if each is not None and shapes and _shapes(each) == shapes}
    if not runs:
        return None
    try:
        plane = principal_plane(list(runs.values()))
    except UserError:
        return None
    drawn = []
    for run, each in runs.items():
        a, b = project(plane, each).T
        inside = np.isfinite(a) & np.isfinite(b)
        z = _loss_after(histories[run], each.steps[inside])
        steps = each.steps[inside].tolist()
        drawn.append({"run": run, "steps": steps, "x": rounded(a[inside]), "y": rounded(b[inside]), "z": z})
    shares = plane.variance_shares or (math.nan, math.nan)
    words = (
        f"The path through weight space, on the plane of most variance ({shares[0] + shares[1]:.0%} of it); its height "
        f"is the mean loss of the {SMOOTH} batches around each step."
    )
    if shares[0] + shares[1] < 0.5:
        words += " Most of the path leaves this plane."
    return {
        "kind": "plane",
        "labels": [f"direction {i + 1} ({share:.0%} of the variance)" for i, share in enumerate(shares)],
        "height": "log10 of the loss",
        "words": words,
        "paths": drawn,
    }


def _weights(history: TrainingHistory, kept: Snapshots | None) -> Snapshots | None:
    """Snapshots of a training, at most ``MAX_SNAPSHOTS``; of one with all weights, taken from them."""
    if kept is None and history.recorded == "values" and history.n_steps:
        kept = from_history(history, BUDGET)
    if kept is None or not len(kept.steps):
        return None
    index = np.unique(np.linspace(0, len(kept.steps) - 1, MAX_SNAPSHOTS).astype(int))
    tensors = {name: values[index] for name, values in kept.tensors.items()}
    return kept._replace(steps=np.asarray(kept.steps)[index], tensors=tensors)


def _shapes(snapshots: Snapshots) -> list[tuple[int, ...]]:
    return [values.shape[1:] for values in snapshots.tensors.values()]


def _loss_after(history: TrainingHistory, steps: np.ndarray) -> list[float | None]:
    """Logarithm of the loss around each of some numbers of steps done."""
    name = next((each for each in ("batch_loss", "running_loss") if each in history.columns), None)
    if name is None:
        return [None] * len(steps)
    loss = history.read_steps([name])[name]
    mean = moving_mean(loss, SMOOTH, np.clip(steps, 0, max(len(loss) - 1, 0)))
    with np.errstate(invalid="ignore", divide="ignore"):
        return rounded(np.log10(mean), 5)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"
