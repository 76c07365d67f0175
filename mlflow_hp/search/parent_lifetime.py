"""The parent run of a recorded search or study: found or started, made active, recorded into, and ended."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Protocol, TypeVar

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp._compat.mlflow import deactivate
from mlflow_hp._notice import log, warn
from mlflow_hp.delivery.signals import held
from mlflow_hp.errors import UserError
from mlflow_hp.search.recovery import KINDS
from mlflow_hp.search.resume.previous_run import being_recorded, claim
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.tracking.random_names import names_drawn_apart
from mlflow_hp.tracking.server_health import within
from mlflow_hp.tracking.tags import KIND_TAG, PROCESS_TAG
from mlflow_hp.training.recovery import recover_quietly

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlflow_hp.delivery.local_recording import RecoveryResult
    from mlflow_hp.search.resume.previous_run import PreviousRun


class Closable(Protocol):
    """Recording that sends its rest when it is closed."""

    def close(self, error: BaseException | None, status: str, *, ends_run: bool) -> None:
        """End the recording, with the exception that ended what is recorded, and the final status of its run."""


Recording = TypeVar("Recording", bound=Closable)


def final_status(error: BaseException | None) -> str:
    """Return the final status of a search, given the exception that ended it."""
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def recover_earlier(resume: bool | str) -> None:
    """Send the spools of earlier processes; without a server, raise if a server is needed, else warn."""
    try:
        runs.ensure_reachable()
    except UserError as error:
        if mlflow.active_run() is None or resume is not False:
            raise
        warn(f"{error}; meanwhile the record of the search is kept on this machine")
        return
    active = mlflow.active_run()
    in_use = () if active is None else (active.info.run_id,)
    try:
        if resume is False:
            within(runs.SECONDS_TO_ANSWER, lambda: recover_quietly(warn, _log_recovered, in_use, KINDS))
        else:  # without a time limit: the run to resume must be complete
            recover_quietly(warn, _log_recovered, in_use, KINDS)
    except TimeoutError:
        seconds = runs.SECONDS_TO_ANSWER
        warn(f"recovering records of earlier processes takes more than {seconds:g} s: it continues meanwhile")
    except Exception as error:  # noqa: BLE001 - the new search does not depend on it
        warn(f"records of earlier processes could not be recovered: {type(error).__name__}: {error}")


def _log_recovered(recovered: RecoveryResult) -> None:
    lost = f"; {'; '.join(recovered.problems)}" if recovered.problems else ""
    log(f"recovered the record of run {recovered.run_id}, which is {recovered.status} now{lost}", name=__name__)


@contextlib.contextmanager
def recorded(
    previous: PreviousRun | None, begin: Callable[[mlflow.entities.Run, bool], Recording], what: str
) -> Iterator[Recording]:
    """Begin a recording in its parent run, and end it with the block.

    Parameters
    ----------
    previous : PreviousRun or None
        The run to resume.
    begin : callable
        Makes the recording from the parent run, and whether that run ends with it.
    what : str
        What is recorded, such as ``"the search"``.

    Yields
    ------
    Recording
        What `begin` returned.
    """
    process = os.getpid()
    with parent_run(previous) as (parent, is_owned), being_recorded(parent.info.run_id):
        recording = begin(parent, is_owned)
        error: BaseException | None = None
        try:
            yield recording
        except BaseException as raised:
            error = raised
            raise
        finally:
            if os.getpid() == process:  # not in a child process forked in the block
                with held(f"sending the record of {what} to MLflow"):
                    recording.close(error, final_status(error), ends_run=is_owned)


@contextlib.contextmanager
def parent_run(previous: PreviousRun | None) -> Iterator[tuple[mlflow.entities.Run, bool]]:
    """Make the parent run active: the run to resume, else the active one, else a new one.

    Yields the run, and whether this block started it, and so ends it.
    """
    active = mlflow.active_run()
    if previous is not None:
        claim(mlflow.MlflowClient(), previous)
    if active is not None and (previous is None or previous.run_id == active.info.run_id):
        yield _refreshed(active), False
        return
    tags = {KIND_TAG: "search", PROCESS_TAG: this_process()}
    with names_drawn_apart():
        run = mlflow.start_run(tags=tags) if previous is None else _reopen(previous, nested=active is not None)
    status = "FINISHED"
    try:
        yield run, True
    except BaseException as error:
        status = final_status(error)
        raise
    finally:
        deactivate(run.info.run_id, status)


def _refreshed(run: mlflow.ActiveRun) -> mlflow.entities.Run:
    """Return the active run with its current tags, or with those of its start if the server does not answer in time."""
    run_id, client = run.info.run_id, mlflow.MlflowClient()
    try:
        runs.ensure_reachable()
        return within(runs.SECONDS_TO_ANSWER, lambda: client.get_run(run_id))
    except Exception:  # noqa: BLE001 - an outage, which recording survives
        return run


def _reopen(previous: PreviousRun, *, nested: bool) -> mlflow.entities.Run:
    """Reopen the earlier parent run and make it active."""
    try:
        return mlflow.start_run(run_id=previous.run_id, nested=nested)
    except MlflowException as error:
        raise UserError(f"resume: the run {previous.run_id} cannot be resumed: {error.message}") from error
