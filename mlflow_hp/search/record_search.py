"""record_search: live recording of a scikit-learn search."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal

from mlflow_hp._compat.sklearn import search_class
from mlflow_hp.errors import UserError
from mlflow_hp.search.live import parallel_hook
from mlflow_hp.search.live.skipping import expected_gaps
from mlflow_hp.search.parent_lifetime import recorded, recover_earlier
from mlflow_hp.search.parent_run import SearchRecording
from mlflow_hp.search.pruning.rules import check_prune
from mlflow_hp.search.resume.matching import find_previous
from mlflow_hp.search.time_limit import TimeLimit, limited

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator

    import mlflow


@contextlib.contextmanager
def record_search(
    search: Any,
    *,
    record: Literal["epochs", "batches"] = "epochs",
    per_fold_runs: bool = False,
    repeats: int = 1,
    reuse: bool = True,
    share_epochs: bool = True,
    engine: Literal["plain", "vectorised"] = "plain",
    refit_top: int = 3,
    resume: bool | str = False,
    prune: Literal["exact", "tested"] | None = None,
    time_budget: float | str | dt.timedelta | None = None,
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
        them, and each round of a halving search with ``resource="epochs"`` goes on with the trainings of the round
        before, where that is exact: seeded scikeras models without callbacks, whose function does not get the number.
        Candidates that reused a training have the tag ``mlflow_hp.shared_epochs_with``, and times as if they had
        trained alone. Off with ``record="batches"``, `per_fold_runs` or `repeats`, and in threads; rounds also on Dask.
        Defaults to True.
    engine : {"plain", "vectorised"}
        With "vectorised", all candidates and folds of scikeras models with one architecture are trained in one
        compiled program: with the same initial weights, batches, dropout masks and updates as by Keras, up to rounding,
        in a fraction of the time. So their scores may differ from the exact ones in a few rows. Candidates with such
        scores have the tag ``mlflow_hp.engine = vectorised``, the curves of every epoch, and the loss of every batch in
        ``batch_losses.csv``. What has no rule (callbacks, weights of rows, schedules, other layers) is fitted one by
        one; a warning gives the reason, and a count is in ``mlflow_hp.plain_trainings``. Defaults to "plain".
    refit_top : int
        Number of best candidates of a vectorised search, in each of its rounds, that are then fitted exactly, by
        Keras. Their exact scores decide: more are fitted until those of the best are exact. With 0, none is. Without
        effect on a plain search. Defaults to 3.
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
    prune : {"exact", "tested"} or None
        Whether a candidate loses its other folds as soon as it cannot become the best: its row of ``cv_results_`` is
        nan, its run FINISHED with the reason as the tag ``mlflow_hp.pruned``. With "exact" even the largest possible
        scores there would not help it, so that ``best_params_``, ``best_score_`` and ``best_index_`` are those of all
        fits; that needs a scorer of scikit-learn whose largest value is known (accuracy, F1, ROC AUC, R², errors, ...).
        With "tested" it is significantly worse than the best so far on the same folds; the best is then the same, or
        one not distinguishable from it, with high probability. If candidates cannot be judged, every fit is computed,
        with a warning. The fits run in another order than scikit-learn's, the most promising candidate first: models
        without a random_state may therefore get other scores. A halving search is pruned within each iteration.
        Defaults to None.
    time_budget : float, str, timedelta or None
        Seconds, or a text as ``"10min"``, from the begin of the first fit, after which no fit begins; what has begun
        ends. The first is always computed, the refit too, if a candidate has all its folds. The rest can be computed
        by `resume`: candidates with a part of their folds are KILLED, and so is the parent run that this call
        started. Defaults to None: no limit.
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
        If `search` is not a search, an argument is not understood or excludes another, no server answers and no run
        is active, or the run of `resume` cannot be resumed. During the fit, if the data are not those of the run to
        resume, joblib's backend is ``multiprocessing`` while TensorFlow is loaded, or `time_budget` ends before a
        candidate has all its folds, unless ``refit=False``.

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
    check_prune(prune)
    _check_engine(engine, refit_top, record, prune)
    limit = TimeLimit(time_budget)
    recover_earlier(resume)
    previous = find_previous(search, resume, repeats)
    steps = record == "batches"
    settings = {
        "steps": steps,
        "per_fold_runs": per_fold_runs or steps,
        "reuse": reuse and not steps,
        "repeats": repeats,
        "share_epochs": share_epochs and not steps and not per_fold_runs and repeats == 1,
        "prune": prune,
        "limit": limit,
        "progress": progress,
        "refit_top": refit_top if engine == "vectorised" else None,
    }

    def begin(parent: mlflow.entities.Run, is_owned: bool) -> SearchRecording:
        return SearchRecording(search, parent, previous, settings, report=report, is_owned=is_owned)

    with (
        recorded(previous, begin, "the search") as recording,
        parallel_hook.active(recording) as unsupported,
        recording.family.watch_clones(),
        limited(limit),
        expected_gaps(prune is not None or limit.is_set),
    ):
        if unsupported is not None:
            recording.cannot_observe(search, unsupported)
        yield recording


def _check_repeats(repeats: Any, record: str) -> None:
    if not isinstance(repeats, int) or isinstance(repeats, bool) or repeats < 1:
        raise UserError(f"repeats={repeats!r} is no number of seeds: give a whole number from 1 on")
    if repeats > 1 and record == "batches":
        raise UserError(
            f"repeats={repeats} and record='batches' exclude each other: a fold's run holds the steps of one training; "
            "leave out one of them"
        )


def _check_engine(engine: Any, refit_top: Any, record: str, prune: Any) -> None:
    if engine not in ("plain", "vectorised"):
        raise UserError(f"engine={engine!r} is unknown; choose 'plain', or 'vectorised' for Keras models together")
    if engine == "vectorised" and record == "batches":
        raise UserError(
            "record='batches' needs Keras' own trainings, which engine='vectorised' replaces; leave one of them out "
            "(a vectorised search has each batch's loss in batch_losses.csv)"
        )
    if engine == "vectorised" and prune is not None:
        raise UserError(
            f"prune={prune!r} has no fits to save with engine='vectorised', which trains all at once; leave one of "
            "them out"
        )
    if isinstance(refit_top, bool) or not isinstance(refit_top, int) or refit_top < 0:
        raise UserError(f"refit_top={refit_top!r} is not a number of candidates; give 0 or more")
