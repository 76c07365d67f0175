"""Runs in MLflow: finding the one to record into, its tags and names, and loading a training back."""

from __future__ import annotations

import functools
import hashlib
import http.client
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from mlflow_hp.errors import UserError
from mlflow_hp.history import TrainingHistory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FOLDER_VARIABLE = "MLFLOW_HP_FOLDER"
"""Environment variable with the folder for what is on its way to MLflow; default: one in the temporary folder."""

_LONGEST_NAME = 250
_LONGEST_TAG = 5000
_VERSIONS = ("mlflow-hp", "mlflow", "tensorflow", "keras", "scikit-learn", "numpy")


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
            f"run_id={run_id!r} is not in the tracking store {mlflow.get_tracking_uri()}: {error.message}; "
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
        uri = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()  # without a password
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = connect(parts.hostname or "", parts.port, timeout=seconds)
        connection.request("GET", f"{parts.path.rstrip('/')}/health")
        connection.getresponse()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(
            f"the tracking server {uri} does not answer ({error}): start it, or name another with "
            "MLFLOW_TRACKING_URI (unset, runs go into ./mlflow.db)"
        ) from error
    finally:
        if connection is not None:
            connection.close()


def metric_name(name: str) -> str:
    """The name under which MLflow takes the metric `name`.

    Each character that MLflow refuses becomes ``_``; empty, ``.`` and ``..`` parts between slashes are dropped;
    a name over 250 characters is cut and ends in eight characters of its SHA-256.
    """
    clean = re.sub(r"[^\w/. :-]", "_", name)
    clean = "/".join(part for part in clean.split("/") if part.strip() not in ("", ".", ".."))
    clean = clean.replace("..", "__") or "_"
    if len(clean) > _LONGEST_NAME:
        clean = f"{clean[: _LONGEST_NAME - 9]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return clean


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
        ``mlflow_hp.kind``, ``.command``, ``.versions``, and, in a git repository, ``.git_commit`` and ``.git_dirty``.
    """
    tags = {"kind": kind, "command": shlex.join(_command()), "versions": _versions(), **_git(str(Path.cwd())), **more}
    return {f"mlflow_hp.{name}": value[:_LONGEST_TAG] for name, value in tags.items()}


def log_once(
    run: mlflow.entities.Run,
    params: Mapping[str, object] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log those of `params` and `tags` that `run` does not have yet: what it has stays as it was spelled."""
    new_params = [Param(k, str(v)) for k, v in (params or {}).items() if k not in run.data.params]
    new_tags = [RunTag(k, v) for k, v in (tags or {}).items() if k not in run.data.tags]
    if new_params or new_tags:
        mlflow.MlflowClient().log_batch(run.info.run_id, params=new_params, tags=new_tags)


def set_tags(run_id: str, tags: Mapping[str, str]) -> None:
    """Set `tags` of a run, in one call."""
    mlflow.MlflowClient().log_batch(run_id, tags=[RunTag(k, v) for k, v in tags.items()])


def set_description(run_id: str, markdown: str) -> None:
    """Make `markdown` the description of a run, as MLflow's UI shows it."""
    mlflow.MlflowClient().set_tag(run_id, MLFLOW_RUN_NOTE, markdown)


def log_numbers(run_id: str, numbers: Mapping[str, float]) -> None:
    """Log single metrics of a run, at step 0, in one call."""
    now = round(time.time() * 1000)
    metrics = [Metric(metric_name(name), value, now, 0) for name, value in numbers.items()]
    mlflow.MlflowClient().log_batch(run_id, metrics=metrics)


def upload(run_id: str, folder: Path | str, artifact_path: str | None = None) -> None:
    """Bring what is in `folder` to a run's artifacts, below `artifact_path`."""
    mlflow.MlflowClient().log_artifacts(run_id, str(folder), artifact_path)


def local_folder(run_id: str) -> Path:
    """A new folder of this machine for what one training of a run records before MLflow has it."""
    home = os.environ.get(FOLDER_VARIABLE) or Path(tempfile.gettempdir(), "mlflow_hp")
    parent = Path(home, run_id)
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="training_", dir=parent))


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
    ensure_reachable(tracking_uri)
    path = training_path(fit)
    try:
        mlflow.MlflowClient(tracking_uri).get_run(run_id)
    except MlflowException as error:
        raise UserError(f"run {run_id!r}: {error.message}; check the id and tracking_uri=") from error
    try:
        folder = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, tracking_uri=tracking_uri)
        return TrainingHistory.open(folder)
    except (MlflowException, OSError) as error:
        raise UserError(
            f"run {run_id} holds no training history at {path!r} ({error}); a run gets one from "
            "`model.fit(..., callbacks=[mlflow_hp.TrainingRecorder()])`"
        ) from error


def distinct_metric_names(names: Iterable[str]) -> dict[str, str]:
    """`metric_name` of each of `names`; two that would meet in one are told apart by ``_2``, ``_3``, ..."""
    taken: set[str] = set()
    result = {}
    for name in names:
        mapped, count = metric_name(name), 1
        while mapped in taken:
            count += 1
            mapped = f"{metric_name(name)[: _LONGEST_NAME - 6]}_{count}"
        taken.add(mapped)
        result[name] = mapped
    return result


def _command() -> list[str]:
    """The command line of this process."""
    return [Path(sys.executable).name, *sys.orig_argv[1:]]


@functools.cache
def _versions() -> str:
    """Python and the libraries that training depends on, ``name version`` each."""
    found = [f"python {platform.python_version()}"]
    for name in _VERSIONS:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


@functools.cache
def _git(folder: str) -> dict[str, str]:
    """Commit of the repository at `folder` and whether it has uncommitted changes; empty without one.

    Asked once in a process: what runs is what was there when it began.
    """
    git = ["git", "-C", folder]
    try:
        commit, changes = (
            subprocess.run([*git, *words], capture_output=True, text=True, timeout=5, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git_commit": commit, "git_dirty": str(bool(changes)).lower()}
