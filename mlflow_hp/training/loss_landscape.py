"""The loss of a Keras model on a plane through its weight space, with the paths of trainings on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from mlflow_hp.analysis.surfaces.grid import coarse_to_fine
from mlflow_hp.analysis.surfaces.plane import Landscape, principal_plane, project, random_plane, window
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count, is_live
from mlflow_hp.training.plane_losses import PlaneLosses, variables_of_plane
from mlflow_hp.training.stateless_loss import draw_rows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.history.weight_snapshots import Snapshots

MARGIN = 0.15
"""Margin on each side of the paths, as a share of their width."""

UNIT = np.array([[-1.0, -1.0], [1.0, 1.0]])
"""Corners of the smallest window of a random plane: each filter moved by its own norm."""

TOLERANCE = 0.02
"""Relative error of the loss allowed for interpolated points."""


def landscape(
    model: Any,
    snapshots: Mapping[str, Snapshots],
    x: Any,
    y: Any,
    *,
    kind: str = "principal",
    resolution: int = 51,
    n_samples: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> Landscape:
    """Compute the loss around the paths of one or several trainings of one architecture, on one plane.

    Parameters
    ----------
    model : keras.Model
        Compiled, of the snapshots' architecture; it is not modified. Its trainable weights do not matter; the others
        (such as the statistics of batch normalisation) are used as they are.
    snapshots : mapping of str to Snapshots
        Label -> path. The plane's origin is the end of the first.
    x, y : array_like, or nested structures of them
        Inputs and targets, as for ``model.evaluate``.
    kind : {"principal", "random"}
        The plane of most variance of the paths, or one along two random directions normalised by filter. The latter
        is shown from -1 to 1 at least, as in the paper; paths hardly move along random directions. Defaults to
        "principal".
    resolution : int
        Points along each axis of the grid. Defaults to 51.
    n_samples : int
        Number of rows, drawn by `seed`, that the loss is the mean of. Defaults to 2000.
    seed : int
        Seed for drawing the rows and for random directions. Defaults to 0.
    progress : bool
        Whether to show a progress bar. Defaults to True.

    Returns
    -------
    Landscape
        Losses on the grid and the paths, for `mlflow_hp.plots.landscape_info`.

    Raises
    ------
    UserError
        If the model is not compiled, its tensors are not those of the snapshots, or an argument is out of range.

    Examples
    --------
    >>> import keras, mlflow, numpy as np
    >>> from mlflow_hp import TrainingRecorder
    >>> from mlflow_hp.training import landscape
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.arange(16.0).reshape(8, 2) / 16
    >>> recorder = TrainingRecorder(report=False, snapshot_megabytes=1)
    >>> with mlflow.start_run():
    ...     _ = model.fit(x, x.sum(axis=1), batch_size=4, epochs=3, verbose=0, callbacks=[recorder])
    >>> landscape(model, {"sgd": recorder.snapshots}, x, x.sum(axis=1), resolution=5, progress=False).loss.shape
    (5, 5)
    """
    if kind not in ("principal", "random"):
        raise UserError(f"kind={kind!r} is unknown; choose 'principal' or 'random'")
    if resolution < 2:
        raise UserError(f"resolution={resolution} is no grid; give 2 points along each axis or more")
    runs = list(snapshots.values())
    if kind == "random" and runs:
        plane = random_plane({name: values[-1] for name, values in runs[0].tensors.items()}, seed)
    else:
        plane = principal_plane(runs)
    paths = {label: project(plane, run) for label, run in snapshots.items()}
    ranges = window(list(paths.values()), MARGIN)
    if kind == "random":
        ranges = window([*paths.values(), UNIT], 0.0)
    a, b = (np.linspace(low, high, resolution) for low, high in ranges)
    with tqdm(
        total=a.size * b.size, desc="loss landscape", unit=" points", leave=False, disable=not (progress and is_live())
    ) as bar:
        variables = variables_of_plane(model, plane)
        rows = draw_rows(x, y, n_samples=n_samples, batch_size=1024, seed=seed)
        losses = PlaneLosses(model, plane, variables, rows, progress=bar.update)
        loss, evaluated = coarse_to_fine(losses, a, b, TOLERANCE)
        bar.update(a.size * b.size - evaluated)
    steps = {label: run.steps for label, run in snapshots.items()}
    return Landscape(a, b, loss, paths, steps, kind, plane.variance_shares, _sampling(runs), rows.n, evaluated)


def _sampling(runs: list[Snapshots]) -> str:
    """Text of the steps that the paths show, such as "every 4th of 12,000 steps"."""
    every, steps = (
        [min(numbers), max(numbers)] for numbers in zip(*((run.every, run.n_steps) for run in runs), strict=True)
    )
    fewest, most = steps
    total = count(most, "step") if fewest == most else f"{fewest:,} to {count(most, 'step')}"
    ordinals = " to ".join(dict.fromkeys("1st" if n == 1 else f"{n:,}{_ending(n)}" for n in every))
    if every == [1, 1]:
        return "the only step" if most == 1 else f"all {total}"
    return f"every {ordinals} of {total}"


def _ending(n: int) -> str:
    """Ending of the ordinal of a power of two."""
    return "nd" if n % 10 == 2 and n % 100 != 12 else "th"
