"""Observer of the program's own calls on recorded runs: the metrics that it logs, and the ends of runs.

MLflow has no hook for either, so methods of `MlflowClient` are wrapped while a run is observed: all parts of MLflow in
this process use it, also autologging.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient

from mlflow_hp._compat.mlflow import active_runs
from mlflow_hp._compat.patch import MethodPatch
from mlflow_hp._forks import abandon_in_child
from mlflow_hp._notice import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OWN_THREAD_PREFIX = "mlflow_hp"
"""Prefix of the names of our threads, whose metrics are not the program's."""
ENDED = ("FINISHED", "FAILED", "KILLED")
METHODS = {
    "log_metric": ("run_id", "key", "value", "timestamp", "step"),
    "log_batch": ("run_id", "metrics", "params", "tags"),
    "set_terminated": ("run_id", "status", "end_time"),
    "update_run": ("run_id", "status", "name"),
}
"""Wrapped method of `MlflowClient` -> names of its arguments after ``self``."""


class _Observer:
    """Observer of this process; its only instance is `observer`."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._on_metric: dict[str, Callable[[str, int], None]] = {}
        self._before_end: dict[str, dict[str, Callable[[], None]]] = {}
        self._runs_of_parent: set[str] = set()
        self._patches = [MethodPatch(name, functools.partial(self._observe, name)) for name in METHODS]
        abandon_in_child(self)

    def on_metric(self, run_id: str, callback: Callable[[str, int], None] | None) -> None:
        """Call ``callback(name, step)`` for each metric that the program logs to a run; None removes the callback."""
        self._set(self._on_metric, run_id, callback)

    def before_end(self, run_id: str, name: str, callback: Callable[[], None] | None) -> None:
        """Call `callback` just before a run is ended, the one added last first; None removes the callback.

        A callback replaces an earlier one with the same `name`.
        """
        callbacks = dict(self._before_end.get(run_id, {}))
        callbacks.pop(name, None)
        self._set(self._before_end, run_id, callbacks | ({name: callback} if callback is not None else {}) or None)

    def abandon(self) -> None:
        """Stop observing in a forked child process: only the parent process ends the runs that were active there."""
        self._lock = threading.RLock()
        observed = self._before_end.keys() | self._on_metric.keys()
        if observed:
            self._runs_of_parent |= observed | active_runs()
        self._before_end.clear()
        self._on_metric.clear()

    def forget(self) -> None:
        """Remove all callbacks."""
        for callbacks in (self._before_end, self._on_metric):
            for run_id in list(callbacks):
                self._set(callbacks, run_id, None)

    def _set(self, callbacks: dict[str, Any], run_id: str, callback: Any) -> None:
        with self._lock:
            is_added = callback is not None and run_id not in callbacks
            is_removed = callback is None and run_id in callbacks
            if callback is None:
                callbacks.pop(run_id, None)
            else:
                callbacks[run_id] = callback
            for patch in self._patches:
                if is_added:
                    patch.enter(MlflowClient)
                elif is_removed:
                    patch.leave(MlflowClient)

    def _observe(self, method: str, original: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Run the callbacks, then the `original` method of `MlflowClient`."""
        bound = dict(zip(METHODS[method], arguments[1:], strict=False)) | named
        run_id = bound.get("run_id")
        ends_run = method == "set_terminated" or bound.get("status") in ENDED
        if ends_run and run_id in self._runs_of_parent:
            return None
        try:
            if ends_run:
                self.notify_end(run_id)
            elif not threading.current_thread().name.startswith(OWN_THREAD_PREFIX):
                self._notify_metrics(run_id, _points(method, bound))
        except Exception as error:  # noqa: BLE001 - the program's own call must not fail for it
            warn(f"a call on run {run_id} could not be observed: {type(error).__name__}: {error}")
        except BaseException:  # Ctrl-C, or SIGTERM: MLflow would not end the run later, and leave it RUNNING
            if ends_run:
                original(*arguments, **named)
            raise
        return original(*arguments, **named)

    def notify_end(self, run_id: Any) -> None:
        """Call the callbacks of a run that is about to end, also those that they add."""
        called: list[Callable[[], None]] = []
        while left := [each for each in self._before_end.get(run_id, {}).values() if each not in called]:
            called.append(left[-1])
            left[-1]()

    def _notify_metrics(self, run_id: Any, points: Iterable[tuple[str, int]]) -> None:
        callback = self._on_metric.get(run_id)
        if callback is not None:
            for name, step in points:
                callback(name, step)


def _points(method: str, arguments: dict[str, Any]) -> list[tuple[str, int]]:
    """Names and steps of the metrics that a call of `MlflowClient` logs."""
    if method == "log_metric":
        return [(arguments["key"], arguments.get("step") or 0)]
    if method == "log_batch":
        return [(metric.key, metric.step) for metric in arguments.get("metrics") or ()]
    return []


observer = _Observer()
