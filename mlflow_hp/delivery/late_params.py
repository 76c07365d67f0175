"""Params that wait for the end of their run, so that none conflicts with the program's own param of the same name.

MLflow accepts a param once: a program could not log its own value after a recorded one in another spelling. So recorded
params are in a tag at first; those that the run lacks become params when the run or the process ends.
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
from mlflow_hp.delivery.local_recording import LocalRecording
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.home import local_home
from mlflow_hp.tracking.params_and_tags import texts
from mlflow_hp.tracking.run_observer import observer
from mlflow_hp.tracking.run_params import log_params, waiting_params
from mlflow_hp.tracking.server_health import within
from mlflow_hp.tracking.tags import PARAMS_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping


class _WaitingParams(NamedTuple):
    """Params of a run by name, artifacts with the full text of long ones by path, and the run's tracking URI."""

    params: dict[str, str]
    artifacts: dict[str, str]
    tracking_uri: str


class LateParams:
    """Waiting params of all runs of this process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._waiting: dict[str, _WaitingParams] = {}
        self._warned: set[str] = set()
        abandon_in_child(self)

    def add(self, run_id: str, params: Mapping[str, object], tags: Mapping[str, str] | None = None) -> None:
        """Add params to log at the end of a run; those that wait already, or are in its `tags`, take precedence."""
        storable = texts("params", params)
        with self._lock:
            earlier = self._waiting.get(run_id)
            if earlier is None:
                earlier = _WaitingParams(waiting_params(tags or {}), {}, mlflow.get_tracking_uri())
            params_by_name = earlier.params | {k: v for k, v in storable.values.items() if k not in earlier.params}
            artifacts = storable.whole | earlier.artifacts
            self._waiting[run_id] = earlier._replace(params=params_by_name, artifacts=artifacts)
        observer.before_end(run_id, "params", lambda: self.settle(run_id))

    def tag(self, run_id: str) -> dict[str, str]:
        """Return the tag that holds the waiting params of a run."""
        waiting = self._waiting.get(run_id)
        return {} if waiting is None else {PARAMS_TAG: json.dumps(waiting.params)}

    def settle(self, run_id: str, until: float | None = None) -> None:
        """Log the waiting params of a run that it lacks; warn if that fails.

        Takes some seconds at most, or until the time `until` of the monotonic clock.
        """
        seconds = runs.SECONDS_TO_ANSWER if until is None else max(0.1, until - time.monotonic())
        try:
            within(seconds, lambda: self.log(run_id))
        except Exception as error:  # noqa: BLE001 - the run must end all the same
            if run_id in self._warned or _has_local_recording(run_id):
                return  # a recovery of that recording logs them
            self._warned.add(run_id)
            warn(
                f"run {run_id} has its hyperparameters in the tag {PARAMS_TAG} alone, not as params: "
                f"{type(error).__name__}: {error}"
            )

    def log(self, run_id: str) -> None:
        """Log the waiting params of a run that it lacks; if MLflow does not accept them, raise and keep them."""
        with self._lock:
            waiting = self._waiting.get(run_id)
            if waiting is None:
                return
            _log_missing(run_id, waiting)
            del self._waiting[run_id]
        observer.before_end(run_id, "params", None)

    def finish(self, run_id: str, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Log params that another process left waiting, and those in the `tags` of their run; raises as `log`."""
        storable = texts("params", params)
        merged = waiting_params(tags) | storable.values
        if merged:
            _log_missing(run_id, _WaitingParams(merged, storable.whole, mlflow.get_tracking_uri()))

    def settle_all(self) -> None:
        """Log all waiting params at the end of the process."""
        until = time.monotonic() + runs.SECONDS_TO_ANSWER
        for run_id in list(self._waiting):
            self.settle(run_id, until)

    def abandon(self) -> None:
        """In a forked child: leave the params to the parent."""
        self._lock = threading.RLock()
        self._waiting.clear()


def _has_local_recording(run_id: str) -> bool:
    """Return whether this machine has data of a run that MLflow lacks."""
    for path in (local_home() / run_id).glob(f"*/{journal.FILE}"):
        with contextlib.suppress(OSError, journal.JournalError):  # an unreadable journal has nothing to recover
            if not LocalRecording(path.parent, journal.read(path.parent)).is_done:
                return True
    return False


def _log_missing(run_id: str, waiting: _WaitingParams) -> None:
    runs.ensure_reachable(waiting.tracking_uri)
    client = mlflow.MlflowClient(waiting.tracking_uri)
    data = client.get_run(run_id).data
    missing = {name: value for name, value in waiting.params.items() if name not in data.params}
    log_params(client, run_id, missing)
    for path, text in waiting.artifacts.items():
        client.log_text(run_id, text, path)
    if PARAMS_TAG in data.tags:
        with contextlib.suppress(mlflow.exceptions.MlflowException):  # deleted meanwhile
            client.delete_tag(run_id, PARAMS_TAG)


late_params = LateParams()
atexit.register(late_params.settle_all)
