"""Provenance of a run: author, command, code, versions and device of the program that made it.

Nothing here raises or loads a heavy library. Values that cannot change in a process are computed once, on first use.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import importlib.metadata
import os
import platform
import shlex
import socket
import sys
from pathlib import Path

from mlflow_hp.tracking import devices, git_repository
from mlflow_hp.tracking.redaction import masked, masked_words
from mlflow_hp.tracking.seal import seal
from mlflow_hp.tracking.tags import (
    AUTHOR_TAG,
    COMMAND_TAG,
    DEVICE_TAG,
    GIT_COMMIT_TAG,
    GIT_DIRTY_TAG,
    GIT_FOLDER_TAG,
    GIT_PROGRAM_TAG,
    HOST_TAG,
    SEAL_TAG,
    VERSIONS_TAG,
)

SWITCH = "MLFLOW_HP_TAGS"
"""Environment variable: ``0`` turns these tags off."""
AUTHOR_VARIABLE = "MLFLOW_HP_AUTHOR"
"""Environment variable with the author's name. Defaults to git's ``user.name``, else the login name."""
SETTINGS = {
    "KERAS_BACKEND": r"[a-z]{1,20}",
    "PYTHONHASHSEED": r"random|\d{1,10}",
    "TF_DETERMINISTIC_OPS": r"[01]|true|false",
    "TF_ENABLE_ONEDNN_OPTS": r"[01]|true|false",
    "XLA_FLAGS": r" *(--xla_(?!\w*(dump|dir|file|path))[a-z0-9_]+(=[\w.,+-]*)?( +|$))*",
    "OMP_NUM_THREADS": r"\d{1,5}(,\d{1,5})*",
}
"""Environment variable that changes results -> pattern of its values. They precede the command, as in a shell."""
SEALED_TAGS = (COMMAND_TAG, GIT_COMMIT_TAG, GIT_FOLDER_TAG, GIT_PROGRAM_TAG)
"""Tags that the seal in `SEAL_TAG` covers."""

_LIBRARIES = ("mlflow-hp", "mlflow", "tensorflow", "keras", "scikit-learn", "scikeras", "scipy", "numpy")


def is_on() -> bool:
    """Whether runs are tagged with their provenance; `SWITCH` turns it off."""
    return os.environ.get(SWITCH, "").strip().lower() not in ("0", "false", "no", "off")


def tags() -> dict[str, str]:
    """Build the tags with the provenance of this process's runs.

    Returns
    -------
    dict of str to str
        ``mlflow_hp.author``, ``.host``, ``.command``, ``.versions``, ``.device``; for a program in a git repository
        ``.git_commit``, ``.git_dirty``, and, relative to the root of the repository, ``.git_folder``, if it was
        started there, and ``.git_program``, its file; and ``.seal``, which covers `SEALED_TAGS`. Unknown values are
        left out; with ``MLFLOW_HP_TAGS=0`` all are.
    """
    if not is_on():
        return {}
    values = {
        AUTHOR_TAG: author(),
        HOST_TAG: socket.gethostname(),
        COMMAND_TAG: command(),
        VERSIONS_TAG: versions(),
        DEVICE_TAG: devices.describe(),
    }
    repository = git_repository.find()
    if repository is not None:
        values[GIT_COMMIT_TAG] = repository.commit
        if repository.changed is not None:
            values[GIT_DIRTY_TAG] = str(bool(repository.changed or repository.untracked)).lower()
        with contextlib.suppress(OSError, ValueError):  # started outside of it
            values[GIT_FOLDER_TAG] = Path.cwd().relative_to(repository.root).as_posix()
        if program := git_repository.program_file():
            with contextlib.suppress(OSError, ValueError):  # a program outside of it
                values[GIT_PROGRAM_TAG] = Path(program).resolve().relative_to(repository.root.resolve()).as_posix()
    masked_values = {name: masked(value) for name, value in values.items() if value}
    digest = seal("command", *map(masked_values.get, SEALED_TAGS))
    return masked_values | ({SEAL_TAG: digest} if digest else {})


def author() -> str:
    """Name of the author: `AUTHOR_VARIABLE`, git's author, git's user, else the login name; may be empty."""
    for variable in (AUTHOR_VARIABLE, "GIT_AUTHOR_NAME"):
        if name := os.environ.get(variable, "").strip():
            return name
    return git_repository.user_name() or login()


def login() -> str:
    """Login name of the operating system; empty if it has none."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a user without a name, as in containers
        return ""


def command() -> str:
    """Command line of this process in shell syntax, with secrets masked."""
    settings = (f"{name}={shlex.quote(os.environ[name])}" for name in SETTINGS if os.environ.get(name))
    words = [Path(sys.executable or "python").name, *sys.orig_argv[1:]]
    return " ".join([*settings, shlex.join(masked_words(words))])


@functools.cache
def versions() -> str:
    """Versions of Python and the libraries that training depends on: ``name version``, comma-separated."""
    pairs = [f"python {platform.python_version()}"]
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            pairs.append(f"{library} {importlib.metadata.version(library)}")
    return ", ".join(pairs)
