"""The earlier run of an improvement that is resumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.search.resume.previous_run import below, close_below, is_recorded
from mlflow_hp.tracking.params_and_tags import texts
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.tracking.tags import ERROR_TAG, FUNCTION_TAG, KIND_TAG, PROCESS_TAG, START_PARAM_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow.entities import Run

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


def find_previous(resume: bool | str, function: str, start: Mapping[str, Any]) -> PreviousImprovement | None:
    """Find the run to resume, take it over, and close what its process has left open.

    Parameters
    ----------
    resume : bool or str
        Id of the run; True for the latest unfinished one of this function and start in the active experiment.
    function : str
        Name of the function that trains.
    start : mapping of str to object
        Keyword values of the first training.

    Returns
    -------
    PreviousImprovement or None
        None if there is none to resume.

    Raises
    ------
    UserError
        If the run of that id is no improvement from this start, or is being recorded now.
    """
    if resume is False:
        return None
    client, wanted = mlflow.MlflowClient(), texts("params", start_params(start)).values
    run = _latest(function, wanted) if resume is True else _named(client, str(resume), wanted)
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


def _latest(function: str, wanted: Mapping[str, str]) -> Run | None:
    conditions = f"tags.`{KIND_TAG}` = '{KIND}' and attributes.status != 'FINISHED'"
    newest_first = ["attributes.start_time DESC"]
    for run in mlflow.search_runs(filter_string=conditions, order_by=newest_first, output_format="list"):
        is_same = all(run.data.params.get(name) == text for name, text in wanted.items())
        if is_same and run.data.tags.get(FUNCTION_TAG) == function and not is_recorded(run):
            return run
    return None


def _named(client: mlflow.MlflowClient, run_id: str, wanted: Mapping[str, str]) -> Run:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UserError(f"resume={run_id!r}: {error.message}; check the id and the tracking URI") from error
    if run.data.tags.get(KIND_TAG) != KIND:
        raise UserError(f"resume={run_id!r} is no run of an improvement; give the id of the parent run of one")
    for name, text in wanted.items():
        earlier = run.data.params.get(name)
        if earlier != text:
            keyword = name.removeprefix(START_PARAM_PREFIX)
            raise UserError(
                f"resume={run_id!r} started with {keyword}={earlier}, and start has {text}: give the same start"
            )
    return run
