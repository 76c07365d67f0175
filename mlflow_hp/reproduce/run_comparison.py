"""Two runs beside each other: metrics, recorded trainings, what they were fitted to, and the runs below them.

Series of numbers are compared bit for bit.
"""

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
from mlflow_hp.tracking.runs import params_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlflow.entities import Run

    from mlflow_hp.history import TrainingHistory

_OF_TIME = re.compile(r"(?:^|[/_. ])(?:seconds|time|duration)(?:$|[/_. ])|^system/")


class Likeness(NamedTuple):
    """How far two runs are alike.

    Attributes
    ----------
    differences : list of str
        What is not the same bit for bit.
    compared : str
        What was compared.
    """

    differences: list[str]
    compared: str


def likeness(one: Run, other: Run) -> Likeness:
    """Compare two runs and those below them, bit for bit; what tells of time is left out.

    Runs below are paired by kind and params, in the order of their starts.
    """
    differences: list[str] = []
    n_metrics = n_steps = n_runs = n_of_time = 0
    for label, here, there in _pairs(one, other):
        if here is None or there is None:
            lacking, has = (one, there) if here is None else (other, here)
            differences.append(f"run {lacking.info.run_id} has nothing like run {has and has.info.run_id} below it")
            continue
        n_runs += 1
        names = {*here.data.metrics, *there.data.metrics}
        compared = sorted(name for name in names if not _OF_TIME.search(name))
        n_metrics, n_of_time = n_metrics + len(compared), n_of_time + len(names) - len(compared)
        found = [*_facts(here, there), *_metrics(here, there, compared)]
        for fit in range(int(here.data.tags.get("mlflow_hp.fits", 0))):
            history = load_history(here.info.run_id, fit=fit)
            n_steps += history.n_steps
            found += map(str, history_differences(history, load_history(there.info.run_id, fit=fit)))
        differences += [f"{label}{text}" for text in found]
    parts = [
        f"{n_metrics:,} metrics",
        f"{n_steps:,} recorded steps" if n_steps else "",
        f"in {n_runs:,} runs" if n_runs > 1 else "",
        f"{n_of_time:,} metrics of time left out" if n_of_time else "",
    ]
    return Likeness(differences, ", ".join(part for part in parts if part))


def searched(query: str, experiments: list[str] | None = None) -> list[Run]:
    """Runs of any experiment, or of those with the ids given."""
    client = mlflow.MlflowClient()
    among = experiments or [experiment.experiment_id for experiment in client.search_experiments()]
    found, token = [], None
    while True:
        page = client.search_runs(among, query, max_results=1000, page_token=token)
        found += page
        if not (token := page.token):
            return found


def below(top: Run) -> list[Run]:
    """All runs that are nested in a run, at any depth: among those that started while it lasted."""
    query = f"attributes.start_time >= {top.info.start_time}"
    if top.info.end_time is not None:
        query += f" and attributes.start_time <= {top.info.end_time}"
    children: dict[str | None, list[Run]] = defaultdict(list)
    for run in searched(query, [top.info.experiment_id]):
        if run.info.run_id != top.info.run_id:  # which may be said to be nested in one that is below it
            children[run.data.tags.get(MLFLOW_PARENT_RUN_ID)].append(run)
    found = [top]
    for run in found:  # which grows
        found += children.pop(run.info.run_id, [])
    return found[1:]


def like(run: Run, others: Iterable[Run]) -> Run | None:
    """The first of `others` with the kind and the params of `run`, else the first of its kind."""
    alike = sorted((other for other in others if _kind(other) == _kind(run)), key=_start)
    return next((other for other in alike if params_of(other.data) == params_of(run.data)), alike[0] if alike else None)


def _pairs(one: Run, other: Run) -> Iterator[tuple[str, Run | None, Run | None]]:
    """A label, and the runs of both sides that stand for each other; the two themselves first."""
    yield "", one, other
    groups: dict[object, tuple[list[Run], list[Run]]] = defaultdict(lambda: ([], []))
    for side, top in enumerate((one, other)):
        for run in sorted(below(top), key=_start):
            groups[_kind(run), tuple(sorted(params_of(run.data).items()))][side].append(run)
    for here, there in groups.values():
        for index in range(max(len(here), len(there))):
            a, b = (side[index] if index < len(side) else None for side in (here, there))
            named = a or b
            assert named is not None
            yield f"{named.info.run_name}: ", a, b


def _kind(run: Run) -> str | None:
    kind: str | None = run.data.tags.get("mlflow_hp.kind")
    return kind


def _start(run: Run) -> int:
    return int(run.info.start_time)


def _facts(one: Run, other: Run) -> Iterator[str]:
    """What is no number."""
    if one.info.status != other.info.status:
        yield f"status: {one.info.status}, {other.info.status}"
    params = [params_of(run.data) for run in (one, other)]
    for name in sorted({*params[0], *params[1]}):
        values = [_unquoted(each.get(name, "not given")) for each in params]
        if values[0] != values[1]:
            yield f"param {name}: {values[0]}, {values[1]}"
    for name in ("data_digest", "split_digest"):
        values = [run.data.tags.get(f"mlflow_hp.{name}", "unknown") for run in (one, other)]
        if len(set(values)) > 1:
            yield f"{name.replace('_', ' ')}: {values[0]}, {values[1]}"


def _unquoted(value: str) -> str:
    """A param as the program got it: ``mlflow run`` logs what it gives to the shell."""
    try:
        words = shlex.split(value)
    except ValueError:
        return value
    return words[0] if len(words) == 1 else value


def _metrics(one: Run, other: Run, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        found = difference(f"metric {name}", *(_series(run.info.run_id, name) for run in (one, other)))
        if found is not None:
            yield str(found)


def _series(run_id: str, name: str) -> Series:
    """A metric, of which the last value of each step counts."""
    points = sorted(mlflow.MlflowClient().get_metric_history(run_id, name), key=lambda point: point.timestamp)
    last = dict(sorted({point.step: point.value for point in points}.items()))
    return Series(np.array(list(last), np.int64), np.array(list(last.values()), np.float64))


class Difference(NamedTuple):
    """One series that is not the same in two recordings.

    Attributes
    ----------
    name : str
        What it is of.
    n_differing, n_points : int
        Steps at which it differs, or that only one side has; and all steps of both sides.
    largest : float
        The largest absolute difference; nan where no step has two different numbers to subtract.
    relative : float
        The largest difference in relation to the larger of the two values.
    step : int
        Where the largest absolute difference is, or else the first of all differing steps.
    """

    name: str
    n_differing: int
    n_points: int
    largest: float
    relative: float
    step: int

    def __str__(self) -> str:
        told = f"{self.name}: {self.n_differing:,} of {self.n_points:,} steps differ"
        if np.isnan(self.largest):
            return f"{told}, first at step {self.step}"
        return f"{told}, at most by {self.largest:.3g} at step {self.step} (relative: {self.relative:.3g})"


class Series(NamedTuple):
    """Numbers by step.

    Attributes
    ----------
    steps : ndarray of int, shape (n,)
        Ascending, each once.
    values : ndarray, shape (n, ...)
    """

    steps: np.ndarray
    values: np.ndarray


def difference(name: str, one: Series, other: Series) -> Difference | None:
    """How two series differ; None where they are the same, bit for bit. Any NaN equals any NaN."""
    steps, here, there = np.intersect1d(one.steps, other.steps, assume_unique=True, return_indices=True)
    n_points = len(one.steps) + len(other.steps) - len(steps)
    alone = np.setxor1d(one.steps, other.steps, assume_unique=True)
    if one.values.shape[1:] != other.values.shape[1:]:
        return Difference(name, n_points, n_points, np.nan, np.nan, int(min(one.steps.min(), other.steps.min())))
    width = math.prod(one.values.shape[1:])
    a, b = (side.values[rows].reshape(len(rows), width) for side, rows in ((one, here), (other, there)))
    same = (a == b) & (np.signbit(a) == np.signbit(b)) | np.isnan(a) & np.isnan(b)
    differing = ~same.all(axis=1)
    n_differing = int(differing.sum()) + len(alone)
    if not n_differing:
        return None
    a, b = a[differing].astype(np.float64), b[differing].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        apart = np.abs(a - b)
        relative = apart / np.maximum(np.abs(a), np.abs(b))
    known = np.isfinite(apart) & (apart > 0)
    if not known.any():
        return Difference(name, n_differing, n_points, np.nan, np.nan, int(min([*steps[differing], *alone])))
    row = np.where(known, apart, -1.0).max(axis=1).argmax()
    most = float(apart[known].max()), float(relative[known].max())
    return Difference(name, n_differing, n_points, *most, int(steps[differing][row]))


def history_differences(one: TrainingHistory, other: TrainingHistory) -> Iterator[Difference]:
    """How two recorded trainings differ in steps, epochs and weights; times aside.

    Weights are compared as far as both have them: values, else statistics. Their rows are after steps, and -1 is
    before the first one. One tensor is in memory at a time.
    """
    for kind, columns, others in (("step", one.steps, other.steps), ("epoch", one.epochs, other.epochs)):
        for name in sorted({*columns, *others} - {kind, "time", "seconds"}):
            yield from _column(f"{kind} {name}", columns.get(name), others.get(name), first=0)
    recorded = {one.recorded, other.recorded}
    if "none" in recorded:
        return
    for name in dict.fromkeys(tensor.name for tensor in (*one.tensors, *other.tensors)):
        both = [_rows(history, name, values=recorded == {"values"}) for history in (one, other)]
        for kind in both[0] | both[1]:
            yield from _column(f"weights {name}{kind}", both[0].get(kind), both[1].get(kind), first=-1)


def _rows(history: TrainingHistory, tensor: str, *, values: bool) -> dict[str, np.ndarray]:
    """What was recorded of a tensor, by row."""
    if tensor not in [known.name for known in history.tensors]:
        return {}
    if values:
        return {"": history.weights(tensor)}
    return {f"/{name}": column for name, column in history.statistics(tensor).items()}


def _column(name: str, one: np.ndarray | None, other: np.ndarray | None, first: int) -> Iterator[Difference]:
    present = one if one is not None else other
    assert present is not None
    pair = (present[:0] if side is None else side for side in (one, other))
    found = difference(name, *(Series(np.arange(first, first + len(values)), values) for values in pair))
    if found is not None:
        yield found
