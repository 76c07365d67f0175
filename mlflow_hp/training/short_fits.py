"""Recordings of short fits, which end with their run: in a loop of fits, only the last one has a report.

Until then the recording stays in its folder: if the process dies, a recovery makes the report, and ends the run.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
from typing import TYPE_CHECKING, NamedTuple

import mlflow

from mlflow_hp._forks import abandon_in_child
from mlflow_hp._notice import warn
from mlflow_hp.delivery import patience
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.run_observer import observer
from mlflow_hp.tracking.server_health import ensure_reachable, reason, within
from mlflow_hp.tracking.tags import RECORDING_ERROR_TAG

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow_hp.history import TrainingHistory


class _OpenRecording(NamedTuple):
    """History of a fit; whether to report on it; which steps MLflow has; and a function to end its recording.

    The function is called with whether MLflow has everything.
    """

    history: TrainingHistory
    report: bool
    cadence: str
    end: Callable[[bool], None]


class ShortFits:
    """The last short fit of each run of this process."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: dict[str, _OpenRecording] = {}
        abandon_in_child(self)

    def add(
        self, run_id: str, history: TrainingHistory, end: Callable[[bool], None], *, report: bool, cadence: str
    ) -> None:
        """End the recording of a fit, of which MLflow has all but the report, when its run or the process ends.

        Parameters
        ----------
        run_id : str
            Id of the run.
        history : TrainingHistory
            History of the fit.
        end : callable
            Ends the recording; called with whether MLflow has everything.
        report : bool
            Whether to report on the fit then.
        cadence : str
            Description of the steps that MLflow has.
        """
        self.replace(run_id)
        with self._lock:
            self._open[run_id] = _OpenRecording(history, report, cadence, end)
        observer.before_end(run_id, "short fit", lambda: self.settle(run_id))

    def replace(self, run_id: str) -> None:
        """End the recording of an earlier fit of a run without a report, as a later fit has one."""
        recording = self._take(run_id)
        if recording is not None:
            recording.end(True)

    def settle(self, run_id: str) -> None:
        """End the recording of a run's last fit, with its report; warn if that fails."""
        recording = self._take(run_id)
        if recording is None:
            return
        is_complete = not recording.report
        try:
            if recording.report:
                _report(run_id, recording.history, recording.cadence)
                is_complete = True
        except Exception as error:  # noqa: BLE001 - the run must end all the same
            problem = f"there is no report: {reason(error)}"
            warn(f"run {run_id}: {problem}; the next recorded training, or `mlflow-hp recover`, makes it")
            with contextlib.suppress(Exception):  # the warning tells it
                _note_problem(run_id, problem)
        finally:
            recording.end(is_complete)

    def settle_all(self) -> None:
        """End all recordings at the end of the process."""
        for run_id in list(self._open):
            self.settle(run_id)

    def abandon(self) -> None:
        """In a forked child: leave the recordings to the parent."""
        self._lock = threading.RLock()
        self._open.clear()

    def _take(self, run_id: str) -> _OpenRecording | None:
        with self._lock:
            recording = self._open.pop(run_id, None)
        if recording is not None:
            observer.before_end(run_id, "short fit", None)
        return recording


def _report(run_id: str, history: TrainingHistory, cadence: str) -> None:
    from mlflow_hp.training.report import TrainingReport

    with contextlib.closing(TrainingReport(run_id, history)) as report:
        ensure_reachable()
        within(patience.PATIENCE_SECONDS, lambda: report.upload(cadence))


def _note_problem(run_id: str, problem: str) -> None:
    tags = mlflow.MlflowClient().get_run(run_id).data.tags
    problems = [*filter(None, [tags.get(RECORDING_ERROR_TAG)]), problem]
    runs.set_tags(run_id, {RECORDING_ERROR_TAG: "\n".join(problems)})


short_fits = ShortFits()
atexit.register(short_fits.settle_all)
