"""Review of a recorded search: from what its runs hold, and as artifacts of its parent run."""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from mlflow_hp.analysis.diagnosis.finding import to_json
from mlflow_hp.analysis.review import Review, review, to_yaml
from mlflow_hp.analysis.review.roles import is_budget, is_rate
from mlflow_hp.analysis.search_results import SearchResults, from_cv_results
from mlflow_hp.analysis.search_space import is_number
from mlflow_hp.errors import UserError
from mlflow_hp.search.cv_results import csv_path
from mlflow_hp.tracking.artifact_paths import NEXT_SPACE_FILE, REVIEW_FILE
from mlflow_hp.tracking.server_health import ensure_reachable
from mlflow_hp.tracking.tags import (
    CANDIDATE_TAG,
    FIT_TAG,
    FOLD_METRIC_PREFIX,
    KIND_TAG,
    PARENT_TAG,
    score_metric,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MOST_CURVES = 6
"""Candidates, the best ones, whose curves are read."""
LOSSES = ("val_loss", "loss")
NOT_FINITE = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def review_run(run_id: str, tracking_uri: str | None = None, *, fit: int = 0) -> Review:
    """Review a recorded search by the rules of the Deep Learning Tuning Playbook.

    Parameters
    ----------
    run_id : str
        Id of the parent run of a search that `mlflow_hp.record_search` has recorded.
    tracking_uri : str, optional
        Tracking store of the run. Defaults to the current tracking URI.
    fit : int
        Which of the fits of the search (0-based). Defaults to the first.

    Returns
    -------
    Review
        Findings, problems first, and the next search space.

    Raises
    ------
    UserError
        If the store does not answer, the run does not exist, or is not the parent of a search that has ended.

    Examples
    --------
    >>> import mlflow, mlflow_hp
    >>> from mlflow_hp.search import review_run
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = make_regression(40, 3, noise=1.0, random_state=0)
    >>> search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0, 100.0]}, cv=5)
    >>> with mlflow_hp.record_search(search, report=False, progress=False) as recording:
    ...     _ = search.fit(X, y)
    >>> sorted(review_run(recording.run_id).next_space)
    ['alpha']
    """
    ensure_reachable(tracking_uri)
    results = results_of(run_id, tracking_uri, fit=fit)
    curves = curves_of(run_id, results, tracking_uri, fit=fit)
    return review(results, curves=curves, fixed=_fixed_of(run_id, tracking_uri, fit))


def results_of(run_id: str, tracking_uri: str | None = None, *, fit: int = 0) -> SearchResults:
    """Read the results of a recorded search from ``cv_results.csv`` of its parent run."""
    client = mlflow.MlflowClient(tracking_uri)
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UserError(f"there is no run {run_id!r}: {error.message}; give the id of a search's parent run") from error
    kind = run.data.tags.get(KIND_TAG)
    if kind in ("candidate", "fold"):
        raise UserError(f"run {run_id} is a {kind} of a search; give its parent run, {run.data.tags.get(PARENT_TAG)}")
    try:
        path = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=csv_path(fit), tracking_uri=tracking_uri
        )
    except (MlflowException, OSError):
        raise UserError(
            f"run {run_id} holds no {csv_path(fit)}: it is not the parent run of a search that record_search has "
            "recorded to its end"
        ) from None
    columns = _read_csv(Path(path))
    scorer = run.data.params.get("refit")
    return from_cv_results(columns, scorer if f"mean_test_{scorer}" in columns else None)


def curves_of(
    run_id: str, results: SearchResults, tracking_uri: str | None = None, *, fit: int = 0
) -> dict[int, list[dict[str, np.ndarray]]]:
    """Read the losses by epoch of the best candidates: candidate -> for each fold, arrays of shape (n_epochs,).

    Empty without validation losses, and after halving, whose candidates are trained several times.
    """
    if results.iterations is not None:
        return {}
    client = mlflow.MlflowClient(tracking_uri)
    runs = client.search_runs(
        [client.get_run(run_id).info.experiment_id],
        f"tags.`{PARENT_TAG}` = '{run_id}' and tags.`{KIND_TAG}` = 'candidate'",
        order_by=[f"metrics.`{score_metric(results.scorer, 'mean')}` DESC"],
        max_results=MOST_CURVES,
    )
    curves = {}
    for run in runs:
        index = run.data.tags.get(CANDIDATE_TAG, "")
        folds = [
            {
                name: _history(client, run.info.run_id, f"{FOLD_METRIC_PREFIX}{fold}/{name}")
                for name in LOSSES
                if f"{FOLD_METRIC_PREFIX}{fold}/{name}" in run.data.metrics
            }
            for fold in range(results.fold_scores.shape[1])
        ]
        is_of_fit = run.data.tags.get(FIT_TAG, "0") == str(fit)
        if is_of_fit and index.isdecimal() and all("val_loss" in fold for fold in folds):
            curves[int(index)] = folds
    return curves


def review_files(
    fits: Mapping[int, SearchResults], reviews: Mapping[int, Review], fixed: Mapping[str, Any]
) -> dict[str, str]:
    """Write reviews as artifacts of the parent run: path -> text of ``review.json`` and ``next_space.yaml``.

    `fixed` are the estimator's parameters: learning rates and budgets are kept, so that the review can be repeated.
    """
    files = {}
    needed = {name: value for name, value in fixed.items() if is_rate(name) or is_budget(name)}
    numbers = {name: value for name, value in needed.items() if is_number(value)}
    for number in fits:
        of_fit = reviews[number]
        content = {
            "findings": to_json(of_fit.findings),
            "next_space": of_fit.next_space,
            "remarks": list(of_fit.remarks),
            "fixed": numbers,
        }
        files[_in_folder(REVIEW_FILE, number)] = json.dumps(content, indent=2, default=_plain)
        if of_fit.next_space is not None:
            files[_in_folder(NEXT_SPACE_FILE, number)] = to_yaml(of_fit.next_space)
    return files


def _fixed_of(run_id: str, tracking_uri: str | None, fit: int) -> dict[str, Any]:
    """Read the estimator's learning rates and budgets from the review that the run holds; empty without one."""
    path = _in_folder(REVIEW_FILE, fit)
    try:
        file = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, tracking_uri=tracking_uri)
        fixed = json.loads(Path(file).read_text(encoding="utf-8")).get("fixed")
    except (MlflowException, OSError, ValueError, AttributeError):
        return {}
    return {name: value for name, value in fixed.items() if is_number(value)} if isinstance(fixed, dict) else {}


def _in_folder(name: str, fit: int) -> str:
    return name if fit == 0 else f"fit_{fit}/{name}"


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def _history(client: mlflow.MlflowClient, run_id: str, name: str) -> np.ndarray:
    points = {metric.step: metric.value for metric in client.get_metric_history(run_id, name)}
    return np.array([points[step] for step in sorted(points)])


def _read_csv(path: Path) -> dict[str, Any]:
    """Columns of a ``cv_results.csv``, with ``params`` as they were where their texts are literals."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(rows[0]) if rows else []
    columns = {name: _column([row[name] for row in rows]) for name in names if not name.startswith("params")}
    varied = {name.removeprefix("param_"): columns[name] for name in columns if name.startswith("param_")}
    params = [
        {name: values[index] for name, values in varied.items() if rows[index][f"param_{name}"] != ""}
        for index in range(len(rows))
    ]
    numbers = {name: np.array(_numbers(values), float) for name, values in columns.items() if name not in varied}
    return {**{name: values for name, values in numbers.items() if not name.startswith("param_")}, "params": params}


def _column(cells: Sequence[str]) -> list[Any]:
    """Cells as literals of Python if all that are not empty are such, else as texts."""
    try:
        return [NOT_FINITE.get(cell) if cell in {"", *NOT_FINITE} else ast.literal_eval(cell)
                for cell in cells]  # fmt: skip
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return list(cells)


def _numbers(values: Sequence[Any]) -> list[float]:
    return [value if isinstance(value, (int, float)) else float("nan") for value in values]
