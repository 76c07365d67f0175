"""Two runs beside each other: metrics, recorded trainings, what they were fitted to, and the runs below them."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import mlflow
import numpy as np
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlflow_hp.repeat.difference import Series, difference, history_differences
from mlflow_hp.runs import load_history

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mlflow.entities import Run

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
    return next((other for other in alike if other.data.params == run.data.params), alike[0] if alike else None)


def _pairs(one: Run, other: Run) -> Iterator[tuple[str, Run | None, Run | None]]:
    """A label, and the runs of both sides that stand for each other; the two themselves first."""
    yield "", one, other
    groups: dict[object, tuple[list[Run], list[Run]]] = defaultdict(lambda: ([], []))
    for side, top in enumerate((one, other)):
        for run in sorted(below(top), key=_start):
            groups[_kind(run), tuple(sorted(run.data.params.items()))][side].append(run)
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
    for name in sorted({*one.data.params, *other.data.params}):
        values = [_unquoted(run.data.params.get(name, "not given")) for run in (one, other)]
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
