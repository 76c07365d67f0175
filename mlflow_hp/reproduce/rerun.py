"""Runs the program of a run again, in a copy of its code."""

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
from mlflow_hp.reproduce.program import is_within, locate
from mlflow_hp.reproduce.run_comparison import find_counterpart, nested_runs, search_runs
from mlflow_hp.reproduce.worktree import describe_commit, diff_of, environment, repository_of, worktree
from mlflow_hp.terminal import count
from mlflow_hp.tracking import provenance
from mlflow_hp.tracking.store_uri import absolute_uri
from mlflow_hp.tracking.tags import REPEATS_TAG, REPETITION_TAG

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlflow.entities import Run

    from mlflow_hp.reproduce.recipe import Recipe

    Confirm = Callable[[list[str]], None]


class _Checkout(NamedTuple):
    """Code to run: its root, working folder, name for the user, and uncommitted changes as a diff."""

    root: Path
    folder: Path
    name: str
    changes: str


def run_again(recipe: Recipe, *, here: bool = False, trust: bool = False, confirm: Confirm | None = None) -> Run:
    """Run the program of a run again, with the same store, in a copy of its repository at that time.

    Only a Python program of the repository is run, by this Python and without a shell; never the text of a tag.

    Parameters
    ----------
    recipe : Recipe
    here : bool
        Whether to run it in the working folder with the code there, instead of a copy. Defaults to False.
    trust : bool
        Whether to run it without the seal of this user. Defaults to False.
    confirm : callable, optional
        Called with lines that describe what is about to be run; raises to cancel.

    Returns
    -------
    Run
        The repetition of ``recipe.run``.

    Raises
    ------
    UserError
        If the recipe is incomplete, its author is not trusted, or the program recorded no such run.
    """
    return _repetition(recipe, *run_program(recipe, here=here, trust=trust, confirm=confirm))


class Attempt(NamedTuple):
    """Attempt to run a program: the tag `REPETITION_TAG` of its runs, and its exit status."""

    id: str
    status: int


def run_program(recipe: Recipe, *, here: bool, trust: bool, confirm: Confirm | None) -> Attempt:
    """Run the program of a recipe, as `run_again` does.

    Parameters
    ----------
    recipe : Recipe
    here : bool
        Whether to run it in the working folder.
    trust : bool
        Whether to run it without the seal of this user.
    confirm : callable, optional
        Called with lines that describe what is about to be run.

    Returns
    -------
    Attempt
        By which its runs are found.

    Raises
    ------
    UserError
        If the recipe is incomplete, or its author is not trusted.
    """
    run_id = recipe.run.info.run_id
    if recipe.obstacles or recipe.program is None:
        raise UserError(f"run {run_id} cannot be repeated automatically: {'; '.join(recipe.obstacles)}")
    if not (recipe.is_sealed or trust):
        raise UserError(
            f"run {run_id} does not bear your seal: it is from another author, another machine or an earlier version. "
            f"Its tags, which anyone can have written, name {recipe.author}. Running it gives everyone who may write "
            "to the store your rights on this machine: read what it would run, and add --trust if you trust them all"
        )
    attempt = uuid.uuid4().hex
    variables = _environment(recipe, attempt)
    if here:
        folder = Path.cwd()
        checkout = _Checkout(repository_of(folder) or folder, folder, "the code in this folder", "")
        status = _run(recipe, checkout, variables, confirm)
    else:
        repository, commit = _commit(recipe)
        with worktree(repository, commit, recipe.patch) as root:
            name = f"commit {describe_commit(repository, commit)}"
            checkout = _Checkout(root, _working_folder(recipe, root), name, diff_of(recipe.patch))
            status = _run(recipe, checkout, variables, confirm)
    return Attempt(attempt, status)


def _environment(recipe: Recipe, attempt: str) -> dict[str, str]:
    """Environment of the program: store and experiment of the run, and tags that mark all new runs."""
    context = json.loads(os.environ.get("MLFLOW_RUN_CONTEXT") or "{}")
    context |= {REPEATS_TAG: recipe.top_run.info.run_id, REPETITION_TAG: attempt}
    added = {"MLFLOW_TRACKING_URI": absolute_uri(mlflow.get_tracking_uri()), "MLFLOW_RUN_CONTEXT": json.dumps(context),
             "MLFLOW_EXPERIMENT_ID": recipe.top_run.info.experiment_id}  # fmt: skip
    dropped = {"MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME", *provenance.SETTINGS}
    return {name: value for name, value in environment().items() if name not in dropped} | added


def _commit(recipe: Recipe) -> tuple[Path, str]:
    """Repository that has the recipe's commit, and the commit."""
    if recipe.commit is None or recipe.folder is None:
        raise UserError(
            f"run {recipe.run.info.run_id} was not started within a git repository, so its code is not known; with "
            "--here its command is run in this folder, with the code in it"
        )
    if recipe.repository is None:
        raise UserError(
            f"commit {recipe.commit} is not in a repository at {Path.cwd()}: go to a checkout of its repository, and "
            "`git fetch` it there; or run it with the code of this folder, with --here"
        )
    return recipe.repository, recipe.commit


def _working_folder(recipe: Recipe, root: Path) -> Path:
    """Working folder of the program in the copy; created if missing, as it may have held only untracked files."""
    folder = root / str(recipe.folder)
    try:
        if is_within(root, folder):
            folder.mkdir(parents=True, exist_ok=True)
            return folder
    except OSError as error:
        raise UserError(f"{recipe.folder} is not a folder of the repository ({error})") from error
    raise UserError(f"{recipe.folder} leads out of the repository: nothing is run there")


def _python_path(recipe: Recipe, root: Path, import_folder: Path) -> str:
    """``PYTHONPATH`` that finds the copy first, even if the repository itself is installed in editable mode."""
    current = [Path(part).absolute() for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    at = recipe.repository
    moved = [root / part.relative_to(at) if at is not None and part.is_relative_to(at) else part for part in current]
    first = [import_folder] if recipe.program is not None and recipe.program.module is not None else []
    return os.pathsep.join(dict.fromkeys(map(str, [*first, *moved, root, root / "src"])))


def _run(recipe: Recipe, checkout: _Checkout, variables: dict[str, str], confirm: Confirm | None) -> int:
    """Run the program, once confirmed, and return its exit status."""
    assert recipe.program is not None
    arguments, import_folder = locate(recipe.program, checkout.root, checkout.folder)
    if confirm is not None:
        confirm(_summary(recipe, checkout))
    variables |= recipe.program.settings | {"PYTHONPATH": _python_path(recipe, checkout.root, import_folder)}
    try:
        return subprocess.run([sys.executable, *arguments], cwd=checkout.folder, env=variables,
                              stdin=subprocess.DEVNULL, check=False).returncode  # fmt: skip
    except (OSError, ValueError) as error:
        raise UserError(f"`{recipe.program.shell_command}` cannot be run: {error}") from error


def _summary(recipe: Recipe, checkout: _Checkout) -> list[str]:
    """Lines that describe what is about to be run, with changes in full where others may have written them."""
    assert recipe.program is not None
    changes = checkout.changes.split("\n") if checkout.changes else []
    n_files = sum(line.startswith("diff --git ") for line in changes)
    changed = f", and the changes of {count(n_files, 'file')}" if changes else ""
    lines = [] if recipe.is_sealed or not changes else ["", "Uncommitted changes that will be run, too:", *changes]
    return [
        *lines,
        "",
        f"Will be run: {recipe.program.shell_command}",
        f"in: {checkout.folder}",
        f"with: {checkout.name}{changed}, by {sys.executable}",
        f"by: {recipe.author}, according to its tags; it {'bears' if recipe.is_sealed else 'does not bear'} your seal",
    ]


def _repetition(recipe: Recipe, attempt: str, status: int) -> Run:
    """Find the run of an attempt that corresponds to ``recipe.run``."""
    new_runs = search_runs(f"tags.`{REPETITION_TAG}` = '{attempt}'")
    run_id, top_id = recipe.run.info.run_id, recipe.top_run.info.run_id
    top = find_counterpart(recipe.top_run, [run for run in new_runs if MLFLOW_PARENT_RUN_ID not in run.data.tags])
    if top is None:
        command = recipe.program.shell_command if recipe.program is not None else ""
        raise UserError(
            f"`{command}` ended with status {status}, and recorded no run like {top_id}: its output above says why. "
            "The copy of the code lacks files that git does not track; --here runs it in this folder"
        )
    if run_id == top_id:
        return top
    repetition = find_counterpart(recipe.run, nested_runs(top))
    if repetition is None:
        raise UserError(f"run {top.info.run_id} repeats {top_id}, but no run nested in it is like {run_id}")
    return repetition
