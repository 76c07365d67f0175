"""Copy of a repository in the state in which a run was recorded."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow_hp.errors import UserError
from mlflow_hp.reproduce.program import is_within, shell_line
from mlflow_hp.tracking import git_repository

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""Full hash of a commit: no branch, no abbreviation, no option."""
_NOT_PLAIN = re.compile(r"^(?:(?:new file |deleted file |new |old )mode|index \S+) (?!100(?:644|755)$)", re.MULTILINE)
"""Diff header of anything but a plain file: a symbolic link, a submodule, a device."""
_NOT_RECORDED = re.compile(r"^(?:copy from |copy to |rename from |rename to |GIT binary patch)", re.MULTILINE)
"""Diff headers that runs never record; ``git apply`` would copy from anywhere on the disk."""
_SAFE_CONFIG = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "protocol.ext.allow": "never",
    "submodule.recurse": "false",
}
"""Configuration that keeps git from running programs named by a repository."""


def diff_of(patch: str | None) -> str:
    """Diff for ``git apply``: the output of `git_repository.patch_of` without its comments; may be empty."""
    start = f"\n{patch or ''}".find("\ndiff --git ")
    return "" if start < 0 else (patch or "")[start:]


def problem_of(patch: str | None) -> str | None:
    """Why a patch is refused; None if it may be applied."""
    diff = diff_of(patch)
    if _NOT_PLAIN.search(diff):
        return "the recorded changes of its code touch more than plain files"
    if _NOT_RECORDED.search(diff):
        return "the recorded changes of its code are binary, or copy or rename files, which runs never record"
    return None


@contextlib.contextmanager
def worktree(repository: Path, commit: str, patch: str | None) -> Iterator[Path]:
    """Provide a copy of the repository at a commit, with a patch applied, while the block runs.

    Raises
    ------
    UserError
        If git fails, or the patch changes files outside the copy.
    """
    assert COMMIT.fullmatch(commit), commit
    with tempfile.TemporaryDirectory(prefix="mlflow_hp_repeat_") as folder:
        root = Path(folder).resolve() / "code"
        git(repository, "worktree", "add", "--detach", str(root), commit)
        try:
            if diff := diff_of(patch):
                _apply(root, Path(folder, "uncommitted.diff"), diff)
            yield root
        finally:
            git(repository, "worktree", "remove", "--force", str(root))


def _apply(root: Path, file: Path, diff: str) -> None:
    file.write_bytes(diff.encode(errors="surrogateescape"))
    entries = git(root, "apply", "--numstat", "-z", str(file)).split("\0")
    paths = [root / entry.split("\t", 2)[2] for entry in entries if entry]
    git(root, "apply", "--whitespace=nowarn", str(file))
    for path in paths:
        if path.is_symlink() or not is_within(root, path):
            raise UserError(f"the recorded changes of the code leave the repository, at {path}: they are not run")


def git(root: Path, *arguments: str) -> str:
    """Run git in `root` and return its output.

    Raises
    ------
    UserError
        If git fails.
    """
    config = [word for name, value in _SAFE_CONFIG.items() for word in ("-c", f"{name}={value}")]
    try:
        process = subprocess.run(["git", "-C", str(root), *config, *arguments], capture_output=True, check=False,
                                 env=environment(), stdin=subprocess.DEVNULL)  # fmt: skip
    except OSError as error:
        raise UserError(f"git cannot be run: {error}") from error
    if process.returncode:
        message = "; ".join(process.stderr.decode(errors="replace").split("\n")).strip("; ")
        raise UserError(f"`git {shell_line(arguments)}` failed in {root}: {message}")
    return process.stdout.decode(errors="surrogateescape")


def environment() -> dict[str, str]:
    """Environment of this process without the variables that point git at another repository, as in git's hooks."""
    return {name: value for name, value in os.environ.items() if name not in git_repository.REPOSITORY_VARIABLES}


def repository_of(folder: Path) -> Path | None:
    """Root of the repository that contains `folder`, or None."""
    try:
        return Path(git(folder, "rev-parse", "--show-toplevel").splitlines()[0])
    except (UserError, IndexError):
        return None


def has_commit(repository: Path, commit: str) -> bool:
    """Whether a repository has a commit."""
    try:
        git(repository, "cat-file", "-e", f"{commit}^{{commit}}")
    except UserError:
        return False
    return True


def describe_commit(repository: Path, commit: str) -> str:
    """Describe a commit: hash, author, date, subject, and whether it is missing from the checked-out history."""
    text = git(repository, "show", "--no-patch", "--no-show-signature", "--format=%h by %an, %as: %s", commit).strip()
    try:
        git(repository, "merge-base", "--is-ancestor", commit, "HEAD")
    except UserError:
        return f"{text} (which is not in the history of the branch checked out here)"
    return text


def remote_of(repository: Path, url: str) -> str | None:
    """Name of the remote with the address `url`, or None."""
    with contextlib.suppress(UserError):
        for name in git(repository, "remote").splitlines():
            with contextlib.suppress(UserError):
                urls = git(repository, "remote", "get-url", "--all", name).splitlines()
                if _normalised(url) in map(_normalised, urls):
                    return name
    return None


def _normalised(url: str) -> str:
    return url.strip().rstrip("/").removesuffix(".git")
