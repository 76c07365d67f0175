"""Metric points of recorded steps and epochs, in the form that MLflow gets them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.history import STATISTICS, statistics_of
from mlflow_hp.history.step_record import FEW_WEIGHTS, distinct_names, n_weights
from mlflow_hp.tracking.names import distinct_metric_names, metric_name
from mlflow_hp.tracking.tags import (
    BATCH_METRIC_PREFIX,
    EPOCH_METRIC_PREFIX,
    WEIGHTS_METRIC_PREFIX,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.history.step_record import Layout, Rows

STEP_METRIC_PREFIXES = (BATCH_METRIC_PREFIX, WEIGHTS_METRIC_PREFIX)
"""Prefixes of the metrics of steps; a metric of an epoch with one of them in Keras gets the prefix ``epoch/``."""

Points = list[tuple[str, float, int, int]]
"""Metric points: name, value, time in milliseconds since the epoch, and step (0-based)."""


class StepPoints:
    """Converts rows to metric points, in the order of their steps.

    Parameters
    ----------
    layout : Layout
        Layout of the rows.
    every : int
        Interval of the steps that become points: 0, n, 2n, ...

    Attributes
    ----------
    shift : int
        Offset that is added to each step.
    """

    def __init__(self, layout: Layout, every: int) -> None:
        self._names = _metric_names(layout)
        self._every = every
        self.shift = 0
        self._tensors = layout.tensors if layout.store != "none" else ()
        self._by_statistics = layout.store == "values" and n_weights(layout.tensors) > FEW_WEIGHTS
        self._previous: Mapping[str, np.ndarray] = layout.initial

    def count(self, rows: Rows) -> int:
        """Number of points of `rows`; it may be a few less, as a tensor of zeros has no update ratio."""
        return int(np.count_nonzero(rows.columns["step"] % self._every == 0)) * len(self._names)

    def convert(self, rows: Rows) -> Points:
        """Convert the next `rows` to points, in the order of their steps."""
        columns = rows.columns
        series = dict(columns)
        weights = self._statistics(rows.weights) if self._by_statistics else rows.weights
        for tensor in self._tensors:
            flat = weights[tensor.name].reshape(len(columns["step"]), -1)
            series |= {f"{tensor.name}\n{i}": flat[:, i] for i in range(flat.shape[1])}
        chosen = np.flatnonzero(columns["step"] % self._every == 0)
        steps = (columns["step"][chosen] + self.shift).tolist()
        times = (columns["time"][chosen] * 1000).astype(np.int64).tolist()
        values = [(self._names[name], series[name][chosen].astype(float).tolist()) for name in self._names]
        return [
            (name, numbers[i], at, step)
            for i, (at, step) in enumerate(zip(times, steps, strict=True))
            for name, numbers in values
            if not (name.endswith("/update_ratio") and not math.isfinite(numbers[i]))  # of a tensor of zeros
        ]

    def _statistics(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Statistics (k, 4) of each tensor's values (k, *shape)."""
        statistics = {
            name: statistics_of(np.concatenate([self._previous[name][None], values]))[1:]
            for name, values in weights.items()
        }
        self._previous = {name: values[-1].copy() for name, values in weights.items()}
        return statistics


def epoch_points(row: Mapping[str, float], milliseconds: int, shift: int = 0) -> Points:
    """Convert an epoch's values: ``epoch`` (0-based; MLflow gets it plus `shift`), Keras' logs, ``seconds``."""
    values = {k: v for k, v in row.items() if k not in ("epoch", "seconds")}
    prefixed = [f"{EPOCH_METRIC_PREFIX}{k}" if metric_name(k).startswith(STEP_METRIC_PREFIXES) else k for k in values]
    distinct = distinct_names(prefixed)
    metric_names = distinct_metric_names(distinct)
    step = int(row["epoch"]) + shift
    return [
        (metric_names[name], float(value), milliseconds, step)
        for name, value in zip(distinct, values.values(), strict=True)
    ]


_COUNTS = ("step", "epoch", "batch", "time", "samples")
"""Columns that are no metrics."""


def _metric_of(column: str) -> str:
    """Metric of a column: ``batch/loss`` of ``batch_loss``, ``batch/running_loss`` of ``running_loss``."""
    return f"{BATCH_METRIC_PREFIX}{column.removeprefix('batch_')}"


def _metric_names(layout: Layout) -> dict[str, str]:
    r"""Map each series of a chunk (a step column, or ``tensor\nindex``) to its metric name in MLflow."""
    names = {column: _metric_of(column) for column in layout.columns if column not in _COUNTS}
    by_weight = layout.store == "values" and n_weights(layout.tensors) <= FEW_WEIGHTS
    for tensor in layout.tensors if layout.store != "none" else ():
        size = int(np.prod(tensor.shape))
        endings = [f"/{i}" for i in range(size)] if by_weight else [f"/{name}" for name in STATISTICS]
        if by_weight and size == 1:
            endings = [""]
        prefix = f"{WEIGHTS_METRIC_PREFIX}{tensor.name}"
        names |= {f"{tensor.name}\n{i}": f"{prefix}{ending}" for i, ending in enumerate(endings)}
    distinct = dict(zip(names, distinct_names(names.values()), strict=True))
    metric_names = distinct_metric_names(distinct.values())
    return {series: metric_names[name] for series, name in distinct.items()}
