"""Private names of MLflow: its active runs, the store of a client, its server, and its words for random names."""

from __future__ import annotations

import contextlib
import sys
import threading
from typing import TYPE_CHECKING, Any

from mlflow_hp._compat.private_name import PrivateName, UnsupportedVersionError, call, warn_once

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FLUENT = "mlflow.tracking.fluent"
WAITS_FOR_STORE = "the store is waited for"

ACTIVE_RUNS = PrivateName("mlflow", FLUENT, "_active_run_stack", fallback=WAITS_FOR_STORE)
"""Active runs of each thread. Fallback: only the innermost run is known, and `mlflow.end_run` ends it."""

LAST_RUN = PrivateName("mlflow", FLUENT, "_last_active_run_id", fallback=WAITS_FOR_STORE)
"""Id of the last active run of each thread. Fallback: as above."""

MONITORS = PrivateName("mlflow", FLUENT, "run_id_to_system_metrics_monitor", kind=dict, fallback=WAITS_FOR_STORE)
"""Monitor of system metrics for each active run. Fallback: as above."""

CLIENT = PrivateName(
    "mlflow", "MlflowClient", "_tracking_client", fallback="points are read and sent one by one, which takes longer"
)
"""Part of an `MlflowClient` that holds its store. Fallback: the methods of the client itself."""

NAMES = "mlflow.utils.name_utils"
KEEP_NAMES = "runs keep the random names that MLflow gives them"

PREDICATES = PrivateName("mlflow", NAMES, "_GENERATOR_PREDICATES", kind=(list, tuple), fallback=KEEP_NAMES)
"""Adjectives of MLflow's random names. Fallback: no name counts as random."""

NOUNS = PrivateName("mlflow", NAMES, "_GENERATOR_NOUNS", kind=(list, tuple), fallback=KEEP_NAMES)
"""Nouns of MLflow's random names. Fallback: as above."""

UPGRADE = "install a version that has it"

SERVER_STORE = PrivateName("mlflow", "mlflow.server.handlers", "_get_tracking_store", takes=call(), fallback=UPGRADE)
"""Function that returns the store of MLflow's server. Fallback: the server refuses to start with the page."""

MAY_READ_RUNS = PrivateName(
    "mlflow",
    "mlflow.server.auth",
    "_authorize_bulk_in_experiments",
    takes=call((), "run", "read"),
    fallback=UPGRADE,
)
"""Function that tells whether the sender of a request may read the runs of experiments. Fallback: as above."""

KIND_OF_SERVER = PrivateName(
    "mlflow", "mlflow.environment_variables", "_MLFLOW_SGI_NAME", fallback="the server counts as uvicorn"
)
"""Variable that names the server of MLflow's application. Fallback: uvicorn, MLflow's default."""

REVERT = PrivateName(
    "mlflow",
    "mlflow.utils.autologging_utils",
    "revert_patches",
    takes=call("keras"),
    fallback="call mlflow_hp.autolog() again after MLflow's own autologging is turned on or off",
)
"""Function that restores methods that MLflow's own autologging has replaced. Fallback: it may restore ``fit`` behind
ours, and later trainings are not recorded."""


def revert_holder() -> Any:
    """Return the module in which MLflow's own autologging looks up `REVERT`.

    Raises
    ------
    UnsupportedVersionError
        If this version of MLflow restores methods in another way.
    """
    REVERT.of()
    return sys.modules[REVERT.owner]


def autologging_setting(integration: str, name: str) -> Any:
    """Return a setting of MLflow's own autologging of a library; None if that is off.

    Parameters
    ----------
    integration : str
        Name of the library in MLflow, such as "keras".
    name : str
        Argument of its ``autolog``.
    """
    from mlflow.utils.autologging_utils import autologging_is_disabled, get_autologging_config

    return None if autologging_is_disabled(integration) else get_autologging_config(integration, name)


def deactivate(run_id: str, status: str) -> None:
    """Remove a run from the active runs of this thread, without a request to the store, which may not answer.

    If this version of MLflow keeps its active runs elsewhere, `mlflow.end_run` does it, which waits for the store.

    Parameters
    ----------
    run_id : str
        Id of the run.
    status : str
        Status for `mlflow.end_run`.
    """
    import mlflow
    from mlflow.environment_variables import MLFLOW_RUN_ID

    try:
        stack, last_run, monitors = _runs_of_thread(), LAST_RUN.of(), MONITORS.of()
        if all(run.info.run_id != run_id for run in stack):
            return
        LAST_RUN.call_method(last_run, "set", run_id)
    except UnsupportedVersionError as error:
        warn_once(error)
        active = mlflow.active_run()
        if active is not None and active.info.run_id == run_id:
            with contextlib.suppress(Exception):
                mlflow.end_run(status)
        return
    MLFLOW_RUN_ID.unset()
    stack[:] = [run for run in stack if run.info.run_id != run_id]
    monitor = monitors.pop(run_id, None)
    if monitor is not None:
        threading.Thread(target=_finish, args=(monitor,), name="mlflow_hp-monitor", daemon=True).start()


def activate(run: Any) -> None:
    """Make a run active in this thread again after `deactivate`, without a request to the store.

    If this version of MLflow keeps its active runs elsewhere, `mlflow.start_run` does it, which waits for the store.

    Parameters
    ----------
    run : mlflow.ActiveRun
        What `mlflow.start_run` returned.
    """
    import mlflow

    try:
        _runs_of_thread().append(run)
    except UnsupportedVersionError as error:
        warn_once(error)
        mlflow.start_run(run.info.run_id, nested=mlflow.active_run() is not None)


@contextlib.contextmanager
def active_inside(run: Any) -> Iterator[None]:
    """Make a run active in this thread inside the block, without a request to the store.

    If this version of MLflow keeps its active runs elsewhere, those of before stay active.

    Parameters
    ----------
    run : mlflow.ActiveRun
        The run; one that is closed inside the block is not closed again.
    """
    try:
        stack = _runs_of_thread()
    except UnsupportedVersionError as error:
        warn_once(error)
        yield
        return
    stack.append(run)
    try:
        yield
    finally:
        stack[:] = [each for each in stack if each is not run]


def active_runs() -> set[str]:
    """Return the ids of the active runs of this thread: the innermost one and those that it is nested in."""
    import mlflow

    try:
        stack = _runs_of_thread()
    except UnsupportedVersionError as error:
        warn_once(error)
        stack = [mlflow.active_run()]
    return {run.info.run_id for run in stack if run is not None}


def active_run_of_main_thread() -> str | None:
    """Return the id of the innermost active run of the main thread; None if it has none, or if that is unknown."""
    try:
        stacks = ACTIVE_RUNS.call_method(ACTIVE_RUNS.of(), "get_all_thread_values")
        runs = stacks.get(threading.main_thread().ident)
        return str(runs[-1].info.run_id) if runs else None
    except UnsupportedVersionError as error:
        warn_once(error)
        return None


def _runs_of_thread() -> list[Any]:
    runs = ACTIVE_RUNS.call_method(ACTIVE_RUNS.of(), "get")
    if not isinstance(runs, list):
        raise ACTIVE_RUNS.unsupported(f"holds a {type(runs).__name__}")
    return runs


def _finish(monitor: Any) -> None:
    with contextlib.suppress(Exception):
        monitor.finish()


def words_of_random_names() -> tuple[frozenset[str], frozenset[str]]:
    """Return the adjectives and the nouns of MLflow's random names, in lower case; empty if they are unknown."""
    try:
        predicates, nouns = PREDICATES.of(), NOUNS.of()
    except UnsupportedVersionError as error:
        warn_once(error)
        return frozenset(), frozenset()
    return frozenset(str(word).lower() for word in predicates), frozenset(str(word).lower() for word in nouns)


def store_of(client: Any) -> Any:
    """Return the store of an `MlflowClient`; None for another object, or if this version keeps the store elsewhere."""
    from mlflow import MlflowClient

    if not isinstance(client, MlflowClient) and not hasattr(client, CLIENT.name):
        return None
    try:
        store = getattr(CLIENT.of(client), "store", None)
        if store is None:
            raise CLIENT.unsupported("has no store")
    except UnsupportedVersionError as error:
        warn_once(error)
        return None
    return store


def server_store() -> Any:
    """Return the store of MLflow's server; called in the server's process.

    Raises
    ------
    UnsupportedVersionError
        If this version of MLflow keeps it elsewhere.
    """
    return SERVER_STORE.of()()


def may_read_runs(experiment_ids: Iterable[str]) -> bool:
    """Return whether the sender of a request may read the runs of all these experiments.

    Raises
    ------
    UnsupportedVersionError
        If this version of MLflow does not tell.
    """
    return bool(MAY_READ_RUNS.of()(list(experiment_ids), "run", "read"))


def runs_under_uvicorn() -> bool:
    """Return whether uvicorn runs MLflow's server, and so needs an ASGI application; other servers need WSGI."""
    try:
        name = KIND_OF_SERVER.call_method(KIND_OF_SERVER.of(), "get")
    except UnsupportedVersionError as error:
        warn_once(error)
        return True
    return bool(name == "uvicorn")
