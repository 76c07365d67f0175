"""Metric histories of many runs at once: from a database by SQL, from a server by its bulk route."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from mlflow import MlflowClient

from mlflow_hp.analysis.downsampling import Points, downsample
from mlflow_hp.analysis.smoothing import centred_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import TypeAlias

RUNS_IN_A_QUERY, POINTS_IN_A_QUERY = 500, 100_000
"""Limits of one database query; a single run may have more points."""
RUNS_IN_A_REQUEST, POINTS_IN_A_REQUEST = 100, 25_000
"""Limits of MLflow's bulk route."""
BULK_ROUTE = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"

FEWEST_WINDOWS = 5
"""A moving average takes no more than this part of a history, so that a short one does not become a flat line."""

Range = tuple[int | None, int | None]
"""First and last step, both inclusive; None for no limit."""
Axis = Literal["step", "log", "time"]
"""Steps, their logarithm, or the time when they were logged."""
Histories: TypeAlias = "Iterator[tuple[str, np.ndarray]]"
"""Yields run id and points: step, timestamp and value, float64 of shape (n_points, 3), in any order."""

_INFINITE = 1.79e308
"""MLflow's databases store infinities as the largest float."""


class View(NamedTuple):
    """Part of a history that is drawn: its steps, its pixels, what they divide, and the values in a moving average."""

    pixels: int = 600
    within: Range = (None, None)
    axis: Axis = "step"
    window: int = 1


class _Extent(NamedTuple):
    """First and last step of a run's metric, and its number of points."""

    low: int
    high: int
    n: int


def read(store: Any, run_ids: Sequence[str], metric: str, view: View) -> dict[str, Points]:
    """Read a metric of the runs that have it, downsampled to the pixels of `view`.

    From a database, the pixels divide the range of steps of all runs together, otherwise that of each run. At most one
    long history is in memory at a time.
    """
    if hasattr(store, "ManagedSessionMaker"):
        return _from_database(store, run_ids, metric, view)
    if hasattr(store, "get_host_creds"):
        histories = _from_server(store, run_ids, metric)
    else:
        histories = ((run_id, _read_all(store, run_id, metric)) for run_id in run_ids)
    return {run_id: points for run_id, history in histories if (points := _points(history, view)).n}


def _points(history: np.ndarray, view: View, low: int | None = None, high: int | None = None) -> Points:
    """Sort, smooth and downsample the points of a run."""
    history = history[np.lexsort((history[:, 2], history[:, 1], history[:, 0]))]
    steps, times, values = history.T
    values = np.where(np.abs(values) >= _INFINITE, np.copysign(np.inf, values), values)
    window = min(view.window, len(values) // FEWEST_WINDOWS)
    if window > 1:
        values = centred_mean(values, window // 2 * 2 + 1)
    start, end = view.within
    is_shown = (steps >= (-np.inf if start is None else start)) & (steps <= (np.inf if end is None else end))
    steps, times, values = steps[is_shown], times[is_shown], values[is_shown]
    index = np.zeros(0, np.int64)
    if len(steps):
        across, ends = _across(steps, times, view.axis, (low, high))
        index = downsample(across, values, buckets=view.pixels, low=ends[0], high=ends[1])
    return Points(steps[index].astype(np.int64), values[index], len(steps), times[index].astype(np.int64))


def _across(
    steps: np.ndarray, times: np.ndarray, axis: Axis, ends: Range
) -> tuple[np.ndarray, tuple[float | None, float | None]]:
    """Positions of points on the axis that the pixels divide, ascending, and the positions of its ends."""
    if axis == "time":
        return np.maximum.accumulate(times), (None, None)
    if axis == "step":
        return steps, ends
    low, high = (max(steps[at] if end is None else end, 0.0) for at, end in zip((0, -1), ends, strict=True))
    scale = (high - low + 1) / (np.log1p(high) - np.log1p(low) or 1)  # as long as the linear axis
    return scale * np.log1p(np.maximum(steps, 0)), (scale * np.log1p(low), scale * np.log1p(high))


def _from_database(store: Any, run_ids: Sequence[str], metric: str, view: View) -> dict[str, Points]:
    from mlflow.store.tracking.dbmodels.models import SqlMetric as M
    from sqlalchemy import case, func, select

    points: dict[str, Points] = {}
    with store.ManagedSessionMaker() as session:
        connection = session.connection()
        extents: dict[str, _Extent] = {}
        for batch in _batches(run_ids, RUNS_IN_A_QUERY):
            query = select(M.run_uuid, func.min(M.step), func.max(M.step), func.count()).where(
                *_conditions(M, batch, metric, view.within)
            )
            extents |= {row[0]: _Extent(*row[1:]) for row in connection.execute(query.group_by(M.run_uuid))}
        low = min((extent.low for extent in extents.values()), default=0)
        high = max((extent.high for extent in extents.values()), default=0)
        value = case((M.is_nan, None), else_=M.value)
        read_range = view.within if view.window == 1 else (None, None)  # a mean takes values beyond the range
        for batch in _batches_by_points(extents):
            query = select(M.run_uuid, M.step, M.timestamp, value).where(*_conditions(M, batch, metric, read_range))
            for run_id, history in _by_run(connection.execute(query.execution_options(stream_results=True))):
                points[run_id] = _points(history, view, low, high)
    return points


def _conditions(model: Any, run_ids: Sequence[str], metric: str, within: Range) -> list[Any]:
    start, end = within
    conditions = [model.key == metric, model.run_uuid.in_(run_ids)]
    conditions += [model.step >= start] if start is not None else []
    return conditions + ([model.step <= end] if end is not None else [])


def _batches_by_points(extents: dict[str, _Extent]) -> Iterator[list[str]]:
    """Batch runs by at most `RUNS_IN_A_QUERY` runs, and `POINTS_IN_A_QUERY` points unless one run has more."""
    batch: list[str] = []
    n_points = 0
    for run_id, extent in extents.items():
        if batch and (n_points + extent.n > POINTS_IN_A_QUERY or len(batch) == RUNS_IN_A_QUERY):
            yield batch
            batch, n_points = [], 0
        batch.append(run_id)
        n_points += extent.n
    if batch:
        yield batch


def _by_run(rows: Any) -> Histories:
    """Gather rows of run id, step, timestamp and value by run."""
    arrays: dict[str, list[np.ndarray]] = {}
    for partition in rows.partitions(POINTS_IN_A_QUERY):
        run_ids, *columns = zip(*partition, strict=True)
        numbers = np.stack([np.array(column, np.float64) for column in columns], axis=1)
        names, row_run = np.unique(run_ids, return_inverse=True)
        for index, run_id in enumerate(names.tolist()):
            arrays.setdefault(run_id, []).append(numbers[row_run == index])
    while arrays:
        run_id, of_run = arrays.popitem()
        yield run_id, np.concatenate(of_run)


def _from_server(store: Any, run_ids: Sequence[str], metric: str) -> Histories:
    """Read histories by MLflow's bulk route, or one by one if the server lacks that route."""
    from mlflow.utils.rest_utils import http_request

    pending = sorted(run_ids)  # the order of the route's results
    while pending:
        batch = pending[:RUNS_IN_A_REQUEST]
        params = {"run_id": batch, "metric_key": metric, "max_results": POINTS_IN_A_REQUEST}
        response = http_request(store.get_host_creds(), BULK_ROUTE, "GET", params=params)
        if response.status_code != 200:
            yield from ((run_id, _read_all(store, run_id, metric)) for run_id in pending)
            return
        points = response.json()["metrics"]
        by_run: dict[str, list[tuple[int, int, float]]] = {}
        for point in points:
            row = (int(point["step"]), int(point["timestamp"]), _number(point["value"]))
            by_run.setdefault(point["run_id"], []).append(row)
        pending = pending[RUNS_IN_A_REQUEST:]
        if len(points) >= POINTS_IN_A_REQUEST:  # the last run may be cut off, and later runs are missing
            cut = points[-1]["run_id"]
            del by_run[cut]
            yield cut, _read_all(store, cut, metric)
            pending = [run_id for run_id in batch if run_id > cut] + pending
        yield from ((run_id, np.array(rows, np.float64)) for run_id, rows in by_run.items())


def _read_all(store: Any, run_id: str, metric: str) -> np.ndarray:
    """Read all points of one run, page by page; at once from a client whose store is not known."""
    if isinstance(store, MlflowClient):
        rows = [(point.step, point.timestamp, point.value) for point in store.get_metric_history(run_id, metric)]
        return np.array(rows, np.float64).reshape(-1, 3)
    rows = []
    token = None
    while True:
        page = store.get_metric_history(run_id, metric, max_results=POINTS_IN_A_REQUEST, page_token=token)
        rows += [(point.step, point.timestamp, point.value) for point in page]
        token = page.token
        if not token:
            return np.array(rows, np.float64).reshape(-1, 3)


def _number(value: Any) -> float:
    """Parse a JSON value; numbers that are not finite may be null or a string."""
    return math.nan if value is None else float(value)


def _batches(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    yield from (items[start : start + size] for start in range(0, len(items), size))
