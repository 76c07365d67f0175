"""record_tuner: live recording of a KerasTuner tuner."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from mlflow_hp.errors import UserError
from mlflow_hp.search.trials.record_study import recorded_trials

if TYPE_CHECKING:
    from collections.abc import Iterator

    import mlflow

    from mlflow_hp.search.resume.previous_run import PreviousRun
    from mlflow_hp.search.trials.tuner_recording import TunerRecording


@contextlib.contextmanager
def record_tuner(tuner: Any, *, resume: str | None = None, report: bool = True) -> Iterator[TunerRecording]:
    """Record a tuner of KerasTuner live: ``with record_tuner(tuner): tuner.search(x, y, validation_data=...)``.

    The active run becomes the parent, or one is started for the block and ended with it. Each trial becomes a child
    run: its hyperparameters, the curves of each execution (``fold_0/loss``, ..., step = epoch, 0-based; the number is
    that of the execution), the score of each execution with step = execution, then their mean, and KerasTuner's own
    score as ``value``. A trial that fails is FAILED and holds ``error/traceback.txt``; one that is tried again keeps
    its run; one that was interrupted is KILLED. While a trial runs, its run is the active one.

    A ``run_trial`` of your own is recorded as well: curves of the Keras models that it fits, and scores of any kind
    that KerasTuner takes. The parent holds tuner, oracle and objective, the counts of trials, the best one,
    ``trials.csv``, and pictures. The results are those without recording, and an error of the recording becomes a
    warning and the tag ``mlflow_hp.recording_error``.

    Parameters
    ----------
    tuner : keras_tuner.Tuner or another BaseTuner
        Its trials in the block are recorded; not those that it has loaded from its folder.
    resume : str, optional
        Id of the parent run of an earlier recording of the tuner, which is continued. Defaults to None.
    report : bool
        Whether to add pictures of the trials at the end, and a description if there is none. Defaults to True.

    Yields
    ------
    TunerRecording
        With the parent's ``run_id``.

    Raises
    ------
    UserError
        If `tuner` is not a tuner, the run of `resume` is missing or still being recorded, or the tracking server does
        not answer and no run is active.

    Notes
    -----
    Scores are larger if better: those of an objective to minimize, as ``val_loss``, have their sign changed, as
    ``mean_test_neg_val_loss``.

    Examples
    --------
    >>> import mlflow_hp
    >>> with mlflow_hp.record_tuner("no tuner"):
    ...     pass
    Traceback (most recent call last):
        ...
    mlflow_hp.errors.UserError: tuner='no tuner' is a str, not a tuner of KerasTuner; pass the one searched in the block
    """
    if not all(hasattr(tuner, name) for name in ("oracle", "run_trial", "on_trial_end", "search")):
        raise UserError(
            f"tuner={tuner!r:.200} is a {type(tuner).__name__}, not a tuner of KerasTuner; pass the one searched in "
            "the block"
        )
    from mlflow_hp.search.trials.tuner_recording import TunerRecording

    def begin(parent: mlflow.entities.Run, previous: PreviousRun | None, is_owned: bool) -> TunerRecording:
        return TunerRecording(tuner, parent, previous, is_owned=is_owned, report=report)

    with recorded_trials(begin, resume) as recording, recording.watched():
        yield recording
