"""What MLflow has of a training that goes on, in the form of the microscope: metrics by step and by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.run_page.events import jumps, not_finite
from mlflow_hp.run_page.microscope import Heatmap, curves_of, panel_of
from mlflow_hp.run_page.numbers import rounded
from mlflow_hp.tracking.tags import (
    BATCH_METRIC_PREFIX,
    BEST_METRIC_PREFIX,
    GRADIENTS_METRIC_PREFIX,
    SHARPNESS_METRIC,
    UNITS_METRIC_PREFIX,
    UPDATE_RATIO_METRICS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mlflow_hp.analysis.downsampling import Points

MAX_EPOCH_METRICS = 12
"""Metrics by epoch that are read."""
COLUMNS = 300
"""Columns of the heatmap of update ratios at most."""


def from_metrics(
    names: Iterable[str], read: Callable[[str], Points | None], steps_per_epoch: int | None = None
) -> dict[str, Any] | None:
    """Make what `microscope` makes from the metrics of a run.

    Parameters
    ----------
    names : iterable of str
        Names of the run's metrics.
    read : callable
        Returns the `Points` of a metric, perhaps thinned, or None.
    steps_per_epoch : int, optional
        Steps of an epoch, if known. Defaults to None: the epochs are spread evenly.

    Returns
    -------
    dict of str to object, or None
        As of `microscope`; the heatmap has the smallest, median and largest update ratio of the tensors. None if the
        run has no metric by step.
    """
    names = sorted(names)
    columns = {name: column for name in names if (column := _column(name)) is not None}
    series = {column: points for name, column in columns.items() if (points := read(name)) is not None}
    epochs = {name: points for name in _by_epoch(names)[:MAX_EPOCH_METRICS] if (points := read(name)) is not None}
    if not series and not any(name.startswith("val_") or f"val_{name}" in epochs for name in epochs):
        return None  # metrics of another kind of run
    lengths = [int(points.steps[-1]) + 1 for points in series.values() if len(points.steps)]
    n_epochs = max((int(points.steps[-1]) + 1 for points in epochs.values() if len(points.steps)), default=0)
    n_steps = max(lengths, default=n_epochs)
    size = steps_per_epoch or (n_steps / n_epochs if n_epochs else 1)
    ends = [min(n_steps - 1, round((epoch + 1) * size) - 1) for epoch in range(n_epochs)]
    order = sorted(series, key=lambda column: (column != "batch_loss", column))
    loss = next((series[name] for name in ("batch_loss", "running_loss") if name in series), None)
    broken = [each for name in order for each in not_finite({name: series[name].values}, series[name].steps, {})]
    ratios = {name: points for name in UPDATE_RATIO_METRICS if name in names and (points := read(name)) is not None}
    units = _unit_heatmaps(names, read, ends)
    return {
        "n_steps": n_steps,
        "start": 0,
        "stop": n_steps,
        "curves": [curve for name in order for curve in curves_of(name, series[name].steps, series[name].values)],
        "epochs": {"steps": ends, "values": {name: _dense(points, n_epochs) for name, points in epochs.items()}},
        "heatmaps": [each._asdict() for each in (*_ratio_heatmap(ratios, n_steps), *units)],
        "jumps": [] if loss is None else jumps(loss.values, loss.steps, {}),
        "not_finite": sorted(broken, key=lambda each: each["step"]),
        "note": _note(has_steps=bool(series), has_ratios=bool(ratios)),
    }


def _note(*, has_steps: bool, has_ratios: bool) -> str | None:
    if not has_steps:
        return "This run has metrics by epoch only: a step here is an epoch."
    if has_ratios:
        return (
            "The heatmap has the smallest, median and largest update ratio of the layers; each layer's own come from a "
            "training's history, from its first ten seconds on."
        )
    return None


def _column(metric: str) -> str | None:
    """Column of a history whose values are a metric of steps; None for other metrics."""
    if metric == SHARPNESS_METRIC:
        return metric
    for prefix, kind in ((BATCH_METRIC_PREFIX, ""), (GRADIENTS_METRIC_PREFIX, "gradient_")):
        if metric.startswith(prefix):
            name = metric.removeprefix(prefix)
            is_own = bool(kind) or name.startswith(("running_", "learning_rate"))
            column = f"{kind}{name}" if is_own else f"batch_{name}"
            return column if panel_of(column) is not None else None
    return None


def _by_epoch(names: list[str]) -> list[str]:
    """Metrics of Keras by epoch: those without a prefix, losses first."""
    plain = [name for name in names if "/" not in name and name != SHARPNESS_METRIC and panel_of(name) is None]
    known = [name for name in plain if name == "loss" or name.startswith("val_") or f"val_{name}" in plain]
    return sorted(known or [name for name in plain if not name.startswith(BEST_METRIC_PREFIX)],
                  key=lambda name: (not name.endswith("loss"), name))  # fmt: skip


def _dense(points: Points, n: int) -> list[float | None]:
    values = np.full(n, np.nan)
    values[np.clip(points.steps.astype(int), 0, max(n - 1, 0))] = points.values
    return rounded(values)


def _ratio_heatmap(ratios: dict[str, Points], n_steps: int) -> list[Heatmap]:
    if not ratios or not n_steps:
        return []
    edges = np.unique(np.linspace(0, n_steps, min(COLUMNS, n_steps) + 1).astype(int))
    rows, broken = [], []
    for number, points in enumerate(ratios.values()):
        row = np.full(len(edges) - 1, np.nan)
        column = np.clip(np.searchsorted(edges, points.steps, side="right") - 1, 0, len(row) - 1)
        is_finite = np.isfinite(points.values)
        np.fmax.at(row, column[is_finite], points.values[is_finite])
        broken += [(number, int(each)) for each in np.unique(column[~is_finite])]
        rows.append(rounded(row, 3))
    labels = [f"{name.rpartition('/')[2]} of the layers" for name in ratios]
    return [Heatmap("update_ratio", "update ratio", labels, edges.tolist(), rows, broken, log=True)]


def _unit_heatmaps(names: list[str], read: Callable[[str], Points | None], ends: list[int]) -> list[Heatmap]:
    wanted = {
        name: points for name in names if name.startswith(UNITS_METRIC_PREFIX) and (points := read(name)) is not None
    }
    if not wanted or not ends:
        return []
    edges = [0, *(end + 1 for end in ends)]
    labels = [name.removeprefix(UNITS_METRIC_PREFIX) for name in wanted]
    return [Heatmap("units", "dead or saturated, share", labels, edges,
                    [_dense(points, len(ends)) for points in wanted.values()], [], log=False)]  # fmt: skip
