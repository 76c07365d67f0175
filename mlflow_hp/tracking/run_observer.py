"""Observer of what the program itself does with recorded runs: the metrics that it logs to them, and their ends.

MLflow tells nobody of either, so `MlflowClient` is wrapped while there is a run to be observed: everything of MLflow's
in this process, autologging too, goes through it.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient

from mlflow_hp._forks import abandon_in_child
from mlflow_hp._notice import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OURS = "mlflow_hp"
"""What the names of our threads begin with: what they log is not the program's."""
ENDED = ("FINISHED", "FAILED", "KILLED")
METHODS = {
    "log_metric": ("run_id", "key", "value", "timestamp", "step"),
    "log_batch": ("run_id", "metrics", "params", "tags"),
    "set_terminated": ("run_id", "status", "end_time"),
    "update_run": ("run_id", "status", "name"),
}
"""Methods of `MlflowClient` that are wrapped, and the names of their arguments behind ``self``."""


class _Observer:
    """The one of this process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._on_metric: dict[str, Callable[[str, int], None]] = {}
        self._before_end: dict[str, dict[str, Callable[[], None]]] = {}
        self._of_parent: set[str] = set()
        self._wrapped: dict[str, tuple[Any, Any]] = {}
        abandon_in_child(self)

    def on_metric(self, run_id: str, call: Callable[[str, int], None] | None) -> None:
        """Have `call` given name and step of each metric that the program logs to a run; None ends that."""
        self._set(self._on_metric, run_id, call)

    def before_end(self, run_id: str, what: str, call: Callable[[], None] | None) -> None:
        """Have `call` called when a run is about to be ended, before those that came earlier; None ends that.

        `what` names it: a later one of this name takes its place.
        """
        calls = dict(self._before_end.get(run_id, {}))
        calls.pop(what, None)
        self._set(self._before_end, run_id, calls | ({what: call} if call is not None else {}) or None)

    def abandon(self) -> None:
        """In a forked child: the runs are the parent's, and only it ends them."""
        self._lock = threading.RLock()
        observed = self._before_end.keys() | self._on_metric.keys()
        if observed:
            self._of_parent |= observed | _active_runs()
        self._before_end.clear()
        self._on_metric.clear()

    def _set(self, calls: dict[str, Any], run_id: str, call: Any) -> None:
        with self._lock:
            if call is None:
                calls.pop(run_id, None)
            else:
                calls[run_id] = call
            if self._on_metric or self._before_end:
                self._wrap()
            elif not self._of_parent:
                self._unwrap()

    def _wrap(self) -> None:
        for name in METHODS:
            if name in self._wrapped and MlflowClient.__dict__.get(name) is self._wrapped[name][1]:
                continue  # else somebody has put another in its place since
            original = MlflowClient.__dict__[name]
            ours = self._around(name, original)
            self._wrapped[name] = original, ours
            setattr(MlflowClient, name, ours)

    def _unwrap(self) -> None:
        for name, (original, ours) in self._wrapped.items():
            if MlflowClient.__dict__.get(name) is ours:
                setattr(MlflowClient, name, original)
        self._wrapped.clear()

    def _around(self, name: str, original: Any) -> Any:
        @functools.wraps(original)
        def method(*arguments: Any, **named: Any) -> Any:
            given = dict(zip(METHODS[name], arguments[1:], strict=False)) | named
            run_id = given.get("run_id")
            ends = name == "set_terminated" or given.get("status") in ENDED
            if ends and run_id in self._of_parent:
                return None
            try:
                if ends:
                    self._end(run_id)
                elif not threading.current_thread().name.startswith(OURS):
                    self._metrics(run_id, _points(name, given))
            except Exception as error:  # noqa: BLE001 - what the program does is not to fail for it
                warn(f"what is logged to run {run_id} could not be observed: {type(error).__name__}: {error}")
            return original(*arguments, **named)

        return method

    def _end(self, run_id: Any) -> None:
        for before_end in reversed(list(self._before_end.get(run_id, {}).values())):
            before_end()

    def _metrics(self, run_id: Any, points: Iterable[tuple[str, int]]) -> None:
        on_metric = self._on_metric.get(run_id)
        if on_metric is not None:
            for name, step in points:
                on_metric(name, step)


def _active_runs() -> set[str]:
    """MLflow's active runs, the outer ones too: at its exit, MLflow ends them also in a forked child."""
    import mlflow

    stack = getattr(mlflow.tracking.fluent, "_active_run_stack", None)
    active = [mlflow.active_run()] if stack is None else stack.get()
    return {run.info.run_id for run in active if run is not None}


def _points(method: str, given: dict[str, Any]) -> list[tuple[str, int]]:
    """Names and steps of the metrics that a call of MLflow's client logs."""
    if method == "log_metric":
        return [(given["key"], given.get("step") or 0)]
    if method == "log_batch":
        return [(metric.key, metric.step) for metric in given.get("metrics") or ()]
    return []


observer = _Observer()
