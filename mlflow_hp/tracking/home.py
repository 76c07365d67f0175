"""The folder of this machine for what is this user's."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER_VARIABLE = "MLFLOW_HP_FOLDER"
"""Environment variable with the folder for what is on its way to MLflow; default: ``.mlflow_hp`` in the home folder."""


def local_home() -> Path:
    """Where this machine keeps what is on its way to MLflow: ``MLFLOW_HP_FOLDER``, else ``.mlflow_hp`` at home."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given).absolute() if given else Path.home() / ".mlflow_hp"
