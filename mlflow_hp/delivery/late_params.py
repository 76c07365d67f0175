"""Params that wait for the end of their run, so that none is in the way of the user's own of the same name.

MLflow takes a param once and for all: what we log first, a program can't log later in another spelling. So ours are
known at once by a tag, and become params, each that the run lacks by then, when the run or the process ends.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import mlflow

from mlflow_hp._forks import abandon_in_child
from mlflow_hp._notice import warn
from mlflow_hp.delivery import journal
from mlflow_hp.delivery.left_behind import Left
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.params_and_tags import texts
from mlflow_hp.tracking.run_observer import observer
from mlflow_hp.tracking.server_health import within

if TYPE_CHECKING:
    from collections.abc import Mapping


class _Wait(NamedTuple):
    params: dict[str, str]
    whole: dict[str, str]
    tracking_uri: str


class LateParams:
    """Those of this process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiting: dict[str, _Wait] = {}
        self._told: set[str] = set()
        abandon_in_child(self)

    def add(self, run_id: str, params: Mapping[str, object], tags: Mapping[str, str] | None = None) -> None:
        """Have params logged to a run at its end; those that wait already, or that its `tags` tell, come first."""
        made = texts("params", params)
        with self._lock:
            before = self._waiting.get(run_id) or _Wait(runs.waiting_params(tags or {}), {}, mlflow.get_tracking_uri())
            merged = before.params | {k: v for k, v in made.values.items() if k not in before.params}
            self._waiting[run_id] = before._replace(params=merged, whole=made.whole | before.whole)
        observer.before_end(run_id, "params", lambda: self.settle(run_id))

    def tag(self, run_id: str) -> dict[str, str]:
        """The tag that tells which params of a run wait."""
        waits = self._waiting.get(run_id)
        return {} if waits is None else {runs.PARAMS_TAG: json.dumps(waits.params)}

    def settle(self, run_id: str, until: float | None = None) -> None:
        """Log the params of a run that wait, and that it lacks. Where that fails, a warning tells.

        Nobody waits longer than some seconds for it, or than `until` by the monotonic clock.
        """
        seconds = runs.SECONDS_TO_ANSWER if until is None else max(0.1, until - time.monotonic())
        try:
            within(seconds, lambda: self.log(run_id))
        except Exception as error:  # noqa: BLE001 - the run's end is the program's
            if run_id in self._told or _is_left_behind(run_id):
                return  # with what else is left of the run on this machine, they are recovered
            self._told.add(run_id)
            warn(
                f"run {run_id} has its hyperparameters in the tag {runs.PARAMS_TAG} alone, not as params: "
                f"{type(error).__name__}: {error}"
            )

    def log(self, run_id: str) -> None:
        """Do what `settle` does; raises where MLflow does not take them, and they wait on."""
        with self._lock:
            waits = self._waiting.get(run_id)
            if waits is None:
                return
            _log(run_id, waits)
            del self._waiting[run_id]
        observer.before_end(run_id, "params", None)

    def finish(self, run_id: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Log params that another process has left waiting, and those that the `tags` of their run tell; as `log`."""
        made = texts("params", params)
        waits = _Wait(runs.waiting_params(tags) | made.values, made.whole, mlflow.get_tracking_uri())
        if waits.params:
            _log(run_id, waits)

    def settle_all(self) -> None:
        """Log all that wait: the process ends, and the program logs no more."""
        until = time.monotonic() + runs.SECONDS_TO_ANSWER
        for run_id in list(self._waiting):
            self.settle(run_id, until)

    def abandon(self) -> None:
        """In a forked child: the params are the parent's to log."""
        self._lock = threading.RLock()
        self._waiting.clear()


def _is_left_behind(run_id: str) -> bool:
    """Whether something of a run is on this machine that MLflow lacks."""
    for path in (runs.local_home() / run_id).glob(f"*/{journal.FILE}"):
        with contextlib.suppress(OSError, journal.JournalError):  # there is nothing to be had from it
            if not Left(path.parent, journal.read(path.parent)).is_done:
                return True
    return False


def _log(run_id: str, waits: _Wait) -> None:
    runs.ensure_reachable(waits.tracking_uri)
    client = mlflow.MlflowClient(waits.tracking_uri)
    data = client.get_run(run_id).data
    new = {name: value for name, value in waits.params.items() if name not in data.params}
    runs.log_params(client, run_id, new)
    for path, text in waits.whole.items():
        client.log_text(run_id, text, path)
    if runs.PARAMS_TAG in data.tags:
        with contextlib.suppress(mlflow.exceptions.MlflowException):  # gone already
            client.delete_tag(run_id, runs.PARAMS_TAG)


late_params = LateParams()
atexit.register(late_params.settle_all)
