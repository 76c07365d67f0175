"""The metric points that MLflow gets of recorded steps and epochs, from memory, from disk, and after a crash."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.history import STATISTICS, statistics_of
from mlflow_hp.history.step_record import FEW_WEIGHTS, distinct, n_weights
from mlflow_hp.tracking.names import distinct_metric_names, metric_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.history.step_record import Layout, Rows

OF_STEPS = ("batch/", "weights/")
"""Beginnings of the metrics of steps; one of an epoch that Keras calls so goes below ``epoch/``."""

Points = list[tuple[str, float, int, int]]
"""Metric points: name, value, time in milliseconds since the epoch, and step (0-based)."""


class StepPoints:
    """Makes metric points of rows, which are given to it in the order of their steps.

    Parameters
    ----------
    layout : Layout
        What the rows hold.
    every : int
        Points are made of the steps 0, n, 2n, ...

    Attributes
    ----------
    shift : int
        Added to each step in the points.
    """

    def __init__(self, layout: Layout, every: int) -> None:
        self._names = _metric_names(layout)
        self._every = every
        self.shift = 0
        self._tensors = layout.tensors if layout.store != "none" else ()
        self._by_statistics = layout.store == "values" and n_weights(layout.tensors) > FEW_WEIGHTS
        self._previous: Mapping[str, np.ndarray] = layout.initial

    def count(self, rows: Rows) -> int:
        """How many points there are of `rows`; a few less where a tensor was zero."""
        return int(np.count_nonzero(rows.columns["step"] % self._every == 0)) * len(self._names)

    def of(self, rows: Rows) -> Points:
        """The points of the next `rows`, in the order of their steps."""
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
            if not (name.endswith("/update_ratio") and not math.isfinite(numbers[i]))  # of a tensor that was zero
        ]

    def _statistics(self, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Statistics (k, 4) of each tensor's values (k, *shape)."""
        found = {
            name: statistics_of(np.concatenate([self._previous[name][None], values]))[1:]
            for name, values in weights.items()
        }
        self._previous = {name: values[-1].copy() for name, values in weights.items()}
        return found


def epoch_points(row: Mapping[str, float], milliseconds: int, shift: int = 0) -> Points:
    """The points of an epoch's values: ``epoch`` (0-based, and `shift` more in MLflow), Keras' logs, ``seconds``."""
    values = {k: v for k, v in row.items() if k not in ("epoch", "seconds")}
    apart = [f"epoch/{name}" if metric_name(name).startswith(OF_STEPS) else name for name in values]
    wanted = distinct(apart)
    names = distinct_metric_names(wanted)
    step = int(row["epoch"]) + shift
    return [
        (names[name], float(value), milliseconds, step) for name, value in zip(wanted, values.values(), strict=True)
    ]


def _metric_names(layout: Layout) -> dict[str, str]:
    r"""Series of a chunk (a step column, or ``tensor\nindex``) to the metric that MLflow gets of it."""
    wanted = {"batch_loss": "batch/loss", "learning_rate": "batch/learning_rate"}
    wanted |= {name: f"batch/{name}" for name in layout.columns if name.startswith("running_")}
    by_weight = layout.store == "values" and n_weights(layout.tensors) <= FEW_WEIGHTS
    for tensor in layout.tensors if layout.store != "none" else ():
        size = int(np.prod(tensor.shape))
        ends = [f"/{i}" for i in range(size)] if by_weight else [f"/{name}" for name in STATISTICS]
        if by_weight and size == 1:
            ends = [""]
        wanted |= {f"{tensor.name}\n{i}": f"weights/{tensor.name}{end}" for i, end in enumerate(ends)}
    apart = dict(zip(wanted, distinct(wanted.values()), strict=True))
    names = distinct_metric_names(apart.values())
    return {series: names[name] for series, name in apart.items()}
