"""record_search: live recording of a scikit-learn search."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, Literal

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp._compat.mlflow import deactivate
from mlflow_hp._compat.sklearn import search_class
from mlflow_hp._notice import log, warn
from mlflow_hp.delivery.signals import held
from mlflow_hp.errors import UserError
from mlflow_hp.search.live import parallel_hook
from mlflow_hp.search.parent_run import SearchRecording
from mlflow_hp.search.recovery import KINDS
from mlflow_hp.search.resume.matching import find_previous
from mlflow_hp.search.resume.previous_run import being_recorded, claim
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.tracking.random_names import names_drawn_apart
from mlflow_hp.tracking.server_health import within
from mlflow_hp.tracking.tags import KIND_TAG, PROCESS_TAG
from mlflow_hp.training.recovery import recover_quietly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_hp.delivery.local_recording import RecoveryResult
    from mlflow_hp.search.resume.previous_run import PreviousRun


@contextlib.contextmanager
def record_search(
    search: Any,
    *,
    record: Literal["epochs", "batches"] = "epochs",
    per_fold_runs: bool = False,
    repeats: int = 1,
    reuse: bool = True,
    share_epochs: bool = True,
    resume: bool | str = False,
    report: bool = True,
    progress: bool = True,
) -> Iterator[SearchRecording]:
    """Record a scikit-learn search live: ``with record_search(search): search.fit(X, y)``.

    The active run becomes the parent, or one is started for the block and ended with it. Each candidate becomes a
    child run, opened when its first fit starts and ended with its last fold: params, every fold's scores and times as
    metrics with step = fold (0-based), for Keras models every fold's curves (``fold_0/loss``, ..., step = epoch,
    0-based), then mean, standard deviation and rank. A candidate with a failed fold is FAILED and holds
    ``error/traceback.txt``; candidates that an interrupted search was computing are KILLED. The parent holds the
    search space, the progress of the search, the best candidate and ``cv_results.csv``.

    The results of the search and its backend are those without recording. An error of the recording becomes a warning
    and the tag ``mlflow_hp.recording_error``; the search goes on.

    Everything recorded is spooled to this machine first, below `mlflow_hp.tracking.home.local_home`, until MLflow has
    it. The end of the block waits at most ten seconds for a server that does not accept it. A warning then names the
    folder with the rest, which ``mlflow-hp recover``, or the next recorded search, sends to MLflow.

    Parameters
    ----------
    search : GridSearchCV, RandomizedSearchCV, HalvingGridSearchCV, HalvingRandomSearchCV
        Its fits inside the block and in the block's thread are recorded, and those of its clones, such as in
        ``cross_val_score(search, X, y)``. All have the same parent.
    record : {"epochs", "batches"}
        With "batches" every step of the Keras models is recorded too, by a `TrainingRecorder`, in a run for each
        fold, so that `load_history` reads it. Defaults to "epochs".
    per_fold_runs : bool
        Whether each fold also gets its own run, below its candidate; always so with ``record="batches"``. Defaults to
        False.
    repeats : int
        Number of seeds of each fit. scikit-learn gets the mean score over the seeds; every seed's score is recorded,
        and how much of the differences is the candidate, the fold, and luck. The first seed is the estimator's own
        ``random_state`` (also of its steps, and as a parameter of the search), the others are derived from it.
        Defaults to 1.
    reuse : bool
        Whether fits of scikeras models that share an architecture train one compiled model: the same scores bit for
        bit, in less time and memory. Models for which this is not known to be exact are left out, and so are the
        refit and any search with ``record="batches"``, where each fit needs its own training function. Defaults to
        True.
    share_epochs : bool
        Whether candidates that differ only in ``epochs`` share one training of the largest number, scored at each of
        them, where that is exact: seeded scikeras models without callbacks, whose function does not get the number.
        Candidates that reused a training have the tag ``mlflow_hp.shared_epochs_with``, and times as if they had
        trained alone. Off with ``record="batches"``, `per_fold_runs` or `repeats`, and in threads. Defaults to True.
    resume : bool or str
        The id of the parent run of an interrupted search, or True for the latest unfinished one in the active
        experiment (if there is none, a new one begins). That run and its children are continued: finished folds are
        not computed again, failed ones and the refit are. The search must be the same: its parameters, its data, the
        versions of the libraries, all loaded modules of yours, and the values and environment variables that the
        model function reads; otherwise it is refused with the files and variables that differ. A fold is computed
        again if a module that it loaded or a file that it read has changed. Comments do not count, nor do the
        arguments of ``record_search`` (so this one may be added), ``n_jobs``, ``pre_dispatch`` and ``verbose`` of a
        search, and anything named ``resume``. Not seen are files that TensorFlow (``tf.io``), h5py or a command reads
        itself, and the state of random generators that all fits share (``np.random.seed``, ``set_random_seed``): seed
        each model by ``random_state``. Defaults to False.
    report : bool
        Whether to add pictures of the results at the end, and a description if there is none. Defaults to True.
    progress : bool
        Whether to show a progress bar. Defaults to True.

    Yields
    ------
    SearchRecording
        With the parent's ``run_id``.

    Raises
    ------
    UserError
        If `search` is not a search, `record` is unknown, `repeats` is no number of seeds, the tracking server does not
        answer and no run is active, or the run of `resume` cannot be resumed. During the fit, if the data are not
        those of the run to resume, or joblib's backend is ``multiprocessing`` while TensorFlow is loaded.

    Examples
    --------
    >>> import mlflow, mlflow_hp
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.linear_model import Ridge
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = make_regression(30, 3, random_state=0)
    >>> search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=3)
    >>> with mlflow_hp.record_search(search, report=False, progress=False) as recording:
    ...     _ = search.fit(X, y)
    >>> len(mlflow.search_runs(filter_string=f"tags.`mlflow.parentRunId` = '{recording.run_id}'"))
    3
    """
    if not isinstance(search, search_class()):
        raise UserError(
            f"search={search!r:.200} is a {type(search).__name__}, not a search of scikit-learn; pass the "
            "GridSearchCV, RandomizedSearchCV, HalvingGridSearchCV or HalvingRandomSearchCV fitted in the block"
        )
    if record not in ("epochs", "batches"):
        raise UserError(f"record={record!r} is unknown; choose 'epochs', or 'batches' for every step of Keras models")
    _check_repeats(repeats, record)
    _recover_earlier(resume)
    previous = find_previous(search, resume, repeats)
    steps = record == "batches"
    settings = {
        "steps": steps,
        "per_fold_runs": per_fold_runs or steps,
        "reuse": reuse and not steps,
        "repeats": repeats,
        "share_epochs": share_epochs and not steps and not per_fold_runs and repeats == 1,
        "progress": progress,
    }
    process = os.getpid()
    with _parent_run(previous) as (parent, is_owned), being_recorded(parent.info.run_id):
        recording = SearchRecording(search, parent, previous, settings, report=report, is_owned=is_owned)
        error: BaseException | None = None
        try:
            with parallel_hook.active(recording) as unsupported, recording.family.watch_clones():
                if unsupported is not None:
                    recording.cannot_observe(search, unsupported)
                yield recording
        except BaseException as raised:
            error = raised
            raise
        finally:
            if os.getpid() == process:  # not in a child process forked in the block
                with held("sending the record of the search to MLflow"):
                    recording.close(error, _status(error), ends_run=is_owned)


def _check_repeats(repeats: Any, record: str) -> None:
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 1:
        raise UserError(f"repeats={repeats!r} is no number of seeds: give a whole number from 1 on")
    if repeats > 1 and record == "batches":
        raise UserError(
            f"repeats={repeats} and record='batches' exclude each other: a fold's run holds the steps of one training; "
            "leave out one of them"
        )


def _status(error: BaseException | None) -> str:
    """Final status of a search, given the exception that ended it."""
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def _recover_earlier(resume: bool | str) -> None:
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
def _parent_run(previous: PreviousRun | None) -> Iterator[tuple[mlflow.entities.Run, bool]]:
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
        status = _status(error)
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
