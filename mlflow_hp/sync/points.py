"""The points of a metric as arrays, so that two histories of millions compare quickly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from mlflow.entities import Metric

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlflow import MlflowClient

POINT = np.dtype([("step", np.int64), ("timestamp", np.int64), ("bits", np.int64)])
"""A point of a metric; `bits` are those of its value, so that NaN equals NaN."""

NONE = np.empty(0, POINT)
_LARGEST = np.finfo(np.float64).max


def bits(values: Iterable[float]) -> np.ndarray:
    """The bits of values as MLflow's database stores keep them: infinities are ±1.797e308, one zero, one NaN."""
    kept = np.clip(np.fromiter(values, np.float64), -_LARGEST, _LARGEST) + 0.0
    kept[np.isnan(kept)] = np.nan
    return kept.view(np.int64)


def read(client: MlflowClient, run_id: str, key: str) -> np.ndarray:
    """The distinct points of a run's metric, by step: array of POINT, shape (n_points,)."""
    history = client.get_metric_history(run_id, key)
    points = np.empty(len(history), POINT)
    points["step"] = [metric.step for metric in history]
    points["timestamp"] = [metric.timestamp for metric in history]
    points["bits"] = bits(metric.value for metric in history)
    return np.unique(points)


def missing(wanted: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    """Those of the points `wanted` that are not among those `present`; both as `read` gives them."""
    if present is None or not len(present):
        return wanted
    return np.setdiff1d(wanted, present, assume_unique=True)


def metrics(key: str, points: np.ndarray) -> Iterator[Metric]:
    """The points as MLflow takes them."""
    columns = (points["step"].tolist(), points["timestamp"].tolist(), points["bits"].view(np.float64).tolist())
    return (Metric(key, value, timestamp, step) for step, timestamp, value in zip(*columns, strict=True))
