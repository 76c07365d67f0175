"""Runs of models that are trained without an active run: all trainings of one model go to one run."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

import mlflow

from mlflow_hp._forks import abandon_in_child
from mlflow_hp.tracking.own_run import OwnRun, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SHORT_SECONDS = 1.0
"""A further training of a model that takes less time leaves its run open for the next one."""
OPEN_SECONDS = 10.0
"""Time that a run is left open."""


class _ModelRun:
    """Run of one model; open while a training uses it, and for `OPEN_SECONDS` after a further, short one."""

    def __init__(self, model: Any, own: OwnRun) -> None:
        self.model = weakref.ref(model)
        self.run_id = own.run_id
        self.thread_id = threading.get_ident()
        self.n_trainings = 1
        self.own: OwnRun | None = own
        self._place = _place()
        self._is_left_open = False
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None

    def resume(self) -> bool:
        """Make the run active if it is open in the current store and experiment; else end it."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._is_left_open and (self._place != _place() or self.thread_id != threading.get_ident()):
                self.end()
            if self.own is None or not self._is_left_open:
                return False
            self._is_left_open = False
            self.n_trainings += 1
            self.own.resume()
            return True

    def reopen(self, tags: Mapping[str, str]) -> bool:
        """Continue the ended run; return False if it is deleted, or of another experiment or store."""
        with contextlib.suppress(Exception):
            self.own, self._place, self.thread_id = OwnRun(tags, self.run_id), _place(), threading.get_ident()
            self.n_trainings += 1
            return True
        return False

    def leave_open(self) -> None:
        """End the run after `OPEN_SECONDS`, unless a training resumes it before."""
        assert self.own is not None
        self.own.pause()
        self._is_left_open = True
        self._timer = threading.Timer(OPEN_SECONDS, self.end_if_left_open)
        self._timer.name, self._timer.daemon = "mlflow_hp-end", True
        self._timer.start()

    def end_if_left_open(self) -> None:
        """End the run, unless a training uses it or it has ended."""
        with self._lock:
            if self._is_left_open:
                self.end()

    def end(self, status: str = "FINISHED") -> None:
        """End the run; do nothing if it has ended."""
        with self._lock:
            own, self.own, self._is_left_open = self.own, None, False
            if own is not None:
                own.end(status)


class ModelRuns:
    """Runs of the models of this process."""

    def __init__(self) -> None:
        self._runs: dict[int, _ModelRun] = {}
        abandon_in_child(self)

    @contextlib.contextmanager
    def active(self, model: Any, tags: Mapping[str, str]) -> Iterator[str]:
        """Make the run of a model active inside the block, in which it is trained.

        Each training ends the run. But a further training of the model that takes less than a second leaves it open for
        the next one: a loop of short trainings would spend more time on its run than on them. It ends after ten
        seconds, before another model is trained in this thread, or with the program.

        Parameters
        ----------
        model : keras.Model
            The model.
        tags : mapping of str to str
            Tags of the run.

        Yields
        ------
        str
            Id of the run.

        Raises
        ------
        Exception
            If no run can be started.
        """
        run = self._start(model, tags)
        started = time.perf_counter()
        status = "FAILED"
        try:
            yield run.run_id
            status = "FINISHED"
        except BaseException as error:
            status = status_of(error)
            raise
        finally:
            is_short = time.perf_counter() - started < SHORT_SECONDS
            if status == "FINISHED" and is_short and run.n_trainings > 1:
                run.leave_open()
            else:
                run.end(status)

    def _start(self, model: Any, tags: Mapping[str, str]) -> _ModelRun:
        key = id(model)
        run = self._runs.get(key)
        for other in list(self._runs.values()):
            if other is not run and other.thread_id == threading.get_ident():
                other.end_if_left_open()
        if run is not None and run.model() is model and (run.resume() or run.reopen(tags)):
            return run
        if run is not None:
            run.end_if_left_open()
        self._runs = {k: each for k, each in self._runs.items() if each.own is not None or each.model() is not None}
        self._runs[key] = run = _ModelRun(model, OwnRun(tags))
        return run

    def end_all(self) -> None:
        """End the runs that are left open."""
        for run in list(self._runs.values()):
            run.end_if_left_open()

    def abandon(self) -> None:
        """In a forked child: leave the runs to the parent."""
        self._runs = {}


def _place() -> tuple[str | None, ...]:
    """Return what MLflow starts runs in: store and experiment."""
    names = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")  # `mlflow.set_experiment` sets the first
    return (mlflow.get_tracking_uri(), *map(os.environ.get, names))


model_runs = ModelRuns()
atexit.register(model_runs.end_all)
