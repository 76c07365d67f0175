"""One round of a vectorised search: all fits in a few programs, then the best candidates exactly."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import joblib
import numpy as np

from mlflow_hp._compat.sklearn import result_of
from mlflow_hp.search.live.events import Epoch, Outcome, Started, fold_of
from mlflow_hp.search.live.repeated_fit import RepeatedFit, mean_result, without_seeds
from mlflow_hp.search.resume.dependencies import dependencies, watch_files
from mlflow_hp.search.vectorised.members import NotVectorisableError
from mlflow_hp.search.vectorised.preparation import Preparation
from mlflow_hp.search.vectorised.scoring import epoch_logs, score
from mlflow_hp.search.vectorised.training import train

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from mlflow_hp.search.live.events import Call, Event, Fold, PlannedFit
    from mlflow_hp.search.vectorised.members import Member, TrainedMember
    from mlflow_hp.search.vectorised.preparation import PreparedFit

MAX_PREPARED = 256
"""Most fits of one network to prepare before they are trained: each holds its estimator, and its model."""


class RoundObserver(Protocol):
    """Observer of a round."""

    search: Any

    @property
    def fits(self) -> dict[int, PlannedFit]:
        """Planned fits by number of their task."""

    def take(self, event: Event) -> None:
        """Handle an event of a running fit."""

    def ended(self, fold: Fold) -> None:
        """Record a finished fit."""

    def vectorised_result(self, call: Call) -> dict[str, Any] | None:
        """Vectorised result of a fit that an earlier process has computed."""

    def add_vectorised(self, fit: PlannedFit) -> None:
        """Add that result to its candidate."""

    def log_batch_losses(self, task: int, seed: int, losses: np.ndarray) -> None:
        """Take the losses of all batches of a fit with one of its seeds (0-based)."""

    def count_plain(self, n: int, reason: str) -> None:
        """Count fits that are trained one by one, and tell why."""


class VectorisedFit(NamedTuple):
    """A fit with a vectorised result.

    Attributes
    ----------
    call : Call
    result : dict
        Result of scikit-learn's function.
    outcome : Outcome or None
        None if it comes from an earlier process.
    trained : sequence of tuple of Member and TrainedMember
        One for each seed; empty likewise.
    """

    call: Call
    result: dict[str, Any]
    outcome: Outcome | None = None
    trained: Sequence[tuple[Member, TrainedMember]] = ()


def search_round(
    calls: Sequence[Call], results: dict[int, Any], observer: RoundObserver, refit_top: int
) -> Generator[Sequence[Call]]:
    """Compute a round of a vectorised search.

    Parameters
    ----------
    calls : sequence of Call
        Fits of the round without an exact result.
    results : dict of int to dict
        Results of scikit-learn's function by task: exact ones, which the caller adds; vectorised ones are added in the
        end, for candidates that have no exact ones.
    observer : RoundObserver
    refit_top : int
        Number of best candidates to compute exactly.

    Yields
    ------
    sequence of Call
        Fits that the caller is to compute exactly before the next step.
    """
    tasks_of: dict[int, list[int]] = defaultdict(list)
    for fit in observer.fits.values():
        if calls and fit.round == calls[0].fit.round:
            tasks_of[fit.candidate].append(fit.task)
    if len(tasks_of) <= refit_top:
        yield calls
        return
    vectorised: dict[int, VectorisedFit] = {}
    exact: set[int] = set()
    try:
        exact |= {call.fit.candidate for call in _vectorise(calls, vectorised, observer)}
        ranked = _ranked(tasks_of, results, vectorised, observer.search.refit)
        next_ones = exact.union(*(ranking[:refit_top] for ranking in ranked))
        while next_ones:
            exact |= next_ones
            yield [call for call in calls if call.fit.candidate in next_ones]
            ranked = _ranked(tasks_of, results, vectorised, observer.search.refit)
            best = {ranking[0] for ranking in ranked if refit_top and ranking}
            next_ones = {candidate for candidate in best if not results.keys() >= set(tasks_of[candidate])}
    finally:
        for task, each in vectorised.items():
            if each.call.fit.candidate not in exact:
                results[task] = without_seeds(each.result)
                _report(each, observer)


def _vectorise(calls: Sequence[Call], vectorised: dict[int, VectorisedFit], observer: RoundObserver) -> list[Call]:
    """Put results of fits in `vectorised`; return the fits for which that is not possible."""
    left: list[Call] = []
    preparation = Preparation()
    prepared_fits: dict[Any, list[tuple[Call, list[PreparedFit]]]] = defaultdict(list)
    reasons: dict[int, str] = {}  # by candidate: of one without a rule all folds are computed exactly
    for call in calls:
        earlier = observer.vectorised_result(call)
        if earlier is not None:
            vectorised[call.fit.task] = VectorisedFit(call, earlier)
            continue
        if call.fit.candidate not in reasons:
            try:
                with watch_files():
                    prepared = [preparation.prepare(each) for each in _with_seeds(call)]
            except Exception as error:  # noqa: BLE001 - the plain fit raises an error of the user's code
                is_known = isinstance(error, NotVectorisableError)
                reasons[call.fit.candidate] = str(error) if is_known else f"{type(error).__name__}: {error}"
        if call.fit.candidate in reasons:
            left.append(call)
            continue
        observer.take(Started(call.fit.task, prepared[0].started))
        group = prepared_fits[prepared[0].network.key]
        group.append((call, prepared))
        if len(group) * len(prepared) >= MAX_PREPARED:
            left += _train(prepared_fits.pop(prepared[0].network.key), vectorised, observer)
    for reason, n in Counter(reasons[call.fit.candidate] for call in left if call.fit.candidate in reasons).items():
        observer.count_plain(n, reason)
    for group in prepared_fits.values():
        left += _train(group, vectorised, observer)
    return left


def _with_seeds(call: Call) -> list[Call]:
    """Divide a repeated fit into one for each seed."""
    if not isinstance(call.function, RepeatedFit):
        return [call]
    return [
        call._replace(function=call.function.function, arguments=arguments)
        for arguments in call.function.arguments(call.arguments)
    ]


def _train(
    group: Sequence[tuple[Call, list[PreparedFit]]], vectorised: dict[int, VectorisedFit], observer: RoundObserver
) -> list[Call]:
    """Train and score fits of one network, each with all its seeds; return those for which that failed."""
    clock, left = time.perf_counter(), []
    prepared_fits = [prepared for _, seeds in group for prepared in seeds]
    try:
        x, y, members = _joined(prepared_fits)
        all_trained = iter(train(prepared_fits[0].network, members, x, y))
    except Exception as error:  # noqa: BLE001 - the plain fits run instead
        observer.count_plain(len(group), f"{type(error).__name__}: {error}")
        return [call for call, _ in group]
    seconds = (time.perf_counter() - clock) / len(prepared_fits)
    for call, seeds in group:
        trained = [(prepared.member, next(all_trained)) for prepared in seeds]
        try:
            with watch_files():
                results = [score(prepared, each) for prepared, (_, each) in zip(seeds, trained, strict=True)]
        except Exception as error:  # noqa: BLE001 - the plain fit raises it, if it is the user's
            observer.count_plain(1, f"{type(error).__name__}: {error}")
            left.append(call)
            continue
        result = results[0] if len(results) == 1 else mean_result(results)
        result["fit_time"] = seeds[0].seconds + seconds
        times = seeds[0].started, time.time()
        outcome = Outcome(call.fit.task, *times, [], 0, result, None, dependencies(), is_vectorised=True)
        vectorised[call.fit.task] = VectorisedFit(call, result, outcome, trained)
    return left


def _joined(group: Sequence[PreparedFit]) -> tuple[np.ndarray, np.ndarray, list[Member]]:
    """Join the different data of fits, and refer their members to rows of it."""
    starts: dict[Any, int] = {}
    parts: list[PreparedFit] = []
    n, members = 0, []
    for prepared in group:
        key = joblib.hash((prepared.x, prepared.y))
        if key not in starts:
            starts[key] = n
            n += len(prepared.x)
            parts.append(prepared)
        start, member = starts[key], prepared.member
        validation_rows = None if member.validation_rows is None else member.validation_rows + start
        members.append(member._replace(rows=member.rows + start, validation_rows=validation_rows))
    return np.concatenate([each.x for each in parts]), np.concatenate([each.y for each in parts]), members


def _report(fit: VectorisedFit, observer: RoundObserver) -> None:
    """Pass on a fit as if it had ended now."""
    if fit.outcome is None:
        observer.add_vectorised(fit.call.fit)
        return
    task, started = fit.outcome.task, fit.outcome.started
    for seed, (member, trained) in enumerate(fit.trained):
        logs = epoch_logs(trained)
        seconds = (fit.outcome.ended - started) / len(logs)
        for epoch, values in enumerate(logs):
            with_rate = {"learning_rate": member.settings["learning_rate"], **values}
            observer.take(Epoch(task, started + (epoch + 1) * seconds, seed, epoch, with_rate))
        observer.log_batch_losses(task, seed, trained.losses)
    observer.ended(fold_of(fit.outcome))


def _ranked(
    tasks_of: Mapping[int, Sequence[int]],
    results: Mapping[int, Any],
    vectorised: Mapping[int, VectorisedFit],
    refit: Any,
) -> list[list[int]]:
    """Candidates from the best mean score to the worst, as scikit-learn ranks them: by each scorer that may decide."""
    means: dict[str, dict[int, float]] = defaultdict(dict)
    for candidate, tasks in tasks_of.items():
        if any(task not in results and task not in vectorised for task in tasks):
            continue
        folds = [results[task] if task in results else vectorised[task].result for task in tasks]
        scores = [result_of(fold).test_scores for fold in folds]
        for scorer in scores[0]:
            means[scorer][candidate] = float(np.average([each[scorer] for each in scores]))
    deciding = [refit] if isinstance(refit, str) and refit in means else list(means)
    return [
        sorted(means[scorer], key=lambda candidate: (*_descending(means[scorer][candidate]), candidate))
        for scorer in deciding
    ]


def _descending(mean: float) -> tuple[bool, float]:
    """Sort key of a mean score: the largest first, NaN last."""
    return math.isnan(mean), -mean
