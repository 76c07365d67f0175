"""Runs of an experiment as columns, read from MLflow's database in a few SQL queries.

MLflow's own search creates an object for every run, param, metric and tag, which takes seconds for 1,000 runs.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from mlflow_hp.tracking.run_params import waiting_params
from mlflow_hp.tracking.tags import (
    AUTHOR_TAG,
    KIND_TAG,
    MLFLOW_TAG_PREFIX,
    PARAMS_TAG,
    PARENT_TAG,
    SYSTEM_METRIC_PREFIX,
    UNITS_METRIC_PREFIX,
    USER_TAG,
    WEIGHTS_METRIC_PREFIX,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_RUNS = 5000
"""Runs that the page lists; of an experiment with more, the newest."""
MAX_CHILDREN = 500
"""Nested runs that the page of a run lists."""
MAX_TAG_LENGTH = 250
"""Longer tags (descriptions, diffs) are left out: no one filters by them."""
CURVE_PREFIXES = (WEIGHTS_METRIC_PREFIX, UNITS_METRIC_PREFIX, SYSTEM_METRIC_PREFIX)
"""Prefixes of metrics that are curves, not scores: hundreds of them would bury the others in the table."""

Columns = dict[str, list[Any]]


def experiments(store: Any) -> list[dict[str, Any]]:
    """List active experiments, most recently used first: id, name, number of active runs, start of the last in ms."""
    from mlflow.store.tracking.dbmodels.models import SqlExperiment as E
    from mlflow.store.tracking.dbmodels.models import SqlRun as R
    from sqlalchemy import and_, func, select

    last = func.max(R.start_time)
    query = (
        select(E.experiment_id, E.name, func.count(R.run_uuid), last)
        .outerjoin(R, and_(R.experiment_id == E.experiment_id, R.lifecycle_stage == "active"))
        .where(E.lifecycle_stage == "active")
        .group_by(E.experiment_id, E.name)
        .order_by(func.coalesce(last, 0).desc(), E.experiment_id)
    )
    with store.ManagedSessionMaker() as session:
        rows = session.execute(query).all()
    return [{"id": str(row[0]), "name": row[1], "runs": row[2], "last": row[3]} for row in rows]


def experiment_exists(store: Any, experiment_id: str) -> bool:
    """Whether there is an active experiment of that id; in a database, ids are numbers."""
    from mlflow.store.tracking.dbmodels.models import SqlExperiment as E
    from sqlalchemy import select

    if not re.fullmatch("[0-9]{1,18}", experiment_id):
        return False
    query = select(E.experiment_id).where(E.experiment_id == int(experiment_id), E.lifecycle_stage == "active")
    with store.ManagedSessionMaker() as session:
        return session.execute(query).first() is not None


def experiments_of(store: Any, run_ids: Sequence[str]) -> dict[str, str]:
    """Map run ids to experiment ids, leaving out missing and deleted runs."""
    from mlflow.store.tracking.dbmodels.models import SqlRun as R
    from sqlalchemy import select

    query = select(R.run_uuid, R.experiment_id).where(R.run_uuid.in_(run_ids), R.lifecycle_stage == "active")
    with store.ManagedSessionMaker() as session:
        return {run_id: str(experiment_id) for run_id, experiment_id in session.execute(query)}


def runs(store: Any, experiment_id: str, run_ids: Sequence[str] = ()) -> dict[str, Any]:
    """Read the active runs of an experiment, newest first.

    Parameters
    ----------
    store : mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore
    experiment_id : str
    run_ids : sequence of str
        Runs to read. Defaults to all.

    Returns
    -------
    dict
        ``runs`` (columns id, name, status, started and ended in ms, author, kind, parent); ``params``, ``metrics``
        (latest values) and ``tags``, each a dict of columns by name, with None for a run without a value;
        ``metric_names``, the names of all metrics; ``left_out``, the number of older runs that are not listed.
    """
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlTag
    from mlflow.store.tracking.dbmodels.models import SqlRun as R
    from sqlalchemy import and_, func, not_, or_, select

    conditions = [R.experiment_id == int(experiment_id), R.lifecycle_stage == "active"]
    conditions += [R.run_uuid.in_(run_ids)] if run_ids else []
    newest = select(R.run_uuid).where(*conditions).order_by(R.start_time.desc(), R.run_uuid).limit(MAX_RUNS).subquery()
    own = select(R.run_uuid, R.name, R.status, R.start_time, R.end_time).join(newest, newest.c.run_uuid == R.run_uuid)
    tag = SqlTag
    is_listed_tag = or_(
        tag.key.in_([PARENT_TAG, USER_TAG]),
        and_(
            not_(tag.key.startswith(MLFLOW_TAG_PREFIX, autoescape=True)),
            func.length(tag.value) <= MAX_TAG_LENGTH,
            tag.key != PARAMS_TAG,
        ),
    )
    metric = SqlLatestMetric
    is_score = and_(*(not_(metric.key.startswith(prefix, autoescape=True)) for prefix in CURVE_PREFIXES))
    with store.ManagedSessionMaker() as session:
        rows = session.execute(own.order_by(R.start_time.desc(), R.run_uuid)).all()
        n_runs = session.execute(select(func.count()).select_from(R).where(*conditions)).scalar_one()
        row_of = {row[0]: index for index, row in enumerate(rows)}

        def columns(model: Any, value: Any, *filters: Any) -> Columns:
            of_newest = select(model.run_uuid, model.key, value).join(newest, newest.c.run_uuid == model.run_uuid)
            return _columns(session.execute(of_newest.where(*filters)), row_of)

        params = columns(SqlParam, SqlParam.value)
        for row, text in enumerate(columns(tag, tag.value, tag.key == PARAMS_TAG).get(PARAMS_TAG, ())):
            for name, value in waiting_params({PARAMS_TAG: text or "{}"}).items():
                column = params.setdefault(name, [None] * len(rows))
                column[row] = value if column[row] is None else column[row]
        metrics = columns(metric, metric.value, is_score, not_(metric.is_nan))
        tags = columns(tag, tag.value, is_listed_tag)
        names = select(metric.key).join(newest, newest.c.run_uuid == metric.run_uuid).distinct()
        metric_names = sorted(session.execute(names).scalars())
    empty: list[str | None] = [None] * len(rows)
    users = tags.pop(USER_TAG, empty)
    authors = tags.pop(AUTHOR_TAG, empty)
    return {
        "runs": {
            "id": [row[0] for row in rows],
            "name": [row[1] for row in rows],
            "status": [row[2] for row in rows],
            "started": [row[3] for row in rows],
            "ended": [row[4] for row in rows],
            "author": [author or user or "unknown" for author, user in zip(authors, users, strict=True)],
            "kind": [kind or "" for kind in tags.pop(KIND_TAG, empty)],
            "parent": tags.pop(PARENT_TAG, empty),
        },
        "params": dict(sorted(params.items())),
        "metrics": {name: [_json_number(value) for value in column] for name, column in metrics.items()},
        "tags": tags,
        "metric_names": metric_names,
        "left_out": n_runs - len(rows),
    }


def children(store: Any, run_id: str) -> dict[str, Any]:
    """Find the active runs nested in a run: ``ids`` of the first ``MAX_CHILDREN``, and the count of each status."""
    from mlflow.store.tracking.dbmodels.models import SqlRun as R
    from mlflow.store.tracking.dbmodels.models import SqlTag as T
    from sqlalchemy import select

    query = (
        select(R.run_uuid, R.status)
        .join(T, T.run_uuid == R.run_uuid)
        .where(T.key == PARENT_TAG, T.value == run_id, R.lifecycle_stage == "active")
        .order_by(R.start_time, R.run_uuid)
    )
    with store.ManagedSessionMaker() as session:
        rows = session.execute(query).all()
    statuses: dict[str, int] = {}
    for _, status in rows:
        statuses[status] = statuses.get(status, 0) + 1
    return {"ids": [row[0] for row in rows[:MAX_CHILDREN]], "statuses": statuses}


def _columns(rows: Iterable[tuple[str, str, Any]], row_of: dict[str, int]) -> Columns:
    columns: Columns = {}
    for run_id, key, value in rows:
        if run_id in row_of:  # a run may have started between two queries
            column = columns.get(key)
            if column is None:
                column = columns[key] = [None] * len(row_of)
            column[row_of[run_id]] = value
    return dict(sorted(columns.items()))


def _json_number(value: float | None) -> float | str | None:
    """Convert a number for JSON; MLflow stores infinities as the largest float."""
    if value is None or (math.isfinite(value) and abs(value) < 1.79e308):
        return value
    return "∞" if value > 0 else "-∞"
