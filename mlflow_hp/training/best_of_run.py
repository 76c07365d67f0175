"""Metrics and tags of a run's best epoch, over all of its fits."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Metric, RunTag

from mlflow_hp.delivery.metric_points import epoch_points
from mlflow_hp.tracking.names import metric_name
from mlflow_hp.tracking.tags import BEST_BY_TAG, BEST_EPOCH_METRIC, BEST_METRIC_PREFIX, SAVED_MODEL_TAG
from mlflow_hp.training.best_epoch import BestEpoch, best_by

if TYPE_CHECKING:
    from mlflow.entities import Run

    from mlflow_hp.training.best_epoch import Criterion


def log_best(run_id: str, best: BestEpoch, first_epoch: int, last_epoch: int) -> None:
    """Log the best epoch of a run after a fit: ``best/epoch``, ``best/<metric>``, and two tags.

    Parameters
    ----------
    run_id : str
        Id of the run, which has the metrics of the fit's epochs already.
    best : BestEpoch
        Best epoch of the fit.
    first_epoch, last_epoch : int
        First and last epoch of the fit (0-based, over all fits of the run).
    """
    client = mlflow.MlflowClient()
    value = best.value
    at, names = round(time.time() * 1000), _metric_names(best)
    metrics = {names[name]: value for name, value in best.values.items()}
    if first_epoch > 0:
        earlier = _earlier(client, client.get_run(run_id), best.by, names, first_epoch)
        if earlier and not best.by.is_better(value, earlier[names[best.by.metric]]):
            metrics, value = earlier, earlier[names[best.by.metric]]
    metrics.setdefault(BEST_EPOCH_METRIC, float(best.epoch))
    tags = {BEST_BY_TAG: best.by.text, SAVED_MODEL_TAG: best.saved_of(value)}
    points = [Metric(name, value, at, last_epoch) for name, value in metrics.items()]
    client.log_batch(run_id, points, tags=[RunTag(*tag) for tag in tags.items()])


def _metric_names(best: BestEpoch) -> dict[str, str]:
    """Map Keras' names to those of the metrics of the best epoch in MLflow."""
    points = epoch_points({"epoch": 0, **best.values}, 0)
    names = (metric_name(f"{BEST_METRIC_PREFIX}{name}") for name, *_ in points)
    return dict(zip(best.values, names, strict=True))


def _earlier(
    client: mlflow.MlflowClient, run: Run, by: Criterion, names: dict[str, str], first_epoch: int
) -> dict[str, float]:
    """Metrics of the best epoch of earlier fits; empty if they have none.

    They are in the run if it was chosen by the same metric, else they are read from the metrics' histories.
    """
    if run.data.tags.get(BEST_BY_TAG) == by.text:
        return {name: value for name, value in run.data.metrics.items() if name.startswith(BEST_METRIC_PREFIX)}
    rows: dict[int, dict[str, float]] = {}
    for keras_name, best_name in names.items():
        for point in client.get_metric_history(run.info.run_id, best_name.removeprefix(BEST_METRIC_PREFIX)):
            if point.step < first_epoch:
                rows.setdefault(point.step, {"epoch": point.step})[keras_name] = point.value
    chosen = best_by([rows[epoch] for epoch in sorted(rows)], by)
    if chosen is None:
        return {}
    return {names[name]: value for name, value in chosen.values.items()} | {BEST_EPOCH_METRIC: float(chosen.epoch)}
