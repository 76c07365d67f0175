"""Recorded fit, its report, also after an interrupt, and its model."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.delivery import held
from mlflow_hp.terminal import say
from mlflow_hp.tracking import artifact_paths, plain, tags
from projects import arguments
from projects.experiment import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import keras

    from mlflow_hp import TrainingHistory, TrainingRecorder
    from mlflow_hp.analysis import Finding
    from projects.arguments import Settings
    from projects.experiment import Outcome

STEPS_OF_ESTIMATOR = 300
"""Steps of an estimator's fit with metrics in MLflow; the history has every step."""


def fit(
    model: keras.Model,
    recorder: TrainingRecorder,
    report: Callable[[TrainingHistory], Outcome],
    *data: Any,
    **settings: Any,
) -> Outcome:
    """Call ``model.fit(*data, **settings)`` with the recorder, and `report` its history.

    Raises
    ------
    KeyboardInterrupt
        If the training was interrupted; the recording up to there is reported first.
    RuntimeError
        If nothing was recorded.
    """
    callbacks = [recorder, *settings.pop("callbacks", [])]
    try:
        model.fit(*data, callbacks=callbacks, verbose=2, **settings)
    except KeyboardInterrupt:
        with held("reporting the recording"), after_interrupt():
            recorder.close()
            if recorder.history is not None and recorder.history.n_steps:
                report(recorder.history)
        raise
    if recorder.history is None:
        raise RuntimeError("the training could not be recorded: the warning above says why")
    with held("finishing the report"):
        return report(recorder.history)


def fit_estimator(
    estimator: Any, training: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray]
) -> TrainingRecorder:
    """Fit an estimator of scikeras into the active run, recorded; the recorder reports.

    Parameters
    ----------
    estimator : KerasClassifier or KerasRegressor
        Not fitted yet.
    training, validation : tuple of ndarray
        Samples and labels of each part.

    Returns
    -------
    TrainingRecorder
        Closed.
    """
    import mlflow_hp

    n_steps = math.ceil(len(training[0]) / estimator.batch_size) * estimator.epochs
    recorder = mlflow_hp.TrainingRecorder(metrics_every=max(1, n_steps // STEPS_OF_ESTIMATOR))
    estimator.set_params(fit__callbacks=[recorder])
    try:
        estimator.fit(*training, validation_data=validation)
    finally:
        recorder.close()
    estimator.set_params(fit__callbacks=None)
    return recorder


def description(
    question: str,
    about: str,
    history: TrainingHistory,
    settings: Settings,
    result: Mapping[str, float],
    findings: Sequence[Finding],
    command: str,
    picture: str,
) -> str:
    """Write a run's description in markdown: result, findings, question, data, settings, and command to repeat it.

    The `picture` is the name of the one to look at first, which the run has.
    """
    from mlflow_hp.analysis import diagnosis

    used = ", ".join(
        f"{name} {plain(arguments.text_of(value))}"
        for name, value in settings.items()
        if name not in ("animate", "improve")
    )
    return (
        f"{diagnosis.result_in_words(history, result)}\n\n{diagnosis.findings_in_words(findings)}\n\n"
        f"{look_at(picture)}\n\n"
        f"**{question}**\n\n{plain(about)}\n\n"
        f"**Settings**: {used}\n\n**To repeat it**: `{command}`\n"
    )


def look_at(picture: str) -> str:
    """Sentence on the picture to look at first, by its name."""
    return f"The picture to look at first: `{artifact_paths.PLOTS_FOLDER}/{picture}.png`"


def look_at_first(run_id: str, picture: str) -> str:
    """The same with an empty line after it; ``""`` if the run has no such picture."""
    import mlflow

    path = f"{artifact_paths.PLOTS_FOLDER}/{picture}.png"
    with contextlib.suppress(Exception):  # an artifact store that fails has no pictures
        files = mlflow.MlflowClient().list_artifacts(run_id, artifact_paths.PLOTS_FOLDER)
        if any(file.path == path for file in files):
            return f"{look_at(picture)}\n\n"
    return ""


def noted(notes: Sequence[str]) -> str:
    """Continue a description of data with what was decided about them."""
    return f" As it was read: {'; '.join(notes)}." if notes else ""


def log_model(model: keras.Model, x: np.ndarray, register: str | None = None) -> None:
    """Log the model with signature and example, load it back, and log the largest difference of its predictions.

    Parameters
    ----------
    model : keras.Model
        Trained.
    x : ndarray
        Inputs to predict; the first three are the example.
    register : str, optional
        Name in MLflow's model registry. Defaults to None: it is not registered.
    """
    import mlflow

    from mlflow_hp.tracking import runs

    predicted = model.predict(x, verbose=0)
    signature = mlflow.models.infer_signature(x, predicted)
    requirements = [f"{name}=={version(name)}" for name in ("mlflow", "tensorflow", "keras", "numpy")]
    with contextlib.redirect_stdout(io.StringIO()):  # the loaded model predicts with a progress bar
        logged = mlflow.tensorflow.log_model(
            model,
            name="model",
            signature=signature,
            input_example=x[:3],
            pip_requirements=requirements,
            registered_model_name=register,
        )
        predicted_after_loading = mlflow.pyfunc.load_model(logged.model_uri).predict(x)
    difference = largest_difference(predicted_after_loading, predicted)
    runs.log_once(mlflow.active_run(), {tags.MODEL_DIFFERENCE_PARAM: difference})


def largest_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Largest difference of two arrays of predictions; equal infinities, and two NaN, do not differ."""
    with np.errstate(invalid="ignore"):
        is_equal = (first == second) | (np.isnan(first) & np.isnan(second))
        difference = np.where(is_equal, 0.0, np.abs(first - second))
    return float(difference.max(initial=0.0))


@contextlib.contextmanager
def after_interrupt() -> Iterator[None]:
    """Print an error in the work after an interrupt, instead of raising it in place of the interrupt."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        say(f"after the interrupt: {type(error).__name__}: {first_line(error)}", file=sys.stderr)
