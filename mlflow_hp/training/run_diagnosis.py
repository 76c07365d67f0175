"""Diagnosis of a recorded run, or of a history."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.analysis import diagnosis
from mlflow_hp.errors import UserError
from mlflow_hp.history import TrainingHistory
from mlflow_hp.history.load import load_history
from mlflow_hp.tracking.artifact_paths import DIAGNOSIS_FILE
from mlflow_hp.tracking.tags import BEST_RUN_ID_TAG

if TYPE_CHECKING:
    from mlflow_hp.analysis.diagnosis import Finding


def diagnose(run: str | TrainingHistory, tracking_uri: str | None = None, *, fit: int = 0) -> list[Finding]:
    """Diagnose a recorded training: problems and hints, each with its evidence, its cause, and what to change.

    The same rules apply to any training: a fit of one's own, an experiment of the project, a fold of a search. A run
    recorded by an earlier version is diagnosed by what it has: without the program and its data, by its curves alone.

    Parameters
    ----------
    run : str or TrainingHistory
        Id of a run with a recorded training, or its history. Of the parent of several trainings (an improvement, a
        sweep, a search), the best of them is diagnosed.
    tracking_uri : str, optional
        Tracking store of the run. Defaults to the current tracking URI.
    fit : int
        Which fit (0-based), for a run that was recorded during several. Defaults to 0.

    Returns
    -------
    list of Finding
        Problems first, then hints, and what is fine; the last, ``next_try``, is what to try next.

    Raises
    ------
    UserError
        If the store does not answer, or the run does not exist, or has neither a history nor a diagnosis.

    Examples
    --------
    >>> import keras, mlflow, mlflow_hp, numpy as np
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="relu")])
    >>> model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    >>> x = np.random.default_rng(0).normal(size=(64, 4))
    >>> with mlflow.start_run() as run:
    ...     _ = model.fit(x, x[:, 0] > 0, epochs=3, verbose=0, callbacks=[mlflow_hp.TrainingRecorder()])
    >>> finding = mlflow_hp.diagnose(run.info.run_id)[0]
    >>> finding.severity, finding.change[0].parameter, finding.change[0].new
    ('problem', 'last_activation', 'sigmoid')
    """
    if isinstance(run, TrainingHistory):
        return diagnosis.Findings(diagnosis.diagnose(run))
    try:
        return diagnosis.Findings(diagnosis.diagnose(load_history(run, tracking_uri, fit=fit)))
    except UserError:
        stored = _stored(run, tracking_uri)
        if stored is not None:
            return stored
        best = _best_of(run, tracking_uri)
        if best is None:
            raise
    return diagnose(best, tracking_uri, fit=fit)


def _best_of(run_id: str, tracking_uri: str | None) -> str | None:
    """Id of the best nested run of a parent; None if there is none."""
    try:
        run = mlflow.MlflowClient(tracking_uri).get_run(run_id)
    except MlflowException:
        return None
    best = run.data.tags.get(BEST_RUN_ID_TAG)
    return None if best == run_id else best


def _stored(run_id: str, tracking_uri: str | None) -> list[Finding] | None:
    """Findings that a run without a history holds, such as that of a minimiser of SciPy; None if there are none."""
    try:
        path = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path=DIAGNOSIS_FILE, tracking_uri=tracking_uri
        )
        return diagnosis.Findings(diagnosis.from_json(json.loads(Path(path).read_text(encoding="utf-8"))))
    except (MlflowException, OSError, ValueError, TypeError):
        return None
