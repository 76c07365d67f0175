"""Warm start of an adaptive search: combinations that recorded searches have tried on the same data."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any, NamedTuple

import joblib
import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp._notice import log, warn
from mlflow_hp.errors import UserError
from mlflow_hp.search.adaptive.space import Suggestions, suggestions
from mlflow_hp.search.live.family import is_watched
from mlflow_hp.search.naming import search_params
from mlflow_hp.search.resume.fingerprint import Fingerprinter, short
from mlflow_hp.search.resume.fold_cache import hash_of_data
from mlflow_hp.search.resume.previous_run import below
from mlflow_hp.terminal import count
from mlflow_hp.tracking.run_params import params_of
from mlflow_hp.tracking.runs import ensure_reachable
from mlflow_hp.tracking.tags import (
    CANDIDATE_TAG,
    DATA_DIGEST_TAG,
    DIGEST_TAG_PREFIX,
    FIT_TAG,
    FOLDS_DIGEST_TAG,
    KIND_TAG,
    MEAN_SCORE_METRIC,
    WARM_START_TAG_PREFIX,
    score_metric,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_FIRST = 3
"""Most combinations of other folds or estimators that are tried first."""
MAX_RUNS = 200
"""Most runs to learn from, the latest: their ids are a tag of the run, for which MLflow has a limit."""
MAX_LISTED = 5
"""Most runs that the message about a warm start names."""


class WarmStart(NamedTuple):
    """Combinations and scores that are known before the first combination is chosen.

    Attributes
    ----------
    scored : list of tuple of Suggestions and float
        Combinations with their mean scores in the same folds.
    first : list of Suggestions
        Combinations that are tried first.
    runs : dict of str to int
        Id of each run that is used -> number of its combinations in the space.
    """

    scored: list[tuple[Suggestions, float]]
    first: list[Suggestions]
    runs: dict[str, int]


class _Data(NamedTuple):
    """Data of a search, by digests; `folds` and `estimator` are None if they cannot be known."""

    digests: set[str]
    folds: str | None
    estimator: str | None


def warm_start(search: Any, x: Any, y: Any, groups: Any = None) -> WarmStart:
    """Read the combinations of the runs that a search starts from.

    Parameters
    ----------
    search : AdaptiveSearchCV
        The search; its ``warm_start_from`` is a sequence of run ids, or the name or id of an experiment.
    x, y : array-like
        Its data.
    groups : array-like, optional
        Groups of the samples, for its folds. Defaults to None.

    Returns
    -------
    WarmStart
        The combinations; none from an experiment without a comparable search.

    Raises
    ------
    UserError
        If `warm_start_from` is of another form, the space is a function, MLflow does not answer, or a run that is named
        is missing or not comparable.
    """
    source = search.warm_start_from
    if callable(search.param_distributions):
        raise UserError(
            "warm_start_from needs a space of lists and distributions: what a function of the trial would have asked "
            "for is not known; give param_distributions as a dict, or leave out warm_start_from"
        )
    if not isinstance(source, str) and not (isinstance(source, (list, tuple)) and source and _are_texts(source)):
        raise UserError(
            f"warm_start_from={source!r:.200} names no runs: give a list of run ids, or the name or id of an experiment"
        )
    ensure_reachable()
    client = mlflow.MlflowClient()
    active = _recorded_run(client, search)
    data = _data_of(search, x, y, groups, active)
    tag = f"{WARM_START_TAG_PREFIX}{min(data.digests)}"
    if active is not None and tag in active.data.tags:  # of a search that is resumed
        parents = [client.get_run(run_id) for run_id in active.data.tags[tag].split(",") if run_id]
    elif isinstance(source, str):
        parents = _of_experiment(client, source, search, data, active)
    else:
        parents = _named(client, source, search, data)
    if len(parents) > MAX_RUNS:
        log(f"warm start from {MAX_RUNS:,} of {count(len(parents), 'run')}, the last ones", name=__name__)
    warm_start = _collected(client, parents[-MAX_RUNS:], search, data)
    if active is not None:
        client.set_tag(active.info.run_id, tag, ",".join(warm_start.runs))
    return warm_start


def _are_texts(values: Sequence[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _recorded_run(client: mlflow.MlflowClient, search: Any) -> mlflow.entities.Run | None:
    """Run into which the search is being recorded; None if it is not."""
    active = mlflow.active_run() if is_watched(search) else None
    return None if active is None else client.get_run(active.info.run_id)


def _data_of(search: Any, x: Any, y: Any, groups: Any, active: mlflow.entities.Run | None) -> _Data:
    from sklearn.utils import indexable

    x, y = indexable(x, y)
    digests = {short(hash_of_data(x, y))}
    if active is not None and DATA_DIGEST_TAG in active.data.tags:  # the program's own
        digests = {active.data.tags[DATA_DIGEST_TAG]}
    try:
        estimator = short(Fingerprinter().of(search.estimator))
    except Exception:  # noqa: BLE001 - a user's object may raise anything
        estimator = None
    return _Data(digests, _folds_digest(search, x, y, groups), estimator)


def _folds_digest(search: Any, x: Any, y: Any, groups: Any) -> str | None:
    """Digest of the folds, as on the parent run of a recorded search; None if they are drawn when they are used."""
    from sklearn.base import is_classifier
    from sklearn.model_selection import check_cv

    if hasattr(search.cv, "__next__"):
        return None
    try:
        splitter = check_cv(deepcopy(search.cv), y, classifier=is_classifier(search.estimator))
        rows = {number: str(joblib.hash(split)) for number, split in enumerate(splitter.split(x, y, groups))}
    except Exception:  # noqa: BLE001 - a splitter that needs more is no reason to fail
        return None
    return short(sorted(rows.items()))


def _of_experiment(
    client: mlflow.MlflowClient, source: str, search: Any, data: _Data, active: mlflow.entities.Run | None
) -> list[mlflow.entities.Run]:
    """Comparable searches of an experiment that have ended, the earliest first."""
    experiment = client.get_experiment_by_name(source)
    try:
        experiment = client.get_experiment(source) if experiment is None else experiment
    except MlflowException as error:
        raise UserError(f"warm_start_from={source!r}: there is no such experiment ({error.message})") from error
    searches = client.search_runs(
        [experiment.experiment_id], f"tags.`{KIND_TAG}` = 'search'", order_by=["attributes.start_time DESC"]
    )[::-1]  # at most 1,000, so the latest
    ended = [run for run in searches if run.info.status != "RUNNING" and not _is_same(run, active)]
    reasons = {run.info.run_id: _reason(run, search, data) for run in ended}
    comparable = [run for run in ended if reasons[run.info.run_id] is None]
    if not comparable:
        example = next(filter(None, reasons.values()), "it has no recorded search that has ended")
        warn(f"warm_start_from={source!r}: no search there is comparable, so this one starts cold ({example})")
    return comparable


def _is_same(run: mlflow.entities.Run, active: mlflow.entities.Run | None) -> bool:
    return active is not None and run.info.run_id == active.info.run_id


def _named(client: mlflow.MlflowClient, run_ids: Sequence[str], search: Any, data: _Data) -> list[mlflow.entities.Run]:
    """Runs by id, all comparable."""
    parents = []
    for run_id in dict.fromkeys(run_ids):
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            raise UserError(f"warm_start_from: the run {run_id} is not in the store ({error.message})") from error
        if (reason := _reason(run, search, data)) is not None:
            raise UserError(f"warm_start_from: the run {run_id} is not comparable: {reason}; leave it out")
        parents.append(run)
    return parents


def _reason(run: mlflow.entities.Run, search: Any, data: _Data) -> str | None:
    """Why the scores of a run say nothing about a search; None if they do."""
    tags = run.data.tags
    if tags.get(KIND_TAG) != "search":
        return "it is not the parent run of a search that record_search has recorded"
    digest = tags.get(DATA_DIGEST_TAG)
    if digest not in data.digests:
        return f"its data ({digest or 'unknown'}) are not those of this search ({min(data.digests)})"
    own, other = search_params(search)["scoring"], params_of(run.data).get("scoring")
    if _guide(search) == MEAN_SCORE_METRIC and own != other:
        return f"its scoring is {other}, not {own}"
    return None


def _guide(search: Any) -> str:
    """Metric of a candidate that guides the search."""
    return score_metric(search.refit, "mean") if isinstance(search.refit, str) else MEAN_SCORE_METRIC


def _collected(
    client: mlflow.MlflowClient, parents: Sequence[mlflow.entities.Run], search: Any, data: _Data
) -> WarmStart:
    scored: dict[str, tuple[Suggestions, float]] = {}
    best_of_others: list[tuple[float, Suggestions]] = []
    runs: dict[str, int] = {}
    n_outside = 0
    for parent in parents:
        combinations = [
            (suggestions(search.param_distributions, texts), score)
            for texts, score in _candidates(client, parent, _guide(search))
        ]
        inside = [(suggested, score) for suggested, score in combinations if suggested is not None]
        n_outside += len(combinations) - len(inside)
        if inside:
            runs[parent.info.run_id] = len(inside)
        if _has_same_folds(parent, data):
            for suggested, score in inside:
                scored.setdefault(repr(sorted(suggested.params.items())), (suggested, score))
        elif inside:
            suggested, score = max(inside, key=lambda each: each[1])
            best_of_others.append((score, suggested))
    best_of_others.sort(key=lambda each: -each[0])
    first = [max(scored.values(), key=lambda each: each[1])[0]] if scored else []
    first += [suggested for _, suggested in best_of_others[:MAX_FIRST]]
    outside = f"{count(n_outside, 'combination')} left out, which this space does not contain"
    if runs:
        listed = [f"{run_id} ({n:,})" for run_id, n in runs.items()]
        more = f", and {len(listed) - MAX_LISTED:,} more" if len(listed) > MAX_LISTED else ""
        named = ", ".join(listed[:MAX_LISTED]) + more
        text = f"warm start from {count(len(runs), 'run')} with their combinations: {named}"
        log(text + (f"; {outside}" if n_outside else ""), name=__name__)
    elif parents:
        reason = outside if n_outside else "none is finished"
        warn(f"warm_start_from: no combination of {count(len(parents), 'run')} is used, so it starts cold ({reason})")
    return WarmStart(list(scored.values()), first, runs)


def _candidates(
    client: mlflow.MlflowClient, parent: mlflow.entities.Run, metric: str
) -> Iterator[tuple[dict[str, str], float]]:
    """Yield parameters and mean score of each finished candidate of the first fit of a search, by its number."""
    candidates = [run for run in below(client, parent) if CANDIDATE_TAG in run.data.tags]
    for run in sorted(candidates, key=lambda run: int(run.data.tags[CANDIDATE_TAG])):
        score = run.data.metrics.get(metric, math.nan)
        if run.info.status == "FINISHED" and FIT_TAG not in run.data.tags and math.isfinite(score):
            yield params_of(run.data), score


def _has_same_folds(parent: mlflow.entities.Run, data: _Data) -> bool:
    """Whether the scores of a run are those that this search would compute."""
    tags = parent.data.tags
    halves = "factor" in params_of(parent.data)  # its candidates have scores of few resources
    same = {FOLDS_DIGEST_TAG: data.folds, f"{DIGEST_TAG_PREFIX}estimator": data.estimator}
    return not halves and all(value is not None and tags.get(name) == value for name, value in same.items())
