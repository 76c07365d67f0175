"""record_search: live recording of a scikit-learn search."""

from __future__ import annotations

import contextlib
import os
import random
from typing import TYPE_CHECKING, Any, Literal

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp._compat.mlflow import leave
from mlflow_hp._notice import print_line, warn
from mlflow_hp.delivery.run_writer import PATIENCE_SECONDS
from mlflow_hp.delivery.signals import held
from mlflow_hp.errors import UserError
from mlflow_hp.search.live import parallel_hook
from mlflow_hp.search.parent_run import SearchRecording
from mlflow_hp.search.recovery import KINDS
from mlflow_hp.search.resume.matching import find
from mlflow_hp.search.resume.previous_run import being_recorded, claim
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.tracking.server_health import within
from mlflow_hp.training.recovery import recover_quietly

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow_hp.delivery.left_behind import Recovered
    from mlflow_hp.search.resume.previous_run import Past


@contextlib.contextmanager
def record_search(
    search: Any,
    *,
    record: Literal["epochs", "batches"] = "epochs",
    per_fold_runs: bool = False,
    reuse: bool = True,
    share_epochs: bool = True,
    resume: bool | str = False,
    report: bool = True,
    progress: bool = True,
) -> Iterator[SearchRecording]:
    """Record a scikit-learn search live: ``with record_search(search): search.fit(X, y)``.

    The active run becomes the parent, or one is started for the block and ended with it. Each combination becomes a
    run below it, opened when its first fit starts and ended when its last fold has ended: params, every fold's
    scores and times as metrics with step = fold (0-based), for Keras models every fold's curves (``fold_0/loss``, ...,
    step = epoch, 0-based), then mean, standard deviation and rank. A combination with a failed fold is FAILED and
    holds ``error/traceback.txt``; those that an interrupted search was computing are KILLED. The parent holds the
    search space, how far the search is, the best combination and ``cv_results.csv``.

    The search computes what it would without this, in the backend that is chosen. An error of the recording is a
    warning and the tag ``mlflow_hp.recording_error``; the search goes on.

    What is recorded is on this machine first, below `mlflow_hp.tracking.runs.local_home`, until MLflow has it. The
    end of the block waits ten seconds in all for a server that does not take it; a warning names the folder where
    the rest stays, which ``mlflow-hp recover``, or the next recorded search, brings to MLflow.

    Parameters
    ----------
    search : GridSearchCV, RandomizedSearchCV, HalvingGridSearchCV, HalvingRandomSearchCV
        Its fits inside the block and in the block's thread are recorded, and those of its clones, as made by
        ``cross_val_score(search, X, y)``. All have the same parent.
    record : {"epochs", "batches"}
        With "batches" every step of the Keras models is recorded too, by a `TrainingRecorder`, in a run of each
        fold's own, so that `load_history` reads it.
    per_fold_runs : bool
        Whether each fold also gets a run of its own, below its combination; with ``record="batches"`` it does anyway.
    reuse : bool
        Whether fits of scikeras models that share an architecture train one compiled model: the same scores bit for
        bit, for less time and memory. Models for which that is not known to be the same are left out, and so are the
        refit and any search with ``record="batches"``, where each fit needs a training function of its own.
    share_epochs : bool
        Whether combinations that differ only in ``epochs`` share one training of the largest count, scored at each,
        where that is exactly the same: seeded scikeras models without callbacks, whose function is not told the count.
        The runs of those that took over have the tag ``mlflow_hp.shared_epochs_with``, and times as if they had
        trained alone. It is off with ``record="batches"`` or `per_fold_runs`, and in threads.
    resume : bool or str
        The id of the parent run of an interrupted search, or True for the latest in the active experiment that has
        not finished (where there is none, a new one begins). That run and those below it are gone on with: folds
        that had finished are not computed again, failed ones and the refit are. The search has to be what it was:
        its parameters, its data, the versions of the libraries, all modules that are loaded and belong to no library,
        and the values and environment variables that the model function reads; else it is refused, and the files and
        variables are named. A fold is computed again where a module that it loaded, or a file that it read, has
        changed. Comments do not count, nor do the arguments of ``record_search`` (so this one may be added), the
        ``n_jobs``, ``pre_dispatch`` and ``verbose`` of a search, and what is named ``resume``. What is not seen: files
        that TensorFlow reads itself (``tf.io``), or h5py, or a command, and what random generators that all fits share
        (``np.random.seed``, ``set_random_seed``) had drawn: seed each model, by ``random_state``.
    report : bool
        Whether pictures of what the search found, and a description where there is none, are added at the end.
    progress : bool
        Whether a progress bar is shown.

    Yields
    ------
    SearchRecording
        With the parent's ``run_id``.

    Raises
    ------
    UserError
        Where `search` is no search, `record` is unknown, the tracking server doesn't answer and no run is active,
        `resume` names what can't be gone on with, or, when the search is fitted, the data are not those of the run to
        be resumed or joblib's backend is ``multiprocessing`` while TensorFlow is loaded.
    """
    from sklearn.model_selection._search import BaseSearchCV

    if not isinstance(search, BaseSearchCV):
        raise UserError(
            f"search={search!r:.200} is a {type(search).__name__}, no search of scikit-learn's; pass the GridSearchCV, "
            "RandomizedSearchCV, HalvingGridSearchCV or HalvingRandomSearchCV whose fit comes in the block"
        )
    if record not in ("epochs", "batches"):
        raise UserError(f"record={record!r} is unknown; take 'epochs', or 'batches' for every step of Keras models")
    _reach(resume)
    unknown = parallel_hook.install()
    past = find(search, resume)
    steps = record == "batches"
    settings = {
        "steps": steps,
        "per_fold_runs": per_fold_runs or steps,
        "reuse": reuse and not steps,
        "share_epochs": share_epochs and not steps and not per_fold_runs,
        "progress": progress,
    }
    process = os.getpid()
    with _parent_run(past) as (parent, is_owned), being_recorded(parent.info.run_id):
        recording = SearchRecording(search, parent, past, settings, report=report, is_owned=is_owned)
        error: BaseException | None = None
        try:
            if unknown is not None:
                recording.cannot_follow(search, unknown)
            with parallel_hook.active(recording), recording.family.followed():
                yield recording
        except BaseException as raised:
            error = raised
            raise
        finally:
            if os.getpid() == process:  # not in a child that was forked in the block
                with held("bringing the record of the search to MLflow"):
                    recording.close(error, _status(error), ends_run=is_owned)


def _status(error: BaseException | None) -> str:
    """How a search has ended that `error` ended, or nothing."""
    if error is None:
        return "FINISHED"
    return "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"


def _reach(resume: bool | str) -> None:
    """Bring what earlier processes left behind; without a server, refuse what can't do without."""
    try:
        runs.ensure_reachable()
    except UserError as error:
        if mlflow.active_run() is None or resume is not False:
            raise
        warn(f"{error}; what is recorded of the search is kept on this machine meanwhile")
        return
    active = mlflow.active_run()
    in_use = () if active is None else (active.info.run_id,)
    try:
        if resume is False:
            within(PATIENCE_SECONDS, lambda: recover_quietly(warn, _tell_recovered, in_use, KINDS))
        else:  # what is resumed is read afterwards
            recover_quietly(warn, _tell_recovered, in_use, KINDS)
    except TimeoutError:
        warn(f"what earlier processes left behind takes MLflow more than {PATIENCE_SECONDS:g} s: it goes on meanwhile")
    except Exception as error:  # noqa: BLE001 - the search to come is another matter
        warn(f"what earlier processes left behind could not be recovered: {type(error).__name__}: {error}")


def _tell_recovered(found: Recovered) -> None:
    lost = f"; {'; '.join(found.problems)}" if found.problems else ""
    print_line(f"recovered what was left behind of run {found.run_id}, which is {found.status} now{lost}")


@contextlib.contextmanager
def _parent_run(past: Past | None) -> Iterator[tuple[mlflow.entities.Run, bool]]:
    """The run to be resumed, else the active one, else a new one; and whether it was started here, to be ended."""
    active = mlflow.active_run()
    if past is not None:
        claim(mlflow.MlflowClient(), past)
    if active is not None and (past is None or past.run_id == active.info.run_id):
        yield _as_it_is(active), False
        return
    random_state = random.getstate()
    tags = {"mlflow_hp.kind": "search", "mlflow_hp.process": this_process()}
    run = mlflow.start_run(tags=tags) if past is None else _again(past, nested=active is not None)
    random.setstate(random_state)  # MLflow drew a name from it, and Keras draws seeds
    status = "FINISHED"
    try:
        yield run, True
    except BaseException as error:
        status = _status(error)
        raise
    finally:
        leave(run.info.run_id, status)


def _as_it_is(active: mlflow.ActiveRun) -> mlflow.entities.Run:
    """The active run with the tags that it has been given since it started, where MLflow tells them in time."""
    run_id, client = active.info.run_id, mlflow.MlflowClient()
    try:
        runs.ensure_reachable()
        return within(PATIENCE_SECONDS, lambda: client.get_run(run_id))
    except Exception:  # noqa: BLE001 - the recording goes on as in an outage that comes later
        return active


def _again(past: Past, *, nested: bool) -> mlflow.entities.Run:
    """The parent run of then, active."""
    try:
        return mlflow.start_run(run_id=past.run_id, nested=nested)
    except MlflowException as error:
        raise UserError(f"resume: the run {past.run_id} can't be gone on with: {error.message}") from error
