"""Recipe of a run: the code, command, versions and data that repeat it, and the obstacles."""

from __future__ import annotations

import posixpath
import tempfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_GIT_REPO_URL

from mlflow_hp.errors import UserError
from mlflow_hp.reproduce import worktree
from mlflow_hp.reproduce.program import NO_PROGRAM, CommandLine, parse_command, shell_word
from mlflow_hp.terminal import printable
from mlflow_hp.tracking import devices, git_repository, provenance
from mlflow_hp.tracking.artifact_paths import UNCOMMITTED_FILE
from mlflow_hp.tracking.nesting import ancestors
from mlflow_hp.tracking.redaction import MASK, masked
from mlflow_hp.tracking.runs import ensure_reachable
from mlflow_hp.tracking.seal import is_valid
from mlflow_hp.tracking.tags import (
    AUTHOR_TAG,
    COMMAND_TAG,
    DATA_DIGEST_TAG,
    DEVICE_TAG,
    GIT_COMMIT_TAG,
    GIT_DIRTY_TAG,
    GIT_FOLDER_TAG,
    GIT_PROGRAM_TAG,
    HOST_TAG,
    SEAL_TAG,
    SPLIT_DIGEST_TAG,
    UNCOMMITTED_SEAL_TAG,
    UNCOMMITTED_TAG,
    USER_TAG,
    VERSIONS_TAG,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow.entities import Run

_INTERACTIVE = "it was recorded in a notebook or at a prompt, which no command repeats"
LONGEST_PATCH = 4 * git_repository.MAX_PATCH_BYTES
"""Most bytes of recorded changes that are read; runs never record more."""


class Recipe(NamedTuple):
    """Everything needed to repeat a run.

    Attributes
    ----------
    run : Run
        The run to repeat.
    top_run : Run
        The topmost run of its program, all of which is run again.
    command : str
        The recorded command: text that is shown, never executed.
    program : CommandLine or None
        The parsed command; None if a part of it is not allowed, or leads out of the repository.
    commit, folder : str or None
        Commit of the program's repository, and its working folder there; None if unknown or invalid.
    patch : str or None
        Uncommitted changes, as `mlflow_hp.tracking.uncommitted_code.uncommitted` returns them.
    repository : Path or None
        The repository of the working folder, if it has the commit.
    is_sealed : bool
        Whether command and code bear this user's seal: this user ran them on this machine.
    obstacles : list of str
        Reasons why the run cannot be repeated automatically.
    doubts : list of str
        Reasons why the results may differ.
    """

    run: Run
    top_run: Run
    command: str
    program: CommandLine | None
    commit: str | None
    folder: str | None
    patch: str | None
    repository: Path | None
    is_sealed: bool
    obstacles: list[str]
    doubts: list[str]

    @property
    def author(self) -> str:
        """Author of the run, according to its tags."""
        tags = self.top_run.data.tags
        return str(tags.get(AUTHOR_TAG) or tags.get(USER_TAG) or "an unknown author")


def recipe_of(run_id: str) -> Recipe:
    """Read the recipe of a run.

    Raises
    ------
    UserError
        If the store does not answer, there is no such run, or it has no recorded command.
    """
    run = top_run = get_run(run_id)
    for ancestor in ancestors(mlflow.MlflowClient(), run):
        top_run = ancestor
    tagged = top_run if COMMAND_TAG in top_run.data.tags else run
    tags = {name: tagged.data.tags.get(name) for name in (*provenance.SEALED_TAGS, SEAL_TAG)}
    command = tags[COMMAND_TAG]
    if command is None:
        raise UserError(
            f"run {run_id} has no recorded command: programs that use mlflow_hp record one in the tag "
            f"{COMMAND_TAG}, unless {provenance.SWITCH}=0"
        )
    obstacles: list[str] = []
    program = _parse(command, obstacles)
    bad_paths: list[str] = []
    commit, folder, file = _commit_and_paths(tags, bad_paths)
    if program is not None and program.script is not None:
        program = _within_repository(program, folder or ".", file, bad_paths)
    if bad_paths:
        program = None
        obstacles += bad_paths
    patch = _patch(top_run, obstacles)
    is_sealed = is_valid(tags[SEAL_TAG], "command", *map(tags.get, provenance.SEALED_TAGS))
    if patch is not None:
        digest = top_run.data.tags.get(UNCOMMITTED_SEAL_TAG)
        is_sealed = is_sealed and is_valid(digest, "patch", tags[GIT_COMMIT_TAG], patch)
    here = worktree.repository_of(Path.cwd()) if commit else None
    repository = here if here is not None and commit and worktree.has_commit(here, commit) else None
    doubts = _doubts(top_run.data.tags, patch)
    return Recipe(run, top_run, command, program, commit, folder, patch, repository, is_sealed, obstacles, doubts)


def get_run(run_id: str) -> Run:
    """Get a run of the tracking store.

    Raises
    ------
    UserError
        If the store does not answer, or there is no such run.
    """
    ensure_reachable()
    try:
        return mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise UserError(f"run {run_id!r}: {error.message}; check the id and MLFLOW_TRACKING_URI") from error


def _parse(command: str, obstacles: list[str]) -> CommandLine | None:
    """Parse a command; if a part of it is not allowed, note that as an obstacle and return None."""
    if MASK in command:
        obstacles.append(f"a secret in the command was redacted to {MASK}: put it back, and run the command yourself")
    try:
        program = parse_command(command)
    except ValueError as error:
        if "ipykernel" in command or str(error) == NO_PROGRAM:
            obstacles.append(_INTERACTIVE)
        else:
            obstacles.append(
                f"its command is not a Python program of a repository ({error}). It was {printable(command)}; if you "
                "know what that does, and want it, run it yourself, in a checkout of its code"
            )
        return None
    if program.module is not None and program.module.startswith("ipykernel"):
        obstacles.append(_INTERACTIVE)
        return None
    return program


def _commit_and_paths(
    tags: Mapping[str, str | None], obstacles: list[str]
) -> tuple[str | None, str | None, str | None]:
    """Validate commit, folder and file; an invalid one becomes an obstacle and None."""
    commit = tags[GIT_COMMIT_TAG]
    if commit is not None and not worktree.COMMIT.fullmatch(commit):
        obstacles.append(f"{printable(commit)} is not a full commit hash")
        commit = None
    return commit, _path(tags, GIT_FOLDER_TAG, obstacles), _path(tags, GIT_PROGRAM_TAG, obstacles)


def _path(tags: Mapping[str, str | None], name: str, obstacles: list[str]) -> str | None:
    path = tags[name]
    if path is not None and not _stays_below(path):
        obstacles.append(f"{printable(path)}, its {name}, leads out of its repository")
        return None
    return path


def _within_repository(program: CommandLine, folder: str, file: str | None, obstacles: list[str]) -> CommandLine | None:
    """Make the script's path relative to `folder`; None, and an obstacle, if it is not a file of the repository."""
    script = str(program.script)
    if file is not None and posixpath.isabs(script) and posixpath.basename(script) == posixpath.basename(file):
        return program._replace(script=posixpath.relpath(file, folder))
    if _stays_below(posixpath.normpath(posixpath.join(folder, script))):
        return program
    obstacles.append(f"{printable(script)} is not known to be a file of its repository: only such files are run")
    return None


def _stays_below(path: str) -> bool:
    parts = PurePosixPath(path).parts
    leads_out = path.startswith(("/", "-", "~")) or "\\" in path or "\0" in path or path[1:2] == ":"
    return not leads_out and ".." not in parts and ".git" not in [part.casefold() for part in parts]


def _patch(top_run: Run, obstacles: list[str]) -> str | None:
    """Read the recorded changes with their line ends and bytes unchanged; None if there are none."""
    if UNCOMMITTED_TAG not in top_run.data.tags:
        return None
    run_id, path = top_run.info.run_id, UNCOMMITTED_FILE
    try:
        siblings = mlflow.MlflowClient().list_artifacts(run_id, str(PurePosixPath(path).parent))
        sizes = [item.file_size for item in siblings if item.path == path and not item.is_dir]
        if top_run.data.tags[UNCOMMITTED_TAG] != path or not sizes or not 0 < (sizes[0] or 0) <= LONGEST_PATCH:
            obstacles.append(f"the recorded changes of its code are missing from {path}, or too large")
            return None
        with tempfile.TemporaryDirectory() as folder:
            file = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=folder)
            text = Path(file).read_bytes().decode(errors="surrogateescape")
    except (MlflowException, OSError) as error:
        obstacles.append(f"the recorded changes of its code cannot be read: {printable(error)}")
        return None
    lacking = [line.removeprefix(git_repository.LEFT_OUT) for line in _comments(text, git_repository.LEFT_OUT)]
    if lacking:
        obstacles.append(f"the recorded changes of its code lack {'; '.join(lacking)}")
    if (problem := worktree.problem_of(text)) is not None:
        obstacles.append(problem)
    return text


def _doubts(tags: dict[str, str], patch: str | None) -> list[str]:
    doubts = []
    then = dict(pair.rsplit(" ", 1) for pair in tags.get(VERSIONS_TAG, "").split(", ") if " " in pair)
    now = dict(pair.rsplit(" ", 1) for pair in provenance.versions().split(", "))
    changed = [f"{name} {then.get(name, 'absent')}, here {now.get(name, 'absent')}"
               for name in {**then, **now} if then and then.get(name) != now.get(name)]  # fmt: skip
    if changed:
        doubts.append(f"other versions: {'; '.join(changed)}")
    device = tags.get(DEVICE_TAG)
    if device is not None and device != devices.describe():
        doubts.append(f"another device: {device}, here {devices.describe()}")
    untracked = [line.removeprefix(git_repository.UNTRACKED) for line in _comments(patch, git_repository.UNTRACKED)]
    if untracked:
        doubts.append(f"there were files that git does not track: {', '.join(untracked)}")
    if any(_comments(patch, git_repository.MASKED)):
        doubts.append(f"text that looked like secrets is redacted to {MASK} in the recorded changes of its code")
    if tags.get(GIT_DIRTY_TAG) == "true" and patch is None:
        doubts.append("there were uncommitted changes, and they are not in the run")
    return doubts


def _comments(patch: str | None, prefix: str) -> Iterator[str]:
    head = (patch or "").partition("\ndiff --git ")[0]
    return (line for line in head.splitlines() if line.startswith(prefix))


def describe(recipe: Recipe) -> list[str]:
    """Describe a recipe in lines for the terminal."""
    tags, info, top = recipe.top_run.data.tags, recipe.run.info, recipe.top_run.info
    host = tags.get(HOST_TAG, "some host")
    lines = [f"run {info.run_id} ({info.run_name}), by {recipe.author} on {host}, according to its tags"]
    if top.run_id != info.run_id:
        lines.append(f"part of run {top.run_id} ({top.run_name}), which is repeated whole")
    lines.append(
        "Its command and code bear your seal: you ran them, on this machine"
        if recipe.is_sealed
        else "It does not bear your seal: anyone who may write to the store can have written all of this"
    )
    digests = {"data": recipe.run.data.tags.get(DATA_DIGEST_TAG), "split": recipe.run.data.tags.get(SPLIT_DIGEST_TAG)}
    lines += [f"{name} digest: {value}" for name, value in digests.items() if value]
    lines += [f"versions: {tags[VERSIONS_TAG]}"] if VERSIONS_TAG in tags else []
    lines += [f"device: {tags[DEVICE_TAG]}"] if DEVICE_TAG in tags else []
    lines += [f"The result may differ: {doubt}" for doubt in recipe.doubts]
    lines += [f"It cannot be repeated automatically: {obstacle}" for obstacle in recipe.obstacles]
    lines += [_how_to_get_commit(recipe)] if recipe.commit is not None and recipe.repository is None else []
    return [*lines, "", *_shell_commands(recipe)]


def _how_to_get_commit(recipe: Recipe) -> str:
    here = worktree.repository_of(Path.cwd())
    url = recipe.top_run.data.tags.get(MLFLOW_GIT_REPO_URL)
    remote = worktree.remote_of(here, url) if here is not None and url else None
    problem = f"Commit {recipe.commit} is not in a repository here"
    if remote is not None:
        return f"{problem}: `git fetch {shell_word(remote)}` may bring it"
    address = f" ({masked(url)}, according to its tags)" if url else ""
    return f"{problem}: go to a checkout of its repository{address} and `git fetch` it from a place that you know"


def _shell_commands(recipe: Recipe) -> list[str]:
    """Commands that repeat the run by hand, validated and quoted; none if the program is not."""
    if recipe.program is None:
        return []
    commands = []
    if recipe.commit is not None:
        parent = Path("..") if recipe.repository is None else recipe.repository.parent
        folder = shell_word(str(parent / f"repeat-{recipe.run.info.run_id[:8]}"))
        commands += [f"git worktree add --detach {folder} {recipe.commit}", f"cd {folder}"]
        if recipe.patch is not None:
            path, run_id = UNCOMMITTED_FILE, shell_word(recipe.top_run.info.run_id)
            commands += [f"mlflow artifacts download --run-id {run_id} --artifact-path {path} --dst-path .",
                         f"git apply --allow-empty {path}"]  # fmt: skip
        if recipe.folder not in (None, "."):
            commands.append(f"cd {shell_word(str(recipe.folder))}")
    return [*commands, recipe.program.shell_command]
