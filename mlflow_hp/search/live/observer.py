"""What one ``search.fit`` does, as runs: one for each combination, opened when its first fit starts."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow_hp._forks import abandon_in_child
from mlflow_hp.errors import UserError
from mlflow_hp.search.live.candidates import Combinations
from mlflow_hp.search.live.events import Epoch, Fold, Outcome, Plain, Raised, Started, Unrecorded, fold_of
from mlflow_hp.search.live.worker_channel import Inbox
from mlflow_hp.search.naming import space_of
from mlflow_hp.search.speedups.epoch_sharing import together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mlflow_hp.delivery.run_writer import Writer
    from mlflow_hp.search.live.candidates import Candidate
    from mlflow_hp.search.live.events import Address, Call, Event, Planned, Pool
    from mlflow_hp.search.resume.fold_cache import Memory

LAST_EVENTS_SECONDS = 5.0
"""How long is waited at the end for messages of workers that are still on their way."""

Method = TypeVar("Method", bound="Callable[..., None]")


def _guarded(method: Method) -> Method:
    """Let no error of the recording end the search: it is noted."""

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
    """Follows one ``search.fit``.

    Parameters
    ----------
    search : BaseSearchCV
        The one that fits.
    writer : Writer
        Takes the runs.
    number : int
        Which of the fits that are recorded into the parent run (0-based).
    memory : Memory
        Knows what has been computed before.
    per_fold_runs : bool
        Whether each fold gets a run of its own.
    steps : bool
        Whether each fold's run also holds every step of the Keras models that are fitted in it.
    reuse : bool
        Whether compiled Keras models are reused between fits.
    share_epochs : bool
        Whether fits that differ only in epochs share a training.
    progress : bool
        Whether a progress bar is shown.
    problem, remark : callable
        Take what the recording could not do, and what else the user should know.

    Attributes
    ----------
    candidates : dict of int to Candidate
        Those of which a fit has started, by their place in ``cv_results_``.
    fit_seconds, score_seconds : float
        Of all fits together; a training that several share counts once.
    n_known : int
        How many fits were not computed because an earlier process had.
    """

    def __init__(
        self,
        search: Any,
        writer: Writer,
        number: int,
        memory: Memory,
        *,
        per_fold_runs: bool,
        steps: bool,
        reuse: bool,
        share_epochs: bool,
        progress: bool,
        problem: Callable[[str], None],
        remark: Callable[[str], None],
    ) -> None:
        self.search = search
        self.number = number
        self.steps = steps
        self.n_known = 0
        self.memory = memory
        self._reuse = reuse
        self._shares = share_epochs
        self._on_dask = False
        self.results_before = getattr(search, "cv_results_", None)
        self.problem = problem
        self._remark = remark
        self.lock = threading.RLock()
        self.abandoned = False
        abandon_in_child(self)
        self.fit_seconds = self.score_seconds = 0.0
        self._writer = writer
        self._per_fold_runs = per_fold_runs
        self._combinations = Combinations(search, writer, number, memory, progress=progress)
        self.candidates = self._combinations.candidates
        self._n_sent: dict[int, int] = {}
        self._plain: Counter[str] = Counter()
        self._inbox = Inbox(self.take, self.fold_run)

    def abandon(self) -> None:
        """In a forked child: the search is the parent's to follow."""
        self.lock = threading.RLock()
        self.abandoned = True

    def address(self, pool: Pool) -> Address:
        """Where the fits send what happens to them."""
        self._on_dask = pool.kind == "dask"
        address = self._inbox.address(pool.kind == "processes", pool.cluster)
        try:
            return address._replace(reuse=self._plan_speed_ups(pool))
        except Exception as error:  # noqa: BLE001 - each is computed for itself
            self._tell_plain(f"nothing is reused or shared: {type(error).__name__}: {error}", is_fault=True)
            self._shares = False
            return address

    def _plan_speed_ups(self, pool: Pool) -> bool:
        """See which speed-ups the pool allows; whether models are reused."""
        in_threads = _is_of_threads(pool)
        if in_threads and _is_seeded(self.search.estimator):
            self._remark(
                "a Keras model with a random_state is not reproducible where several threads of a process fit, for "
                "they share one random generator; take joblib's backend 'loky', n_jobs=1, or workers of Dask with "
                "one thread each, such as LocalCluster(threads_per_worker=1)"
            )
        names = {name.rpartition("__")[2] for part in space_of(self.search) for name in part}
        self._shares &= pool.kind in ("here", "processes", "dask") and not in_threads and "epochs" in names
        return self._reuse

    def _tell_plain(self, reason: str, *, is_fault: bool) -> None:
        """Count a training that goes without a speed-up; a fault is told."""
        self._plain[reason] += 1
        if is_fault:
            self._remark(f"the search is as it would be, but slower than it could: {reason}")

    @_guarded
    def planned(self, fit: Planned) -> None:
        """A fit is handed to the pool."""
        self._combinations.plan(fit)

    def known(self, call: Call) -> dict[str, Any] | None:
        """The result of a fit that an earlier process has computed."""
        try:
            with self.lock:
                if tags := self.memory.look(call.fit, call.given):
                    self._writer.parent.tags(tags)
                kept = self.memory.find(call.fit, call.given)
                if kept is None:
                    return None
                outcome = Outcome(call.fit.task, kept.started, kept.ended, [], 0, kept.result)
                self._take_over(call.fit, fold_of(outcome))
                return kept.result
        except UserError:
            raise
        except Exception as error:  # noqa: BLE001 - it is computed
            self.problem(f"{type(error).__name__}: {error}")
            return None

    def shared(self, calls: Iterable[Call]) -> Iterable[tuple[list[Call], str | None]]:
        """The fits to be computed, those together that share a training."""
        if not self._shares or "scikeras.wrappers" not in sys.modules:
            return (([call], None) for call in calls)
        calls = list(calls)
        try:
            return list(together(calls, self.search.estimator))
        except Exception as error:  # noqa: BLE001 - each is computed for itself
            self._tell_plain(f"no training is shared: {type(error).__name__}: {error}", is_fault=True)
            return [([call], None) for call in calls]

    @_guarded
    def take(self, event: Event) -> None:
        """Something happened to a fit while it ran."""
        if isinstance(event, Outcome):
            self.ended(fold_of(event))
            return
        candidate, split = self._open(event.task, event.time)
        if isinstance(event, Started) and self._per_fold_runs:
            candidate.open_fold(self._writer, split, event.time)
        elif isinstance(event, Epoch):
            candidate.log_epoch(split, event, also_in_fold=not self.steps)  # with steps its recorder does
        elif isinstance(event, Unrecorded):
            self.problem(event.problem)
        elif isinstance(event, Plain):
            self._tell_plain(event.reason, is_fault=event.is_fault)
        elif isinstance(event, Raised):
            candidate.fail(split, event.traceback)

    def fold_run(self, task: int) -> tuple[str, str] | None:
        """The id of the run for the fold of this fit, made if need be, and its tracking URI."""
        with self.lock:
            candidate, split = self._open(task, time.time())
            candidate.open_fold(self._writer, split, time.time())
        run_id = self._writer.made(candidate.fold_runs[split])
        if run_id is None:
            self.problem(f"not every step of fold {split} of {candidate.run.name} is recorded: its run is not there")
            return None
        return run_id, self._writer.tracking_uri

    @_guarded
    def ended(self, fold: Fold) -> None:
        """A fit came back."""
        candidate, split = self._open(fold.task, fold.started)
        self._n_sent[fold.task] = fold.n_sent
        if split in candidate.folds:  # it came on both ways
            return
        for event in fold.events:
            self.take(event)
        if self._on_dask and self.steps:
            self.problem("steps are recorded by workers of this machine alone; epochs are there from all")
        fits = self._combinations.fits
        tags = self.memory.tags_for(fits[fold.task], fold)
        if fold.trained_by is not None:
            tags["mlflow_hp.shared_epochs_with"] = self.candidates[fits[fold.trained_by].candidate].run.name
        candidate.add(split, fold, tags)
        if candidate.is_complete:
            candidate.summarize()
        self._count(fold)

    def _take_over(self, fit: Planned, fold: Fold) -> None:
        """A fit is known, and written in the run that its combination has had before."""
        child = self.memory.child(fit.candidate)
        assert child is not None
        candidate = self._combinations.of(fit.task, fold.started)
        if child.status == "FINISHED":
            candidate.folds[fit.split] = fold
        else:  # it may have been killed when the fold's tag was written and its metrics were not
            candidate.add(fit.split, fold, {})
        if candidate.is_complete and child.status == "FINISHED":
            candidate.status = child.status
        elif candidate.is_complete:
            candidate.summarize()
        self.n_known += 1
        self._count(fold)

    def _count(self, fold: Fold) -> None:
        self.score_seconds += fold.score_seconds
        if fold.trained_by is None:
            self.fit_seconds += fold.fit_seconds
        self._combinations.fold_ended(fold.task)

    def _open(self, task: int, at: float) -> tuple[Candidate, int]:
        """The combination of a fit that has started, with its run open, and the number of its fold."""
        return self._combinations.open(task, at), self._combinations.fits[task].split

    @_guarded
    def computed(self) -> None:
        """No more fits come back."""
        self._combinations.close()

    def finish(self, *, raised: bool) -> None:
        """End what is open: what was running when the search ended was killed.

        Parameters
        ----------
        raised : bool
            Whether an exception ended the search; else messages of workers that are on their way are waited for.
        """
        latest = time.monotonic() + LAST_EVENTS_SECONDS
        while not raised and self._inbox.received < sum(self._n_sent.values()) and time.monotonic() < latest:
            time.sleep(0.01)
        self._inbox.close()
        self._combinations.close()
        self._end_open()
        self._count_plain()

    @_guarded
    def _end_open(self) -> None:
        self._combinations.kill(time.time())

    @_guarded
    def _count_plain(self) -> None:
        if self._plain:
            name = f"mlflow_hp.plain_trainings{f'_{self.number}' if self.number else ''}"
            self._writer.parent.tags({name: "\n".join(f"{n} x {why}" for why, n in self._plain.most_common())})

    @property
    def running(self) -> list[str]:
        """Names of the combinations that have started and not ended."""
        with self.lock:
            return [candidate.run.name for candidate in self._combinations.still_open]


def _is_of_threads(pool: Pool) -> bool:
    """Whether several threads of one process may compute fits at once."""
    if pool.kind != "dask":
        return pool.kind == "threads"
    threads = pool.cluster.nthreads()
    here = sum(n for worker, n in threads.items() if worker.startswith("inproc:"))
    return max([here, *threads.values()]) > 1


def _is_seeded(estimator: Any) -> bool:
    """Whether a Keras model of scikeras' with a seed is in an estimator."""
    if "scikeras.wrappers" not in sys.modules:
        return False
    from scikeras.wrappers import BaseWrapper

    parts = [estimator, *estimator.get_params(deep=True).values()]
    return any(isinstance(part, BaseWrapper) and part.random_state is not None for part in parts)
