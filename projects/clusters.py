"""Backends that compute the fits of a search: this machine, or Dask."""

from __future__ import annotations

import contextlib
import importlib
import logging
from typing import TYPE_CHECKING, Any

import joblib

from mlflow_hp.errors import UserError
from mlflow_hp.tracking import masked
from projects.experiment import first_line, quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWER_SECONDS = 10
"""Longest wait for a scheduler."""
IGNORE_INTERRUPTS = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Code that a local worker runs first: Ctrl-C reaches workers too, but the search ends them."""


@contextlib.contextmanager
def computing_on(dask: str | None, n_jobs: int) -> Iterator[None]:
    """Set joblib's backend inside the block: processes, or Dask.

    Parameters
    ----------
    dask : str or None
        Address of a scheduler, ``local`` for a cluster of `n_jobs` processes on this machine, or None for no Dask.
    n_jobs : int
        Fits at a time: 1 in this process; -1 for one on each core.

    Raises
    ------
    UserError
        If Dask is not installed, the scheduler does not answer, or its workers cannot compute the fits.
    """
    if dask is None:
        with joblib.parallel_config("loky", initializer=_load_quietly) if n_jobs != 1 else contextlib.nullcontext():
            yield
        return
    try:
        import distributed
    except ImportError:
        raise UserError(
            f"dask={dask} needs the library distributed, which is not installed: pip install 'mlflow_hp[dask]'"
        ) from None
    with contextlib.ExitStack() as stack:
        if dask == "local":
            n_workers = joblib.effective_n_jobs(n_jobs)
            address: Any = stack.enter_context(
                distributed.LocalCluster(
                    n_workers=n_workers,
                    threads_per_worker=1,
                    dashboard_address=None,
                    preload=[IGNORE_INTERRUPTS],
                    silence_logs=logging.ERROR,
                )
            )
        else:
            address = dask
        try:
            client = stack.enter_context(distributed.Client(address, timeout=ANSWER_SECONDS))
        except (OSError, ValueError) as error:
            raise UserError(
                f"dask={masked(dask)}: no scheduler answers there ({first_line(error)}); start one with "
                "`dask scheduler`, give its address such as tcp://host:8786, or dask=local for one of this machine"
            ) from None
        _check_workers(client, dask)
        with joblib.parallel_config("dask"):
            yield


def _load_quietly() -> None:
    with quiet():
        import keras  # noqa: F401


def _check_workers(client: Any, dask: str) -> None:
    """Raise a UserError if there are no workers, or they cannot import this project."""
    if not client.scheduler_info()["workers"]:
        address = masked(dask)
        raise UserError(f"dask={address}: the scheduler has no workers; start some with `dask worker {address}`")
    try:
        client.run(importlib.import_module, "projects.search_settings")
    except ImportError as error:
        raise UserError(
            f"dask={masked(dask)}: a worker cannot import this project ({first_line(error)}); install this project "
            "where it runs, and start it in the folder of a checkout"
        ) from None
