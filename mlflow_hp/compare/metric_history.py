"""Metric histories of many runs at once: from a database in SQL, from a server by its bulk route."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.downsampling import Points, thinned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RUNS_IN_A_QUERY = 500
RUNS_IN_A_REQUEST, POINTS_IN_A_REQUEST = 100, 25_000
"""The most that MLflow's bulk route takes and gives."""
BULK_ROUTE = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"

Range = tuple[int | None, int | None]
"""First and last step, both included; None for no end."""


def read(store: Any, run_ids: Sequence[str], metric: str, pixels: int, within: Range) -> dict[str, Points]:
    """A metric of those of `run_ids` that have it, thinned for `pixels` over the steps that they have together."""
    if hasattr(store, "ManagedSessionMaker"):
        return _from_database(store, run_ids, metric, pixels, within)
    bulk: Callable[[Sequence[str]], Iterator[tuple[str, np.ndarray]]]
    if hasattr(store, "get_host_creds"):
        bulk = lambda wanted: _from_server(store, wanted, metric)  # noqa: E731
    else:
        bulk = lambda wanted: ((run_id, _whole(store, run_id, metric)) for run_id in wanted)  # noqa: E731
    return _thinned_on_the_way(bulk(run_ids), pixels, within)


def _from_database(store: Any, run_ids: Sequence[str], metric: str, pixels: int, within: Range) -> dict[str, Points]:
    """Few points are read as they are; of many, the database gives each pixel's lowest and highest."""
    from mlflow.store.tracking.dbmodels.models import SqlMetric as M
    from sqlalchemy import Integer, case, cast, func, select

    found: dict[str, Points] = {}
    with store.ManagedSessionMaker() as session:
        extents: dict[str, tuple[int, int, int]] = {}
        for wanted in _parts(run_ids, RUNS_IN_A_QUERY):
            query = select(M.run_uuid, func.min(M.step), func.max(M.step), func.count()).where(
                *_conditions(M, wanted, metric, within)
            )
            extents |= {row[0]: (row[1], row[2], row[3]) for row in session.execute(query.group_by(M.run_uuid))}
        if not extents:
            return {}
        low, high = min(e[0] for e in extents.values()), max(e[1] for e in extents.values())
        few = [run_id for run_id in extents if extents[run_id][2] <= 2 * pixels]
        many = [run_id for run_id in extents if extents[run_id][2] > 2 * pixels]
        for wanted in _parts(few, RUNS_IN_A_QUERY):
            value = case((M.is_nan, None), else_=M.value)
            query = select(M.run_uuid, M.step, value).where(*_conditions(M, wanted, metric, within))
            rows = session.execute(query.order_by(M.run_uuid, M.step, M.timestamp, M.value)).all()
            found |= {key: Points(table[0], table[1], len(table[0])) for key, table in _by_run(rows)}
        pixel = cast((M.step - low) * pixels // (high - low + 1), Integer)
        for wanted in _parts(many, RUNS_IN_A_QUERY):
            lowest, highest = (f(case((M.is_nan, None), else_=M.value)) for f in (func.min, func.max))
            query = select(M.run_uuid, func.min(M.step), func.max(M.step), lowest, highest).where(
                *_conditions(M, wanted, metric, within)
            )
            rows = session.execute(query.group_by(M.run_uuid, pixel).order_by(M.run_uuid, func.min(M.step))).all()
            found |= {key: _two_for_each(rows_of, extents[key][2]) for key, rows_of in _grouped(rows)}
    return found


def _conditions(model: Any, run_ids: Sequence[str], metric: str, within: Range) -> list[Any]:
    start, end = within
    conditions = [model.key == metric, model.run_uuid.in_(run_ids)]
    conditions += [model.step >= start] if start is not None else []
    return conditions + ([model.step <= end] if end is not None else [])


def _grouped(rows: Sequence[Any]) -> Iterator[tuple[str, Sequence[Any]]]:
    """Rows that come sorted by run, run by run."""
    start = 0
    for index in range(1, len(rows) + 1):
        if index == len(rows) or rows[index][0] != rows[start][0]:
            yield rows[start][0], rows[start:index]
            start = index


def _by_run(rows: Sequence[Any]) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    for run_id, own in _grouped(rows):
        yield run_id, (np.array([row[1] for row in own], np.int64), np.array([row[2] for row in own], np.float64))


def _two_for_each(rows: Sequence[Any], n: int) -> Points:
    """A pixel's lowest and highest, at its first and its last step: within the pixel, where exactly is not told."""
    first, last = (np.array([row[column] for row in rows], np.int64) for column in (1, 2))
    low, high = (np.array([row[column] for row in rows], np.float64) for column in (3, 4))
    steps, values = np.stack([first, last], axis=1).ravel(), np.stack([low, high], axis=1).ravel()
    kept = np.append(True, np.diff(steps) > 0)  # a pixel with one point has it once
    return Points(steps[kept], values[kept], n)


def _from_server(store: Any, run_ids: Sequence[str], metric: str) -> Iterator[tuple[str, np.ndarray]]:
    """Histories by MLflow's bulk route; of a server that has none, one by one."""
    from mlflow.utils.rest_utils import http_request

    waiting = sorted(run_ids)  # as the route sorts them
    while waiting:
        wanted = waiting[:RUNS_IN_A_REQUEST]
        asked = {"run_id": wanted, "metric_key": metric, "max_results": POINTS_IN_A_REQUEST}
        answer = http_request(store.get_host_creds(), BULK_ROUTE, "GET", params=asked)
        if answer.status_code != 200:
            yield from ((run_id, _whole(store, run_id, metric)) for run_id in waiting)
            return
        points = answer.json()["metrics"]
        by_run: dict[str, list[tuple[int, int, float]]] = {}
        for point in points:
            number = (int(point["step"]), int(point["timestamp"]), _number(point["value"]))
            by_run.setdefault(point["run_id"], []).append(number)
        waiting = waiting[RUNS_IN_A_REQUEST:]
        if len(points) >= POINTS_IN_A_REQUEST:  # the last one may be cut off, and those after it are not there
            cut = points[-1]["run_id"]
            del by_run[cut]
            yield cut, _whole(store, cut, metric)
            waiting = [run_id for run_id in wanted if run_id > cut] + waiting
        yield from ((run_id, np.array(sorted(own), np.float64)[:, [0, 2]]) for run_id, own in by_run.items())


def _whole(store: Any, run_id: str, metric: str) -> np.ndarray:
    """All points of one run, (n, 2), read in pages."""
    found: list[tuple[int, int, float]] = []
    token = None
    while True:
        page = store.get_metric_history(run_id, metric, max_results=POINTS_IN_A_REQUEST, page_token=token)
        found += [(point.step, point.timestamp, point.value) for point in page]
        token = page.token
        if not token:
            return np.array(sorted(found), np.float64).reshape(-1, 3)[:, [0, 2]]


def _number(value: Any) -> float:
    """A number of JSON, in which one that is not finite may be a word."""
    return math.nan if value is None else float(value)


def _thinned_on_the_way(histories: Iterator[tuple[str, np.ndarray]], pixels: int, within: Range) -> dict[str, Points]:
    """Histories thinned as they come, each over its own steps: no more than one is held whole."""
    start, end = within
    found: dict[str, Points] = {}
    for run_id, points in histories:
        steps, values = points[:, 0].astype(np.int64), points[:, 1]
        chosen = (steps >= (start if start is not None else steps.min(initial=0))) & (
            steps <= (end if end is not None else steps.max(initial=0))
        )
        steps, values = steps[chosen], values[chosen]
        if len(steps):
            found[run_id] = thinned(steps, values, pixels, int(steps[0]), int(steps[-1]))
    return found


def _parts(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    yield from (items[start : start + size] for start in range(0, len(items), size))
