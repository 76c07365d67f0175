"""The earlier run of an improvement that is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp._notice import warn
from mlflow_hp.errors import UserError
from mlflow_hp.improvement.user_code import user_code_digest
from mlflow_hp.search.resume.previous_run import below, close_below, is_recorded
from mlflow_hp.tracking.params_and_tags import texts
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.tracking.tags import (
    ERROR_TAG,
    FUNCTION_DIGEST_TAG,
    FUNCTION_TAG,
    KIND_TAG,
    PROCESS_TAG,
    START_PARAM_PREFIX,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow.entities import Run

CHANGED = "the code of {}, or of what it calls, has changed since it began"
"""Reason that a run is not resumed, for the name of the function."""
KIND = "improvement"
"""Kind of the parent run."""


class PreviousImprovement(NamedTuple):
    """Parent run to resume, and the runs nested in it."""

    run_id: str
    trainings: tuple[Run, ...]


def start_params(start: Mapping[str, Any]) -> dict[str, Any]:
    """Name the params of the parent run that hold the start.

    Parameters
    ----------
    start : mapping of str to object
        Keyword values of the first training.

    Returns
    -------
    dict of str to object
        Name -> value.
    """
    return {f"{START_PARAM_PREFIX}{name}": value for name, value in start.items()}


class Function(NamedTuple):
    """Function that trains: its name, and the digest of its code.

    Attributes
    ----------
    name : str
        Its qualified name.
    digest : str
        As from `user_code_digest`.
    """

    name: str
    digest: str

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the parent run."""
        return {FUNCTION_TAG: self.name, FUNCTION_DIGEST_TAG: self.digest}


def function_of(train: Any) -> Function:
    """Describe the function that trains.

    Parameters
    ----------
    train : callable
        The function.

    Returns
    -------
    Function
        Its name and digest.
    """
    return Function(str(getattr(train, "__qualname__", type(train).__qualname__)), user_code_digest(train))


def find_previous(resume: bool | str, function: Function, start: Mapping[str, Any]) -> PreviousImprovement | None:
    """Find the run to resume, take it over, and close what its process has left open.

    Parameters
    ----------
    resume : bool or str
        Id of the run; True for the latest unfinished one of this function and start in the active experiment.
    function : Function
        The function that trains.
    start : mapping of str to object
        Keyword values of the first training.

    Returns
    -------
    PreviousImprovement or None
        None if there is none to resume.

    Raises
    ------
    UserError
        If the run of that id is no improvement from this start by the same code, or is being recorded now.
    """
    if resume is False:
        return None
    client, wanted = mlflow.MlflowClient(), texts("params", start_params(start)).values
    run = _latest(function, wanted) if resume is True else _named(client, str(resume), wanted, function)
    if run is None:
        return None
    if is_recorded(run):
        raise UserError(f"resume: run {run.info.run_id} is being recorded by another process: wait until it has ended")
    client.set_tag(run.info.run_id, PROCESS_TAG, this_process())
    close_below(client, run)
    if ERROR_TAG in run.data.tags:
        client.delete_tag(run.info.run_id, ERROR_TAG)
    trainings = sorted(below(client, run), key=lambda each: each.info.start_time)
    return PreviousImprovement(run.info.run_id, tuple(trainings))


def _latest(function: Function, wanted: Mapping[str, str]) -> Run | None:
    conditions = f"tags.`{KIND_TAG}` = '{KIND}' and attributes.status != 'FINISHED'"
    newest_first = ["attributes.start_time DESC"]
    for run in mlflow.search_runs(filter_string=conditions, order_by=newest_first, output_format="list"):
        is_same = all(run.data.params.get(name) == text for name, text in wanted.items())
        if is_same and run.data.tags.get(FUNCTION_TAG) == function.name and not is_recorded(run):
            if not _is_of(run, function):
                warn(f"run {run.info.run_id} is not resumed, and a new one begins: {CHANGED.format(function.name)}")
                return None
            return run
    return None


def _is_of(run: Run, function: Function) -> bool:
    """Whether a run was recorded by the same code, as far as that is known."""
    return run.data.tags.get(FUNCTION_DIGEST_TAG, function.digest) == function.digest


def _named(client: mlflow.MlflowClient, run_id: str, wanted: Mapping[str, str], function: Function) -> Run:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UserError(f"resume={run_id!r}: {error.message}; check the id and the tracking URI") from error
    if run.data.tags.get(KIND_TAG) != KIND:
        raise UserError(f"resume={run_id!r} is no run of an improvement; give the id of the parent run of one")
    if not _is_of(run, function):
        changed = CHANGED.format(function.name)
        raise UserError(f"resume={run_id!r} cannot be resumed: {changed}; leave resume out to begin a new one")
    for name, text in wanted.items():
        earlier = run.data.params.get(name)
        if earlier != text:
            keyword = name.removeprefix(START_PARAM_PREFIX)
            raise UserError(
                f"resume={run_id!r} started with {keyword}={earlier}, and start has {text}: give the same start"
            )
    return run
