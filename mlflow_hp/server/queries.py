"""Runs of an experiment as columns, read from MLflow's database in a few plain queries.

MLflow's own search makes an object of every run, param, metric and tag: of 1,000 runs that takes seconds.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from mlflow_hp.tracking.runs import PARAMS_TAG, waiting_params

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RUNS_AT_MOST = 5000
"""Of an experiment with more, the page lists the newest."""
TAG_VALUE_AT_MOST = 250
"""Longer tags (descriptions, diffs) are not to be filtered by."""
OURS, MLFLOWS = "mlflow_hp.", "mlflow."
PARENT, USER, AUTHOR, KIND = "mlflow.parentRunId", "mlflow.user", "mlflow_hp.author", "mlflow_hp.kind"
NOT_IN_TABLE = ("weights/", "system/")
"""Beginnings of metrics that are curves, not scores: by the hundred, they would drown the others."""

Columns = dict[str, list[Any]]


def experiments(store: Any) -> list[dict[str, Any]]:
    """The active experiments, those with the newest runs first: id, name, number of active runs, start of the last."""
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


def is_there(store: Any, experiment_id: str) -> bool:
    """Whether there is an active experiment of that id; ids of a database are numbers."""
    from mlflow.store.tracking.dbmodels.models import SqlExperiment as E
    from sqlalchemy import select

    if not re.fullmatch("[0-9]{1,18}", experiment_id):
        return False
    query = select(E.experiment_id).where(E.experiment_id == int(experiment_id), E.lifecycle_stage == "active")
    with store.ManagedSessionMaker() as session:
        return session.execute(query).first() is not None


def experiments_of(store: Any, run_ids: Sequence[str]) -> dict[str, str]:
    """The experiment, by id, of each of the runs that are there and not deleted."""
    from mlflow.store.tracking.dbmodels.models import SqlRun as R
    from sqlalchemy import select

    query = select(R.run_uuid, R.experiment_id).where(R.run_uuid.in_(run_ids), R.lifecycle_stage == "active")
    with store.ManagedSessionMaker() as session:
        return {run_id: str(experiment_id) for run_id, experiment_id in session.execute(query)}


def runs(store: Any, experiment_id: str, run_ids: Sequence[str] = ()) -> dict[str, Any]:
    """The active runs of an experiment, the newest first.

    Parameters
    ----------
    store : mlflow.store.tracking.sqlalchemy_store.SqlAlchemyStore
    experiment_id : str
    run_ids : sequence of str
        Only these, where there are any.

    Returns
    -------
    dict
        ``runs`` (columns id, name, status, started and ended in ms, author, kind, parent), ``params``, ``metrics``
        (latest values) and ``tags``: each a column by name, as long as there are runs, None where a run has none;
        ``metric_names`` of all metrics that there are, and how many older runs were ``left_out``.
    """
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlTag
    from mlflow.store.tracking.dbmodels.models import SqlRun as R
    from sqlalchemy import and_, func, not_, or_, select

    conditions = [R.experiment_id == int(experiment_id), R.lifecycle_stage == "active"]
    conditions += [R.run_uuid.in_(run_ids)] if run_ids else []
    newest = (
        select(R.run_uuid).where(*conditions).order_by(R.start_time.desc(), R.run_uuid).limit(RUNS_AT_MOST).subquery()
    )
    own = select(R.run_uuid, R.name, R.status, R.start_time, R.end_time).join(newest, newest.c.run_uuid == R.run_uuid)
    tag = SqlTag
    told = or_(
        tag.key.in_([PARENT, USER]),
        and_(
            not_(tag.key.startswith(MLFLOWS, autoescape=True)),
            func.length(tag.value) <= TAG_VALUE_AT_MOST,
            tag.key != PARAMS_TAG,
        ),
    )
    metric = SqlLatestMetric
    shown = and_(*(not_(metric.key.startswith(beginning, autoescape=True)) for beginning in NOT_IN_TABLE))
    with store.ManagedSessionMaker() as session:
        found = session.execute(own.order_by(R.start_time.desc(), R.run_uuid)).all()
        all_there_are = session.execute(select(func.count()).select_from(R).where(*conditions)).scalar_one()
        row_of = {row[0]: index for index, row in enumerate(found)}

        def columns(model: Any, value: Any, *which: Any) -> Columns:
            of_newest = select(model.run_uuid, model.key, value).join(newest, newest.c.run_uuid == model.run_uuid)
            return _columns(session.execute(of_newest.where(*which)), row_of)

        params = columns(SqlParam, SqlParam.value)
        for row, text in enumerate(columns(tag, tag.value, tag.key == PARAMS_TAG).get(PARAMS_TAG, ())):
            for name, value in waiting_params({PARAMS_TAG: text or "{}"}).items():
                column = params.setdefault(name, [None] * len(found))
                column[row] = value if column[row] is None else column[row]
        metrics = columns(metric, metric.value, shown, not_(metric.is_nan))
        tags = columns(tag, tag.value, told)
        names = select(metric.key).join(newest, newest.c.run_uuid == metric.run_uuid).distinct()
        metric_names = sorted(session.execute(names).scalars())
    nothing: list[str | None] = [None] * len(found)
    users = tags.pop(USER, nothing)
    authors = tags.pop(AUTHOR, nothing)
    return {
        "runs": {
            "id": [row[0] for row in found],
            "name": [row[1] for row in found],
            "status": [row[2] for row in found],
            "started": [row[3] for row in found],
            "ended": [row[4] for row in found],
            "author": [author or user or "unknown" for author, user in zip(authors, users, strict=True)],
            "kind": [kind or "" for kind in tags.pop(KIND, nothing)],
            "parent": tags.pop(PARENT, nothing),
        },
        "params": dict(sorted(params.items())),
        "metrics": {name: [_told(value) for value in column] for name, column in metrics.items()},
        "tags": tags,
        "metric_names": metric_names,
        "left_out": all_there_are - len(found),
    }


def _columns(rows: Iterable[tuple[str, str, Any]], row_of: dict[str, int]) -> Columns:
    columns: Columns = {}
    for run_id, key, value in rows:
        if run_id in row_of:  # not a run that started between two queries
            column = columns.get(key)
            if column is None:
                column = columns[key] = [None] * len(row_of)
            column[row_of[run_id]] = value
    return dict(sorted(columns.items()))


def _told(value: float | None) -> float | str | None:
    """A number for JSON; MLflow keeps an infinity as the largest float there is."""
    if value is None or (math.isfinite(value) and abs(value) < 1.79e308):
        return value
    return "∞" if value > 0 else "-∞"
