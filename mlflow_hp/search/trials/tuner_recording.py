"""Recording of the trials of a KerasTuner tuner, each with its executions."""

from __future__ import annotations

import contextlib
import math
import numbers
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.patch import MethodPatch
from mlflow_hp.search.live.keras_epochs import record_epochs
from mlflow_hp.search.trials.recording import TrialsRecording, guarded
from mlflow_hp.search.trials.trial_row import TrialRow, scorer_of
from mlflow_hp.tracking.tags import FOLD_METRIC_PREFIX, VALUE_METRIC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import mlflow

    from mlflow_hp.search.resume.previous_run import PreviousRun
    from mlflow_hp.search.trials.trial_run import TrialRun

STATES = {"COMPLETED": "FINISHED", "FAILED": "FAILED"}
"""Status of a trial that has ended -> status of its run; other trials go on, or are tried again."""
UNNAMED_OBJECTIVE = "default_objective"
"""KerasTuner's name of an objective that is the number which a trial returns."""


class TunerRecording(TrialsRecording):
    """Recording of the trials of one tuner.

    Attributes
    ----------
    run_id : str
        Id of the parent run.
    tuner : keras_tuner.engine.base_tuner.BaseTuner
        The tuner.
    """

    def __init__(
        self, tuner: Any, parent: mlflow.entities.Run, previous: PreviousRun | None, *, is_owned: bool, report: bool
    ) -> None:
        self.tuner = tuner
        oracle = tuner.oracle
        self._objective = oracle.objective
        self._maximizes = self._objective.direction == "max"
        name = None if self._objective.name == UNNAMED_OBJECTIVE else self._objective.name
        self._name_of_value = name or VALUE_METRIC
        self._scorer = scorer_of(name, maximizes=self._maximizes)
        self._numbers: dict[str, int] = {}
        self._scores: dict[int, tuple[float, ...]] = {}
        self._rows: dict[int, TrialRow] = {}
        for trial in getattr(oracle, "trials", {}).values():  # of a tuner that was loaded; a chief has them itself
            if trial.status in STATES:
                self._rows[self._number(trial)] = self._row(trial, math.nan)
        params = {
            "tuner": type(tuner),
            "oracle": type(oracle),
            "objective": self._name_of_value,
            "direction": "maximize" if self._maximizes else "minimize",
            "executions_per_trial": getattr(tuner, "executions_per_trial", 1),
        }
        super().__init__(parent, previous, f"{type(tuner).__name__} tuner", params, is_owned=is_owned, report=report)
        self.n_planned = getattr(oracle, "max_trials", None) or 0

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Record the tuner's trials inside the block."""
        patches = {"run_trial": self._run_trial, "on_trial_end": self._on_trial_end}
        with contextlib.ExitStack() as patched:
            for name, act in patches.items():
                patched.enter_context(MethodPatch(name, act).on(type(self.tuner)))
            yield

    def _run_trial(self, original: Callable[..., Any], tuner: Any, trial: Any, *arguments: Any, **named: Any) -> Any:
        if tuner is not self.tuner or self.abandoned:
            return original(tuner, trial, *arguments, **named)
        run = self._begun(trial)

        def on_epoch(execution: int, epoch: int, values: Mapping[str, float]) -> None:
            self._epoch(run, execution, epoch, values)

        with self.computing(run), record_epochs(on_epoch):
            results = original(tuner, trial, *arguments, **named)
        self._executed(trial, results)
        return results

    def _on_trial_end(self, original: Callable[..., Any], tuner: Any, trial: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return original(tuner, trial, *arguments, **named)
        finally:
            if tuner is self.tuner:
                self._ended(trial)

    def _number(self, trial: Any) -> int:
        identifier = str(trial.trial_id)
        return self._numbers.setdefault(identifier, int(identifier) if identifier.isdigit() else len(self._numbers))

    @guarded
    def _begun(self, trial: Any) -> TrialRun:
        run = self.open(self._number(trial))
        run.log_params(trial.hyperparameters.values)
        return run

    @guarded
    def _epoch(self, run: TrialRun | None, execution: int, epoch: int, values: Mapping[str, float]) -> None:
        if run is not None:
            now = time.time()
            run.run.log_metrics(
                [(f"{FOLD_METRIC_PREFIX}{execution}/{name}", value, now, epoch) for name, value in values.items()]
            )

    @guarded
    def _executed(self, trial: Any, results: Any) -> None:
        """Note the score of each execution, of what ``run_trial`` has returned."""
        values = [self._value(each) for each in (results if isinstance(results, list) else [results])]
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            self._scores[self._number(trial)] = tuple(self._signed(value) for value in known)

    def _value(self, result: Any) -> float | None:
        """Value of the objective in a result of KerasTuner's kinds; the best epoch's of a history."""
        objective = self._objective
        if isinstance(result, numbers.Real):
            return float(result)
        if isinstance(result, dict):
            return float(objective.get_value(result)) if objective.has_value(result) else None
        by_epoch = getattr(result, "history", None)
        if not by_epoch or not objective.has_value(by_epoch):
            return None
        epochs = [dict(zip(by_epoch, values, strict=True)) for values in zip(*by_epoch.values(), strict=False)]
        values = [float(objective.get_value(epoch)) for epoch in epochs]
        return max(values) if self._maximizes else min(values)

    def _signed(self, value: float) -> float:
        return value if self._maximizes else -value

    @guarded
    def _ended(self, trial: Any) -> None:
        """Write the end of a trial; one that is tried again goes on."""
        trial = self.tuner.oracle.get_trial(trial.trial_id)
        number, at = self._number(trial), time.time()
        if trial.status not in STATES:
            return
        run = self.open(number)
        run.log_params(trial.hyperparameters.values)  # those that the model asked for while it was built, too
        self._rows[number] = row = self._row(trial, at - run.started)
        if trial.status == "COMPLETED":
            run.log_result({VALUE_METRIC: float(trial.score)}, row.scores, at)
        elif not run.failures:
            run.fail(f"{trial.message or 'its objective is not a finite number'}\n")
        self.end(run, STATES[trial.status], at)

    def _row(self, trial: Any, seconds: float) -> TrialRow:
        is_complete = trial.status == "COMPLETED"
        values = {self._name_of_value: float(trial.score)} if is_complete else {}
        number = self._number(trial)
        scores = self._scores.get(number) or tuple(map(self._signed, values.values()))
        params = dict(trial.hyperparameters.values)
        return TrialRow(number, trial.status, params, values, {self._scorer: scores} if values else {}, seconds, {})

    def rows(self) -> list[TrialRow]:
        """All trials that have ended, in their order."""
        return [self._rows[number] for number in sorted(self._rows)]

    def states(self) -> Mapping[str, int]:
        """Numbers of trials that are ``running``, ``done``, ``failed`` or ``pruned``."""
        states = Counter(row.state for row in self._rows.values())
        n_running = sum(trial.status is None for trial in self.trials.values())
        return {"running": n_running, "done": states["COMPLETED"], "failed": states["FAILED"], "pruned": 0}

    def best(self) -> TrialRow | None:
        """The best trial; None without one."""
        complete = {math.fsum(scores) / len(scores): row for row in self.rows() for scores in row.scores.values()}
        return complete[max(complete)] if complete else None
