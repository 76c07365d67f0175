"""Metric points of recorded steps and epochs, in the form that MLflow gets them."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.delivery.step_series import StepSeries
from mlflow_hp.delivery.thinning import THE_REST, Thinning
from mlflow_hp.history.step_record import distinct_names
from mlflow_hp.history.unit_shares import DEAD_UNITS, SATURATED_UNITS, without_unit_shares
from mlflow_hp.tracking.names import distinct_metric_names, metric_name
from mlflow_hp.tracking.tags import (
    BATCH_METRIC_PREFIX,
    EPOCH_METRIC_PREFIX,
    GRADIENTS_METRIC_PREFIX,
    SHARPNESS_METRIC,
    UNITS_METRIC_PREFIX,
    WEIGHTS_METRIC_PREFIX,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mlflow_hp.delivery.metric_selection import MetricSelection
    from mlflow_hp.delivery.thinning import Chosen
    from mlflow_hp.history.step_record import Layout, Rows

OWN_METRIC_PREFIXES = (BATCH_METRIC_PREFIX, GRADIENTS_METRIC_PREFIX, UNITS_METRIC_PREFIX, WEIGHTS_METRIC_PREFIX)
"""Prefixes of other metrics than Keras'; a metric of an epoch with one of them in Keras gets the prefix ``epoch/``."""
_SHARES = {DEAD_UNITS: f"{UNITS_METRIC_PREFIX}dead", SATURATED_UNITS: f"{UNITS_METRIC_PREFIX}saturated"}
"""Prefix of the columns of shares by layer -> metric of the largest, and beginning of those by layer."""

Points = list[tuple[str, float, int, int]]
"""Metric points: name, value, time in milliseconds since the epoch, and step (0-based)."""


class StepPoints:
    """Converts rows to metric points, metric by metric, losses first, and thins them if there are too many.

    Parameters
    ----------
    layout : Layout
        Layout of the rows.
    selection : MetricSelection
        Which metrics are sent, at which steps.

    Attributes
    ----------
    shift : int
        Offset that is added to each step.
    """

    def __init__(self, layout: Layout, selection: MetricSelection) -> None:
        self._series = StepSeries(layout, selection.metrics)
        self._every = selection.every
        self._thinning = Thinning(len(self._series.names), selection.max_points, selection.n_rows)
        self._smallest_bucket = 0
        self.shift = 0

    def count(self, rows: Rows) -> int:
        """Number of points of `rows`, at most."""
        n_rows = int(np.count_nonzero(self._is_chosen(rows)))
        return -(-n_rows * len(self._series.names) // max(self._thinning.bucket // 2, 1))

    def convert(self, rows: Rows) -> Points:
        """Convert the next `rows` to points; some may only come with later rows, or with the `rest`."""
        chosen, times = self._is_chosen(rows), (rows.columns["time"] * 1000).astype(np.int64)
        values = self._series.values(rows)
        points = self._points(self._thinning.add(values[chosen], times[chosen], rows.columns["step"][chosen]))
        if not self._smallest_bucket and self._thinning.bucket > 1:
            self._smallest_bucket = self._thinning.bucket
        return points

    def rest(self) -> Points:
        """Return the points that are left after the last rows: the last of the fit."""
        return self._points(self._thinning.rest())

    @property
    def cadence(self) -> str:
        """The steps that the points are of, in words."""
        every = "every step" if self._every == 1 else f"one step in {self._every}"
        low, high = self._smallest_bucket, self._thinning.bucket
        if not low:
            return every
        steps = f"{low * self._every}" if low == high else f"{low * self._every} to {high * self._every}"
        buckets = "the rest" if high == THE_REST else f"each {steps} steps"
        return f"{every} of the first {self._thinning.n_whole * self._every}, then the lowest and highest of {buckets}"

    def _is_chosen(self, rows: Rows) -> np.ndarray:
        is_chosen: np.ndarray = rows.columns["step"] % self._every == 0
        return is_chosen

    def _points(self, chosen: Iterable[Chosen]) -> Points:
        return [
            (self._series.names[metric], value, time, step + self.shift)
            for metric, values, times, steps in sorted(chosen, key=attrgetter("metric"))
            for value, time, step in zip(values.tolist(), times.tolist(), steps.tolist(), strict=True)
        ]


def epoch_points(row: Mapping[str, float], milliseconds: int, shift: int = 0, metrics: str = "summary") -> Points:
    """Convert an epoch's values: ``epoch`` (0-based; MLflow gets it plus `shift`), Keras' logs, ``seconds``.

    Shares of dead and saturated units are points of each layer for `metrics` "all", else of the largest share.
    """
    values = {k: v for k, v in without_unit_shares(row).items() if k not in ("epoch", "seconds")}
    shares = _unit_points(row, metrics)
    prefixed = [f"{EPOCH_METRIC_PREFIX}{k}" if _is_own(metric_name(k)) else k for k in values]
    distinct = distinct_names([*prefixed, *shares])
    metric_names = distinct_metric_names(distinct)
    step = int(row["epoch"]) + shift
    return [
        (metric_names[name], float(value), milliseconds, step)
        for name, value in zip(distinct, [*values.values(), *shares.values()], strict=True)
    ]


def _unit_points(row: Mapping[str, float], metrics: str) -> dict[str, float]:
    """Select the shares of units of an epoch: metric -> share."""
    points: dict[str, float] = {}
    for prefix, metric in _SHARES.items():
        shares = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        if metrics == "all":
            points |= {f"{metric}/{layer}": share for layer, share in shares.items()}
        elif shares:
            points[metric] = max(shares.values())
    return points


def _is_own(name: str) -> bool:
    return name.startswith(OWN_METRIC_PREFIXES) or name == SHARPNESS_METRIC
