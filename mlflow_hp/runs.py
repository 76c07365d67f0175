"""Runs in MLflow: finding the one to record into, its tags and names, and loading a training back."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlflow_hp import provenance, snapshots
from mlflow_hp.errors import UserError
from mlflow_hp.history import TrainingHistory
from mlflow_hp.masking import masked
from mlflow_hp.names import distinct_metric_names
from mlflow_hp.notice import warn
from mlflow_hp.process import this_process
from mlflow_hp.texts import DESCRIPTION, texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlflow_hp.snapshots import Snapshots

FOLDER_VARIABLE = "MLFLOW_HP_FOLDER"
"""Environment variable with the folder for what is on its way to MLflow; default: ``.mlflow_hp`` in the home folder."""

PARAMS_TAG = "mlflow_hp.params"
"""Tag with the params that wait for the end of a run, as a JSON object."""
PARAMS_AT_ONCE = 100
"""Params that MLflow takes in one call."""
CODE_TAG = "mlflow_hp.uncommitted"
"""Tag with the artifact path of the uncommitted changes of a run's code."""


def find_run(run_id: str | None = None) -> mlflow.entities.Run:
    """The run to record into: the one with `run_id`, else the active one.

    Raises
    ------
    UserError
        Where there is none, or the tracking server doesn't answer.
    """
    if run_id is None:
        active = mlflow.active_run()
        if active is None:
            raise UserError(
                "no MLflow run to record into: start one around the training, "
                "`with mlflow.start_run(): model.fit(...)`, or name one, `TrainingRecorder(run_id=...)`"
            )
        run_id = active.info.run_id
    ensure_reachable()
    try:
        return mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise UserError(
            f"run_id={run_id!r} is not in the tracking store {masked(mlflow.get_tracking_uri())}: {error.message}; "
            "check the id, and the store with mlflow.set_tracking_uri or MLFLOW_TRACKING_URI"
        ) from error


def ensure_reachable(tracking_uri: str | None = None, seconds: float = 5.0) -> None:
    """Check in seconds what MLflow itself gives up on after minutes: that a tracking server answers.

    Parameters
    ----------
    tracking_uri : str, optional
        By default the one in force. Stores that are not behind http are taken to be there.
    seconds : float
        How long to wait for the server.

    Raises
    ------
    UserError
        Where it doesn't answer.
    """
    uri = tracking_uri or mlflow.get_tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return
    connection = None
    try:
        parts = urlsplit(uri)
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = connect(parts.hostname or "", parts.port, timeout=seconds)
        _ask(connection, f"{parts.path.rstrip('/')}/health")
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(
            f"the tracking server {masked(uri)} does not answer ({error}): start it, or name another with "
            "MLFLOW_TRACKING_URI (unset, runs go into ./mlflow.db)"
        ) from error
    finally:
        if connection is not None:
            connection.close()


def _ask(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    status = connection.getresponse().status
    if status >= http.client.INTERNAL_SERVER_ERROR:
        raise OSError(f"it answers {status}")


def run_tags(kind: str, **more: str) -> dict[str, str]:
    """Tags that say what a run is and what repeats it.

    Parameters
    ----------
    kind : {"training", "search", "candidate", "fold", "sweep", "comparison"}
        Value of the tag ``mlflow_hp.kind``.
    **more : str
        Further tags, without the prefix ``mlflow_hp.``.

    Returns
    -------
    dict of str to str
        ``mlflow_hp.kind``, ``.process``, and those of `mlflow_hp.provenance.tags`, which the plugin sets too, but not
        for runs that an ``MlflowClient`` or ``mlflow run`` creates.
    """
    tags = {"kind": kind, "process": this_process(), **provenance.tags(), **more}
    return {f"mlflow_hp.{name}": value for name, value in tags.items()}


def log_code(run_id: str, tracking_uri: str | None = None) -> None:
    """Log what the program's repository holds beside its commit to a run, or to the topmost that it is nested in.

    It becomes the artifact `provenance.DIFF_PATH`, and the tag ``mlflow_hp.uncommitted`` names it; a run that has one
    keeps it. Where that fails, a warning tells, and there is no error.
    """
    try:
        patch = provenance.uncommitted()
        if patch is None:
            return
        client = mlflow.MlflowClient(tracking_uri)
        run = client.get_run(run_id)
        while above := run.data.tags.get(MLFLOW_PARENT_RUN_ID):
            run = client.get_run(above)
        if CODE_TAG in run.data.tags:
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, Path(provenance.DIFF_PATH).name)
            path.write_bytes(patch.encode(errors="surrogateescape"))
            client.log_artifact(run.info.run_id, str(path), str(Path(provenance.DIFF_PATH).parent))
        client.set_tag(run.info.run_id, CODE_TAG, provenance.DIFF_PATH)
    except Exception as error:  # noqa: BLE001 - the training goes on
        warn(
            f"run {run_id} lacks the uncommitted changes of its code ({type(error).__name__}: {error}); "
            "commit them before a run that is to be repeated",
            stacklevel=0,  # once, whoever calls
        )


def log_once(
    run: mlflow.entities.Run,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log those of `params` and `tags` that `run` does not have yet: what it has stays as it was spelled.

    What MLflow cuts, as ``mlflow run`` may have let it, is kept whole in artifacts. Tags of the run with secrets are
    replaced; of a param with one, which can't be, a warning tells.
    """
    new_params, new_tags = texts("params", params or {}), texts("tags", tags or {})
    known = run.data.params
    _log(
        run.info.run_id,
        {name: value for name, value in new_params.values.items() if name not in known},
        {name: value for name, value in new_tags.values.items() if name not in run.data.tags}
        | {name: masked(value) for name, value in run.data.tags.items() if masked(value) != value},
        new_params.whole | new_tags.whole,
    )
    leaked = [name for name, value in known.items() if masked(value) != value]
    if leaked:
        warn(
            f"run {run.info.run_id} got a password or token in its param {leaked[0]!r} before this program "
            "began, as `mlflow run` logs what it is given, and MLflow takes no param back: delete the run, and put a "
            f"reference in place of the secret, such as -P {leaked[0]}='https://host/x.csv?token=$TOKEN'",
            stacklevel=0,  # once, whoever calls
        )


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set `tags` of a run; what is too long for MLflow is kept whole in an artifact."""
    made = texts("tags", tags)
    _log(run_id, {}, made.values, made.whole)


def set_description(run_id: str, markdown: str) -> None:
    """Make `markdown` the description of a run, as MLflow's UI shows it; a long one is whole in ``description.md``."""
    set_tags(run_id, {DESCRIPTION: markdown})


def log_numbers(run_id: str, numbers: Mapping[str, float]) -> None:
    """Log single metrics of a run, at step 0."""
    now = round(time.time() * 1000)
    metrics = [Metric(mapped, numbers[name], now, 0) for name, mapped in distinct_metric_names(numbers).items()]
    mlflow.MlflowClient().log_batch(run_id, metrics=metrics)


def waiting_params(tags: Mapping[str, str]) -> dict[str, str]:
    """The params of a run that wait for its end, by its `tags`."""
    try:
        waiting = json.loads(tags.get(PARAMS_TAG, "{}"))
    except ValueError:  # cut, or not ours
        return {}
    return {str(k): str(v) for k, v in waiting.items()} if isinstance(waiting, dict) else {}


def params_of(data: mlflow.entities.RunData) -> dict[str, str]:
    """The params of a run, those included that wait for its end."""
    return waiting_params(data.tags) | data.params


def log_params(client: mlflow.MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    """Log params to a run; one that it gets from somebody else meanwhile stays as it was spelled there.

    One that MLflow refuses for another reason is left out, and a warning tells.
    """
    left = dict(params)
    while left:
        some = dict(list(left.items())[:PARAMS_AT_ONCE])
        try:
            client.log_batch(run_id, params=[Param(*item) for item in some.items()])
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            known = client.get_run(run_id).data.params
            if not known.keys() & left.keys():
                if len(some) > 1:  # one by one, so that the others are logged
                    for name, value in some.items():
                        log_params(client, run_id, {name: value})
                else:
                    warn(f"run {run_id} does not take the param {next(iter(some))!r}: {error.message}")
                known = some
            left = {name: value for name, value in left.items() if name not in known}
        else:
            left = {name: value for name, value in left.items() if name not in some}


def _log(run_id: str, params: Mapping[str, str], tags: Mapping[str, str], artifacts: Mapping[str, str]) -> None:
    client = mlflow.MlflowClient()
    if tags:
        client.log_batch(run_id, tags=[RunTag(*item) for item in tags.items()])
    log_params(client, run_id, params)
    for path, text in artifacts.items():
        client.log_text(run_id, text, path)


def upload(run_id: str, folder: Path | str, artifact_path: str | None = None) -> None:
    """Bring what is in `folder` to a run's artifacts, below `artifact_path`.

    Raises
    ------
    UserError
        Where the artifact store can't be written.
    """
    client = mlflow.MlflowClient()
    try:
        client.log_artifacts(run_id, str(folder), artifact_path)
    except (OSError, MlflowException) as error:
        where = masked(client.get_run(run_id).info.artifact_uri)
        raise UserError(
            f"the artifact store {where} can't be written ({type(error).__name__}: {error}); the run keeps its "
            "metrics. Mend it, or name another: `mlflow experiments create -n NAME --artifact-location FOLDER`, "
            "then MLFLOW_EXPERIMENT_NAME=NAME"
        ) from error


def local_home() -> Path:
    """Where this machine keeps what is on its way to MLflow: ``MLFLOW_HP_FOLDER``, else ``.mlflow_hp`` at home."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given).absolute() if given else Path.home() / ".mlflow_hp"


def local_folder(run_id: str) -> Path:
    """A new folder of this machine for what one training of a run records before MLflow has it.

    Raises
    ------
    OSError
        Where it can't be made.
    """
    parent = local_home() / run_id
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="training_", dir=parent))


def remove_local(folder: Path) -> None:
    """Remove a `local_folder`, and that of its run where it was the last."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def training_path(fit: int) -> str:
    """Artifact path of the history of a run's fit number `fit` (0-based)."""
    return "training" if fit == 0 else f"training/fit_{fit}"


def load_history(run_id: str, tracking_uri: str | None = None, *, fit: int = 0) -> TrainingHistory:
    """The recorded training of a run.

    Parameters
    ----------
    run_id : str
        A run with a recorded training.
    tracking_uri : str, optional
        Where the run is; by default the tracking URI in force.
    fit : int
        Which fit (0-based), for a run that was recorded during several.

    Returns
    -------
    TrainingHistory
        Read lazily: the weights of a tensor are loaded when they are asked for.

    Raises
    ------
    UserError
        Where the store doesn't answer, there is no such run, or it holds no such history.
    """
    path = training_path(fit)
    return TrainingHistory.open(_download(run_id, path, tracking_uri, "training history", "TrainingRecorder()"))


def load_snapshots(run_id: str, tracking_uri: str | None = None, *, fit: int = 0) -> Snapshots:
    """The snapshots of the weights of a run's training; parameters and errors as of `load_history`.

    Returns
    -------
    Snapshots
        What `mlflow_hp.landscape` takes.
    """
    path = f"{training_path(fit)}/{snapshots.FILE}"
    how = "TrainingRecorder(snapshot_megabytes=64)"
    return snapshots.load(_download(run_id, path, tracking_uri, "snapshots of the weights", how))


def _download(run_id: str, path: str, tracking_uri: str | None, what: str, how: str) -> str:
    """Where the artifact `path` of a run is on this machine now; an error says what is missing and how to get it."""
    ensure_reachable(tracking_uri)
    try:
        mlflow.MlflowClient(tracking_uri).get_run(run_id)
    except MlflowException as error:
        raise UserError(f"run {run_id!r}: {error.message}; check the id and tracking_uri=") from error
    try:
        return mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, tracking_uri=tracking_uri)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"run {run_id} holds no {what} at {path!r} ({error}); a run gets one from "
            f"`model.fit(..., callbacks=[mlflow_hp.{how}])`"
        ) from error
