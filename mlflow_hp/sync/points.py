"""Points of a metric as arrays, so that histories of millions of points compare quickly."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from mlflow.entities import Metric
from mlflow.utils.rest_utils import http_request, verify_rest_response

from mlflow_hp._compat.mlflow import store_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mlflow import MlflowClient

POINT = np.dtype([("step", np.int64), ("timestamp", np.int64), ("bits", np.int64)])
"""Point of a metric; `bits` are the bits of its float64 value, so that NaN equals NaN."""

NamedPoint = tuple[str, float, int, int]
"""Metric name, value, timestamp and step of a point."""

NO_POINTS = np.empty(0, POINT)
_LOG_BATCH = "/api/2.0/mlflow/runs/log-batch"
_LARGEST = np.finfo(np.float64).max


def bits(values: Iterable[float]) -> np.ndarray:
    """Bits of `values` as MLflow's databases store them: infinities become ±1.797e308; one zero, one NaN."""
    stored = np.clip(np.fromiter(values, np.float64), -_LARGEST, _LARGEST) + 0.0
    stored[np.isnan(stored)] = np.nan
    return stored.view(np.int64)


def read(client: MlflowClient, run_id: str, key: str) -> np.ndarray:
    """Read the distinct points of a metric, sorted by step: array of POINT, shape (n_points,)."""
    store = store_of(client)
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


def _rows(store: Any, run_id: str, key: str) -> Sequence[tuple[int, int, float]]:
    """Read step, timestamp and value straight from the database: one object less for each of millions of rows."""
    from mlflow.store.tracking.dbmodels.models import SqlMetric as Metrics
    from sqlalchemy import case, select

    value = case((Metrics.is_nan, None), else_=Metrics.value)
    query = select(Metrics.step, Metrics.timestamp, value).where(Metrics.run_uuid == run_id, Metrics.key == key)
    with store.ManagedSessionMaker() as session:
        return [(row[0], row[1], math.nan if row[2] is None else row[2]) for row in session.execute(query)]


def missing(wanted: np.ndarray, present: np.ndarray | None) -> np.ndarray:
    """Points of `wanted` that are not in `present`; both as `read` returns them."""
    if present is None or not len(present):
        return wanted
    return np.setdiff1d(wanted, present, assume_unique=True)


def with_name(key: str, points: np.ndarray) -> Iterator[NamedPoint]:
    """Add the metric name `key` to `points`."""
    columns = (points["bits"].view(np.float64).tolist(), points["timestamp"].tolist(), points["step"].tolist())
    return zip(itertools.repeat(key), *columns)


def send(client: MlflowClient, run_id: str, batch: Sequence[NamedPoint]) -> None:
    """Log up to 1000 points.

    To a server they are sent as JSON directly: MLflow's client converts points to messages, messages to JSON, and
    parses that again, which takes a third of its time.
    """
    store = store_of(client)
    if not hasattr(store, "get_host_creds"):
        client.log_batch(run_id, metrics=[Metric(*point) for point in batch], synchronous=True)
        return
    metrics = [
        {"key": key, "value": value if value == value else "NaN", "timestamp": timestamp, "step": step}
        for key, value, timestamp, step in batch
    ]
    response = http_request(store.get_host_creds(), _LOG_BATCH, "POST", json={"run_id": run_id, "metrics": metrics})
    verify_rest_response(response, _LOG_BATCH)
