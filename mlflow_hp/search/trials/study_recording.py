"""Recording of the trials of an Optuna study."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from optuna.exceptions import TrialPruned
from optuna.trial import TrialState

from mlflow_hp.search.trials.recording import TrialsRecording, guarded
from mlflow_hp.search.trials.trial_row import TrialRow, scorer_of
from mlflow_hp.tracking.tags import VALUE_METRIC

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import mlflow
    import optuna
    from optuna.trial import FrozenTrial

    from mlflow_hp.search.resume.previous_run import PreviousRun
    from mlflow_hp.search.trials.trial_run import TrialRun

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class StudyRecording(TrialsRecording):
    """Recording of the trials of one study.

    Attributes
    ----------
    run_id : str
        Id of the parent run.
    study : optuna.Study
        The study.
    """

    def __init__(
        self,
        study: optuna.Study,
        parent: mlflow.entities.Run,
        previous: PreviousRun | None,
        *,
        is_owned: bool,
        report: bool,
    ) -> None:
        self.study = study
        self._ended_before = {trial.number for trial in self._trials() if trial.state in ENDED}
        directions = [direction.name.lower() for direction in study.directions]
        names = study.metric_names
        unnamed = [f"{VALUE_METRIC}_{number}" for number in range(len(directions))]
        if len(directions) == 1:
            self._objectives, self._metrics = list(names or [VALUE_METRIC]), [VALUE_METRIC]
        else:
            self._objectives = list(names or unnamed)
            self._metrics = [f"{VALUE_METRIC}/{name}" for name in names] if names else unnamed
        self._scorers = [
            scorer_of(name, maximizes=direction == "maximize")
            for name, direction in zip(names or (unnamed if unnamed[1:] else [None]), directions, strict=True)
        ]
        self._signs = [1 if direction == "maximize" else -1 for direction in directions]
        params = {
            "study": study.study_name,
            "direction": ", ".join(directions),
            "sampler": type(study.sampler),
            "pruner": type(study.pruner),
        }
        if names:
            params["objective"] = ", ".join(names)
        name = f"Study by {type(study.sampler).__name__}"
        super().__init__(parent, previous, name, params, is_owned=is_owned, report=report)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def rows(self) -> list[TrialRow]:
        """All trials that have ended, in their order."""
        return [self._row(trial) for trial in self._trials() if trial.state in ENDED]

    def states(self) -> Mapping[str, int]:
        """Numbers of trials that are ``running``, ``done``, ``failed`` or ``pruned``, those of other processes too."""
        states = [trial.state for trial in self._trials()]
        n_pruned = states.count(TrialState.PRUNED)
        return {
            "running": states.count(TrialState.RUNNING),
            "done": states.count(TrialState.COMPLETE) + n_pruned,
            "failed": states.count(TrialState.FAIL),
            "pruned": n_pruned,
        }

    def best(self) -> TrialRow | None:
        """The best trial; None without one, or with several objectives."""
        if len(self._objectives) > 1:
            return None
        try:
            return self._row(self.study.best_trial)
        except ValueError:  # none is complete, or none keeps the constraints
            return None

    def front(self) -> Sequence[TrialRow]:
        """With several objectives, the trials than which none is better in all; else empty."""
        return [self._row(trial) for trial in self.study.best_trials] if len(self._objectives) > 1 else []

    def _row(self, trial: FrozenTrial) -> TrialRow:
        values = dict(zip(self._objectives, trial.values or (), strict=False))
        return TrialRow(
            trial.number,
            trial.state.name,
            trial.params,
            values,
            self._scores(trial),
            math.nan if trial.duration is None else trial.duration.total_seconds(),
            trial.user_attrs,
        )

    def _scores(self, trial: FrozenTrial) -> dict[str, tuple[float, ...]]:
        if trial.state is not TrialState.COMPLETE:
            return {}
        signed = zip(self._scorers, self._signs, trial.values or (), strict=True)
        return {scorer: (sign * value,) for scorer, sign, value in signed}

    @guarded
    def plan(self, n_trials: int | None) -> None:
        """Note that a call of ``optimize`` asks for so many trials; None for no limit."""
        if n_trials is not None:
            n_begun = sum(trial.state is not TrialState.WAITING for trial in self._trials())
            self.n_planned = n_begun + n_trials
            self.count(at_once=True)

    @guarded
    def begun(self, trial: optuna.Trial) -> TrialRun:
        """Open the run of a trial that was asked for."""
        run = self.open(trial.number)
        run.log_params(trial.params)
        run.set_attributes(trial.user_attrs)
        return run

    @guarded
    def suggested(self, trial: optuna.Trial, name: str, value: Any) -> None:
        """Write a parameter."""
        self.open(trial.number).log_params({name: value})

    @guarded
    def reported(self, trial: optuna.Trial, value: float, step: int) -> None:
        """Write an intermediate value."""
        self.open(trial.number).report({step: float(value)})

    @guarded
    def attributed(self, trial: optuna.Trial, key: str, value: Any) -> None:
        """Write an attribute."""
        self.open(trial.number).set_attributes({key: value})

    def note_failure(self, trial: TrialRun, error: BaseException) -> None:
        """Note the exception that has ended the computation of a trial; a pruned one has not failed."""
        if not isinstance(error, TrialPruned):
            super().note_failure(trial, error)

    @guarded
    def ended(self, trial: FrozenTrial) -> None:
        """Write the end of a trial, and what of it was not seen."""
        if trial.number in self._ended_before:
            return
        started = None if trial.datetime_start is None else trial.datetime_start.timestamp()
        run = self.open(trial.number, started)
        if run.status is None:
            self._write_end(run, trial)

    def _write_end(self, run: TrialRun, trial: FrozenTrial) -> None:
        at = time.time() if trial.datetime_complete is None else trial.datetime_complete.timestamp()
        run.log_params(trial.params)
        run.set_attributes(trial.user_attrs)
        run.report(trial.intermediate_values, at)
        if trial.state is TrialState.COMPLETE:
            values = dict(zip(self._metrics, trial.values, strict=True))
            run.log_result(values, self._scores(trial), at)
            self.end(run, "FINISHED", at)
        elif trial.state is TrialState.PRUNED:
            step = trial.last_step
            run.prune("before its first report" if step is None else f"after step {step}")
            self.end(run, "FINISHED", at)
        elif run.is_interrupted:
            self.end(run, "KILLED", at)
        else:
            if not run.failures:
                run.fail("its objective returned no number, or it ended as failed by study.tell\n")
            self.end(run, "FAILED", at)

    @guarded
    def settle_raised(self) -> None:
        """End the trials whose objective has raised, after Optuna has noted it."""
        for run in [each for each in self.trials.values() if each.status is None and each.failures]:
            self.settle(run)

    def settle(self, trial: TrialRun) -> None:
        """End the run of a trial as its study says; one that still runs there was interrupted."""
        of_study = next((each for each in self._trials() if each.number == trial.number), None)
        if of_study is not None and of_study.state in ENDED:
            self._write_end(trial, of_study)
        else:
            super().settle(trial)
