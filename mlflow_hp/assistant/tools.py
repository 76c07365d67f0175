"""Tools that read runs: each returns an `answer`, and raises a UserError of one sentence."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from mlflow_hp.analysis import downsample
from mlflow_hp.assistant.answer import answer
from mlflow_hp.compare.api import Comparison
from mlflow_hp.compare.compared_runs import gather
from mlflow_hp.compare.parts import sections
from mlflow_hp.compare.source import open_source
from mlflow_hp.errors import UserError
from mlflow_hp.history.load import load_history
from mlflow_hp.terminal import count
from mlflow_hp.tracking.run_params import params_of
from mlflow_hp.tracking.server_health import ensure_reachable
from mlflow_hp.tracking.tags import (
    AUTHOR_TAG,
    BEST_SCORE_METRIC,
    KIND_TAG,
    MEAN_SCORE_METRIC,
    PARENT_TAG,
    TEST_SCORE_METRIC,
    USER_TAG,
)
from mlflow_hp.training.run_account import account_lines, describe_run, where_it_is

if TYPE_CHECKING:
    from mlflow.entities import Run

MAX_RUNS = 50
"""Runs of one answer."""
MAX_POINTS = 200
"""Points of one answer."""
MAX_COMPARED = 100
"""Runs of one comparison."""
SHOWN_PARAMS = ("optimizer", "learning_rate", "batch_size", "epochs")
"""Params of a run in a list."""
SHOWN_METRICS = (
    "loss",
    "val_loss",
    "accuracy",
    "val_accuracy",
    BEST_SCORE_METRIC,
    MEAN_SCORE_METRIC,
    TEST_SCORE_METRIC,
)
"""Metrics of a run in a list."""


def list_experiments() -> str:
    """List the experiments of the tracking store: id, name and kind, the latest change first."""
    ensure_reachable()
    found = mlflow.MlflowClient().search_experiments(max_results=200, order_by=["last_update_time DESC"])
    return answer([_json({"id": each.experiment_id, "name": each.name}) for each in found] or ["no experiments"])


def list_runs(experiment: str = "Default", filter: str = "", order_by: str = "", limit: int = 20) -> str:  # noqa: A002
    """List the runs of an experiment, the newest first: id, name, kind, status, author, some params and metrics.

    Args:
        experiment: Name or id of the experiment.
        filter: In MLflow's search syntax, such as "metrics.val_loss < 0.1 and params.optimizer = 'Adam'".
        order_by: In MLflow's syntax, such as "metrics.val_loss ASC". Defaults to the newest first.
        limit: Number of runs, at most 50.
    """
    ensure_reachable()
    client = mlflow.MlflowClient()
    ids = [_experiment_id(client, experiment)]
    order = [order_by] if order_by else ["attributes.start_time DESC"]
    try:
        runs = list(client.search_runs(ids, filter, max_results=min(max(limit, 1), MAX_RUNS), order_by=order))
    except MlflowException as error:
        raise UserError(f"MLflow refuses filter={filter!r} or order_by={order_by!r}: {_sentence(error)}") from error
    return answer([_json(_row(run)) for run in runs] or ["no runs"], "lower limit, or give a filter")


def show_run(run_id: str) -> str:
    """Show a run: settings, result, what is wrong with it, what to try, and where its page is."""
    account = describe_run(run_id)
    return answer([*account_lines(account), where_it_is(account)])


def history(
    run_id: str, column: str = "", start: int = 0, stop: int | None = None, points: int = 60, fit: int = 0
) -> str:
    """Read a column of a recorded training, thinned so that its lowest and highest values stay.

    Args:
        run_id: Id of a run with a recorded training.
        column: Column of the steps, such as "batch_loss", or of the epochs, such as "val_loss". Defaults to "": the
            names of all columns.
        start: First step or epoch, 0-based.
        stop: Step or epoch after the last. Defaults to the end.
        points: Number of points, at most 200.
        fit: Which of the run's fits, 0-based.
    """
    recorded = load_history(run_id, fit=fit)
    epochs = [name for name in recorded.epochs if name != "epoch"]
    if not column:
        return answer(
            [
                f"{count(recorded.n_steps, 'step')}, {count(recorded.n_epochs, 'epoch')}",
                f"columns of the steps: {', '.join(recorded.columns)}",
                f"columns of the epochs: {', '.join(epochs)}",
            ]
        )
    if column in recorded.columns:
        unit, values = "step", recorded.read_steps([column])[column].astype(np.float64)
    elif column in epochs:
        unit, values = "epoch", np.asarray(recorded.epochs[column], np.float64)
    else:
        raise UserError(
            f"column={column!r} is not in the history of run {run_id}; it has {', '.join([*recorded.columns, *epochs])}"
        )
    n = len(values)
    stop = n if stop is None else min(stop, n)
    if not 0 <= start < max(stop, 1):
        raise UserError(f"start={start}, stop={stop}: the training has {n} {unit}s, from 0 on")
    part = values[start:stop]
    numbers = np.arange(start, stop)
    chosen = downsample(numbers, part, buckets=max(1, min(points, MAX_POINTS) // 2))
    lines = [f"{unit},{column} ({len(chosen)} of {count(len(part), 'point')})"]
    return answer([*lines, *(f"{numbers[i]},{part[i]:.6g}" for i in chosen)], "give start and stop, or fewer points")


def compare(run_ids: list[str], metric: str = "") -> str:
    """Compare runs, each with its nested runs: the best, which differences are significant, what differs, what matters.

    Args:
        run_ids: Ids of the runs.
        metric: Metric that ranks the runs. Defaults to the usual one of each kind of run.
    """
    if not run_ids or len(run_ids) > MAX_COMPARED:
        raise UserError(f"run_ids has {len(run_ids)} ids: give 1 to {MAX_COMPARED}")
    ensure_reachable()
    source = open_source(mlflow.MlflowClient())
    facts = gather(source, run_ids, [], "")
    content = sections(facts, source, metric=metric or None, goal=None, by=None, judge="auto")
    return answer(Comparison("", content, len(facts)).summary, "compare fewer runs")


def propose_next(run_id: str) -> str:
    """Propose what to train next: the changes that the findings of a run name, and the command that makes them."""
    account = describe_run(run_id)
    proposals = [
        f"{each['verdict']}: change {each['change']}" if each["change"] else f"{each['verdict']}: {each['suggestion']}"
        for each in account["findings"]
        if each["suggestion"] or each["change"]
    ]
    if not proposals:
        return answer([f"run {run_id}: no finding names a change"])
    if account["command"]:
        next_step = f"run: {account['command']}"
    elif account["run"]["kind"] in ("search", "candidate", "fold", "comparison"):
        next_step = f"a {account['run']['kind']} is not run again by one command: change its program"
    else:
        next_step = "change the program that made the run, and train again; or call mlflow_hp.improve(train, start)"
    return answer([next_step, *proposals])


def _experiment_id(client: mlflow.MlflowClient, name: str) -> str:
    experiment = client.get_experiment_by_name(name)
    if experiment is None and name.isdigit():
        try:
            experiment = client.get_experiment(name)
        except MlflowException:
            experiment = None
    if experiment is None:
        names = ", ".join(sorted(repr(each.name) for each in client.search_experiments(max_results=20)))
        raise UserError(f"there is no experiment {name!r}; the store has {names}")
    return str(experiment.experiment_id)


def _row(run: Run) -> dict[str, Any]:
    tags, params, metrics = run.data.tags, params_of(run.data), run.data.metrics
    row = {
        "id": run.info.run_id,
        "name": run.info.run_name,
        "kind": tags.get(KIND_TAG),
        "status": run.info.status,
        "author": tags.get(AUTHOR_TAG) or tags.get(USER_TAG),
        "parent": tags.get(PARENT_TAG),
        "params": {name: params[name] for name in SHOWN_PARAMS if name in params},
        "metrics": {name: _number(metrics[name]) for name in SHOWN_METRICS if name in metrics},
    }
    return {name: value for name, value in row.items() if value}


def _number(value: float) -> float | str:
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _sentence(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
