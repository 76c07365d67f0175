"""Follows scikit-learn's searches: the one place that touches scikit-learn's and joblib's internals.

A search computes its fits with `sklearn.model_selection._search.Parallel`, which it looks up when `fit` is called. That
name is made to mean a subclass, which does as before unless a recording is active in the context (so: in the
thread) and wants the search that calls. Then the fits come back as they are completed, and are handed to
scikit-learn in the order that it expects.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import joblib

from mlflow_hp.errors import UserError
from mlflow_hp.search.live.events import Call, Fold, Outcome, Planned, Pool, fold_of
from mlflow_hp.search.live.worker import SharedTask, Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mlflow_hp.search.live.events import Address


class Follower(Protocol):
    """Is told what one ``search.fit`` does. Its methods raise nothing but the `UserError` that refuses a search.

    Attributes
    ----------
    steps : bool
        Whether the fits of Keras models ask for a run that holds every step.
    """

    steps: bool

    def address(self, pool: Pool) -> Address:
        """Where the fits send what happens to them."""

    def planned(self, fit: Planned) -> None:
        """A fit is about to be handed to the pool; it may start later."""

    def known(self, call: Call) -> dict[str, Any] | None:
        """The result of a planned fit where it need not be computed."""

    def shared(self, calls: Iterable[Call]) -> Iterable[tuple[list[Call], str | None]]:
        """The fits to be computed, those together that share a training: with the name of their number of epochs."""

    def ended(self, fold: Fold) -> None:
        """A fit came back."""

    def computed(self) -> None:
        """All fits came back, or an exception ended them."""


class Recorder(Protocol):
    """Decides which searches are recorded."""

    def wants(self, search: Any) -> bool:
        """Whether a ``fit`` of this search is to be recorded."""

    def follow(self, search: Any) -> Follower | None:
        """The follower for a ``fit`` that begins now, if it can be followed."""

    def cannot_follow(self, search: Any, reason: str) -> None:
        """A ``fit`` of this search begins that can't be followed."""


_recorders: ContextVar[tuple[Recorder, ...]] = ContextVar("mlflow_hp_recorders", default=())

_lock = threading.Lock()


@contextlib.contextmanager
def active(recorder: Recorder) -> Iterator[None]:
    """Have `recorder` asked about the searches that begin inside the block, in this thread."""
    token = _recorders.set((recorder, *_recorders.get()))
    try:
        yield
    finally:
        _recorders.reset(token)


def install() -> str | None:
    """Let scikit-learn's searches be followed, from now on in this process.

    Returns
    -------
    str or None
        Why that can't be done with the version that is installed.
    """
    from sklearn.model_selection import _search

    with _lock:
        original = getattr(_search, "Parallel", None)
        if not (isinstance(original, type) and issubclass(original, joblib.Parallel)):
            return "this version of scikit-learn computes its searches in another way than those that are known"
        if not issubclass(original, Followed):
            # scikit-learn's own __call__ comes first and hands on to ours tasks that have its configuration.
            _search.Parallel = type("Parallel", (original, Followed), {"__module__": __name__})
    return None


class Followed(joblib.Parallel):
    """joblib's Parallel that tells a follower, where a recorder in the context wants the search that makes it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._follower: Follower | None = None
        self._rounds = self._tasks = self._candidates = 0
        search = sys._getframe(1).f_locals.get("self")  # nothing else says who calls
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
            recorder.cannot_follow(search, reason)
            return
        self._follower = recorder.follow(search)
        if self._follower is None:
            super().__init__(*arguments, **named)

    def __call__(self, tasks: Iterable[Any]) -> Any:
        """Compute the tasks.

        Returns
        -------
        list
            Their results, in their order.
        """
        if self._follower is None:
            return super().__call__(tasks)
        results: dict[int, Any] = {}
        for outcomes in super().__call__(self._told(tasks, self._follower, results)):
            for outcome in [outcomes] if isinstance(outcomes, Outcome) else outcomes:
                results[outcome.task] = outcome.result
                self._follower.ended(fold_of(outcome))
        self._rounds += 1
        return [results[task] for task in sorted(results)]

    def __exit__(self, *exception: object) -> None:
        """End the pool."""
        super().__exit__(*exception)
        if self._follower is not None:
            self._follower.computed()

    def _told(self, tasks: Iterable[Any], follower: Follower, results: dict[int, Any]) -> Iterator[Any]:
        """The tasks that are to be computed, each made to tell what happens to it; `results` takes those known."""
        address = follower.address(self._pool())
        for calls, epochs in follower.shared(self._unknown(tasks, follower, results)):
            each = [Task(call.fit.task, call.function, address, follower.steps) for call in calls]
            if epochs is None:
                yield from zip(each, [()] * len(calls), map(_handed_over, calls), strict=True)
            else:
                counts = [int(call.fit.params[epochs]) for call in calls]
                given = [_handed_over(call) for call in calls]
                common = _common(given[0])
                yield SharedTask(each, counts, [_own(given.pop(0)) for _ in calls]), (), common

    def _unknown(self, tasks: Iterable[Any], follower: Follower, results: dict[int, Any]) -> Iterator[Call]:
        """The fits whose result the follower doesn't know; those that it knows go to `results`."""
        before, signature = self._candidates, None
        for function, arguments, named in tasks:
            signature = signature or inspect.signature(function)
            given = _without_empty_context(signature.bind(*arguments, **named).arguments)
            candidate, n_candidates = given["candidate_progress"]
            split, n_splits = given["split_progress"]
            self._candidates = before + n_candidates
            task, self._tasks = self._tasks, self._tasks + 1
            params = given["parameters"] or {}
            fit = Planned(task, before + candidate, split, self._rounds, self._candidates, n_splits, params)
            call = Call(fit, function, given)
            follower.planned(fit)
            result = follower.known(call)
            if result is None:
                yield call
            else:
                results[task] = result

    def _pool(self) -> Pool:
        backend = self._backend
        if backend.effective_n_jobs(self.n_jobs) == 1 and getattr(backend, "supports_sharedmem", False):
            return Pool("here")
        kinds = {"ThreadingBackend": "threads", "LokyBackend": "processes", "DaskDistributedBackend": "dask"}
        return Pool(kinds.get(type(backend).__name__, "other"), getattr(backend, "client", None))


OWN = ("estimator", "parameters", "candidate_progress", "callback_ctx")
"""Arguments of scikit-learn's function in which the fits of one split differ."""


def _handed_over(call: Call) -> dict[str, Any]:
    """What a call is given, which it holds no longer: an estimator that is fitted is to go when it has been scored."""
    given = dict(call.given)
    call.given.clear()
    return given


def _own(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name in OWN}


def _common(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in OWN}


def _without_empty_context(given: dict[str, Any]) -> dict[str, Any]:
    """A task's arguments without a callback context that holds no callback.

    It refers to the contexts of all tasks, so that pickling each task would take time quadratic in their number.
    """
    context = given.get("callback_ctx")
    if context is None or getattr(context, "_callbacks", True) or getattr(given["estimator"], "_skl_callbacks", None):
        return given
    return {**given, "callback_ctx": None, "caller": None}


def _refuse_fork(parallel: joblib.Parallel) -> None:
    """Refuse a pool that forks where TensorFlow is loaded."""
    backend = parallel._backend
    if (
        type(backend).__name__ == "MultiprocessingBackend"
        and "tensorflow" in sys.modules
        and backend.effective_n_jobs(parallel.n_jobs) != 1
    ):
        raise UserError(
            "joblib's backend 'multiprocessing' forks this process, in which TensorFlow is loaded: its threads are not "
            "forked, and the workers would hang; take the backend 'loky' or 'threading', or n_jobs=1"
        )
