"""The points of a metric as arrays, so that two histories of millions compare quickly."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow.entities import Metric
from mlflow.utils.rest_utils import http_request, verify_rest_response

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mlflow import MlflowClient

POINT = np.dtype([("step", np.int64), ("timestamp", np.int64), ("bits", np.int64)])
"""A point of a metric; `bits` are those of its value, so that NaN equals NaN."""

Named = tuple[str, float, int, int]
"""A metric's name, and value, time and step of a point."""

NONE = np.empty(0, POINT)
_LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
_LARGEST = np.finfo(np.float64).max


def bits(values: Iterable[float]) -> np.ndarray:
    """The bits of values as MLflow's database stores keep them: infinities are ±1.797e308, one zero, one NaN."""
    kept = np.clip(np.fromiter(values, np.float64), -_LARGEST, _LARGEST) + 0.0
    kept[np.isnan(kept)] = np.nan
    return kept.view(np.int64)


def read(client: MlflowClient, run_id: str, key: str) -> np.ndarray:
    """The distinct points of a run's metric, by step: array of POINT, shape (n_points,)."""
    store = _store(client)
    if hasattr(store, "ManagedSessionMaker"):
        rows = _rows(store, run_id, key)
    else:
        history = client.get_metric_history(run_id, key)
        rows = [(metric.step, metric.timestamp, metric.value) for metric in history]
    points = np.empty(len(rows), POINT)
    points["step"] = [row[0] for row in rows]
    points["timestamp"] = [row[1] for row in rows]
    points["bits"] = bits(row[2] for row in rows)
    return np.unique(points)


def _store(client: MlflowClient) -> Any:
    return getattr(getattr(client, "_tracking_client", None), "store", None)


def _rows(store: Any, run_id: str, key: str) -> Sequence[tuple[int, int, float]]:
    """Step, time and value of the points, out of a database: no objects are made of millions of rows."""
    from mlflow.store.tracking.dbmodels.models import SqlMetric as Metrics
    from sqlalchemy import case, select

    value = case((Metrics.is_nan, None), else_=Metrics.value)
    query = select(Metrics.step, Metrics.timestamp, value).where(Metrics.run_uuid == run_id, Metrics.key == key)
    with store.ManagedSessionMaker() as session:
        return [(row[0], row[1], math.nan if row[2] is None else row[2]) for row in session.execute(query)]


def missing(wanted: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    """Those of the points `wanted` that are not among those `present`; both as `read` gives them."""
    if present is None or not len(present):
        return wanted
    return np.setdiff1d(wanted, present, assume_unique=True)


def named(key: str, points: np.ndarray) -> Iterator[Named]:
    """The points with their metric's name."""
    columns = (points["bits"].view(np.float64).tolist(), points["timestamp"].tolist(), points["step"].tolist())
    return zip(itertools.repeat(key), *columns)


def send(client: MlflowClient, run_id: str, some: Sequence[Named]) -> None:
    """Log up to 1000 points.

    To a server they go as what they are in the end: MLflow's client makes messages of them, JSON of these, and reads it
    again, which takes a third of its time.
    """
    store = _store(client)
    if not hasattr(store, "get_host_creds"):
        client.log_batch(run_id, metrics=[Metric(*each) for each in some], synchronous=True)
        return
    metrics = [
        {"key": key, "value": value if value == value else "NaN", "timestamp": timestamp, "step": step}
        for key, value, timestamp, step in some
    ]
    answer = http_request(store.get_host_creds(), _LOG_BATCH, "POST", json={"run_id": run_id, "metrics": metrics})
    verify_rest_response(answer, _LOG_BATCH)
