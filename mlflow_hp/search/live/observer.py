"""Observer of one ``search.fit``: writes a run for each candidate, opened when its first fit starts."""

from __future__ import annotations

import functools
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow_hp._compat.private_name import warn_once
from mlflow_hp._forks import abandon_in_child
from mlflow_hp.errors import UserError
from mlflow_hp.search.live.candidates import Candidates
from mlflow_hp.search.live.events import (
    Epoch,
    Fold,
    Outcome,
    PlainTraining,
    Raised,
    RecordingProblem,
    Started,
    fold_of,
)
from mlflow_hp.search.live.skipping import Skipping
from mlflow_hp.search.live.speedup_choice import SpeedUpChoice
from mlflow_hp.search.live.worker_channel import Inbox
from mlflow_hp.terminal import count
from mlflow_hp.tracking.tags import ENGINE_TAG, PLAIN_TRAININGS_TAG, SHARED_EPOCHS_WITH_TAG

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    import numpy as np

    from mlflow_hp._compat.private_name import UnsupportedVersionError
    from mlflow_hp.delivery.search_sender import SearchSender
    from mlflow_hp.search.live.candidates import Candidate
    from mlflow_hp.search.live.events import Address, Call, Event, PlannedFit, Pool
    from mlflow_hp.search.live.skipping import Group, Skip
    from mlflow_hp.search.resume.fold_cache import FoldCache
    from mlflow_hp.search.time_limit import TimeLimit

LAST_EVENTS_SECONDS = 5.0
"""Longest wait at the end for messages of workers."""

Method = TypeVar("Method", bound="Callable[..., None]")


def _guarded(method: Method) -> Method:
    """Report an error of the recording instead of raising it into the search."""

    @functools.wraps(method)
    def guarded(self: SearchFit, *arguments: Any) -> None:
        if self.abandoned:
            return
        try:
            with self.lock:
                method(self, *arguments)
        except Exception as error:  # noqa: BLE001
            self.problem(f"{type(error).__name__}: {error}")

    return guarded  # type: ignore[return-value]


class SearchFit:
    """Observer of one ``search.fit``.

    Parameters
    ----------
    search : BaseSearchCV
        The search that fits.
    writer : SearchSender
        Writes the runs.
    number : int
        Number of this fit among those recorded into the parent run (0-based).
    fold_cache : FoldCache
        Finished folds of an earlier process.
    per_fold_runs : bool
        Whether each fold gets its own run.
    steps : bool
        Whether each fold's run also holds every step of the Keras models fitted in it.
    repeats : int
        Number of seeds of each fit.
    reuse : bool
        Whether compiled Keras models are reused between fits.
    share_epochs : bool
        Whether fits that differ only in epochs share a training.
    prune : {"exact", "tested"} or None
        Rule by which candidates lose their other folds.
    limit : TimeLimit
        Time for the fits.
    progress : bool
        Whether to show a progress bar.
    refit_top : int or None
        Number of best candidates of a vectorised search to fit exactly; None for a plain one.
    problem, remark : callable
        Take errors of the recording, and other messages to the user.

    Attributes
    ----------
    candidates : dict of int to Candidate
        Candidates with a started fit, by their index in ``cv_results_``.
    fit_seconds, score_seconds : float
        Sums over all fits; an epoch that several share counts once.
    is_understood : bool
        Whether scikit-learn's fits and their results were as expected; if not, ``cv_results_`` is recorded at the end.
    speedups : SpeedUpChoice
        Decides which fits reuse or share trainings.
    n_reused : int
        Number of fits whose results come from an earlier process.
    skipping : Skipping or None
        Decides which fits are not computed; None if all are.
    """

    def __init__(
        self,
        search: Any,
        writer: SearchSender,
        number: int,
        fold_cache: FoldCache,
        *,
        per_fold_runs: bool,
        steps: bool,
        repeats: int,
        reuse: bool,
        share_epochs: bool,
        prune: str | None,
        limit: TimeLimit,
        progress: bool,
        refit_top: int | None,
        problem: Callable[[str], None],
        remark: Callable[[str], None],
    ) -> None:
        self.search = search
        self.number = number
        self.steps = steps
        self.repeats = repeats
        self.n_reused = 0
        self.fold_cache = fold_cache
        self.speedups = SpeedUpChoice(
            search,
            reuse=reuse,
            share_epochs=share_epochs,
            states_folder=lambda: writer.states_folder,
            remark=remark,
        )
        self._refit_top = refit_top
        self._on_dask = False
        self.results_before = getattr(search, "cv_results_", None)
        self.problem = problem
        self.lock = threading.RLock()
        self.is_understood = True
        self.abandoned = False
        abandon_in_child(self)
        self.fit_seconds = self.score_seconds = 0.0
        self._writer = writer
        self._per_fold_runs = per_fold_runs
        self._candidates = Candidates(search, writer, number, fold_cache, progress=progress)
        self.candidates = self._candidates.candidates
        self._n_sent: dict[int, int] = {}
        self._inbox = Inbox(self.take, self.fold_run)
        self.skipping: Skipping | None = None
        if prune is not None or limit.is_set:
            self.skipping = Skipping(search, prune, limit, skipped=self._skipped, remark=remark)
            limit.begin()

    def abandon(self) -> None:
        """Stop observing in a forked child process: the parent process observes the search."""
        self.lock = threading.RLock()
        self.abandoned = True

    def address(self, pool: Pool) -> Address:
        """Address to which the fits send their events."""
        self._on_dask = pool.kind == "dask"
        address = self._inbox.address(pool.kind == "processes", pool.cluster)
        return address._replace(run_id=self._writer.run_id, reuse=self.speedups.reuses_models(pool))

    @_guarded
    def planned(self, fit: PlannedFit) -> None:
        """Note a fit that is handed to the pool."""
        self._candidates.plan(fit)
        if self.skipping is not None:
            self.skipping.plan(fit)

    def cached_result(self, call: Call) -> dict[str, Any] | None:
        """Result of a fit that an earlier process has computed; None if there is none."""
        try:
            with self.lock:
                if tags := self.fold_cache.check_data(call.fit, call.arguments):
                    self._writer.parent.set_tags(tags)
                finished = self.fold_cache.find(call.fit, call.arguments)
                if finished is None:
                    return None
                outcome = Outcome(call.fit.task, finished.started, finished.ended, [], 0, finished.result)
                self._add_reused(call.fit, fold_of(outcome))
                return finished.result
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - the fit is computed instead
            self.problem(f"{type(error).__name__}: {error}")
            return None

    def grouped(self, calls: Iterable[Call]) -> Iterable[Group]:
        """Group the fits that share a training, each group with the name of its parameter for epochs."""
        return self.speedups.grouped(calls)

    def state_file(self, call: Call) -> Path | None:
        """File from which the training of a fit goes on, and for its state; None if it is trained from the start."""
        return self.speedups.state_file(call)

    def selected(self, groups: Iterable[Group], results: dict[int, Any]) -> Iterable[Group]:
        """Order the groups of fits, and leave out those that are not computed, whose results go to `results`."""
        return groups if self.skipping is None else self.skipping.select(groups, results)

    def prefers_order(self) -> bool:
        """Whether the fits are handed to the pool only when a worker is free, so that `selected` knows most."""
        return self.skipping is not None

    @_guarded
    def _skipped(self, skip: Skip) -> None:
        """Note a fit that is not computed; a pruned candidate ends with its last fold."""
        self._candidates.skip(skip.fit, skip.reason if skip.is_pruned else None)

    def ended_round(self) -> None:
        """Refuse to choose the best candidate where the time limit left none with all its folds.

        Raises
        ------
        UserError
            If the search would refit a candidate without a score.
        """
        skipping = self.skipping
        if skipping is None or not skipping.is_cut or skipping.has_complete or not self.search.refit:
            return
        done = sum(len(candidate.folds) for candidate in self.candidates.values())
        raise UserError(
            f"time_budget={skipping.limit.seconds:g} s was over after {count(done, 'fit')}, before any candidate of "
            "this round had the scores of all its folds: none can be refitted; give more time, or go on by resume=True"
        )

    def rounds(self, calls: Iterable[Call], results: dict[int, Any]) -> Generator[Iterable[Call]]:
        """Divide the fits of a round into parts: all, or those that a vectorised training leaves to compute exactly."""
        if self._refit_top is None:
            yield calls
            return
        from mlflow_hp.search.vectorised.search_round import search_round

        self._writer.parent.set_tags({ENGINE_TAG: "vectorised"})
        calls = list(calls)
        try:
            yield from search_round(calls, results, self, self._refit_top)
        except Exception as error:  # noqa: BLE001 - an error of ours; those of the fits are not raised here
            left = [call for call in calls if call.fit.task not in results]
            self.count_plain(len(left), f"{type(error).__name__}: {error}")
            yield left

    @property
    def fits(self) -> dict[int, PlannedFit]:
        """Planned fits by number of their task."""
        return self._candidates.fits

    def vectorised_result(self, call: Call) -> dict[str, Any] | None:
        """Vectorised result of a fit that an earlier process has computed; None if there is none."""
        finished = self.fold_cache.find_vectorised(call.fit)
        return None if finished is None else finished.result

    @_guarded
    def add_vectorised(self, fit: PlannedFit) -> None:
        """Add a vectorised result of an earlier process to its candidate."""
        finished = self.fold_cache.find_vectorised(fit)
        assert finished is not None
        outcome = Outcome(fit.task, finished.started, finished.ended, [], 0, finished.result, is_vectorised=True)
        self._add_reused(fit, fold_of(outcome))

    @_guarded
    def log_batch_losses(self, task: int, seed: int, losses: np.ndarray) -> None:
        """Take the losses of all batches of a fit with one of its seeds, for its candidate."""
        candidate, split = self._open(task, time.time())
        candidate.batch_losses[split, seed] = losses

    def count_plain(self, n: int, reason: str) -> None:
        """Count fits that a vectorised search trains one by one, and tell why."""
        with self.lock:
            self.speedups.count_not_vectorised(n, reason)

    @_guarded
    def take(self, event: Event) -> None:
        """Handle an event of a running fit."""
        if isinstance(event, Outcome):
            self.ended(fold_of(event))
            return
        candidate, split = self._open(event.task, event.time)
        if isinstance(event, Started) and self._per_fold_runs:
            candidate.open_fold(self._writer, split, event.time)
        elif isinstance(event, Epoch):
            candidate.log_epoch(split, event, also_in_fold=not self.steps)  # with steps, the fold's recorder does it
        elif isinstance(event, RecordingProblem):
            self.problem(event.problem)
        elif isinstance(event, PlainTraining):
            self.speedups.count_plain(event.reason, is_fault=event.is_fault)
        elif isinstance(event, Raised):
            candidate.fail(split, event.traceback)

    def fold_run(self, task: int) -> tuple[str, str] | None:
        """Id and tracking URI of the run for the fold of this fit, created if necessary; None if that fails."""
        with self.lock:
            candidate, split = self._open(task, time.time())
            candidate.open_fold(self._writer, split, time.time())
        run_id = self._writer.run_id_of(candidate.fold_runs[split])
        if run_id is None:
            self.problem(f"not every step of fold {split} of {candidate.run.name} is recorded: its run is missing")
            return None
        return run_id, self._writer.tracking_uri

    @_guarded
    def ended(self, fold: Fold) -> None:
        """Record a finished fit."""
        candidate, split = self._open(fold.task, fold.started)
        self._n_sent[fold.task] = fold.n_sent
        if split in candidate.folds:  # received before, as an event
            return
        for event in fold.events:
            self.take(event)
        if self._on_dask and self.steps:
            self.problem("steps are recorded only by workers of this machine, epochs by all")
        fits = self._candidates.fits
        tags = self.fold_cache.tags_for(fits[fold.task], fold)
        if self._refit_top is not None or self.fold_cache.is_resumed:
            tags[ENGINE_TAG] = "vectorised" if fold.is_vectorised else "plain"
        if fold.trained_by is not None:
            tags[SHARED_EPOCHS_WITH_TAG] = self.candidates[fits[fold.trained_by].candidate].run.name
        candidate.add(split, fold, tags)
        if candidate.is_complete:
            candidate.summarize()
        self._count(fold)
        if self.skipping is not None:
            self.skipping.note(fits[fold.task], fold)

    def _add_reused(self, fit: PlannedFit, fold: Fold) -> None:
        """Add a fold of an earlier process to its candidate, whose run exists already."""
        previous_candidate = self.fold_cache.previous_candidate(fit.candidate)
        assert previous_candidate is not None
        candidate = self._candidates.of(fit.task, fold.started)
        if previous_candidate.status == "FINISHED":
            candidate.folds[fit.split] = fold
        else:  # the process may have died between writing the fold's tag and its metrics
            candidate.add(fit.split, fold, {})
        if candidate.is_complete and previous_candidate.status == "FINISHED":
            candidate.status = previous_candidate.status
        elif candidate.is_complete:
            candidate.summarize()
        self.n_reused += 1
        self._count(fold)
        if self.skipping is not None:
            self.skipping.note(fit, fold)

    def _count(self, fold: Fold) -> None:
        self.score_seconds += fold.score_seconds
        self.fit_seconds += fold.fit_seconds - fold.reused_seconds
        self._candidates.fold_ended(fold.task)

    def _open(self, task: int, at: float) -> tuple[Candidate, int]:
        """The candidate of a started fit, with its run open, and the index of the split."""
        return self._candidates.open(task, at), self._candidates.fits[task].split

    @_guarded
    def not_understood(self, error: UnsupportedVersionError) -> None:
        """Note a fit or a result that is not as expected: ``cv_results_`` is recorded at the end."""
        self.is_understood = False
        warn_once(error)

    @_guarded
    def computed(self) -> None:
        """Note that no more fits will end."""
        self._candidates.close()

    def finish(self, *, raised: bool) -> None:
        """End the observation; candidates that are still running become KILLED.

        Parameters
        ----------
        raised : bool
            Whether an exception ended the search. Otherwise the workers' last messages are awaited.
        """
        deadline = time.monotonic() + LAST_EVENTS_SECONDS
        while not raised and self._inbox.received < sum(self._n_sent.values()) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._inbox.close()
        self._candidates.close()
        self.speedups.close()
        self._kill_running()
        self._write_plain_trainings()

    @_guarded
    def _kill_running(self) -> None:
        self._candidates.kill(time.time())

    @_guarded
    def _write_plain_trainings(self) -> None:
        if text := self.speedups.plain_trainings():
            name = f"{PLAIN_TRAININGS_TAG}_{self.number}" if self.number else PLAIN_TRAININGS_TAG
            self._writer.parent.set_tags({name: text})

    @property
    def running(self) -> list[str]:
        """Names of the candidates that are being computed."""
        with self.lock:
            return [candidate.run.name for candidate in self._candidates.running]
