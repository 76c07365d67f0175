"""Git repository of the program: its commit, and the patch of its uncommitted changes.

Git is called once in a process, because the running code is the code that was there at the start. Errors of git are not
raised: the values that it does not provide are left out.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

from mlflow_hp.tracking.redaction import masked

LEFT_OUT = "# left out: "
"""Start of a comment in a patch that names changes missing from it."""
MASKED = "# some of it is masked as a secret"
"""Comment in a patch with masked secrets: it may not apply, or not restore the same code."""
UNTRACKED = "# untracked: "
"""Start of a comment in a patch that names an untracked file."""
MAX_PATCH_BYTES = 1_000_000
"""Bytes of changes that a patch holds at most; the files after them are left out."""
GIT_SECONDS = 5.0
"""Time limit of a git command, whose folder may be on a slow disk."""
REPOSITORY_VARIABLES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"}
"""Environment variables that git sets for its hooks, and that would select another repository."""
_MAX_UNTRACKED = 200


class Repository(NamedTuple):
    """State of a git repository.

    Attributes
    ----------
    root : Path
        Working tree.
    commit : str
        Commit that is checked out.
    changed : bool or None
        Whether tracked files differ from the commit, in the index or not; None if git took too long.
    untracked : tuple of str
        Files that git neither tracks nor ignores, and folders (with a slash at the end) that hold only such files.
    """

    root: Path
    commit: str
    changed: bool | None
    untracked: tuple[str, ...]


def find() -> Repository | None:
    """Find the repository of the program, else of the working directory; None if there is none, or no git."""
    for folder in _folders():
        root = next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), None)
        if root is not None and (repository := _read(root)) is not None:
            return repository
    return None


def program_file() -> str:
    """Path of the running program; empty if it is not a file, as at a prompt."""
    return getattr(sys.modules.get("__main__"), "__file__", None) or ""


@functools.cache
def patch_of(repository: Repository) -> str:
    """Make a patch for ``git apply`` of the changes of tracked files, in the index or not, after comments.

    The comments name untracked files, and changes that are left out because they are binary or exceed
    `MAX_PATCH_BYTES`. Secrets are masked.
    """
    lines = [f"# uncommitted changes on top of commit {repository.commit}"]
    lines += [f"{UNTRACKED}{name}" for name in repository.untracked[:_MAX_UNTRACKED]]
    if len(repository.untracked) > _MAX_UNTRACKED:
        lines.append(f"{UNTRACKED}{len(repository.untracked) - _MAX_UNTRACKED} more")
    diff = _diff(repository.root) if repository.changed else b""
    if len(diff) > MAX_PATCH_BYTES:
        diff = diff[: max(0, diff.rfind(b"\ndiff --git ", 0, MAX_PATCH_BYTES) + 1)]
        lines.append(f"{LEFT_OUT}all that comes after the first {len(diff):,} bytes")
    text = diff.decode(errors="surrogateescape")
    lines += [f"{LEFT_OUT}{line}" for line in text.split("\n") if line.startswith("Binary files ")]
    masked_text = masked(text)
    if masked_text != text:
        lines.append(MASKED)
    return masked("\n".join(lines)) + "\n" + masked_text


@functools.cache
def user_name() -> str:
    """Return git's ``user.name``; empty if it is not configured."""
    return _git(None, "config", "user.name").decode(errors="replace").strip()


def forget() -> None:
    """Forget the answers of git, so that it is called again."""
    for function in (_read, patch_of, user_name):
        function.cache_clear()


def _folders() -> list[Path]:
    """Folder of the program, unless it belongs to Python, as pytest and Jupyter do; and the working directory."""
    folders = []
    with contextlib.suppress(OSError, ValueError):
        program = program_file()
        if program and not Path(program).resolve().is_relative_to(Path(sys.prefix).resolve()):
            folders.append(Path(program).resolve().parent)
    with contextlib.suppress(OSError):
        folders.append(Path.cwd())
    return folders


@functools.cache
def _read(root: Path) -> Repository | None:
    status = ("status", "--porcelain=v2", "--branch", "--untracked-files=normal")
    lines = _git(root, "-c", "core.quotePath=false", *status).decode(errors="replace").splitlines()
    commit = next((line.split()[-1] for line in lines if line.startswith("# branch.oid")), "")
    changed: bool | None = any(line[:1] in ("1", "2", "u") for line in lines)
    if not lines:
        commit, changed = _git(root, "rev-parse", "HEAD").decode().strip(), None
    if not commit or commit == "(initial)":
        return None
    return Repository(root, commit, changed, tuple(line[2:] for line in lines if line.startswith("? ")))


def _diff(root: Path) -> bytes:
    """Difference of the working tree from the commit; of a long one, one byte more than `MAX_PATCH_BYTES`."""
    options = ("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--src-prefix=a/", "--dst-prefix=b/")
    return _git(root, "diff", *options, "HEAD", max_bytes=MAX_PATCH_BYTES + 1)


def _git(root: Path | None, *arguments: str, max_bytes: int = 10 * MAX_PATCH_BYTES) -> bytes:
    """Run git, and return the first bytes of its output; empty if it is missing, fails or takes too long."""
    environment = {name: value for name, value in os.environ.items() if name not in REPOSITORY_VARIABLES}
    folder = [] if root is None else ["-C", str(root)]
    command = ["git", "--no-optional-locks", *folder, *arguments]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    try:
        with subprocess.Popen(command, stdin=null, stdout=pipe, stderr=null, env=environment) as process:
            timer = threading.Timer(GIT_SECONDS, process.kill)
            timer.start()
            assert process.stdout is not None
            output = process.stdout.read(max_bytes)
            if len(output) == max_bytes:
                process.kill()
            process.wait()
            timer.cancel()
    except (OSError, ValueError, RuntimeError):  # no git, or no process or thread can be started
        return b""
    return output if process.returncode == 0 or len(output) == max_bytes else b""
