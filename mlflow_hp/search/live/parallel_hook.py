"""Hook into scikit-learn's searches: observes each fit, and may supply its result.

A search looks up its class `Parallel` when `fit` is called. While a recorder is active in any thread, the hook replaces
it by a subclass that behaves the same unless a recorder is active in the context (and so in the thread) and wants the
search. Then each fit is reported when it ends, and scikit-learn gets the results in its own order.
"""

from __future__ import annotations

import contextlib
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import joblib

from mlflow_hp._compat.joblib import backend_of
from mlflow_hp._compat.patch import Patch
from mlflow_hp._compat.private_name import UnsupportedVersionError
from mlflow_hp._compat.sklearn import PARALLEL, arguments_of, parallel_holder
from mlflow_hp.errors import UserError
from mlflow_hp.search.live.events import Call, Fold, Outcome, PlannedFit, Pool, fold_of
from mlflow_hp.search.live.repeated_fit import RepeatedFit, without_seeds
from mlflow_hp.search.live.worker import FoldTask, SharedFoldTask, UnknownTask

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping
    from pathlib import Path

    from mlflow_hp.search.live.events import Address

    Group = tuple[list[Call], str | None]


class FitObserver(Protocol):
    """Observer of one ``search.fit``. Its methods raise nothing but a `UserError`, to refuse the search.

    Attributes
    ----------
    steps : bool
        Whether each fit asks for a run in which to record every step of its Keras models.
    repeats : int
        Number of seeds of each fit.
    """

    steps: bool
    repeats: int

    def address(self, pool: Pool) -> Address:
        """Address to which the fits send their events."""

    def planned(self, fit: PlannedFit) -> None:
        """Note a fit that is about to be handed to the pool; it may start later."""

    def cached_result(self, call: Call) -> dict[str, Any] | None:
        """Result of a planned fit that need not be computed; None otherwise."""

    def grouped(self, calls: Iterable[Call]) -> Iterable[tuple[list[Call], str | None]]:
        """Group the fits that share a training, each group with the name of its parameter for epochs."""

    def state_file(self, call: Call) -> Path | None:
        """File from which the training of a fit goes on, and for its state; None if it is trained from the start."""

    def selected(self, groups: Iterable[Group], results: dict[int, Any]) -> Iterable[Group]:
        """Order the groups of fits, and leave out those that are not computed, whose results go to `results`."""

    def prefers_order(self) -> bool:
        """Whether the fits are handed to the pool only when a worker is free, so that `selected` knows most."""

    def rounds(self, calls: Iterable[Call], results: dict[int, Any]) -> Generator[Iterable[Call]]:
        """Divide the fits of a round into parts to compute one after another; put other results in `results`."""

    def ended(self, fold: Fold) -> None:
        """Take a finished fit."""

    def ended_round(self) -> None:
        """Note that the fits of a round have ended."""

    def not_understood(self, error: UnsupportedVersionError) -> None:
        """Note a fit whose arguments or result are not as expected."""

    def computed(self) -> None:
        """Note that all fits have ended, or an exception ended them."""


class Recorder(Protocol):
    """Decides which searches are recorded."""

    def wants(self, search: Any) -> bool:
        """Whether a ``fit`` of this search is to be recorded."""

    def observe(self, search: Any) -> FitObserver | None:
        """Make the observer of a ``fit`` that begins; None if that fails."""

    def cannot_observe(self, search: Any, reason: str) -> None:
        """Note a ``fit`` that begins and cannot be observed."""


_recorders: ContextVar[tuple[Recorder, ...]] = ContextVar("mlflow_hp_recorders", default=())


@contextlib.contextmanager
def active(recorder: Recorder) -> Iterator[str | None]:
    """Activate `recorder` for searches that begin inside the block, in this thread.

    Yields
    ------
    str or None
        The reason why the installed version of scikit-learn is not supported.
    """
    try:
        module = parallel_holder()
    except UnsupportedVersionError as error:
        yield error.problem
        return
    with _patch.on(module):
        token = _recorders.set((recorder, *_recorders.get()))
        try:
            yield None
        finally:
            _recorders.reset(token)


class ObservedParallel(joblib.Parallel):
    """joblib's Parallel with an observer, if an active recorder wants the search that creates it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._observer: FitObserver | None = None
        self._n_rounds = self._n_tasks = self._n_candidates = 0
        search = sys._getframe(1).f_locals.get("self")  # the caller is known in no other way
        recorder = next((recorder for recorder in _recorders.get() if recorder.wants(search)), None)
        if recorder is None:
            super().__init__(*arguments, **named)
            return
        try:
            super().__init__(*arguments, **named, return_as="generator_unordered", batch_size=1)
            reason = None
        except (TypeError, ValueError) as error:  # older joblib; a backend that has no generators
            super().__init__(*arguments, **named)
            reason = str(error)
        _refuse_fork(self)
        if reason is not None:
            recorder.cannot_observe(search, reason)
            return
        self._observer = recorder.observe(search)
        if self._observer is None:
            super().__init__(*arguments, **named)
        elif self._observer.prefers_order():
            self.pre_dispatch = "n_jobs"

    def __call__(self, tasks: Iterable[Any]) -> Any:
        """Compute the tasks.

        Returns
        -------
        list
            Their results, in their order.
        """
        if self._observer is None:
            return super().__call__(tasks)
        results: dict[int, Any] = {}
        unknown: list[Any] = []
        calls = self._to_compute(tasks, self._observer, results, unknown)
        with contextlib.closing(self._observer.rounds(calls, results)) as rounds:
            for part in rounds:
                for outcomes in super().__call__(self._observed(part, self._observer, results, unknown)):
                    for outcome in outcomes if isinstance(outcomes, list) else [outcomes]:
                        results[outcome.task] = without_seeds(outcome.result)
                        if isinstance(outcome, Outcome):
                            self._report(self._observer, outcome)
        self._observer.ended_round()
        self._n_rounds += 1
        return [results[task] for task in sorted(results)]

    def __exit__(self, *exception: object) -> None:
        """End the pool."""
        super().__exit__(*exception)
        if self._observer is not None:
            self._observer.computed()

    def _observed(
        self, part: Iterable[Call], observer: FitObserver, results: dict[int, Any], unknown: list[Any]
    ) -> Iterator[Any]:
        """Wrap the fits of a part, so that they send their events; then the tasks in `unknown`, which it empties.

        Results of fits that are not computed are put in `results`.
        """
        address = observer.address(self._pool())
        for calls, epochs in observer.selected(observer.grouped(part), results):
            fold_tasks = [
                FoldTask(call.fit.task, call.function, address, observer.steps, observer.state_file(call))
                for call in calls
            ]
            if epochs is None:
                yield from zip(fold_tasks, [()] * len(calls), map(_take_arguments, calls), strict=True)
            else:
                counts = [int(call.fit.params[epochs]) for call in calls]
                arguments = [_take_arguments(call) for call in calls]
                common = _common(arguments[0])
                yield SharedFoldTask(fold_tasks, counts, [_own(arguments.pop(0)) for _ in calls]), (), common
        while unknown:
            yield unknown.pop(0)

    def _to_compute(
        self, tasks: Iterable[Any], observer: FitObserver, results: dict[int, Any], unknown: list[Any]
    ) -> Iterator[Call]:
        """Yield the fits without a cached result.

        Cached results are put in `results`, tasks that are not understood in `unknown`, to be computed after the rest.
        """
        before = self._n_candidates
        for function, arguments, named in tasks:
            task, self._n_tasks = self._n_tasks, self._n_tasks + 1
            try:
                bound = arguments_of(function, arguments, named)
            except UnsupportedVersionError as error:
                observer.not_understood(error)
                unknown.append((UnknownTask(task, function), arguments, named))
                continue
            self._n_candidates = before + bound.n_candidates
            candidate = before + bound.candidate
            numbers = (task, candidate, bound.split, self._n_rounds, self._n_candidates, bound.n_splits)
            fit = PlannedFit(*numbers, bound.params)
            repeated = RepeatedFit(function, observer.repeats) if observer.repeats > 1 else function
            call = Call(fit, repeated, bound.by_name)
            observer.planned(fit)
            result = observer.cached_result(call)
            if result is None:
                yield call
            else:
                results[task] = without_seeds(result)

    @staticmethod
    def _report(observer: FitObserver, outcome: Outcome) -> None:
        try:
            fold = fold_of(outcome)
        except UnsupportedVersionError as error:
            observer.not_understood(error)
        else:
            observer.ended(fold)

    def _pool(self) -> Pool:
        backend = backend_of(self)
        if backend.effective_n_jobs(self.n_jobs) == 1 and getattr(backend, "supports_sharedmem", False):
            return Pool("here")
        kinds = {"ThreadingBackend": "threads", "LokyBackend": "processes", "DaskDistributedBackend": "dask"}
        return Pool(kinds.get(type(backend).__name__, "other"), getattr(backend, "client", None))


def _observed_class(original: type) -> type:
    """Derive the class with an observer; scikit-learn's own __call__ runs first and passes on configured tasks."""
    return type("Parallel", (original, ObservedParallel), {"__module__": __name__})


_patch = Patch(PARALLEL.name, _observed_class)

OWN = ("estimator", "parameters", "candidate_progress", "callback_ctx")
"""Arguments of scikit-learn's function in which the fits of one split differ."""


def _take_arguments(call: Call) -> dict[str, Any]:
    """Take the arguments out of a call, so that the fitted estimator is freed as soon as it has been scored."""
    arguments = dict(call.arguments)
    call.arguments.clear()
    return arguments


def _own(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name in OWN}


def _common(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in OWN}


def _refuse_fork(parallel: joblib.Parallel) -> None:
    """Refuse a pool that forks while TensorFlow is loaded."""
    backend = backend_of(parallel)
    if (
        type(backend).__name__ == "MultiprocessingBackend"
        and "tensorflow" in sys.modules
        and backend.effective_n_jobs(parallel.n_jobs) != 1
    ):
        raise UserError(
            "joblib's backend 'multiprocessing' forks this process, in which TensorFlow is loaded: its threads are not "
            "forked, and the workers would hang; use the backend 'loky' or 'threading', or n_jobs=1"
        )
