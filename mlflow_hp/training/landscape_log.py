"""Loss landscape of recorded runs, computed and logged to them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_hp._notice import warn
from mlflow_hp.errors import UserError
from mlflow_hp.history import weight_snapshots
from mlflow_hp.history.load import existing_run, load_history, load_snapshots
from mlflow_hp.tracking.artifact_paths import LANDSCAPE_NAME, TRAINING_FOLDER
from mlflow_hp.training.loss_landscape import landscape
from mlflow_hp.training.report import Report
from mlflow_hp.training.run_weights import logged_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.analysis.surfaces.plane import Landscape
    from mlflow_hp.history import Snapshots

BUDGET = 64 * 2**20
"""Bytes of the weights that are taken from a history with all of them."""


def log_landscape(
    run_ids: str | Sequence[str],
    model: Any = None,
    x: Any = None,
    y: Any = None,
    *,
    resolution: int = 51,
    n_samples: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> Landscape:
    """Compute the loss around the path of a recorded run, or of several on one plane, and log it to each of them.

    The picture is ``plots/landscape.png``, and next to it are the numbers as JSON (at most 200 kB), which the page of
    the run draws as a surface. Of several runs, the name says so: the page of each draws it where they are compared.

    Parameters
    ----------
    run_ids : str or sequence of str
        Ids of runs of one architecture and the same data, recorded with ``snapshot_megabytes`` or ``weights="all"``.
    model : keras.Model, optional
        Compiled, of the runs' architecture; it is not modified. Defaults to the model that was logged to the first.
    x, y : array_like, or nested structures of them
        Inputs and targets, as for ``model.evaluate``. Needed; they default to None, as no run records its data.
    resolution : int
        Points along each axis of the grid. Defaults to 51.
    n_samples : int
        Number of rows, drawn by `seed`, that the loss is the mean of. Defaults to 2000.
    seed : int
        Seed for drawing the rows. Defaults to 0.
    progress : bool
        Whether to show a progress bar. Defaults to True.

    Returns
    -------
    Landscape
        Losses on the grid and the paths, as `landscape` returns.

    Raises
    ------
    UserError
        If a run does not exist or its weights were not kept, there is no model or no data, the model is not compiled,
        or its tensors are not those of the runs.

    Examples
    --------
    >>> import keras, mlflow, numpy as np
    >>> from mlflow_hp import TrainingRecorder
    >>> from mlflow_hp.training import log_landscape
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.arange(16.0).reshape(8, 2) / 16
    >>> with mlflow.start_run() as run:
    ...     recorder = TrainingRecorder(report=False, snapshot_megabytes=1)
    ...     _ = model.fit(x, x.sum(axis=1), batch_size=4, epochs=3, verbose=0, callbacks=[recorder])
    >>> _ = log_landscape(run.info.run_id, model, x, x.sum(axis=1), resolution=9, progress=False)
    >>> [file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id, "plots")]
    ['plots/landscape.json', 'plots/landscape.png']
    """
    ids = list(dict.fromkeys([run_ids] if isinstance(run_ids, str) else run_ids))
    if not ids:
        raise UserError("run_ids= is empty; give the id of a run, or of several")
    if x is None or y is None:
        raise UserError("no data: a run records no inputs and targets; give x= and y=, as for model.evaluate")
    labels = _labels(ids)
    paths = {label: _path(run_id) for label, run_id in labels.items()}
    model = model if model is not None else logged_model(ids[0], None)
    if model is None:
        raise UserError(
            f"run {ids[0]} has no logged model to compute the loss with; give model=, compiled and of its "
            "architecture, or record with autolog(log_models=True)"
        )
    plane = landscape(model, paths, x, y, resolution=resolution, n_samples=n_samples, seed=seed, progress=progress)
    for run_id in ids:
        try:
            with Report(run_id) as report:
                report.landscape(plane, labels, landscape_name(ids))
        except UserError as error:
            if len(ids) == 1:
                raise
            warn(f"the landscape could not be logged to run {run_id} ({error}); it is returned")
    return plane


def landscape_name(run_ids: Sequence[str]) -> str:
    """Return the name of the picture of a landscape: one for a run alone, and one for each set of several."""
    if len(run_ids) == 1:
        return LANDSCAPE_NAME
    digest = hashlib.sha256(",".join(sorted(run_ids)).encode()).hexdigest()[:8]
    return f"{LANDSCAPE_NAME}_of_{len(run_ids)}_runs_{digest}"


def _labels(run_ids: Sequence[str]) -> dict[str, str]:
    """Ids of runs by their names; runs of one name have their ids, too."""
    names = {run_id: existing_run(run_id).info.run_name or run_id for run_id in run_ids}
    several = [name for name in names.values() if list(names.values()).count(name) > 1]
    return {f"{name} ({run_id[:8]})" if name in several else name: run_id for run_id, name in names.items()}


def _path(run_id: str) -> Snapshots:
    """Weights of a run's first fit at some steps, from its snapshots or from its history."""
    try:
        return load_snapshots(run_id)
    except UserError:
        files = {file.path for file in mlflow.MlflowClient().list_artifacts(run_id, TRAINING_FOLDER)}
        history = load_history(run_id) if files else None
        if history is None or history.recorded != "values":
            raise
        return weight_snapshots.from_history(history, BUDGET)
