"""Run of one trial of a study or a tuner: everything known of the trial, each part written once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.search.naming import param_values
from mlflow_hp.tracking.artifact_paths import TRACEBACK_FILE
from mlflow_hp.tracking.run_presentation import run_name
from mlflow_hp.tracking.tags import (
    CANDIDATE_TAG,
    FIT_SECONDS_METRIC,
    INTERMEDIATE_METRIC,
    KIND_TAG,
    PRUNED_TAG,
    RUN_NAME_TAG,
    USER_ATTRIBUTE_TAG_PREFIX,
    score_metric,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mlflow_hp.delivery.outbox import Outbox


class TrialRun:
    """Run of a trial.

    Parameters
    ----------
    writer : Outbox
        Writes the run.
    number : int
        Number of the trial (0-based).
    started : float
        In seconds since the epoch.

    Attributes
    ----------
    run : RunChanges
        Its run.
    name : str
        Name of the run; its parameters are added when the trial has ended.
    status : str or None
        Final status; None while it runs.
    failures : list of str
        Tracebacks.
    is_interrupted : bool
        Whether it was interrupted, not failed.
    """

    def __init__(self, writer: Outbox, number: int, started: float) -> None:
        self.number = number
        self.name = f"trial {number}"
        self.started = started
        self.run = writer.open_run(self.name, started)
        self.run.set_tags({KIND_TAG: "candidate", CANDIDATE_TAG: str(number)})
        self.status: str | None = None
        self.failures: list[str] = []
        self.is_interrupted = False
        self._params: dict[str, Any] = {}
        self._attributes: dict[str, Any] = {}
        self._reported: set[int] = set()

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Write parameters that it did not have."""
        new = {name: value for name, value in params.items() if name not in self._params}
        self._params |= new
        self.run.log_params(param_values(new))

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Write the user's attributes as tags."""
        new = {k: v for k, v in attributes.items() if k not in self._attributes or self._attributes[k] != v}
        self._attributes |= new
        self.run.set_tags({f"{USER_ATTRIBUTE_TAG_PREFIX}{k}": v for k, v in param_values(new).items()})

    def report(self, values: Mapping[int, float], at: float | None = None) -> None:
        """Write intermediate values by step; of a step that was reported before, the first stays."""
        new = {step: value for step, value in values.items() if step not in self._reported}
        self._reported |= new.keys()
        now = time.time() if at is None else at
        self.run.log_metrics([(INTERMEDIATE_METRIC, float(value), now, step) for step, value in new.items()])

    def fail(self, traceback: str) -> None:
        """Write the traceback of a failure."""
        self.failures.append(traceback)
        self.run.log_text(TRACEBACK_FILE, "\n".join(self.failures))

    def prune(self, reason: str) -> None:
        """Note that the trial was given up, as it looked hopeless."""
        self.run.set_tags({PRUNED_TAG: reason})

    def log_result(self, values: Mapping[str, float], scores: Mapping[str, Sequence[float]], at: float) -> None:
        """Write the values of a finished trial, and its scores by scorer and execution, with their mean and spread."""
        points = [(name, float(value), at, 0) for name, value in values.items()]
        for scorer, of_executions in scores.items():
            points += [(score_metric(scorer), float(score), at, step) for step, score in enumerate(of_executions)]
            points.append((score_metric(scorer, "mean"), float(np.mean(of_executions)), at, 0))
            with np.errstate(invalid="ignore"):  # an infinite score has no spread
                points.append((score_metric(scorer, "std"), float(np.std(of_executions)), at, 0))
        self.run.log_metrics(points)

    def end(self, status: str, at: float) -> None:
        """End the run, and add the parameters to its name."""
        if self.status is not None:
            return
        self.status = status
        self.name = run_name(f"trial {self.number}", param_values(self._params))
        self.run.set_tags({RUN_NAME_TAG: self.name})
        self.run.log_metrics([(FIT_SECONDS_METRIC, at - self.started, at, 0)])
        self.run.end(status, at)
