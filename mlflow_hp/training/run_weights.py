"""The weights that a recorded training ended with, from wherever its run holds them."""

from __future__ import annotations

import re
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException

from mlflow_hp.errors import UserError
from mlflow_hp.history import STEPS_FILE, Snapshots, weight_snapshots
from mlflow_hp.history.load import existing_run, load_history, load_snapshots
from mlflow_hp.history.program import PROGRAM_FILE, read_program
from mlflow_hp.tracking.artifact_paths import SAVED_FOLDER, TRAINING_FOLDER, training_path
from mlflow_hp.training.capture.step_layout import tensors_of, to_numpy

if TYPE_CHECKING:
    from mlflow_hp.history.program import Program

SAVED_MODEL = f"{SAVED_FOLDER}/model.keras"
"""Artifact of the model that an experiment saved."""


class RunEnd(NamedTuple):
    """End of a recorded training.

    Attributes
    ----------
    title : str
        Name of the run.
    trained : dict of str to ndarray
        Trainable tensors by name, in the model's order.
    others : dict of str to ndarray
        The other tensors; empty if they were not recorded.
    source : str
        Source: "snapshots", "history" or "logged model".
    model : keras.Model or None
        Model that was logged, if the weights were read from it.
    program : Program or None
        Description of what was trained; None if there is none.
    """

    title: str
    trained: dict[str, np.ndarray]
    others: dict[str, np.ndarray]
    source: str
    model: Any = None
    program: Program | None = None


def run_end(run: str | Snapshots, tracking_uri: str | None, title: str) -> RunEnd:
    """Read the weights at the end of a run's last fit: from its snapshots, its history, or its logged model.

    Parameters
    ----------
    run : str or Snapshots
        Id of a run, or the snapshots of a training.
    tracking_uri : str or None
        Tracking store of the run; None for the current one.
    title : str
        Name in messages and pictures of snapshots that belong to no run.

    Raises
    ------
    UserError
        If there is no such run, it holds no weights, or they are not finite.
    """
    end = _of_snapshots(run, title) if isinstance(run, Snapshots) else _of_run(run, tracking_uri)
    bad = [name for name, values in end.trained.items() if not np.isfinite(values).all()]
    if bad:
        raise UserError(
            f"the weights that {end.title!r} ended with are not finite ({', '.join(bad)}): its training diverged; "
            "choose a run that ended with finite weights"
        )
    return end


def logged_model(run_id: str, tracking_uri: str | None) -> Any:
    """Load the last Keras model that was logged to a run, or saved in it by an experiment; None if there is none.

    Raises
    ------
    UserError
        If it cannot be loaded.
    """
    client = mlflow.MlflowClient(tracking_uri)
    run = client.get_run(run_id)
    outputs = getattr(getattr(run, "outputs", None), "model_outputs", None) or []
    names = [file.path for file in client.list_artifacts(run_id, SAVED_FOLDER)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the optimizer's state, which is not needed
            return _loaded(run_id, outputs, names, tracking_uri)
    except Exception as error:  # code of layers of one's own, or of another version
        raise UserError(
            f"the model logged to run {run_id} cannot be loaded: {type(error).__name__}: {error}; give model=, and "
            "record the weights with TrainingRecorder(snapshot_megabytes=64)"
        ) from error


def _loaded(run_id: str, outputs: list[Any], saved: list[str], tracking_uri: str | None) -> Any:
    """Load the last of the logged models `outputs`, else the `saved` one; None if there is none."""
    if outputs:
        uri = f"models:/{outputs[-1].model_id}"
        path = mlflow.artifacts.download_artifacts(uri, tracking_uri=tracking_uri)
        of_tensorflow = "tensorflow" in mlflow.models.Model.load(path).flavors  # as MLflow's own autologging does
        return (mlflow.tensorflow if of_tensorflow else mlflow.keras).load_model(path)
    if SAVED_MODEL in saved:
        import keras

        with tempfile.TemporaryDirectory() as folder:
            file = mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=SAVED_MODEL, tracking_uri=tracking_uri, dst_path=folder
            )
            return keras.models.load_model(file)
    return None


def _of_snapshots(snapshots: Snapshots, title: str) -> RunEnd:
    return RunEnd(title, {name: values[-1] for name, values in snapshots.tensors.items()}, {}, "snapshots")


def _of_run(run_id: str, tracking_uri: str | None) -> RunEnd:
    run = existing_run(run_id, tracking_uri)
    title = run.info.run_name or run_id
    client = mlflow.MlflowClient(tracking_uri)
    fit = _last_fit([file.path for file in client.list_artifacts(run_id, TRAINING_FOLDER)])
    folder = training_path(fit)
    names = {Path(file.path).name for file in client.list_artifacts(run_id, folder)}
    program = _program(run_id, folder, tracking_uri) if PROGRAM_FILE in names else None
    if weight_snapshots.FILE in names:
        end = _of_snapshots(load_snapshots(run_id, tracking_uri, fit=fit), title)
        return end._replace(program=program)
    if STEPS_FILE in names:
        history = load_history(run_id, tracking_uri, fit=fit)
        if history.recorded == "values":
            trained, others = (
                {t.name: history.weights(t.name)[-1] for t in history.tensors if t.trainable is trainable}
                for trainable in (True, False)
            )
            return RunEnd(title, trained, others, "history", program=program)
    model = logged_model(run_id, tracking_uri)
    if model is None:
        raise UserError(
            f"run {title!r} ({run_id}) holds no weights: record it with TrainingRecorder(snapshot_megabytes=64), with "
            'weights="all", or with autolog(log_models=True)'
        )
    named = list(zip(tensors_of(model), model.weights, strict=True))
    trained, others = (
        {tensor.name: np.array(to_numpy(variable)) for tensor, variable in named if tensor.trainable is trainable}
        for trainable in (True, False)
    )
    return RunEnd(title, trained, others, "logged model", model, program)


def _last_fit(paths: list[str]) -> int:
    """Return the number (0-based) of the last fit that a run was recorded during."""
    numbers = [re.fullmatch(r"fit_(\d+)", Path(path).name) for path in paths]
    return max((int(number[1]) for number in numbers if number), default=0)


def _program(run_id: str, folder: str, tracking_uri: str | None) -> Program | None:
    with tempfile.TemporaryDirectory() as place:
        try:
            path = mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=f"{folder}/{PROGRAM_FILE}", tracking_uri=tracking_uri, dst_path=place
            )
        except (MlflowException, OSError):
            return None
        return read_program(Path(path).parent)
