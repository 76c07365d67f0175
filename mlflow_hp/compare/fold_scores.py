"""Scores of the test folds of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlflow_hp.tracking.tags import BEST_RUN_ID_TAG, MEAN_METRIC_PREFIX, SCORE_METRIC, TEST_SCORE_METRIC_PREFIX

if TYPE_CHECKING:
    from mlflow_hp.compare.run_summary import RunFacts
    from mlflow_hp.compare.source import RunSource

MAX_FOLDS = 1000


def fold_metrics(metrics: dict[str, float]) -> list[str]:
    """Names of the metrics of a candidate that hold the scores of its folds."""
    means = (name.removeprefix(MEAN_METRIC_PREFIX) for name in metrics if name.startswith(MEAN_METRIC_PREFIX))
    names = [n for n in means if n in metrics and (n == SCORE_METRIC or n.startswith(TEST_SCORE_METRIC_PREFIX))]
    return sorted(names, key=lambda name: name != SCORE_METRIC)


def with_folds(source: RunSource, facts: list[RunFacts]) -> list[RunFacts]:
    """Add the scores of folds: to candidates their own, to a search without its candidates those of its best one."""
    ids = {run.run_id for run in facts}
    best_ids = {
        run.run_id: run.tag(BEST_RUN_ID_TAG) for run in facts if run.kind == "search" and run.tag(BEST_RUN_ID_TAG)
    }
    best_ids = {run_id: best for run_id, best in best_ids.items() if best not in ids}
    best_runs = source.runs(sorted(set(best_ids.values())))
    metrics = {run.run_id: run.metrics for run in facts} | {k: dict(v.data.metrics) for k, v in best_runs.items()}
    runs_by_metric: dict[str, list[str]] = {}
    for run_id, of_run in metrics.items():
        for name in fold_metrics(of_run):
            runs_by_metric.setdefault(name, []).append(run_id)
    scores: dict[str, dict[str, tuple[float, ...]]] = {}
    for name, run_ids in runs_by_metric.items():
        for run_id, points in source.points(run_ids, name, MAX_FOLDS).items():
            by_fold = dict(zip(points.steps.tolist(), points.values.tolist(), strict=True))
            row = tuple(by_fold.get(fold, np.nan) for fold in range(max(by_fold) + 1))
            scores.setdefault(run_id, {})[name] = row
    return [_with_scores(run, best_ids.get(run.run_id, ""), metrics, scores) for run in facts]


def _with_scores(
    run: RunFacts,
    best: str,
    metrics: dict[str, dict[str, float]],
    scores: dict[str, dict[str, tuple[float, ...]]],
) -> RunFacts:
    if run.run_id in scores:
        return run._replace(folds=scores[run.run_id])
    if best in scores:  # a search without its candidates is represented by its best one
        means = {k: v for k, v in metrics[best].items() if k.startswith(MEAN_METRIC_PREFIX)}
        return run._replace(folds=scores[best], metrics=run.metrics | means)
    return run
