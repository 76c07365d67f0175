"""Numbers of each step that become metrics in MLflow, and the names of the metrics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.history import STATISTICS, statistics_of
from mlflow_hp.history.step_record import FEW_WEIGHTS, distinct_names, n_weights
from mlflow_hp.tracking.names import distinct_metric_names
from mlflow_hp.tracking.tags import (
    BATCH_METRIC_PREFIX,
    GRADIENTS_METRIC_PREFIX,
    SHARPNESS_METRIC,
    UPDATE_RATIO_METRICS,
    WEIGHTS_METRIC_PREFIX,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow_hp.history import Tensor
    from mlflow_hp.history.step_record import Layout, Rows

_COUNTS = ("step", "epoch", "batch", "time", "samples")
"""Columns that are no metrics."""
_GRADIENT_METRICS = {
    "gradient_norm": "norm",
    "clipped_gradient_norm": "clipped_norm",
    "gradient_cosine": "cosine",
    "noise_scale": "noise_scale",
}
"""Columns of all gradients, and of those of an optimizer, ``<column>/<optimizer>`` -> metric below ``gradients/``."""
_OF_LOSSES = ("batch_", "running_")
"""Prefixes of the columns of losses and metrics."""
_TENSOR_METRICS = {"gradient_norm_of": "norm", "clipped_gradient_norm_of": "clipped_norm"}
"""Columns of the gradient of a tensor, ``<column>/<tensor>`` -> metric below ``gradients/``."""


class StepSeries:
    """Numbers of each step that become metrics: those of the step, and those of the weights.

    Where the weights are few, each is a metric. Where they are many, there is one summary of the layers (the smallest,
    median and largest update ratio of the trainable tensors), or all statistics of each tensor. The summary is of the
    last known ratios, at the steps with statistics of a large tensor, once all of these are known.

    Parameters
    ----------
    layout : Layout
        Layout of the rows.
    metrics : {"summary", "all"}
        Whether tensors have a summary, or metrics of their own.

    Attributes
    ----------
    names : list of str
        Names of the metrics in MLflow, those of losses first.
    """

    def __init__(self, layout: Layout, metrics: str) -> None:
        columns = [
            column
            for column in layout.columns
            if column not in _COUNTS and (metrics == "all" or not _is_of_tensor(column))
        ]
        self._has_values = layout.store == "values"
        self._is_by_weight = self._has_values and n_weights(layout.tensors) <= FEW_WEIGHTS
        self._is_summary = metrics == "summary" and not self._is_by_weight
        tensors = layout.tensors if layout.store != "none" else ()
        self._tensors = [tensor for tensor in tensors if tensor.trainable or not self._is_summary]
        self._last_ratios = np.ma.masked_all((1, len(self._tensors)))
        self._are_known = np.zeros((1, len(self._tensors)), bool)
        self._are_large = np.zeros(len(self._tensors), bool)
        self._previous = {name: np.asarray(values) for name, values in layout.initial.items()}
        names = distinct_names([*map(_metric_of, columns), *self._weight_names()])
        metric_names = distinct_metric_names(names)
        first = sorted(range(len(columns)), key=lambda index: not columns[index].startswith(_OF_LOSSES))
        self._columns = [columns[index] for index in first]
        self.names = [metric_names[names[index]] for index in (*first, *range(len(columns), len(names)))]

    def _weight_names(self) -> Sequence[str]:
        if self._is_summary:
            return UPDATE_RATIO_METRICS if self._tensors else ()
        return [
            f"{WEIGHTS_METRIC_PREFIX}{tensor.name}{ending}"
            for tensor in self._tensors
            for ending in self._endings(tensor)
        ]

    def _endings(self, tensor: Tensor) -> list[str]:
        if not self._is_by_weight:
            return [f"/{name}" for name in STATISTICS]
        size = math.prod(tensor.shape)
        return [f"/{i}" for i in range(size)] if size != 1 else [""]

    def values(self, rows: Rows) -> np.ndarray:
        """Return the numbers of the next rows, shape (k, n_metrics), float64; masked where there is none."""
        n_rows = len(rows.columns["step"])
        parts: list[Any] = [np.ma.asarray(rows.columns[column]).reshape(n_rows, 1) for column in self._columns]
        if self._is_by_weight:
            parts += [np.ma.asarray(rows.weights[tensor.name]).reshape(n_rows, -1) for tensor in self._tensors]
        elif self._tensors:
            statistics = [self._statistics(tensor.name, rows.weights[tensor.name]) for tensor in self._tensors]
            parts += [self._summary(statistics)] if self._is_summary else map(_without_undefined, statistics)
        if not parts:
            return np.empty((n_rows, 0))
        return np.ma.concatenate([part.astype(np.float64) for part in parts], axis=1)

    def _statistics(self, name: str, values: np.ndarray) -> np.ndarray:
        """Statistics (k, 4) of a tensor, of its values (k, *shape) if these were recorded."""
        if not self._has_values:
            return values
        statistics = statistics_of(np.concatenate([self._previous[name][None], values]))[1:]
        self._previous[name] = values[-1].copy()
        return statistics

    def _summary(self, statistics: Sequence[np.ndarray]) -> np.ndarray:
        """Smallest, median and largest update ratio, shape (k, 3), of the tensors with these statistics (k, 4).

        Masked where the ratio of one of them is not known yet, or none of a large one is new; NaN where one of them is
        not finite.
        """
        are_new = ~np.stack([np.ma.getmaskarray(each)[:, 0] for each in statistics], axis=1)
        self._are_large = self._are_large | ~are_new.all(axis=0)
        ratios = np.ma.concatenate(
            [self._last_ratios, np.ma.stack([_without_undefined(each)[:, -1] for each in statistics], axis=1)]
        )
        known = np.concatenate([self._are_known, are_new])
        last = np.maximum.accumulate(np.where(known, np.arange(len(known))[:, np.newaxis], 0))  # row of the last one
        ratios, known = np.take_along_axis(ratios, last, axis=0), np.take_along_axis(known, last, axis=0)
        self._last_ratios, self._are_known = ratios[-1:], known[-1:]
        is_told = known[1:].all(axis=1)
        if self._are_large.any():
            is_told = is_told & are_new[:, self._are_large].any(axis=1)
        return _extremes(ratios[1:], np.asarray(is_told))


def _metric_of(column: str) -> str:
    """Metric of a column: ``batch/loss`` of ``batch_loss``, ``gradients/norm`` of ``gradient_norm``."""
    kind, _, part = column.partition("/")
    gradient = _TENSOR_METRICS.get(kind) if part else None
    gradient = gradient or _GRADIENT_METRICS.get(kind)
    if gradient is not None:
        return f"{GRADIENTS_METRIC_PREFIX}{gradient}{'/' if part else ''}{part}"
    if column == SHARPNESS_METRIC:
        return SHARPNESS_METRIC
    return f"{BATCH_METRIC_PREFIX}{column.removeprefix('batch_')}"


def _is_of_tensor(column: str) -> bool:
    return column.partition("/")[0] in _TENSOR_METRICS


def _without_undefined(statistics: np.ndarray) -> np.ndarray:
    """Mask the update ratios of a tensor of zeros, which has none, in statistics (k, 4)."""
    numbers = np.ma.getdata(statistics)
    undefined = np.zeros(numbers.shape, bool)
    undefined[:, -1] = ~np.isfinite(numbers[:, -1]) & np.isfinite(numbers[:, 0])
    return np.ma.masked_array(numbers, np.ma.getmaskarray(statistics) | undefined)


def _extremes(ratios: np.ndarray, is_told: np.ndarray) -> np.ndarray:
    """Smallest, median and largest of each row of `ratios` (k, n) that `is_told`; masked elsewhere.

    NaN where one of a row is not finite; masked ratios are undefined, and left out.
    """
    defined = ~np.ma.getmaskarray(ratios)
    numbers = np.where(defined, np.ma.getdata(ratios), np.nan)
    is_broken = (defined & np.isnan(numbers)).any(axis=1)
    result = np.ma.masked_all((len(numbers), len(UPDATE_RATIO_METRICS)))
    result[is_told & is_broken] = np.nan
    rows = is_told & defined.any(axis=1) & ~is_broken
    if rows.any():
        chosen = numbers[rows]
        result[rows] = np.stack([f(chosen, axis=1) for f in (np.nanmin, np.nanmedian, np.nanmax)], axis=1)
    return result
