"""Artifacts of runs as files on the server's machine."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mlflow.exceptions import MlflowException

if TYPE_CHECKING:
    from mlflow.entities import Run

PROXY_PATH = "/mlflow-artifacts/artifacts/"
"""Path of the server's artifacts in an address by http."""
MAX_DOWNLOADS = 32
"""Downloads of other stores that are kept."""


def local_path(run: Run, path: str, version: object = None) -> Path | None:
    """Find an artifact as a local file or folder; of a store elsewhere, it is downloaded once for an ended run.

    Parameters
    ----------
    run : mlflow.entities.Run
        A run that the sender may read.
    path : str
        Path of the artifact below those of the run.
    version : object, optional
        Changes with what may be logged again after the run has ended, such as the size of a file: a download is of one
        version. Defaults to None.

    Returns
    -------
    Path or None
        None if there is no such artifact, or its store does not answer.
    """
    uri = run.info.artifact_uri
    try:
        repository, prefix = _repository(uri)
        folder = getattr(repository, "artifact_dir", None)  # of a store on this machine
        if folder is not None:
            local = Path(folder, prefix, path)
            return local if local.exists() else None
        return _downloaded(uri, path, run.info.end_time, version)
    except (MlflowException, OSError, ValueError, KeyError):
        return None


def text_of(run: Run, path: str, version: object) -> str:
    """Read a file of UTF-8 that may be logged again; empty if it cannot be read.

    Parameters
    ----------
    run : mlflow.entities.Run
        A run that the sender may read.
    path : str
        Path of the artifact below those of the run.
    version : object
        As of `local_path`.
    """
    local = local_path(run, path, version)
    try:
        return "" if local is None else local.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def files_in(run: Run, folder: str) -> dict[str, int]:
    """List the files of a folder of artifacts: path below those of the run, and size in bytes.

    Parameters
    ----------
    run : mlflow.entities.Run
        A run that the sender may read.
    folder : str
        Path of the folder below the artifacts of the run.

    Returns
    -------
    dict of str to int
        Empty if there is no such folder, or its store does not answer.
    """
    try:
        repository, prefix = _repository(run.info.artifact_uri)
        listed = repository.list_artifacts(f"{prefix}/{folder}".lstrip("/"))
        return {f"{folder}/{file.path.rpartition('/')[2]}": file.file_size or 0 for file in listed if not file.is_dir}
    except (MlflowException, OSError, ValueError, KeyError):
        return {}


def is_on_this_machine(run: Run) -> bool:
    """Whether the artifacts of a run are files of this machine, which are read without a download.

    Parameters
    ----------
    run : mlflow.entities.Run
        A run that the sender may read.
    """
    try:
        return hasattr(_repository(run.info.artifact_uri)[0], "artifact_dir")
    except (MlflowException, OSError, ValueError, KeyError):
        return False


def _repository(uri: str) -> tuple[Any, str]:
    """Repository of an artifact URI, and the path in it; a URI of this server's own artifacts is resolved."""
    from mlflow.server import ARTIFACTS_DESTINATION_ENV_VAR
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    parts = urlsplit(uri)
    if parts.scheme == "mlflow-artifacts":
        return get_artifact_repository(os.environ[ARTIFACTS_DESTINATION_ENV_VAR]), parts.path.lstrip("/")
    if parts.scheme in ("http", "https") and PROXY_PATH in parts.path:
        own = parts.path.partition(PROXY_PATH)[2]
        return get_artifact_repository(os.environ[ARTIFACTS_DESTINATION_ENV_VAR]), own
    return get_artifact_repository(uri), ""


@functools.lru_cache(maxsize=MAX_DOWNLOADS)
def _downloaded(uri: str, path: str, _ended: int | None, _version: object) -> Path:
    repository, prefix = _repository(uri)
    target = _folder()
    return Path(repository.download_artifacts(f"{prefix}/{path}".lstrip("/"), tempfile.mkdtemp(dir=target)))


@functools.cache
def _folder() -> str:
    """Folder of the downloads, removed when the server ends."""
    folder = tempfile.TemporaryDirectory(prefix="mlflow_hp_page_")
    _kept.append(folder)
    return folder.name


_kept: list[Any] = []
