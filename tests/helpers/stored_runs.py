"""Runs to compare, made in a real store in a few milliseconds each."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from mlflow.entities import Metric, Param, RunTag

from mlflow_hp.compare import gather, open_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import mlflow

_numbers = itertools.count()
START = 1_700_000_000_000
SAME = {"data_digest": "data-1", "split_digest": "split-1"}
"""Tags of runs on the same data, divided alike."""


def new_experiment(client: mlflow.MlflowClient, folder: Any) -> str:
    """An experiment of its own; its id."""
    return client.create_experiment(f"comparison {folder.name} {next(_numbers)}", folder.as_uri())


def add_run(
    client: mlflow.MlflowClient,
    experiment_id: str,
    name: str = "a run",
    *,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float | Sequence[float]] | None = None,
    parent: str | None = None,
    status: str = "FINISHED",
    seconds: float = 10.0,
) -> str:
    """A run with tags of ours (given without prefix) and metrics: a number, or one for each step from 0; its id."""
    start = START + 1000 * next(_numbers)
    made = {f"mlflow_hp.{key}" if "." not in key else key: value for key, value in (tags or {}).items()}
    made |= {"mlflow.parentRunId": parent} if parent else {}
    run_id = client.create_run(experiment_id, start, made, name).info.run_id
    points = [
        Metric(key, float(value), start + step, step)
        for key, values in (metrics or {}).items()
        for step, value in enumerate([values] if isinstance(values, (int, float)) else values)
    ]
    given = [Param(key, str(value)) for key, value in (params or {}).items()]
    for first in range(0, max(len(points), 1), 800):
        client.log_batch(run_id, points[first : first + 800], given if first == 0 else [], [])
    if status != "RUNNING":
        client.set_terminated(run_id, status, start + round(1000 * seconds))
    return run_id


def add_search(
    client: mlflow.MlflowClient, experiment_id: str, folds: Mapping[str, Sequence[float]], **more: Any
) -> tuple[str, dict[str, str]]:
    """A search and its combinations: learning rate -> scores of the folds; the ids of the parent and of each."""
    tags = {"kind": "search", "folds_digest": "cv-1", **SAME, **more.pop("tags", {})}
    params = {"cv": "3", "estimator": "Network()", "batch_size": 32, **more.pop("params", {})}
    parent = add_run(client, experiment_id, "search", tags=tags, params=params)
    children = {}
    for rate, scores in folds.items():
        mean = sum(scores) / len(scores)
        children[rate] = add_run(
            client, experiment_id, f"learning_rate={rate}", params={"learning_rate": rate}, parent=parent,
            tags={"kind": "candidate"}, metrics={"score": scores, "mean_score": mean}, **more,
        )  # fmt: skip
    return parent, children


def tag(client: mlflow.MlflowClient, run_id: str, **tags: str) -> None:
    """Set tags of ours."""
    client.log_batch(run_id, tags=[RunTag(f"mlflow_hp.{key}", value) for key, value in tags.items()])


def facts_of(store, experiment, **more):
    """What is known of the runs of an experiment."""
    return gather(open_source(store), experiment_ids=[experiment], **more)
