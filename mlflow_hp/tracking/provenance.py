"""Where a run comes from: who, which code, on what, by which command. Nothing here raises, and nothing heavy loads.

It is gathered when it is first asked for, once in a process: what runs is what was there when it began.
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
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from mlflow_hp.tracking.redaction import masked, masked_words
from mlflow_hp.tracking.seal import seal

SWITCH = "MLFLOW_HP_TAGS"
"""Environment variable: with ``0`` none of this is gathered."""
AUTHOR_VARIABLE = "MLFLOW_HP_AUTHOR"
"""Environment variable with the name under which runs are compared; by default git's ``user.name``, else the login."""
DIFF_PATH = "code/uncommitted.diff"
"""Artifact path of what `uncommitted` gives."""
LEFT_OUT = "# left out: "
"""Begins a line of `uncommitted` that says what the patch lacks."""
MASKED = "# some of it is masked as a secret"
"""A line of `uncommitted` that says that the patch may not apply, or not to the same code."""
UNTRACKED = "# untracked: "
"""Begins a line of `uncommitted` that names a file which is in no commit."""
LONGEST_DIFF = 1_000_000
"""Bytes of changes that are kept."""
SETTINGS = {
    "KERAS_BACKEND": r"[a-z]{1,20}",
    "PYTHONHASHSEED": r"random|\d{1,10}",
    "TF_DETERMINISTIC_OPS": r"[01]|true|false",
    "TF_ENABLE_ONEDNN_OPTS": r"[01]|true|false",
    "XLA_FLAGS": r" *(--xla_(?!\w*(dump|dir|file|path))[a-z0-9_]+(=[\w.,+-]*)?( +|$))*",
    "OMP_NUM_THREADS": r"\d{1,5}(,\d{1,5})*",
}
"""Environment variables that change results, and what they may be; they stand before the command, as in a shell."""
SEALED = ("command", "git_commit", "git_folder", "git_program")
"""Tags, without their prefix, that the tag ``mlflow_hp.seal`` is the seal on."""

_LIBRARIES = ("mlflow-hp", "mlflow", "tensorflow", "keras", "scikit-learn", "scikeras", "scipy", "numpy")
_SECONDS = 5.0  # for git, whose folder may be on a slow disk
_MOST_NAMES = 200
OTHER_REPOSITORY = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"}  # what git sets for its hooks
_GPUS = Path("/proc/driver/nvidia/gpus")


class Code(NamedTuple):
    """The state of a repository.

    Attributes
    ----------
    root : Path
        Its working tree.
    commit : str
        What is checked out.
    changed : bool or None
        Whether tracked files differ from the commit, in the index or not; None where git took too long to tell.
    untracked : tuple of str
        Files that git neither tracks nor ignores, and folders (with a slash at the end) of nothing else.
    """

    root: Path
    commit: str
    changed: bool | None
    untracked: tuple[str, ...]


def is_on() -> bool:
    """Whether runs are told where they come from; `SWITCH` turns it off."""
    return os.environ.get(SWITCH, "").strip().lower() not in ("0", "false", "no", "off")


def tags() -> dict[str, str]:
    """Tags that say where a run of this process comes from, without the prefix ``mlflow_hp.``.

    Returns
    -------
    dict of str to str
        ``author``, ``host``, ``command``, ``versions``, ``device``; of a program in a git repository ``git_commit``,
        ``git_dirty``, and, from the repository's root, where it was started there ``git_folder``, and where its file
        is ``git_program``; and a ``seal`` on what repeats it. None of that with ``MLFLOW_HP_TAGS=0``; and what can't be
        found out is left out.
    """
    if not is_on():
        return {}
    gathered = {"author": author(), "host": socket.gethostname(), "command": command(), "versions": versions(),
                "device": device()}  # fmt: skip
    found = code()
    if found is not None:
        gathered["git_commit"] = found.commit
        if found.changed is not None:
            gathered["git_dirty"] = str(bool(found.changed or found.untracked)).lower()
        with contextlib.suppress(OSError, ValueError):  # started elsewhere
            gathered["git_folder"] = Path.cwd().relative_to(found.root).as_posix()
        if program := _program():
            with contextlib.suppress(OSError, ValueError):  # of another repository
                gathered["git_program"] = Path(program).resolve().relative_to(found.root.resolve()).as_posix()
    told = {name: masked(value) for name, value in gathered.items() if value}
    sealed = seal("command", *map(told.get, SEALED))
    return told | ({"seal": sealed} if sealed else {})


def seal_of_patch(patch: str) -> str:
    """The seal on what `uncommitted` gave; empty where there is none."""
    found = code()
    return seal("patch", None if found is None else found.commit, patch)


def author() -> str:
    """Who runs this: `AUTHOR_VARIABLE`, git's author, else the login name; empty where there is none of them."""
    for name in (AUTHOR_VARIABLE, "GIT_AUTHOR_NAME"):
        if given := os.environ.get(name, "").strip():
            return given
    return _configured_author()


@functools.cache
def _configured_author() -> str:
    if found := _git(None, "config", "user.name").decode(errors="replace").strip():
        return found
    return login()


def login() -> str:
    """The name that the operating system knows; empty where it knows none."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a user without a name, as containers have
        return ""


def command() -> str:
    """The command line of this process, as a shell takes it, without secrets."""
    settings = (f"{name}={shlex.quote(os.environ[name])}" for name in SETTINGS if os.environ.get(name))
    words = [Path(sys.executable or "python").name, *sys.orig_argv[1:]]
    return " ".join([*settings, shlex.join(masked_words(words))])


@functools.cache
def versions() -> str:
    """Python and the libraries that training depends on: ``name version``, comma-separated."""
    found = [f"python {platform.python_version()}"]
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)


def device() -> str:
    """What computes: processors and graphics processors, as ``2 x AMD EPYC 7B13; 1 x NVIDIA H200``.

    Where TensorFlow is at work in this process they are those that it uses; else those that the driver names and
    ``CUDA_VISIBLE_DEVICES`` does not hide. TensorFlow is neither loaded nor made to begin.
    """
    gpus = _tensorflow_gpus()
    if gpus is None:
        gpus = _driver_gpus()
    return "; ".join([_processor(), *(f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus))])


@functools.cache
def _processor() -> str:
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{n} x {name or platform.processor() or platform.machine()}"


def _driver_gpus() -> list[str]:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = []
    with contextlib.suppress(OSError):
        for card in sorted(_GPUS.iterdir()):
            lines = (card / "information").read_text(errors="replace").splitlines()
            found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]
    if hidden is None:
        return found
    visible = [word for word in hidden.split(",") if word.strip() and word.strip() != "-1"]
    return found[: len(visible)]


def _tensorflow_gpus() -> list[str] | None:
    """The names of those that TensorFlow uses; None where it has not begun, and asking it would make it."""
    context = sys.modules.get("tensorflow.python.eager.context")
    tensorflow = sys.modules.get("tensorflow")
    try:
        if tensorflow is None or context is None or not context.context()._initialized:
            return None
        config = tensorflow.config
        return [config.experimental.get_device_details(gpu).get("device_name", gpu.name)
                for gpu in config.list_physical_devices("GPU")]  # fmt: skip
    except Exception:  # noqa: BLE001 - what is half loaded, or another version's, is not asked
        return None


def code() -> Code | None:
    """The repository of the program, else of the working folder; None where there is none, or no git."""
    for folder in _folders():
        root = next((at for at in (folder, *folder.parents) if (at / ".git").exists()), None)
        if root is not None and (found := _state(root)) is not None:
            return found
    return None


def _folders() -> list[Path]:
    """Of the program, unless it belongs to the Python that runs it, as pytest and Jupyter do; and the one we are in."""
    found = []
    with contextlib.suppress(OSError, ValueError):
        program = _program()
        if program and not Path(program).resolve().is_relative_to(Path(sys.prefix).resolve()):
            found.append(Path(program).resolve().parent)
    with contextlib.suppress(OSError):
        found.append(Path.cwd())
    return found


def _program() -> str:
    """The file of the program; empty where it is none, as at a prompt."""
    return getattr(sys.modules.get("__main__"), "__file__", None) or ""


@functools.cache
def _state(root: Path) -> Code | None:
    status = ("status", "--porcelain=v2", "--branch", "--untracked-files=normal")
    lines = _git(root, "-c", "core.quotePath=false", *status).decode(errors="replace").splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), "")
    changed: bool | None = any(line[:1] in ("1", "2", "u") for line in lines)
    if not lines:
        commit, changed = _git(root, "rev-parse", "HEAD").decode().strip(), None
    if not commit or commit == "(initial)":
        return None
    return Code(root, commit, changed, tuple(line[2:] for line in lines if line.startswith("? ")))


def uncommitted() -> str | None:
    """What the program's repository holds beside its commit: a patch, with comments before it; None where nothing is.

    It has the changes of tracked files, in the index or not, for ``git apply``, and the names of untracked files.
    Secrets are masked. What is left out, because it is binary or behind the first `LONGEST_DIFF` bytes, is named.
    """
    found = code() if is_on() else None
    if found is None or not (found.changed or found.untracked):
        return None
    return _uncommitted(found)


@functools.cache
def _uncommitted(found: Code) -> str:
    lines = [f"# what there was beside commit {found.commit}"]
    lines += [f"{UNTRACKED}{name}" for name in found.untracked[:_MOST_NAMES]]
    if len(found.untracked) > _MOST_NAMES:
        lines.append(f"{UNTRACKED}{len(found.untracked) - _MOST_NAMES} more")
    patch = _diff(found.root) if found.changed else b""
    if len(patch) > LONGEST_DIFF:
        patch = patch[: max(0, patch.rfind(b"\ndiff --git ", 0, LONGEST_DIFF) + 1)]
        lines.append(f"{LEFT_OUT}all that comes after the first {len(patch):,} bytes")
    text = patch.decode(errors="surrogateescape")
    lines += [f"{LEFT_OUT}{line}" for line in text.split("\n") if line.startswith("Binary files ")]
    clean = masked(text)
    if clean != text:
        lines.append(MASKED)
    return masked("\n".join(lines)) + "\n" + clean


def _diff(root: Path) -> bytes:
    """The patch from the commit to the working tree; of a long one, one byte more than `LONGEST_DIFF`."""
    plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/")
    return _git(root, "diff", *plain, "HEAD", most=LONGEST_DIFF + 1)


def _git(root: Path | None, *words: str, most: int = 10 * LONGEST_DIFF) -> bytes:
    """What git says, its first `most` bytes; nothing where it is missing, fails or takes too long."""
    environment = {name: value for name, value in os.environ.items() if name not in OTHER_REPOSITORY}
    where = [] if root is None else ["-C", str(root)]
    command = ["git", "--no-optional-locks", *where, *words]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    try:
        with subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=nothing, env=environment) as process:
            watch = threading.Timer(_SECONDS, process.kill)
            watch.start()
            assert process.stdout is not None
            said = process.stdout.read(most)
            if len(said) == most:
                process.kill()
            process.wait()
            watch.cancel()
    except (OSError, ValueError, RuntimeError):  # no git, no process, no thread to be had
        return b""
    return said if process.returncode == 0 or len(said) == most else b""
