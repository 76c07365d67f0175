"""A run that a recording starts because none is active, and ends itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlflow

from mlflow_hp._compat.mlflow import activate, active_run_of_main_thread, deactivate
from mlflow_hp._notice import warn
from mlflow_hp.tracking.parent import parent_id
from mlflow_hp.tracking.random_names import names_drawn_apart
from mlflow_hp.tracking.run_observer import observer
from mlflow_hp.tracking.server_health import ensure_reachable, reason, within
from mlflow_hp.tracking.tags import PARENT_TAG

if TYPE_CHECKING:
    from collections.abc import Mapping

SECONDS_TO_END = 10.0
"""Longest wait for MLflow at the end of a run."""


class OwnRun:
    """A run that is active in this thread until `end`, except between `pause` and `resume`.

    It is nested in the run that `parent.parent_id` names, else in this thread's active run, else in the main thread's.

    Parameters
    ----------
    tags : mapping of str to str
        Tags of the run.
    run_id : str, optional
        A run to continue. Defaults to a new one.

    Attributes
    ----------
    run_id : str

    Raises
    ------
    Exception
        If the server does not answer, or refuses the run.
    """

    def __init__(self, tags: Mapping[str, str], run_id: str | None = None) -> None:
        active = mlflow.active_run()
        above = parent_id() or (None if active is None else active.info.run_id) or active_run_of_main_thread()
        nested = {} if above is None else {PARENT_TAG: above}
        with names_drawn_apart():
            ensure_reachable()
            self._run = mlflow.start_run(run_id, nested=active is not None, tags={**tags, **nested})
        self.run_id = str(self._run.info.run_id)

    def pause(self) -> None:
        """Make the run before active again, but do not end this one."""
        deactivate(self.run_id, "RUNNING")

    def resume(self) -> None:
        """Make the run active in this thread after a `pause`."""
        activate(self._run)

    def end(self, status: str) -> None:
        """End the run, and make the one before active again; warn if MLflow does not accept that.

        Parameters
        ----------
        status : {"FINISHED", "FAILED", "KILLED"}
            Status of the run.
        """
        try:
            observer.notify_end(self.run_id)  # in this thread: it sends what is recorded
            ensure_reachable()
            within(SECONDS_TO_END, lambda: mlflow.MlflowClient().set_terminated(self.run_id, status))
        except Exception as error:  # noqa: BLE001 - the training has ended well
            warn(
                f"run {self.run_id} stays RUNNING, as MLflow did not accept its end ({reason(error)}); "
                f"end it by `mlflow.MlflowClient().set_terminated({self.run_id!r}, {status!r})`"
            )
        finally:
            deactivate(self.run_id, status)


def status_of(error: BaseException | None) -> str:
    """Return the status of a run whose computation ended with `error`; None for none.

    Parameters
    ----------
    error : BaseException or None
        The exception.

    Returns
    -------
    str
        FINISHED, FAILED, or KILLED if the user ended it.
    """
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, (KeyboardInterrupt, SystemExit)) else "FAILED"
