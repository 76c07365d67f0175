"""Observer of what the program itself does with recorded runs: the metrics that it logs to them, and their ends.

MLflow tells nobody of either, so `MlflowClient` is wrapped while there is a run to be observed: everything of MLflow's
in this process, autologging too, goes through it.
"""

from __future__ import annotations

import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient

from mlflow_hp.forks import abandon_in_child
from mlflow_hp.notice import warn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

OURS = "mlflow_hp"
"""What the names of our threads begin with: what they log is not the program's."""
ENDED = ("FINISHED", "FAILED", "KILLED")


class _Observer:
    """The one of this process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._on_metric: dict[str, Callable[[str, int], None]] = {}
        self._before_end: dict[str, Callable[[], None]] = {}
        self._of_parent: set[str] = set()
        self._wrapped: dict[str, tuple[Any, Any]] = {}
        abandon_in_child(self)

    def on_metric(self, run_id: str, call: Callable[[str, int], None] | None) -> None:
        """Have `call` given name and step of each metric that the program logs to a run; None ends that."""
        self._set(self._on_metric, run_id, call)

    def before_end(self, run_id: str, call: Callable[[], None] | None) -> None:
        """Have `call` called when a run is about to be ended; None ends that."""
        self._set(self._before_end, run_id, call)

    def abandon(self) -> None:
        """In a forked child: the runs are the parent's, and only it ends them."""
        self._lock = threading.RLock()
        self._of_parent |= self._before_end.keys() | self._on_metric.keys()
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
        for name in ("log_metric", "log_batch", "set_terminated", "update_run"):
            if name in self._wrapped:
                continue
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
        signature = inspect.signature(original)

        @functools.wraps(original)
        def method(*arguments: Any, **named: Any) -> Any:
            try:
                given = signature.bind(*arguments, **named).arguments
            except TypeError:  # the call is wrong: MLflow says so
                return original(*arguments, **named)
            ends = name == "set_terminated" or given.get("status") in ENDED
            if ends and given["run_id"] in self._of_parent:
                return None
            try:
                if ends:
                    self._end(given["run_id"])
                elif not threading.current_thread().name.startswith(OURS):
                    self._metrics(given["run_id"], _points(name, given))
            except Exception as error:  # noqa: BLE001 - what the program does is not to fail for it
                warn(f"what is logged to run {given['run_id']} could not be observed: {type(error).__name__}: {error}")
            return original(*arguments, **named)

        return method

    def _end(self, run_id: str) -> None:
        before_end = self._before_end.get(run_id)
        if before_end is not None:
            before_end()

    def _metrics(self, run_id: str, points: Iterable[tuple[str, int]]) -> None:
        on_metric = self._on_metric.get(run_id)
        if on_metric is not None:
            for name, step in points:
                on_metric(name, step)


def _points(method: str, given: dict[str, Any]) -> list[tuple[str, int]]:
    """Names and steps of the metrics that a call of MLflow's client logs."""
    if method == "log_metric":
        return [(given["key"], given.get("step") or 0)]
    if method == "log_batch":
        return [(metric.key, metric.step) for metric in given.get("metrics") or ()]
    return []


observer = _Observer()
