"""One training of an improvement, in a nested run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow

from mlflow_hp._notice import warn
from mlflow_hp.analysis.diagnosis import diagnose
from mlflow_hp.delivery.signals import held
from mlflow_hp.history.load import load_history
from mlflow_hp.improvement.reasons import describe_training, training_tags
from mlflow_hp.improvement.scores import Scores, scores_of
from mlflow_hp.improvement.training_result import TrainingResult
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.artifact_paths import TRACEBACK_FILE
from mlflow_hp.tracking.own_run import OwnRun, status_of
from mlflow_hp.tracking.params_and_tags import texts
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.tags import (
    BEST_EPOCH_METRIC,
    ERROR_TAG,
    FITS_TAG,
    SAVED_MODEL_TAG,
    SCORES_TAG,
    TRAINING_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mlflow.entities import Run

    from mlflow_hp.analysis.diagnosis import Finding
    from mlflow_hp.improvement.proposals import Proposal


PROGRESS_BAR = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
"""Environment variable of MLflow."""


class Record(NamedTuple):
    """Findings and scores of a recorded training; the defaults are those of one without a record."""

    findings: tuple[Finding, ...] = ()
    scores: Scores = Scores({})


class Trained(NamedTuple):
    """A training, and what the function returned; None if it raised an exception, or ran in an earlier process."""

    result: TrainingResult
    returned: Any = None


def train_nested(train: Callable[..., Any], proposal: Proposal, number: int) -> Trained:
    """Train with the hyperparameters of a proposal, in a run nested in the active one.

    Parameters
    ----------
    train : callable
        The user's function.
    proposal : Proposal
        Keyword values, and why.
    number : int
        Number of the training, 0 for the start.

    Returns
    -------
    Trained
        Its result.

    Raises
    ------
    BaseException
        What `train` raised, if that is no `Exception`, or it is the start; its run has ended as KILLED or FAILED.
    """
    own = OwnRun(runs.run_tags("training", training_tags(number, proposal)))
    returned, failure = None, None
    try:
        with _tolerated(f"params of run {own.run_id}"):
            runs.log_once(mlflow.MlflowClient().get_run(own.run_id), proposal.hyperparameters)
        returned = train(**proposal.hyperparameters)
    except BaseException as error:
        failure = error
        _record_failure(own.run_id, error)
        if number == 0 or not isinstance(error, Exception):
            raise
        warn(f"training {number} of the improvement failed ({type(error).__name__}: {error}): going on without it")
    finally:
        with held("sending the record to MLflow"):
            own.end(status_of(failure))
            with _tolerated(f"the description of run {own.run_id}"):
                describe_training(own.run_id, number, proposal)
    if failure is not None:
        error_text = f"{type(failure).__name__}: {failure}"
        return Trained(TrainingResult(proposal, own.run_id, error=error_text))
    with held("reading the record"):
        return Trained(_result(proposal, own.run_id, _numbers(returned)), returned)


def finished_before(previous: Iterable[Run], proposal: Proposal) -> TrainingResult | None:
    """Find a training that an earlier process has finished with the same hyperparameters.

    Parameters
    ----------
    previous : iterable of Run
        Runs that are nested in the improvement's.
    proposal : Proposal
        The training that is due.

    Returns
    -------
    TrainingResult or None
        None if there is none.
    """
    params = texts("params", proposal.hyperparameters).values
    for run in previous:
        is_done = run.info.status == "FINISHED" and TRAINING_TAG in run.data.tags
        if is_done and all(run.data.params.get(name) == text for name, text in params.items()):
            return _result(proposal, run.info.run_id, json.loads(run.data.tags.get(SCORES_TAG, "{}")))
    return None


def _result(proposal: Proposal, run_id: str, numbers: dict[str, float]) -> TrainingResult:
    """Read the record of a finished training: its findings and scores."""
    record = Record()
    with _tolerated(f"the diagnosis of run {run_id}"):
        if numbers:
            runs.log_numbers(run_id, numbers)
            runs.set_tags(run_id, {SCORES_TAG: json.dumps(numbers)})
        record = read_record(run_id)
    scores = record.scores._replace(values={**record.scores.values, **numbers})
    return TrainingResult(proposal, run_id, record.findings, scores)


def read_record(run_id: str) -> Record:
    """Read what is recorded of a training: of its last fit, if there were several.

    Parameters
    ----------
    run_id : str
        Id of its run.

    Returns
    -------
    Record
        Empty if nothing is recorded.
    """
    run = mlflow.MlflowClient().get_run(run_id)
    n_fits = int(run.data.tags.get(FITS_TAG, "0"))
    if not n_fits:
        return Record()
    with _without_progress_bar():
        history = load_history(run_id, fit=n_fits - 1)
    is_best_kept = run.data.tags.get(SAVED_MODEL_TAG) == "best"
    epoch = run.data.metrics.get(BEST_EPOCH_METRIC, math.nan) if is_best_kept else math.nan
    return Record(tuple(diagnose(history)), scores_of(history, int(epoch) if math.isfinite(epoch) else None))


def _numbers(returned: Any) -> dict[str, float]:
    """Read the scores among what the function returned: a number, or a dict of numbers, alone or in a tuple."""
    numbers: dict[str, float] = {}
    for each in returned if isinstance(returned, tuple) else (returned,):
        values = each if isinstance(each, dict) else {"score": each}
        for name, value in values.items():
            if not isinstance(value, (str, bytes, bool)) and value is not None:
                try:
                    numbers[str(name)] = float(value)
                except (TypeError, ValueError):
                    continue
    return numbers


def _record_failure(run_id: str, error: BaseException) -> None:
    with _tolerated(f"the error of run {run_id}"):
        runs.set_tags(run_id, {ERROR_TAG: f"{type(error).__name__}: {error}"})
        if isinstance(error, Exception):
            text = masked("".join(traceback.format_exception(error)))
            mlflow.MlflowClient().log_text(run_id, text, TRACEBACK_FILE)


@contextlib.contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Download without MLflow's progress bar, unless the user has set whether there is one."""
    added = PROGRESS_BAR not in os.environ
    if added:
        os.environ[PROGRESS_BAR] = "false"
    try:
        yield
    finally:
        if added:
            os.environ.pop(PROGRESS_BAR, None)


@contextlib.contextmanager
def _tolerated(subject: str) -> Iterator[None]:
    """Warn of an error of the recording in the block, which does not end the improvement."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        warn(f"{subject} could not be written or read: {type(error).__name__}: {error}")
