"""Recording of trials into nested runs, and of what they found into their parent run."""

from __future__ import annotations

import contextlib
import functools
import json
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

import mlflow

from mlflow_hp._compat.mlflow import active_inside
from mlflow_hp._forks import abandon_in_child
from mlflow_hp._notice import warn
from mlflow_hp.delivery.late_params import late_params
from mlflow_hp.delivery.search_sender import SearchSender
from mlflow_hp.search.missing_part import missing_part
from mlflow_hp.search.naming import param_values
from mlflow_hp.search.resume.previous_run import close_dead
from mlflow_hp.search.trials.trial_row import results_of, to_csv
from mlflow_hp.search.trials.trial_run import TrialRun
from mlflow_hp.tracking import runs, uncommitted_code
from mlflow_hp.tracking.artifact_paths import TRIALS_FILE
from mlflow_hp.tracking.late_run import LateRun
from mlflow_hp.tracking.own_run import status_of
from mlflow_hp.tracking.process_identity import is_alive, is_here, this_process
from mlflow_hp.tracking.run_presentation import present
from mlflow_hp.tracking.server_health import ensure_reachable
from mlflow_hp.tracking.tags import (
    BEST_PARAMS_TAG,
    BEST_RUN_ID_TAG,
    BEST_SCORE_METRIC,
    BEST_TAG,
    BEST_VALUE_METRIC,
    DESCRIPTION_TAG,
    DONE_TAG,
    ERROR_TAG,
    FAILED_TAG,
    PLANNED_TAG,
    PROCESS_TAG,
    PRUNED_TAG,
    RECORDING_ERROR_TAG,
    REPORT_SECONDS_METRIC,
    RUNNING_TAG,
    WERE_RUNNING_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mlflow_hp.search.resume.previous_run import PreviousRun
    from mlflow_hp.search.trials.trial_row import TrialRow

EVERY_SECONDS = 0.5
"""Interval at which counts and the best trial are written, while trials end."""

Method = TypeVar("Method", bound="Callable[..., Any]")


def guarded(method: Method) -> Method:
    """Report an error of the recording instead of raising it into the user's computation."""

    @functools.wraps(method)
    def without_errors(self: TrialsRecording, *arguments: Any, **named: Any) -> Any:
        if self.abandoned:
            return None
        try:
            with self.lock:
                return method(self, *arguments, **named)
        except Exception as error:  # noqa: BLE001
            self.problem(f"{type(error).__name__}: {error}")
            return None

    return without_errors  # type: ignore[return-value]


class TrialsRecording:
    """Recording of the trials of a study or a tuner; subclasses say what its trials are.

    Parameters
    ----------
    parent : mlflow.entities.Run
        Parent run of the trials.
    previous : PreviousRun or None
        Trials that an earlier process has recorded into it.
    name : str
        Name of what is recorded, such as ``"Study of TPESampler"``.
    params : mapping of str to object
        Its settings, which become params of the parent run.
    is_owned : bool
        Whether the parent run was started for the recording, and ends with it.
    report : bool
        Whether to add pictures and a description at the end.

    Attributes
    ----------
    run_id : str
        Id of the parent run.
    """

    def __init__(
        self,
        parent: mlflow.entities.Run,
        previous: PreviousRun | None,
        name: str,
        params: Mapping[str, Any],
        *,
        is_owned: bool,
        report: bool,
    ) -> None:
        self.run_id = str(parent.info.run_id)
        self.lock = threading.RLock()
        self.abandoned = False
        self.trials: dict[int, TrialRun] = {}
        self.n_planned = 0
        self._parent, self._name, self._report = parent, name, report
        self._previous = {} if previous is None else {k[1]: each for k, each in previous.candidates.items()}
        self._problems: dict[str, None] = {}
        self._counted_at = 0.0
        self._best: int | None = None
        self.writer = SearchSender(parent, warn, is_owned=is_owned)
        abandon_in_child(self)
        self._describe(params)

    def __repr__(self) -> str:
        return f"{type(self).__name__} of {self._name}, run {self.run_id}"

    def rows(self) -> list[TrialRow]:
        """All trials that have ended, in their order."""
        raise NotImplementedError

    def states(self) -> Mapping[str, int]:
        """Numbers of trials that are ``running``, ``done``, ``failed`` or ``pruned``, those of other processes too."""
        raise NotImplementedError

    def best(self) -> TrialRow | None:
        """The best trial; None without one, or with several objectives."""
        raise NotImplementedError

    def front(self) -> Sequence[TrialRow]:
        """With several objectives, the trials than which none is better in all; else empty."""
        return ()

    def abandon(self) -> None:
        """Stop recording in a forked child process: the parent process records the trials."""
        self.lock = threading.RLock()
        self.abandoned = True

    def problem(self, text: str) -> None:
        """Note an error of the recording."""
        self._problems.setdefault(text)

    def open(self, number: int, started: float | None = None) -> TrialRun:
        """Open the run of a trial, or return the one that it has."""
        if number not in self.trials:
            self.trials[number] = TrialRun(self.writer, number, time.time() if started is None else started)
            self.count()
        return self.trials[number]

    @contextlib.contextmanager
    def computing(self, trial: TrialRun | None) -> Iterator[None]:
        """Make the run of a trial the active one while the trial is computed, and note the exception that ends it."""
        if trial is None or self.abandoned:
            yield
            return
        with active_inside(LateRun(functools.partial(self._run_of, trial))):
            try:
                yield
            except BaseException as error:
                self.note_failure(trial, error)
                raise

    @guarded
    def note_failure(self, trial: TrialRun, error: BaseException) -> None:
        """Note the exception that has ended the computation of a trial."""
        trial.is_interrupted = status_of(error) == "KILLED"
        trial.fail("".join(traceback.format_exception(error)))

    def _run_of(self, trial: TrialRun) -> mlflow.entities.Run:
        """Create the run of a trial now; without it, what is logged goes to the parent run."""
        run_id = None if self.writer.error is not None else self.writer.run_id_of(trial.run)
        if run_id is None:
            self.problem(f"what {trial.name} logged is in its parent run, as MLflow did not create its own in time")
            return self._parent
        return mlflow.MlflowClient(self.writer.tracking_uri).get_run(run_id)

    @guarded
    def end(self, trial: TrialRun, status: str, at: float) -> None:
        """End the run of a trial."""
        trial.end(status, at)
        self.count()

    @guarded
    def count(self, *, at_once: bool = False) -> None:
        """Write the counts of trials and the best one to the parent run, from time to time."""
        if not at_once and time.monotonic() - self._counted_at < EVERY_SECONDS:
            return
        self._counted_at = time.monotonic()
        states = self.states()
        n_ended = states["done"] + states["failed"]
        counts = {
            PLANNED_TAG: max(self.n_planned, n_ended + states["running"]),
            RUNNING_TAG: states["running"],
            DONE_TAG: states["done"],
            FAILED_TAG: states["failed"],
        }
        counts |= {PRUNED_TAG: states["pruned"]} if states["pruned"] else {}
        self.writer.parent.set_tags({name: str(count) for name, count in counts.items()})
        best = self.best()
        if best is not None and (at_once or best.number != self._best):
            self._write_best(best)

    def _write_best(self, best: TrialRow) -> None:
        is_new, self._best = best.number != self._best, best.number
        parent, now = self.writer.parent, time.time()
        trial, earlier = self.trials.get(best.number), self._previous.get(best.number)
        tags = {BEST_PARAMS_TAG: json.dumps(param_values(best.params)), BEST_TAG: f"trial {best.number}"}
        if trial is not None:
            tags[BEST_TAG] = trial.name
            parent.set_run_id_tag(BEST_RUN_ID_TAG, trial.run)
        elif earlier is not None:
            tags |= {BEST_TAG: earlier.name, BEST_RUN_ID_TAG: earlier.run_id}
        parent.set_tags(tags)
        if is_new:
            score = next(iter(best.scores.values()))
            points = [(BEST_SCORE_METRIC, sum(score) / len(score), now, best.number)]
            points += [(BEST_VALUE_METRIC, value, now, best.number) for value in list(best.values.values())[:1]]
            parent.log_metrics(points)

    def close(self, error: BaseException | None, status: str, *, ends_run: bool) -> None:
        """End open runs and send everything to MLflow, for at most ten seconds of failures; the rest stays spooled."""
        if self.abandoned:
            return
        self._settle(error)
        self._end_left()
        seconds_left = 0.0
        try:
            seconds_left = self.writer.flush()
            self._add_report()
        finally:
            if self._problems:
                self.writer.parent.set_tags({RECORDING_ERROR_TAG: "\n".join(self._problems)})
            if not self.writer.close(seconds_left, status, ends_run=ends_run):
                self.problem(missing_part(self.writer))
        for problem in [*self._problems, *self.writer.messages]:
            warn(problem)

    @guarded
    def _settle(self, error: BaseException | None) -> None:
        """End the runs that are open, and write the last counts and the table."""
        running = [trial for trial in self.trials.values() if trial.status is None]
        for trial in running:
            self.settle(trial)
        if error is not None:
            tags = {ERROR_TAG: f"{type(error).__name__}: {error}"}
            if left := [trial.name for trial in running if trial.status == "KILLED"]:
                tags[WERE_RUNNING_TAG] = "\n".join(left)
            self.writer.parent.set_tags(tags)
        self.count(at_once=True)
        self.writer.parent.log_text(TRIALS_FILE, to_csv(self.rows()))

    @guarded
    def _end_left(self) -> None:
        """End the runs that an error of the recording has left open."""
        for run in self.writer.runs[1:]:
            if run.is_open:
                run.end("KILLED", time.time())

    def settle(self, trial: TrialRun) -> None:
        """End the run of a trial whose end was not seen."""
        trial.end("FAILED" if trial.failures and not trial.is_interrupted else "KILLED", time.time())

    @guarded
    def _add_report(self) -> None:
        """Draw and describe the trials."""
        rows = self.rows()
        results = results_of(rows)
        if not self._report or results is None:
            return
        from mlflow_hp.search.trials.report import describe_trials, draw_trials  # loads Matplotlib

        started = time.perf_counter()
        parent, front = self.writer.parent, self.front()
        parent.log_if_missing("tags", {DESCRIPTION_TAG: describe_trials(rows, results, front)})
        run_name = self._parent.info.run_name
        about = f"run {run_name} · {self._name}" if run_name else self._name
        draw_trials(self.writer.report_folder, rows, results, front, about)
        parent.log_report()
        parent.log_metrics([(REPORT_SECONDS_METRIC, time.perf_counter() - started, time.time(), 0)])

    @guarded
    def _describe(self, params: Mapping[str, Any]) -> None:
        parent, before = self.writer.parent, self._parent.data.tags
        late_params.add(self.run_id, param_values(params), before)
        tags = runs.run_tags("search")
        process = before.get(PROCESS_TAG, "")
        if not (is_here(process) and is_alive(process)):  # else another process records into the run as well
            parent.write_verbatim({PROCESS_TAG: this_process()})
        tags.pop(PROCESS_TAG)
        parent.log_if_missing("tags", tags)
        parent.set_tags(late_params.tag(self.run_id))
        self.writer.do(self._add_code)
        self.writer.do(functools.partial(present, self.run_id, self._name, self.writer.tracking_uri))
        self.writer.do(self._close_dead)

    def _add_code(self) -> None:
        if (patch := uncommitted_code.uncommitted()) is not None:
            self.writer.parent.log_code(patch)

    def _close_dead(self) -> None:
        with contextlib.suppress(Exception):  # left to the next recorded search
            ensure_reachable(self.writer.tracking_uri)
            close_dead(mlflow.MlflowClient(self.writer.tracking_uri), self._parent.info.experiment_id)
