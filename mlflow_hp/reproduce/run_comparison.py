"""Bitwise comparison of two runs: metrics, histories, params, digests, and the runs nested in them."""

from __future__ import annotations

import math
import re
import shlex
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import mlflow
import numpy as np
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlflow_hp.history.load import load_history
from mlflow_hp.history.unit_shares import is_unit_share
from mlflow_hp.terminal import count
from mlflow_hp.tracking.run_params import params_of
from mlflow_hp.tracking.tags import (
    DATA_DIGEST_TAG,
    FITS_TAG,
    KIND_TAG,
    SPLIT_DIGEST_TAG,
    UNITS_METRIC_PREFIX,
    WEIGHTS_METRIC_PREFIX,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlflow.entities import Run

    from mlflow_hp.history import TrainingHistory

_DEPENDS_ON_TIME = re.compile(
    r"(?:^|[/_. ])(?:seconds|time|duration)(?:$|[/_. ])|^system/"
    r"|^diagnosis/(?:largest_(?:dead|saturated)_share|layers_(?:dying|saturated))$"  # measured as often as time allows
)


_TAKEN_BY_TIME = (UNITS_METRIC_PREFIX, WEIGHTS_METRIC_PREFIX)
"""Prefixes of metrics that are taken as often as time allows, and compared where both runs have them."""


class RunComparison(NamedTuple):
    """Result of comparing two runs.

    Attributes
    ----------
    differences : list of str
        A line for each difference.
    compared : str
        Numbers of metrics, steps and runs compared, in words.
    """

    differences: list[str]
    compared: str


def compare(one: Run, other: Run) -> RunComparison:
    """Compare two runs and the runs nested in them bit for bit; metrics of time are left out.

    Nested runs are paired by kind and params, in the order of their starts.
    """
    differences: list[str] = []
    n_metrics = n_steps = n_runs = n_time_metrics = 0
    for label, first, second in _pairs(one, other):
        if first is None or second is None:
            lacking, extra = (one, second) if first is None else (other, first)
            differences.append(f"run {lacking.info.run_id} has no nested run like {extra and extra.info.run_id}")
            continue
        n_runs += 1
        names = {*first.data.metrics, *second.data.metrics}
        compared = sorted(name for name in names if not _DEPENDS_ON_TIME.search(name))
        n_metrics, n_time_metrics = n_metrics + len(compared), n_time_metrics + len(names) - len(compared)
        lines = [*_status_and_params(first, second), *_metrics(first, second, compared)]
        for fit in range(int(first.data.tags.get(FITS_TAG, 0))):
            history = load_history(first.info.run_id, fit=fit)
            n_steps += history.n_steps
            lines += map(str, history_differences(history, load_history(second.info.run_id, fit=fit)))
        differences += [f"{label}{line}" for line in lines]
    parts = [
        count(n_metrics, "metric"),
        count(n_steps, "recorded step") if n_steps else "",
        f"in {n_runs:,} runs" if n_runs > 1 else "",
        f"{count(n_time_metrics, 'metric')} of time left out" if n_time_metrics else "",
    ]
    return RunComparison(differences, ", ".join(part for part in parts if part))


def search_runs(query: str, experiment_ids: list[str] | None = None) -> list[Run]:
    """Search runs by an MLflow filter string. `experiment_ids` defaults to all experiments."""
    client = mlflow.MlflowClient()
    ids = experiment_ids or [experiment.experiment_id for experiment in client.search_experiments()]
    runs, token = [], None
    while True:
        page = client.search_runs(ids, query, max_results=1000, page_token=token)
        runs += page
        if not (token := page.token):
            return runs


def nested_runs(top: Run) -> list[Run]:
    """Find all runs nested in a run at any depth, among those that started while it ran."""
    query = f"attributes.start_time >= {top.info.start_time}"
    if top.info.end_time is not None:
        query += f" and attributes.start_time <= {top.info.end_time}"
    children: dict[str | None, list[Run]] = defaultdict(list)
    for run in search_runs(query, [top.info.experiment_id]):
        if run.info.run_id != top.info.run_id:  # tags may form a circle, with top nested in a run below it
            children[run.data.tags.get(MLFLOW_PARENT_RUN_ID)].append(run)
    runs = [top]
    for run in runs:  # the list grows while it is walked
        runs += children.pop(run.info.run_id, [])
    return runs[1:]


def find_counterpart(run: Run, others: Iterable[Run]) -> Run | None:
    """Find the first of `others` with the kind and params of `run`, else the first of its kind."""
    same_kind = sorted((other for other in others if _kind(other) == _kind(run)), key=_start)
    same_params = (other for other in same_kind if params_of(other.data) == params_of(run.data))
    return next(same_params, same_kind[0] if same_kind else None)


def _pairs(one: Run, other: Run) -> Iterator[tuple[str, Run | None, Run | None]]:
    """Yield a label and the corresponding runs of both sides, `one` and `other` first."""
    yield "", one, other
    groups: dict[object, tuple[list[Run], list[Run]]] = defaultdict(lambda: ([], []))
    for side, top in enumerate((one, other)):
        for run in sorted(nested_runs(top), key=_start):
            groups[_kind(run), tuple(sorted(params_of(run.data).items()))][side].append(run)
    for group in groups.values():
        for index in range(max(map(len, group))):
            first, second = (runs[index] if index < len(runs) else None for runs in group)
            named = first or second
            assert named is not None
            yield f"{named.info.run_name}: ", first, second


def _kind(run: Run) -> str | None:
    kind: str | None = run.data.tags.get(KIND_TAG)
    return kind


def _start(run: Run) -> int:
    return int(run.info.start_time)


def _status_and_params(one: Run, other: Run) -> Iterator[str]:
    """Describe differences of status, params, and digests of data and split."""
    if one.info.status != other.info.status:
        yield f"status: {one.info.status}, {other.info.status}"
    params = [params_of(run.data) for run in (one, other)]
    for name in sorted({*params[0], *params[1]}):
        values = [_unquoted(each.get(name, "not given")) for each in params]
        if values[0] != values[1]:
            yield f"param {name}: {values[0]}, {values[1]}"
    for name, what in ((DATA_DIGEST_TAG, "data digest"), (SPLIT_DIGEST_TAG, "split digest")):
        values = [run.data.tags.get(name, "unknown") for run in (one, other)]
        if len(set(values)) > 1:
            yield f"{what}: {values[0]}, {values[1]}"


def _unquoted(value: str) -> str:
    """Undo the shell quoting that ``mlflow run`` logs."""
    try:
        words = shlex.split(value)
    except ValueError:
        return value
    return words[0] if len(words) == 1 else value


def _metrics(one: Run, other: Run, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        series = [_series(run.info.run_id, name) for run in (one, other)]
        if name.startswith(_TAKEN_BY_TIME):  # the histories are compared as well
            common = np.intersect1d(series[0].steps, series[1].steps)
            series = [Series(*(array[np.isin(each.steps, common)] for array in each)) for each in series]
        difference = series_difference(f"metric {name}", *series)
        if difference is not None:
            yield str(difference)


def _series(run_id: str, name: str) -> Series:
    """Read a metric; of each step, the last value that was logged."""
    points = sorted(mlflow.MlflowClient().get_metric_history(run_id, name), key=lambda point: point.timestamp)
    last = dict(sorted({point.step: point.value for point in points}.items()))
    return Series(np.array(list(last), np.int64), np.array(list(last.values()), np.float64))


class SeriesDifference(NamedTuple):
    """Difference between two series.

    Attributes
    ----------
    name : str
        Name of the series.
    n_differing : int
        Number of steps at which they differ, or that only one of them has.
    n_points : int
        Number of steps that either has.
    largest : float
        Largest absolute difference; nan where no step has two different finite values.
    relative : float
        Largest difference relative to the larger of the two values.
    step : int
        Step of the largest absolute difference, else the first differing step.
    """

    name: str
    n_differing: int
    n_points: int
    largest: float
    relative: float
    step: int

    def __str__(self) -> str:
        differ = "differs" if self.n_points == 1 else "differ"
        text = f"{self.name}: {self.n_differing:,} of {count(self.n_points, 'step')} {differ}"
        if np.isnan(self.largest):
            return f"{text}, first at step {self.step}"
        return f"{text}, by at most {self.largest:.3g} at step {self.step} (relative: {self.relative:.3g})"


class Series(NamedTuple):
    """Values by step: steps (n,), ascending and distinct; values (n, ...)."""

    steps: np.ndarray
    values: np.ndarray


def series_difference(name: str, one: Series, other: Series) -> SeriesDifference | None:
    """Compare two series; None if they are the same bit for bit, with any NaN equal to any NaN."""
    steps, rows, other_rows = np.intersect1d(one.steps, other.steps, assume_unique=True, return_indices=True)
    n_points = len(one.steps) + len(other.steps) - len(steps)
    unshared = np.setxor1d(one.steps, other.steps, assume_unique=True)
    if one.values.shape[1:] != other.values.shape[1:]:
        first = int(min(one.steps.min(), other.steps.min()))
        return SeriesDifference(name, n_points, n_points, np.nan, np.nan, first)
    width = math.prod(one.values.shape[1:])
    a, b = (side.values[at].reshape(len(at), width) for side, at in ((one, rows), (other, other_rows)))
    same = (a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b)
    differing = ~same.all(axis=1)
    n_differing = int(differing.sum()) + len(unshared)
    if not n_differing:
        return None
    a, b = a[differing].astype(np.float64), b[differing].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        absolute = np.abs(a - b)
        relative = absolute / np.maximum(np.abs(a), np.abs(b))
    known = np.isfinite(absolute) & (absolute > 0)
    if not known.any():
        first = int(min([*steps[differing], *unshared]))
        return SeriesDifference(name, n_differing, n_points, np.nan, np.nan, first)
    row = np.where(known, absolute, -1.0).max(axis=1).argmax()
    largest = float(absolute[known].max()), float(relative[known].max())
    return SeriesDifference(name, n_differing, n_points, *largest, int(steps[differing][row]))


def history_differences(one: TrainingHistory, other: TrainingHistory) -> Iterator[SeriesDifference]:
    """Yield the differences of two histories in steps, epochs and weights, except times.

    Weights are compared by what both recorded: values, else statistics. Row -1 is before the first step. One tensor is
    in memory at a time.
    """
    for kind, columns, others in (("step", one.steps, other.steps), ("epoch", one.epochs, other.epochs)):
        for name in sorted({*columns, *others} - {kind, "time", "seconds"}):
            pair = columns.get(name), others.get(name)
            chosen = _measured_in_both(*pair) if kind == "epoch" and is_unit_share(name) else None
            yield from _column(f"{kind} {name}", *pair, first=0, chosen=chosen)
    recorded = {one.recorded, other.recorded}
    if "none" in recorded:
        return
    for name in dict.fromkeys(tensor.name for tensor in (*one.tensors, *other.tensors)):
        both = [_rows(history, name, values=recorded == {"values"}) for history in (one, other)]
        in_both = _in_both(one, other, name) if both[0] and both[1] else None
        for kind in both[0] | both[1]:
            yield from _column(f"weights {name}{kind}", both[0].get(kind), both[1].get(kind), first=-1, chosen=in_both)


def _rows(history: TrainingHistory, tensor: str, *, values: bool) -> dict[str, np.ndarray]:
    """Read the recorded values or statistics of a tensor."""
    if tensor not in [known.name for known in history.tensors]:
        return {}
    if values:
        return {"": history.weights(tensor)}
    return {f"/{name}": column for name, column in history.statistics(tensor).items()}


def _measured_in_both(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray:
    """Rows in which both columns have a share, as they are measured by time."""
    if one is None or other is None:
        return np.zeros(0, bool)
    n_common = min(len(one), len(other))
    return np.isfinite(one[:n_common]) & np.isfinite(other[:n_common])


def _in_both(one: TrainingHistory, other: TrainingHistory, tensor: str) -> np.ndarray:
    """Rows that are compared: those with statistics in both, as they are taken by time; all that only one has."""
    taken = sorted((history.has_statistics(tensor) for history in (one, other)), key=len)
    n_common = len(taken[0])
    return np.append(taken[0] & taken[1][:n_common], taken[1][n_common:])


def _column(
    name: str, one: np.ndarray | None, other: np.ndarray | None, first: int, chosen: np.ndarray | None = None
) -> Iterator[SeriesDifference]:
    present = one if one is not None else other
    assert present is not None
    pair = [present[:0] if side is None else side for side in (one, other)]
    indices = [np.arange(len(side)) if chosen is None else np.flatnonzero(chosen[: len(side)]) for side in pair]
    both = zip(indices, pair, strict=True)
    difference = series_difference(name, *(Series(first + index, values[index]) for index, values in both))
    if difference is not None:
        yield difference
