"""Writing of a finished fit's ``cv_results_`` to the runs: ranks, the best candidate, times, ``cv_results.csv``."""

from __future__ import annotations

import csv
import io
import json
import numbers
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.analysis.search_space import any_text
from mlflow_hp.search.naming import param_values
from mlflow_hp.tracking.artifact_paths import CV_RESULTS_FILE
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.tags import (
    BEST_PARAMS_TAG,
    BEST_RUN_ID_TAG,
    BEST_SCORE_METRIC,
    BEST_TAG,
    FIT_SECONDS_METRIC,
    N_RESOURCES_METRIC,
    REFIT_SECONDS_METRIC,
    SCORE_SECONDS_METRIC,
    score_metric,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.delivery.run_changes import RunChanges
    from mlflow_hp.search.live.candidates import Candidate
    from mlflow_hp.search.live.observer import SearchFit


def write_ranks(fit: SearchFit, results: Mapping[str, Any], at: float) -> None:
    """Write rank, and resources of halving, to each candidate's run; `at` in seconds since the epoch."""
    for index, candidate in fit.candidates.items():
        ranks = {k: results[k][index] for k in results if k.startswith("rank_test_")}
        points = [(score_metric(k.removeprefix("rank_test_"), "rank"), float(v), at, 0) for k, v in ranks.items()]
        if N_RESOURCES_METRIC in results:
            points.append((N_RESOURCES_METRIC, float(results[N_RESOURCES_METRIC][index]), at, 0))
        candidate.run.log_metrics(points)


def write_summary(fit: SearchFit, parent: RunChanges, at: float) -> None:
    """Write the best candidate and the times of a finished fit to the parent run; `at` in seconds since the epoch."""
    metrics = {
        FIT_SECONDS_METRIC: fit.fit_seconds,
        SCORE_SECONDS_METRIC: fit.score_seconds,
        REFIT_SECONDS_METRIC: getattr(fit.search, "refit_time_", None),
        BEST_SCORE_METRIC: getattr(fit.search, "best_score_", None),
    }
    parent.log_metrics([(k, float(v), at, fit.number) for k, v in metrics.items() if v is not None])
    best = fit.candidates.get(int(getattr(fit.search, "best_index_", -1)))
    if best is not None:
        parent.set_tags({BEST_TAG: best.run.name, BEST_PARAMS_TAG: json.dumps(param_values(best.params))})
        parent.set_run_id_tag(BEST_RUN_ID_TAG, best.run)


def seed_columns(candidates: Mapping[int, Candidate], n_candidates: int) -> dict[str, np.ndarray]:
    """Scores of each seed like columns of ``cv_results_``: ``seed<r>_split<i>_test_<scorer>``, nan if unknown."""
    columns: dict[str, np.ndarray] = {}
    for index, candidate in candidates.items():
        for split, fold in candidate.folds.items():
            for scorer, scores in fold.seed_scores.items():
                for seed, score in enumerate(scores):
                    name = f"seed{seed}_split{split}_test_{scorer}"
                    columns.setdefault(name, np.full(n_candidates, np.nan))[index] = score
    return columns


def csv_path(number: int) -> str:
    """Path, among the artifacts of the parent run, of the CSV file of a fit by its number (0-based)."""
    return CV_RESULTS_FILE if number == 0 else f"fit_{number}/{CV_RESULTS_FILE}"


def to_csv(results: Mapping[str, Any]) -> str:
    """Write ``cv_results_`` as CSV: a row for each candidate; cells of parameters that it lacks are empty."""
    columns = {name: _cells(name, np.ma.asarray(values, dtype=object).tolist()) for name, values in results.items()}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return text.getvalue()


def _cells(name: str, values: list[Any]) -> list[Any]:
    """Redact secrets in a column: the name of the parameter decides, which is not next to the value in a table."""
    name = name.removeprefix("param_")
    return [
        "" if value is None else value if isinstance(value, numbers.Number) else masked(any_text(value), name)
        for value in values
    ]
