"""The program of a run, run again in a copy of its code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mlflow
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

from mlflow_hp.errors import UserError
from mlflow_hp.reproduce.program import is_within, located
from mlflow_hp.reproduce.run_comparison import below, like, searched
from mlflow_hp.reproduce.worktree import changes, environment, repository_of, told_of, worktree
from mlflow_hp.tracking import provenance

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow.entities import Run

    from mlflow_hp.reproduce.recipe import Recipe

    Agree = Callable[[list[str]], None]

REPEATS = "mlflow_hp.repeats"
"""Tag of the runs that `run_again` made: the id of the run whose program it was."""
_ATTEMPT = "mlflow_hp.repetition"


class _Code(NamedTuple):
    """What is run: where the code and its folder are, its name for the user, and what differs in it from a commit."""

    root: Path
    folder: Path
    name: str
    changes: str


def run_again(made: Recipe, *, here: bool = False, trust: bool = False, agree: Agree | None = None) -> Run:
    """Run the program of a run once more, with the same store, in a copy of its repository as it was.

    Run is a Python program of the repository, by this Python, without a shell; never the text of a tag.

    Parameters
    ----------
    made : Recipe
    here : bool
        Whether to run it in the working folder, with the code that is there.
    trust : bool
        Whether to run what does not bear the seal of this user.
    agree : callable, optional
        Given, in lines, what is about to be run; raises to have it not run.

    Returns
    -------
    Run
        What repeats ``made.run``.

    Raises
    ------
    UserError
        Where the recipe is not enough for that, its author is not trusted, or the program recorded no such run.
    """
    if made.obstacles or made.parts is None:
        raise UserError(f"run {made.run.info.run_id} can't be repeated by itself: {'; '.join(made.obstacles)}")
    if not (made.is_ours or trust):
        raise UserError(
            f"run {made.run.info.run_id} does not bear your seal, so that it is of another author, another machine or "
            f"an earlier version; its tags say, as anybody can have them say, that it is by {made.author}. Running it "
            "gives whoever may write to the store what you may do here: read what it would run, and give --trust if "
            "you trust them all"
        )
    attempt = uuid.uuid4().hex
    variables = _environment(made, attempt)
    if here:
        folder = Path.cwd()
        code = _Code(repository_of(folder) or folder, folder, "the code that is here", "")
        status = _run(made, code, variables, agree)
    else:
        repository, commit = _commit(made)
        with worktree(repository, commit, made.patch) as root:
            name = f"commit {told_of(repository, commit)}"
            status = _run(made, _Code(root, _started_in(made, root), name, changes(made.patch)), variables, agree)
    return _repetition(made, attempt, status)


def _environment(made: Recipe, attempt: str) -> dict[str, str]:
    """That of this process, with the store and the experiment of the run, and its id as a tag of all new runs."""
    given = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
    context = given | {REPEATS: made.program.info.run_id, _ATTEMPT: attempt}
    ours = {"MLFLOW_TRACKING_URI": _absolute(mlflow.get_tracking_uri()), "MLFLOW_RUN_CONTEXT": json.dumps(context),
            "MLFLOW_EXPERIMENT_ID": made.program.info.experiment_id}  # fmt: skip
    dropped = {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", *provenance.SETTINGS}
    return {name: value for name, value in environment().items() if name not in dropped} | ours


def _absolute(uri: str) -> str:
    """A store's address from any folder."""
    scheme, separator, path = uri.partition(":///")
    if separator and scheme.startswith("sqlite"):
        return f"{scheme}:///{Path(path).absolute()}"
    return uri if ":" in uri else str(Path(uri).absolute())


def _commit(made: Recipe) -> tuple[Path, str]:
    """The repository, and the commit in it."""
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
    return made.repository, made.commit


def _started_in(made: Recipe, root: Path) -> Path:
    """The folder of the copy in which the program is started: one of files that git does not track may be missing."""
    folder = root / str(made.folder)
    try:
        if is_within(root, folder):
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    except OSError as error:
        raise UserError(f"{made.folder} is no folder of the repository ({error})") from error
    raise UserError(f"{made.folder} leads out of the repository: nothing is run there")


def _python_path(made: Recipe, root: Path, base: Path) -> str:
    """For Python to find the code in the copy, also where that of the repository itself is installed for editing."""
    given = [Path(part).absolute() for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    at = made.repository
    moved = [root / part.relative_to(at) if at is not None and part.is_relative_to(at) else part for part in given]
    first = [base] if made.parts is not None and made.parts.module is not None else []
    return os.pathsep.join(dict.fromkeys(map(str, [*first, *moved, root, root / "src"])))


def _run(made: Recipe, code: _Code, variables: dict[str, str], agree: Agree | None) -> int:
    """Run the program, once it is agreed to; its exit status."""
    assert made.parts is not None
    words, base = located(made.parts, code.root, code.folder)
    if agree is not None:
        agree(_shown(made, code))
    variables |= made.parts.settings | {"PYTHONPATH": _python_path(made, code.root, base)}
    try:
        return subprocess.run([sys.executable, *words], cwd=code.folder, env=variables, stdin=subprocess.DEVNULL,
                              check=False).returncode  # fmt: skip
    except (OSError, ValueError) as error:
        raise UserError(f"`{made.parts.shown}` can't be run: {error}") from error


def _shown(made: Recipe, code: _Code) -> list[str]:
    """What is about to be run: the code's changes in full, where others may have written them; the command; by whom."""
    assert made.parts is not None
    changed = code.changes.split("\n") if code.changes else []
    n_files = sum(line.startswith("diff --git ") for line in changed)
    lines = [] if made.is_ours or not changed else ["", "Changes of the code that are run, too:", *changed]
    return [
        *lines,
        "",
        f"Will be run: {made.parts.shown}",
        f"in: {code.folder}",
        f"with: {code.name}{f', and the changes of {n_files} files' if changed else ''}, by {sys.executable}",
        f"made by: {made.author}, as its tags say; it {'bears' if made.is_ours else 'does not bear'} your seal",
    ]


def _repetition(made: Recipe, attempt: str, status: int) -> Run:
    """The run of an attempt that stands where ``made.run`` stood."""
    new = searched(f"tags.`{_ATTEMPT}` = '{attempt}'")
    topmost = like(made.program, [run for run in new if MLFLOW_PARENT_RUN_ID not in run.data.tags])
    if topmost is None:
        shown = made.parts.shown if made.parts is not None else ""
        raise UserError(
            f"`{shown}` ended with status {status}, and recorded no run like {made.program.info.run_id}: what it "
            "printed says why. A copy of the code lacks what git does not track; --here runs it in this folder"
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
