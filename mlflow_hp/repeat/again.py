"""The program of a run, run again in a copy of its code."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlflow_hp import provenance
from mlflow_hp.errors import UserError
from mlflow_hp.repeat.likeness import below, like, searched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.entities import Run

    from mlflow_hp.repeat.recipe import Recipe

REPEATS = "mlflow_hp.repeats"
"""Tag of the runs that `run_again` made: the id of the run whose program it was."""
_ATTEMPT = "mlflow_hp.repetition"


def run_again(made: Recipe, *, here: bool = False) -> Run:
    """Run the program of a run once more, with the same store, in a copy of its repository as it was.

    Parameters
    ----------
    made : Recipe
    here : bool
        Whether to run it in the working folder, with the code that is there.

    Returns
    -------
    Run
        What repeats ``made.run``.

    Raises
    ------
    UserError
        Where the recipe is not enough for that, or the program recorded no such run.
    """
    if made.obstacles:
        raise UserError(f"run {made.run.info.run_id} can't be repeated by itself: {'; '.join(made.obstacles)}")
    attempt = uuid.uuid4().hex
    environment = _environment(made, attempt)
    if here:
        status = _run(made.command, Path.cwd(), environment)
    else:
        with _worktree(made) as root:
            environment["PYTHONPATH"] = _python_path(made, root)
            status = _run(made.command, root / str(made.folder), environment)
    return _repetition(made, attempt, status)


def _environment(made: Recipe, attempt: str) -> dict[str, str]:
    """That of this process, with the store and the experiment of the run, and its id as a tag of all new runs."""
    given = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
    context = given | {REPEATS: made.program.info.run_id, _ATTEMPT: attempt}
    ours = {"MLFLOW_TRACKING_URI": _absolute(mlflow.get_tracking_uri()), "MLFLOW_RUN_CONTEXT": json.dumps(context),
            "MLFLOW_EXPERIMENT_ID": made.program.info.experiment_id}  # fmt: skip
    dropped = {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", *provenance.SETTINGS}
    return {name: value for name, value in os.environ.items() if name not in dropped} | ours


def _absolute(uri: str) -> str:
    """A store's address from any folder."""
    scheme, separator, path = uri.partition(":///")
    if separator and scheme.startswith("sqlite"):
        return f"{scheme}:///{Path(path).absolute()}"
    return uri if ":" in uri else str(Path(uri).absolute())


@contextlib.contextmanager
def _worktree(made: Recipe) -> Iterator[Path]:
    """A copy of the repository as it was, for as long as the block."""
    if made.commit is None or made.folder is None:
        raise UserError(
            f"run {made.run.info.run_id} was not started within a git repository, so its code is not known; with "
            "--here its command is run in this folder, with the code that is here"
        )
    if made.repository is None:
        raise UserError(
            f"commit {made.commit} is not in a repository at {Path.cwd()}: go to a checkout of its repository, and "
            "`git fetch` it there; or run it with the code that is here, with --here"
        )
    with tempfile.TemporaryDirectory(prefix="mlflow_hp_repeat_") as folder:
        root = Path(folder).resolve() / "code"
        _git(made.repository, "worktree", "add", "--detach", str(root), made.commit)
        try:
            if made.patch is not None and "\ndiff --git " in made.patch:
                patch = Path(folder, "uncommitted.diff")
                patch.write_bytes(made.patch.encode(errors="surrogateescape"))
                _git(root, "apply", "--whitespace=nowarn", str(patch))
            (root / made.folder).mkdir(parents=True, exist_ok=True)
            yield root
        finally:
            _git(made.repository, "worktree", "remove", "--force", str(root))


def _git(root: Path, *words: str) -> None:
    done = subprocess.run(["git", "-C", str(root), "-c", f"core.hooksPath={os.devnull}", *words],
                          capture_output=True, text=True, check=False)  # fmt: skip
    if done.returncode:
        raise UserError(f"`git {shlex.join(words)}` failed in {root}: {done.stderr.strip()}")


def _python_path(made: Recipe, root: Path) -> str:
    """For Python to find the code in the copy, also where that of the repository itself is installed for editing."""
    given = [Path(part).absolute() for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    at = made.repository
    assert at is not None
    moved = [root / part.relative_to(at) if part.is_relative_to(at) else part for part in given]
    return os.pathsep.join(dict.fromkeys(map(str, [*moved, root, root / "src"])))


def _run(command: str, folder: Path, environment: dict[str, str]) -> int:
    words = shlex.split(command)
    while re.match(r"[A-Z_]+=", words[0]):
        name, _, environment[name] = words.pop(0).partition("=")
    if re.fullmatch(r"python[\d.]*", words[0]):
        words[0] = sys.executable
    try:
        return subprocess.run(words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        raise UserError(f"`{command}` can't be run: {error}") from error


def _repetition(made: Recipe, attempt: str, status: int) -> Run:
    """The run of an attempt that stands where ``made.run`` stood."""
    new = searched(f"tags.`{_ATTEMPT}` = '{attempt}'")
    topmost = like(made.program, [run for run in new if MLFLOW_PARENT_RUN_ID not in run.data.tags])
    if topmost is None:
        raise UserError(
            f"`{made.command}` ended with status {status}, and recorded no run like {made.program.info.run_id}: what "
            "it printed says why. A copy of the code lacks what git does not track; --here runs it in this folder"
        )
    if made.run.info.run_id == made.program.info.run_id:
        return topmost
    found = like(made.run, below(topmost))
    if found is None:
        raise UserError(
            f"run {topmost.info.run_id} repeats {made.program.info.run_id}, but none below it is like "
            f"{made.run.info.run_id}"
        )
    return found
