"""Folder on this machine for recordings that MLflow does not have yet, and for the user's key."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

FOLDER_VARIABLE = "MLFLOW_HP_FOLDER"
"""Environment variable that names the folder. Defaults to ``.mlflow_hp`` in the home folder."""


def local_home() -> Path:
    """Return the folder: ``MLFLOW_HP_FOLDER``, else ``.mlflow_hp`` in the home folder; it may not exist."""
    path = os.environ.get(FOLDER_VARIABLE)
    return Path(path).absolute() if path else Path.home() / ".mlflow_hp"


def local_folder(run_id: str, kind: str = "training") -> Path:
    """Make a spool folder for one training, or one search, of a run.

    Parameters
    ----------
    run_id : str
        Id of the run.
    kind : {"training", "search"}
        What is recorded. Defaults to ``"training"``.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    OSError
        If it cannot be made.
    """
    parent = local_home() / run_id
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{kind}_", dir=parent))


def remove_local(folder: Path) -> None:
    """Remove a folder made by `local_folder`, and the folder of its run if that is empty then.

    Parameters
    ----------
    folder : Path
        Folder to remove.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()
