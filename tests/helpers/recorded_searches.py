"""Pytest plugin: every search that a test fits is recorded, and what MLflow holds of it is held against its results.

    python -m pytest -p tests.helpers.recorded_searches --pyargs sklearn.model_selection.tests.test_search

The outermost ``fit`` of each search runs inside `mlflow_hp.record_search`. A warning of ours is an error there. What
scikit-learn computed is seen where it builds ``cv_results_``: by a way that the recording does not use.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import sqlite3
import warnings
import zlib
from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from unittest import mock

import mlflow
import pytest

import mlflow_hp
from tests.helpers import fast_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ONE_IN = 25
"""One test in so many has its searches drawn and described, too: that takes seconds a search."""

VARIATIONS = 3
"""Of a test with more parameters than that, so many variations are run, the first and the last among them."""

LIKE_OTHERS = {
    "test_base_estimator_inputs[HalvingRandomSearchCV]": "as that of HalvingGridSearchCV",
    "test_cv_results[HalvingRandomSearchCV]": "as that of HalvingGridSearchCV",
    "test_random_search[512-exhaust-128]": "as [32-exhaust-8], with sixteen times the candidates",
}
"""Tests of the most candidates that are recorded in a way in which a smaller one is, too: name -> which."""

LARGEST = 1.7976931348623157e308
"""What MLflow keeps of an infinity."""

_inside: ContextVar[bool] = ContextVar("inside", default=False)
counts: Counter[str] = Counter()


POINTS = """
    SELECT metrics.run_uuid, metrics.key, step, CASE WHEN is_nan THEN 'nan' ELSE metrics.value END
    FROM metrics JOIN tags ON tags.run_uuid = metrics.run_uuid
    WHERE tags.key = 'mlflow.parentRunId' AND tags.value = ?
"""
"""Of all runs below one, in one question: MLflow's own asks for each metric of each run."""


def check(run_id: str, folds: list[Mapping[str, Any]], n_splits: int) -> None:
    """Hold a record against scikit-learn's own results of the folds, in its order; none where the search raised."""
    client = mlflow.MlflowClient()
    parent = client.get_run(run_id)
    runs = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert "RUNNING" not in {run.info.status for run in [parent, *runs]}
    assert "mlflow_hp.recording_error" not in parent.data.tags, parent.data.tags["mlflow_hp.recording_error"]
    if not folds:
        return
    by_candidate = [folds[first : first + n_splits] for first in range(0, len(folds), n_splits)]
    place = {run.info.run_id: int(run.data.tags["mlflow_hp.candidate"]) for run in runs}
    assert sorted(place.values()) == list(range(len(by_candidate)))
    counts["runs"] += len(runs)
    points: dict[tuple[str, str], list[tuple[int, float]]] = {}
    with contextlib.closing(sqlite3.connect(mlflow.get_tracking_uri().removeprefix("sqlite:///"))) as rows:
        for run, name, step, value in rows.execute(POINTS, (run_id,)):
            points.setdefault((run, name), []).append((step, float(value)))
    for run in runs:
        check_candidate(run, by_candidate[place[run.info.run_id]], points)


def check_candidate(run: Any, folds: list[Mapping[str, Any]], points: Mapping[tuple[str, str], Any]) -> None:
    """Hold the run of a combination against its folds: how it ended, and each score of each."""
    failed = [fold["fit_error"] is not None for fold in folds]
    assert run.info.status == ("FAILED" if any(failed) else "FINISHED")
    for name in {name for fold in folds for name in by_scorer(fold["test_scores"])}:
        expected = [(split, kept(by_scorer(fold["test_scores"])[name])) for split, fold in enumerate(folds)]
        found = list(points.get((run.info.run_id, name), []))
        if name != "score":  # the scores that a callable would have given to a failed fold are known by others' names
            found += [point for point in points.get((run.info.run_id, "score"), []) if failed[point[0]]]
        assert sorted(map(repr, found)) == sorted(map(repr, expected)), (run, name)


def by_scorer(scores: Any) -> dict[str, Any]:
    """Scores by the names of their metrics."""
    return {f"test_{n}": v for n, v in scores.items()} if isinstance(scores, dict) else {"score": scores}


def kept(score: Any) -> float:
    """A score as MLflow keeps it."""
    return math.copysign(LARGEST, score) if math.isinf(score) else float(score)


@contextlib.contextmanager
def recorded(search: Any, *, report: bool) -> Iterator[None]:
    """Record a fit of `search`, and check the record; an exception of the fit itself comes first."""
    from sklearn.model_selection._search import BaseSearchCV

    folds: list[Any] = []
    shape = [0]
    formats = BaseSearchCV._format_results

    def format_results(self: Any, params: Any, n_splits: int, out: Any, *more: Any, **named: Any) -> Any:
        if self is search:
            folds[:], shape[:] = out, [n_splits]
        return formats(self, params, n_splits, out, *more, **named)

    with warnings.catch_warnings(), mock.patch.object(BaseSearchCV, "_format_results", format_results):
        warnings.filterwarnings("error", "mlflow_hp: ", RuntimeWarning)
        with mlflow_hp.record_search(search, progress=False, report=report) as recording:
            yield
    counts["fits"] += 1
    check(recording.run_id, folds, *shape)


def recording(fit: Any) -> Any:
    """scikit-learn's `fit`, recorded where no recorded one is around it."""

    @functools.wraps(fit)
    def recorded_fit(self: Any, *arguments: Any, **named: Any) -> Any:
        if _inside.get():
            return fit(self, *arguments, **named)
        token = _inside.set(True)
        test = os.environ.get("PYTEST_CURRENT_TEST", "").partition(" ")[0]
        try:
            with recorded(self, report=zlib.crc32(test.encode()) % ONE_IN == 0):
                return fit(self, *arguments, **named)
        finally:
            _inside.reset(token)

    return recorded_fit


@pytest.fixture(autouse=True, scope="session")
def _every_search_is_recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from sklearn.experimental import enable_halving_search_cv  # noqa: F401
    from sklearn.model_selection import _search, _search_successive_halving

    folder = tmp_path_factory.mktemp("store")
    fast_sqlite.install()
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    mlflow.create_experiment("peers", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("peers")
    classes = _search.BaseSearchCV, _search_successive_halving.BaseSuccessiveHalving
    with contextlib.ExitStack() as stack:
        for each in classes:
            stack.enter_context(mock.patch.object(each, "fit", recording(each.fit)))
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out most variations of tests that have many: what they vary is scikit-learn's, not how it is recorded."""
    variations: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.name in LIKE_OTHERS:
            continue
        variations.setdefault(item.nodeid.partition("[")[0], []).append(item)
    chosen = {
        each[place * (len(each) - 1) // (VARIATIONS - 1)] if len(each) > VARIATIONS else each[place % len(each)]
        for each in variations.values()
        for place in range(VARIATIONS)
    }
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.write_line(f"recorded: {counts['fits']} fits, {counts['runs']} combinations")
