"""A copy of a repository as it was when a run was made."""

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
from mlflow_hp.tracking import provenance

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
"""A whole name of a commit: no branch, no abbreviation, no option."""
_NO_FILE = re.compile(r"^(?:(?:new file |deleted file |new |old )mode|index \S+) (?!100(?:644|755)$)", re.MULTILINE)
"""A header of what is no plain file: of a symbolic link, a submodule, a device."""
_NOT_RECORDED = re.compile(r"^(?:copy from |copy to |rename from |rename to |GIT binary patch)", re.MULTILINE)
"""Headers that no run records; ``git apply`` copies from anywhere on the disk."""
_NOTHING_ELSE = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "protocol.ext.allow": "never",
    "submodule.recurse": "false",
}
"""Settings under which git runs no program that a repository names."""


def changes(patch: str | None) -> str:
    """What ``git apply`` is given of what `provenance.uncommitted` gives; empty where that is nothing."""
    at = f"\n{patch or ''}".find("\ndiff --git ")
    return "" if at < 0 else (patch or "")[at:]


def problem_of(patch: str | None) -> str | None:
    """Why changes are not applied; None where nothing is against it."""
    text = changes(patch)
    if _NO_FILE.search(text):
        return "the recorded changes of its code are not of plain files alone"
    if _NOT_RECORDED.search(text):
        return "the recorded changes of its code are binary, or copy or rename files, as no run records them"
    return None


@contextlib.contextmanager
def worktree(repository: Path, commit: str, patch: str | None) -> Iterator[Path]:
    """A copy of the repository at a commit, with the changes of a patch, for as long as the block.

    Raises
    ------
    UserError
        Where git can't make it, or the changes leave it.
    """
    assert COMMIT.fullmatch(commit), commit
    with tempfile.TemporaryDirectory(prefix="mlflow_hp_repeat_") as folder:
        root = Path(folder).resolve() / "code"
        git(repository, "worktree", "add", "--detach", str(root), commit)
        try:
            if text := changes(patch):
                _apply(root, Path(folder, "uncommitted.diff"), text)
            yield root
        finally:
            git(repository, "worktree", "remove", "--force", str(root))


def _apply(root: Path, file: Path, text: str) -> None:
    file.write_bytes(text.encode(errors="surrogateescape"))
    listed = git(root, "apply", "--numstat", "-z", str(file))
    paths = [root / entry.split("\t", 2)[2] for entry in listed.split("\0") if entry]
    git(root, "apply", "--whitespace=nowarn", str(file))
    for path in paths:
        if path.is_symlink() or not is_within(root, path):
            raise UserError(f"the recorded changes of the code leave it, at {path}: they are not run")


def git(root: Path, *words: str) -> str:
    """What git says.

    Raises
    ------
    UserError
        Where it fails.
    """
    settings = [word for name, value in _NOTHING_ELSE.items() for word in ("-c", f"{name}={value}")]
    try:
        done = subprocess.run(["git", "-C", str(root), *settings, *words], capture_output=True, check=False,
                              env=environment(), stdin=subprocess.DEVNULL)  # fmt: skip
    except OSError as error:
        raise UserError(f"git can't be run: {error}") from error
    if done.returncode:
        said = "; ".join(done.stderr.decode(errors="replace").split("\n")).strip("; ")
        raise UserError(f"`git {shell_line(words)}` failed in {root}: {said}")
    return done.stdout.decode(errors="surrogateescape")


def environment() -> dict[str, str]:
    """That of this process, without what git sets for its hooks."""
    return {name: value for name, value in os.environ.items() if name not in provenance.OTHER_REPOSITORY}


def repository_of(folder: Path) -> Path | None:
    """The repository that a folder is in; None where it is in none."""
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


def told_of(repository: Path, commit: str) -> str:
    """Who made a commit, when and what for; and whether it belongs to what is checked out."""
    about = git(repository, "show", "--no-patch", "--no-show-signature", "--format=%h by %an, %as: %s", commit).strip()
    try:
        git(repository, "merge-base", "--is-ancestor", commit, "HEAD")
    except UserError:
        return f"{about} (which is not in the history of what is checked out here)"
    return about


def remote_of(repository: Path, url: str) -> str | None:
    """The remote of a repository that has the address `url`."""
    with contextlib.suppress(UserError):
        for name in git(repository, "remote").splitlines():
            with contextlib.suppress(UserError):
                if _plain(url) in map(_plain, git(repository, "remote", "get-url", "--all", name).splitlines()):
                    return name
    return None


def _plain(url: str) -> str:
    return url.strip().rstrip("/").removesuffix(".git")
