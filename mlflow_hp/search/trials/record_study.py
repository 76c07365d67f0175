"""record_study: live recording of an Optuna study."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.search.parent_lifetime import recorded, recover_earlier
from mlflow_hp.search.resume import previous_run
from mlflow_hp.search.trials import study_hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import optuna

    from mlflow_hp.search.resume.previous_run import PreviousRun
    from mlflow_hp.search.trials.recording import TrialsRecording
    from mlflow_hp.search.trials.study_recording import StudyRecording

Recording = TypeVar("Recording", bound="TrialsRecording")


@contextlib.contextmanager
def record_study(study: optuna.Study, *, resume: str | None = None, report: bool = True) -> Iterator[StudyRecording]:
    """Record an Optuna study live: ``with record_study(study): study.optimize(objective, n_trials=20)``.

    The active run becomes the parent, or one is started for the block and ended with it. Each trial that begins in the
    block becomes a child run: its parameters as they are suggested, the user's attributes as tags, what it reports as
    the metric ``intermediate_value``, then its values. It is FINISHED, also if it was pruned (tag
    ``mlflow_hp.pruned``); FAILED, with ``error/traceback.txt``; or KILLED, if it was interrupted. While an objective
    runs, the run of its trial is the active one, in the thread that computes it: what it logs goes there, and what a
    `TrainingRecorder` records; trainings that `autolog` records, and runs of its own, are nested below it.

    Also recorded are trials of ``study.ask`` and ``study.tell``, those of several threads (``n_jobs``), and, of several
    processes that share a storage, those that each begins: ``with mlflow.start_run(run_id=...)`` around the block gives
    them one parent. The parent holds name, directions, sampler and pruner, the counts of trials, the best one,
    ``trials.csv``, and pictures.

    Recording changes neither what is asked for nor what the objective raises. An error of the recording becomes a
    warning and the tag ``mlflow_hp.recording_error``. Everything is spooled to this machine until MLflow has it, as by
    `record_search`.

    Parameters
    ----------
    study : optuna.Study
        Its trials in the block are recorded; not those that it has already, nor those of copies of the study.
    resume : str, optional
        Id of the parent run of an earlier recording of the study, which is continued. Defaults to None.
    report : bool
        Whether to add pictures of the trials at the end, and a description if there is none. Defaults to True.

    Yields
    ------
    StudyRecording
        With the parent's ``run_id``.

    Raises
    ------
    UserError
        If `study` is not a study, the run of `resume` is missing or still being recorded, or the tracking server does
        not answer and no run is active.

    Notes
    -----
    Scores are larger if better, as those of scikit-learn: a value to minimize is also recorded with its sign changed,
    as ``mean_test_neg_value`` (of an objective that ``study.set_metric_names`` has named ``loss``:
    ``mean_test_neg_loss``); one to maximize as ``mean_score``.

    Examples
    --------
    >>> import mlflow, mlflow_hp, optuna
    >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
    >>> study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    >>> with mlflow_hp.record_study(study, report=False) as recording:
    ...     study.optimize(lambda trial: trial.suggest_float("x", -1, 1) ** 2, n_trials=3)
    >>> len(mlflow.search_runs(filter_string=f"tags.`mlflow.parentRunId` = '{recording.run_id}'"))
    3
    """
    import optuna

    if not isinstance(study, optuna.Study):
        raise UserError(
            f"study={study!r:.200} is a {type(study).__name__}, not a study of Optuna; pass what optuna.create_study "
            "or optuna.load_study returned"
        )
    if study_hooks.recording_of(study) is not None:
        raise UserError("this study is being recorded already; leave out the inner record_study")
    from mlflow_hp.search.trials.study_recording import StudyRecording

    def begin(parent: mlflow.entities.Run, previous: PreviousRun | None, is_owned: bool) -> StudyRecording:
        return StudyRecording(study, parent, previous, is_owned=is_owned, report=report)

    with recorded_trials(begin, resume) as recording, study_hooks.watched(recording):
        yield recording


@contextlib.contextmanager
def recorded_trials(
    begin: Callable[[mlflow.entities.Run, PreviousRun | None, bool], Recording], resume: str | None
) -> Iterator[Recording]:
    """Begin a recording of trials in its parent run, and end it with the block.

    Parameters
    ----------
    begin : callable
        Makes the recording from the parent run, what an earlier process has recorded into it, and whether the run ends
        with it.
    resume : str or None
        Id of the parent run to continue.

    Yields
    ------
    TrialsRecording
        The recording.
    """
    recover_earlier(resume is not None)
    previous = None if resume is None else _previous(resume)
    with recorded(previous, lambda parent, is_owned: begin(parent, previous, is_owned), "the trials") as recording:
        yield recording


def _previous(run_id: str) -> PreviousRun:
    """Read the trials that an earlier process has recorded into a run."""
    client = mlflow.MlflowClient()
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        raise UserError(f"resume={run_id!r}: the tracking store has no such run: {error.message}") from error
    if previous_run.is_recorded(run):
        raise UserError(
            f"resume={run_id!r}: a process records into this run now; end it first, or join it by "
            f"`with mlflow.start_run(run_id={run_id!r}):` around record_study, without resume"
        )
    return previous_run.read(client, run)
