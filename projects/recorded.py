"""A recorded fit, its report (also of as much as there was when it was interrupted), and its model."""

from __future__ import annotations

import contextlib
import io
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from mlflow_hp.delivery import held
from mlflow_hp.terminal import say
from mlflow_hp.tracking import plain
from projects import arguments
from projects.experiment import first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import keras

    from mlflow_hp import TrainingHistory, TrainingRecorder
    from mlflow_hp.analysis import Finding
    from projects.arguments import Settings
    from projects.experiment import Outcome


def fit(
    model: keras.Model,
    recorder: TrainingRecorder,
    report: Callable[[TrainingHistory], Outcome],
    *data: Any,
    **settings: Any,
) -> Outcome:
    """``model.fit(*data, **settings)`` with the recorder, and what `report` makes of its history.

    Raises
    ------
    KeyboardInterrupt
        Where the training was interrupted: after the report of what was recorded up to then.
    RuntimeError
        Where nothing was recorded.
    """
    callbacks = [recorder, *settings.pop("callbacks", [])]
    try:
        model.fit(*data, callbacks=callbacks, verbose=2, **settings)
    except KeyboardInterrupt:
        with held("reporting what was recorded"), after_interrupt():
            recorder.close()
            if recorder.history is not None and recorder.history.n_steps:
                report(recorder.history)
        raise
    if recorder.history is None:
        raise RuntimeError("the training could not be recorded: the warning above says why")
    with held("finishing the report"):
        return report(recorder.history)


def description(
    question: str,
    about: str,
    history: TrainingHistory,
    settings: Settings,
    result: Mapping[str, float],
    findings: Sequence[Finding],
    command: str,
) -> str:
    """A run's description in markdown: question, data, result, findings, settings, and the command that repeats it."""
    from mlflow_hp.analysis import diagnosis

    used = ", ".join(f"{name} {plain(arguments.shown(value))}" for name, value in settings.items() if name != "animate")
    told = ", ".join(f"{plain(name)} {value:.4g}" for name, value in result.items())
    return (
        f"**{question}**\n\n{plain(about)}\n\n"
        f"**Result** after {history.n_steps} steps: {told or 'no epoch was finished'}\n\n"
        f"**Findings**\n\n{diagnosis.to_markdown(findings) or '- nothing out of the ordinary'}\n\n"
        f"**Settings**: {used}\n\n**To repeat it**: `{command}`\n"
    )


def log_model(model: keras.Model, x: np.ndarray, register: str | None = None) -> None:
    """Log the model with signature and example, load it back, and log the largest difference of its predictions.

    Parameters
    ----------
    model : keras.Model
        Trained.
    x : ndarray
        Inputs to predict; the first three are the example.
    register : str, optional
        Under which name it goes into MLflow's model registry; not at all by default.
    """
    import mlflow

    predicted = model.predict(x, verbose=0)
    signature = mlflow.models.infer_signature(x, predicted)
    needed = [f"{name}=={version(name)}" for name in ("mlflow", "tensorflow", "keras", "numpy")]
    with contextlib.redirect_stdout(io.StringIO()):  # the loaded model predicts with a progress bar
        logged = mlflow.tensorflow.log_model(
            model,
            name="model",
            signature=signature,
            input_example=x[:3],
            pip_requirements=needed,
            registered_model_name=register,
        )
        again = mlflow.pyfunc.load_model(logged.model_uri).predict(x)
    mlflow.log_metric("model/largest_difference", largest_difference(again, predicted))


def largest_difference(predicted: np.ndarray, other: np.ndarray) -> float:
    """How far two arrays of predictions differ at the most; what is not finite in both alike doesn't differ."""
    with np.errstate(invalid="ignore"):
        apart = np.where((predicted == other) | (np.isnan(predicted) & np.isnan(other)), 0.0, np.abs(predicted - other))
    return float(apart.max(initial=0.0))


@contextlib.contextmanager
def after_interrupt() -> Iterator[None]:
    """Tell an error of what is done about an interrupt, and go on: it was the interrupt that ended the run."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        say(f"after the interrupt: {type(error).__name__}: {first_line(error)}", file=sys.stderr)
