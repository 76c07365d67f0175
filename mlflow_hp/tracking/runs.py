"""Find the run to record into; write its params, tags, metrics, description and artifacts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from mlflow_hp._notice import warn
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import provenance
from mlflow_hp.tracking.names import distinct_metric_names
from mlflow_hp.tracking.params_and_tags import texts
from mlflow_hp.tracking.process_identity import this_process
from mlflow_hp.tracking.redaction import masked
from mlflow_hp.tracking.run_params import log_params
from mlflow_hp.tracking.server_health import ensure_reachable, within
from mlflow_hp.tracking.tags import (
    DESCRIPTION_TAG,
    KIND_TAG,
    PROCESS_TAG,
)
from mlflow_hp.tracking.uncommitted_code import log_code as log_code  # noqa: PLC0414 - public here

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


SECONDS_TO_ANSWER = 10.0
"""Longest wait for MLflow at the start of a recording."""


def find_run(run_id: str | None = None) -> mlflow.entities.Run | None:
    """Find the run to record into: the one with `run_id`, else the active one.

    Parameters
    ----------
    run_id : str, optional
        Id of the run. Defaults to the active run.

    Returns
    -------
    Run or None
        The run; None if the store does not answer now.

    Raises
    ------
    UserError
        If no run is active, or the store has none with `run_id`.
    """
    active = mlflow.active_run()
    id_to_find = run_id_of(run_id)
    try:
        ensure_reachable()
        return within(SECONDS_TO_ANSWER, lambda: mlflow.MlflowClient().get_run(id_to_find))
    except MlflowException as error:
        is_active = active is not None and active.info.run_id == id_to_find
        if error.error_code != "RESOURCE_DOES_NOT_EXIST" or is_active:
            return None
        raise UserError(
            f"run_id={run_id!r} is not in the tracking store {masked(mlflow.get_tracking_uri())}: {error.message}; "
            "check the id, and the store with mlflow.set_tracking_uri or MLFLOW_TRACKING_URI"
        ) from error
    except (UserError, TimeoutError, OSError):
        return None


def run_id_of(run_id: str | None = None) -> str:
    """Return the id of the run to record into: `run_id`, else that of the active run.

    Parameters
    ----------
    run_id : str, optional
        Id of the run. Defaults to the active run.

    Returns
    -------
    str
        The id.

    Raises
    ------
    UserError
        If no run is active.
    """
    if run_id is not None:
        return run_id
    active = mlflow.active_run()
    if active is None:
        raise UserError(
            "no MLflow run to record into: start one around the training, "
            "`with mlflow.start_run(): model.fit(...)`, or name one, `TrainingRecorder(run_id=...)`"
        )
    return str(active.info.run_id)


def run_tags(kind: str, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Build the tags for the kind and the provenance of a run.

    Parameters
    ----------
    kind : {"training", "search", "candidate", "fold", "sweep", "improvement", "comparison", "atlas"}
        Value of the tag ``mlflow_hp.kind``.
    more : mapping of str to str, optional
        Further tags. Defaults to none.

    Returns
    -------
    dict of str to str
        ``mlflow_hp.kind``, ``.process``, and those of `provenance.tags`, which the plugin sets as well, except for runs
        that ``MlflowClient`` or ``mlflow run`` creates.
    """
    return {KIND_TAG: kind, PROCESS_TAG: this_process(), **provenance.tags(), **(more or {})}


def items_once(
    run: mlflow.entities.Run, params: Mapping[str, object] | None = None, tags: Mapping[str, str] | None = None
) -> list[Param | RunTag]:
    """Select the params and tags that a run does not have yet; values that it has are kept.

    Values that MLflow truncates are logged in full as artifacts. Tags of the run that hold secrets are replaced; a
    param that holds one cannot be replaced, and causes a warning.

    Parameters
    ----------
    run : Run
        Run to log to.
    params : mapping of str to object, optional
        Name -> value. Defaults to none.
    tags : mapping of str to str, optional
        Name -> value. Defaults to none.

    Returns
    -------
    list of Param or RunTag
        Items to log.
    """
    new_params, new_tags = texts("params", params or {}), texts("tags", tags or {})
    logged_params = run.data.params
    tags_to_set = {name: value for name, value in new_tags.values.items() if name not in run.data.tags}
    tags_to_set |= {name: masked(value) for name, value in run.data.tags.items() if masked(value) != value}
    params_with_secrets = [name for name, value in logged_params.items() if masked(value) != value]
    if params_with_secrets:
        name = params_with_secrets[0]
        warn(
            f"run {run.info.run_id} has a password or token in its param {name!r}: `mlflow run` logged it before this "
            "program began, and MLflow cannot remove a param. Delete the run, and replace the secret by a reference to "
            f"an environment variable, such as -P {name}='https://host/x.csv?token=$TOKEN'",
            stacklevel=0,  # one place for all callers, so that it is shown once
        )
    for path, text in (new_params.whole | new_tags.whole).items():
        mlflow.MlflowClient().log_text(run.info.run_id, text, path)
    return [
        *(Param(name, value) for name, value in new_params.values.items() if name not in logged_params),
        *(RunTag(*item) for item in tags_to_set.items()),
    ]


def log_once(
    run: mlflow.entities.Run,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log `items_once`; params that another program has logged meanwhile are kept.

    Parameters
    ----------
    run : Run
        Run to log to.
    params : mapping of str to object, optional
        Name -> value. Defaults to none.
    tags : mapping of str to str, optional
        Name -> value. Defaults to none.
    """
    items, client = items_once(run, params, tags), mlflow.MlflowClient()
    if new_tags := [item for item in items if isinstance(item, RunTag)]:
        client.log_batch(run.info.run_id, tags=new_tags)
    log_params(client, run.info.run_id, {item.key: item.value for item in items if isinstance(item, Param)})


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of a run; a value that is too long for MLflow is logged in full as an artifact.

    Parameters
    ----------
    run_id : str
        Id of the run.
    tags : mapping of str to str
        Name -> value.
    """
    values, whole = texts("tags", tags)
    client = mlflow.MlflowClient()
    if values:
        client.log_batch(run_id, tags=[RunTag(*item) for item in values.items()])
    for path, text in whole.items():
        client.log_text(run_id, text, path)


def set_description(run_id: str, markdown: str) -> None:
    """Set the description of a run, which MLflow's UI shows; a long one is also in the artifact ``description.md``.

    Parameters
    ----------
    run_id : str
        Id of the run.
    markdown : str
        Description in markdown.
    """
    set_tags(run_id, {DESCRIPTION_TAG: markdown})


def log_numbers(run_id: str, numbers: Mapping[str, float]) -> None:
    """Log single metrics of a run, at step 0.

    Parameters
    ----------
    run_id : str
        Id of the run.
    numbers : mapping of str to float
        Name -> value.
    """
    timestamp = round(time.time() * 1000)
    metrics = [Metric(mapped, numbers[name], timestamp, 0) for name, mapped in distinct_metric_names(numbers).items()]
    mlflow.MlflowClient().log_batch(run_id, metrics=metrics)


def upload(run_id: str, folder: Path | str, artifact_path: str | None = None) -> None:
    """Upload the files of a folder to a run's artifacts.

    Parameters
    ----------
    run_id : str
        Id of the run.
    folder : path
        Local folder.
    artifact_path : str, optional
        Artifact path of the files' folder. Defaults to the root of the artifacts.

    Raises
    ------
    UserError
        If the artifact store cannot be written.
    """
    client = mlflow.MlflowClient()
    try:
        client.log_artifacts(run_id, str(folder), artifact_path)
    except (OSError, MlflowException) as error:
        artifact_uri = masked(client.get_run(run_id).info.artifact_uri)
        raise UserError(
            f"the artifact store {artifact_uri} cannot be written ({type(error).__name__}: {error}); the run keeps its "
            "metrics. Make it writable, or use another: `mlflow experiments create -n NAME --artifact-location "
            "FOLDER`, then MLFLOW_EXPERIMENT_NAME=NAME"
        ) from error
