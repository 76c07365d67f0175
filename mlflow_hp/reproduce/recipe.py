"""What it takes to repeat a run: code, command, versions, data; and what is in the way."""

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
from mlflow_hp.reproduce.program import NO_PROGRAM, Program, program_of, shell_word
from mlflow_hp.terminal import printable
from mlflow_hp.tracking import provenance
from mlflow_hp.tracking.redaction import MASK, masked
from mlflow_hp.tracking.runs import CODE_SEAL_TAG, CODE_TAG, ancestors, ensure_reachable
from mlflow_hp.tracking.seal import is_ours

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mlflow.entities import Run

_AT_A_PROMPT = "it was recorded in a notebook or at a prompt, which no command repeats"
LONGEST_PATCH = 4 * provenance.LONGEST_DIFF
"""Bytes of recorded changes that are read; none that a run records has more."""


class Recipe(NamedTuple):
    """What it takes to repeat a run.

    Attributes
    ----------
    run : Run
        The one to be repeated.
    program : Run
        The topmost run of its program: all of that is run again.
    command : str
        As it was recorded: text that is shown, not run.
    parts : Program or None
        The command taken apart; None where a part of it is none that is known, or leads out of the repository.
    commit, folder : str or None
        Of the program's repository, and where in it the program was started; None where that is not known, or can't be
        true.
    patch : str or None
        What there was beside the commit, as `mlflow_hp.tracking.provenance.uncommitted` gives it.
    repository : Path or None
        Where the working folder's repository is, if it has the commit.
    is_ours : bool
        Whether command and code bear this user's seal: they are what was run by this user on this machine.
    obstacles : list of str
        Why it can't be run again by a command.
    doubts : list of str
        Why the results may be others.
    """

    run: Run
    program: Run
    command: str
    parts: Program | None
    commit: str | None
    folder: str | None
    patch: str | None
    repository: Path | None
    is_ours: bool
    obstacles: list[str]
    doubts: list[str]

    @property
    def author(self) -> str:
        """Who made the run, as its tags say."""
        tags = self.program.data.tags
        return str(tags.get("mlflow_hp.author") or tags.get("mlflow.user") or "somebody")


def recipe(run_id: str) -> Recipe:
    """Find out what it takes to repeat a run.

    Raises
    ------
    UserError
        Where the store doesn't answer, there is no such run, or nothing is recorded of how it came about.
    """
    run = program = find(run_id)
    for above in ancestors(mlflow.MlflowClient(), run):
        program = above
    told_by = program if "mlflow_hp.command" in program.data.tags else run
    tags = {name: told_by.data.tags.get(f"mlflow_hp.{name}") for name in (*provenance.SEALED, "seal")}
    command = tags["command"]
    if command is None:
        raise UserError(
            f"nothing is recorded of how run {run_id} came about: it has no tag mlflow_hp.command, which runs of "
            f"programs that use mlflow_hp get, unless {provenance.SWITCH}=0"
        )
    obstacles: list[str] = []
    parts = _parts(command, obstacles)
    places: list[str] = []
    commit, folder, file = _places(tags, places)
    if parts is not None and parts.script is not None:
        parts = _within_repository(parts, folder or ".", file, places)
    if places:
        parts = None
        obstacles += places
    patch = _patch(program, obstacles)
    ours = is_ours(tags["seal"], "command", *map(tags.get, provenance.SEALED))
    if patch is not None:
        ours = ours and is_ours(program.data.tags.get(CODE_SEAL_TAG), "patch", tags["git_commit"], patch)
    here = worktree.repository_of(Path.cwd()) if commit else None
    repository = here if here is not None and commit and worktree.has_commit(here, commit) else None
    doubts = _doubts(program.data.tags, patch)
    return Recipe(run, program, command, parts, commit, folder, patch, repository, ours, obstacles, doubts)


def find(run_id: str) -> Run:
    """A run of the tracking store.

    Raises
    ------
    UserError
        Where the store doesn't answer, or there is no such run.
    """
    ensure_reachable()
    try:
        return mlflow.MlflowClient().get_run(run_id)
    except MlflowException as error:
        raise UserError(f"run {run_id!r}: {error.message}; check the id and MLFLOW_TRACKING_URI") from error


def _parts(command: str, obstacles: list[str]) -> Program | None:
    """The command taken apart, as far as every part is known."""
    if MASK in command:
        obstacles.append(f"the command had a secret, of which {MASK} is left: put it back, and run it yourself")
    try:
        parts = program_of(command)
    except ValueError as error:
        if "ipykernel" in command or str(error) == NO_PROGRAM:
            obstacles.append(_AT_A_PROMPT)
        else:
            obstacles.append(
                f"its command is no Python program of a repository ({error}). It was {printable(command)}; if you know "
                "what that does, and want it, run it yourself, in a checkout of its code"
            )
        return None
    if parts.module is not None and parts.module.startswith("ipykernel"):
        obstacles.append(_AT_A_PROMPT)
        return None
    return parts


def _places(tags: Mapping[str, str | None], obstacles: list[str]) -> tuple[str | None, str | None, str | None]:
    """Commit, folder and file, as far as they can be such; what can't is an obstacle."""
    commit = tags["git_commit"]
    if commit is not None and not worktree.COMMIT.fullmatch(commit):
        obstacles.append(f"{printable(commit)} is no whole name of a commit")
        commit = None
    return commit, _place(tags, "git_folder", obstacles), _place(tags, "git_program", obstacles)


def _place(tags: Mapping[str, str | None], name: str, obstacles: list[str]) -> str | None:
    path = tags[name]
    if path is not None and not _stays_below(path):
        obstacles.append(f"{printable(path)}, its mlflow_hp.{name}, leads out of its repository")
        return None
    return path


def _within_repository(parts: Program, folder: str, file: str | None, obstacles: list[str]) -> Program | None:
    """The program with its script as seen from the folder in the repository; None where it is none of its files."""
    script = str(parts.script)
    if file is not None and posixpath.isabs(script) and posixpath.basename(script) == posixpath.basename(file):
        return parts._replace(script=posixpath.relpath(file, folder))
    if _stays_below(posixpath.normpath(posixpath.join(folder, script))):
        return parts
    obstacles.append(f"{printable(script)} is not known to be a file of its repository: only those are run")
    return None


def _stays_below(path: str) -> bool:
    parts = PurePosixPath(path).parts
    out = path.startswith(("/", "-", "~")) or "\\" in path or "\0" in path or path[1:2] == ":"
    return not out and ".." not in parts and ".git" not in [part.casefold() for part in parts]


def _patch(program: Run, obstacles: list[str]) -> str | None:
    """The recorded changes with the line ends and the bytes that they have; None where there are none."""
    if CODE_TAG not in program.data.tags:
        return None
    run_id, path = program.info.run_id, provenance.DIFF_PATH
    try:
        beside = mlflow.MlflowClient().list_artifacts(run_id, str(PurePosixPath(path).parent))
        sizes = [item.file_size for item in beside if item.path == path and not item.is_dir]
        if program.data.tags[CODE_TAG] != path or not sizes or not 0 < (sizes[0] or 0) <= LONGEST_PATCH:
            obstacles.append(f"the recorded changes of its code are not there as {path} of a size that runs record")
            return None
        with tempfile.TemporaryDirectory() as folder:
            found = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=folder)
            text = Path(found).read_bytes().decode(errors="surrogateescape")
    except (MlflowException, OSError) as error:
        obstacles.append(f"the recorded changes of its code can't be had: {printable(error)}")
        return None
    lacking = [line.removeprefix(provenance.LEFT_OUT) for line in _comments(text, provenance.LEFT_OUT)]
    if lacking:
        obstacles.append(f"the recorded changes of its code lack {'; '.join(lacking)}")
    if (problem := worktree.problem_of(text)) is not None:
        obstacles.append(problem)
    return text


def _doubts(tags: dict[str, str], patch: str | None) -> list[str]:
    found = []
    then = dict(pair.rsplit(" ", 1) for pair in tags.get("mlflow_hp.versions", "").split(", ") if " " in pair)
    now = dict(pair.rsplit(" ", 1) for pair in provenance.versions().split(", "))
    others = [f"{name} {then.get(name, 'absent')}, here {now.get(name, 'absent')}"
              for name in {**then, **now} if then and then.get(name) != now.get(name)]  # fmt: skip
    if others:
        found.append(f"other versions: {'; '.join(others)}")
    device = tags.get("mlflow_hp.device")
    if device is not None and device != provenance.device():
        found.append(f"another device: {device}, here {provenance.device()}")
    untracked = [line.removeprefix(provenance.UNTRACKED) for line in _comments(patch, provenance.UNTRACKED)]
    if untracked:
        found.append(f"there were files that git does not track: {', '.join(untracked)}")
    if any(_comments(patch, provenance.MASKED)):
        found.append(f"in the recorded changes of its code what looked like secrets is masked as {MASK}")
    if tags.get("mlflow_hp.git_dirty") == "true" and patch is None:
        found.append("there were uncommitted changes, and they are not in the run")
    return found


def _comments(patch: str | None, prefix: str) -> Iterator[str]:
    head = (patch or "").partition("\ndiff --git ")[0]
    return (line for line in head.splitlines() if line.startswith(prefix))


def told(made: Recipe) -> list[str]:
    """The recipe in lines for the terminal."""
    tags, info = made.program.data.tags, made.run.info
    host = tags.get("mlflow_hp.host", "some host")
    lines = [f"run {info.run_id} ({info.run_name}), by {made.author} on {host}, as its tags say"]
    if made.program.info.run_id != info.run_id:
        lines.append(f"part of run {made.program.info.run_id} ({made.program.info.run_name}), which is repeated whole")
    lines.append(
        "Its command and code bear your seal: you have run them, on this machine"
        if made.is_ours
        else "It does not bear your seal: whoever may write to the store can have written all of this"
    )
    digests = {name: made.run.data.tags.get(f"mlflow_hp.{name}_digest") for name in ("data", "split")}
    lines += [f"{name} digest: {value}" for name, value in digests.items() if value]
    lines += [f"versions: {tags['mlflow_hp.versions']}"] if "mlflow_hp.versions" in tags else []
    lines += [f"device: {tags['mlflow_hp.device']}"] if "mlflow_hp.device" in tags else []
    lines += [f"It may come out otherwise: {doubt}" for doubt in made.doubts]
    lines += [f"It can't be run by itself: {obstacle}" for obstacle in made.obstacles]
    lines += [_where(made)] if made.commit is not None and made.repository is None else []
    return [*lines, "", *_steps(made)]


def _where(made: Recipe) -> str:
    """How to get the commit."""
    here = worktree.repository_of(Path.cwd())
    url = made.program.data.tags.get(MLFLOW_GIT_REPO_URL)
    remote = worktree.remote_of(here, url) if here is not None and url else None
    lacks = f"Commit {made.commit} is not in a repository here"
    if remote is not None:
        return f"{lacks}: `git fetch {shell_word(remote)}` may bring it"
    said = f", which its tags say is {masked(url)}," if url else ""
    return f"{lacks}: go to a checkout of its repository{said} and `git fetch` it from where you know it to be"


def _steps(made: Recipe) -> list[str]:
    """Commands for a shell, each of known parts only, and quoted; none where a part is not known."""
    if made.parts is None:
        return []
    steps = []
    if made.commit is not None:
        beside = Path("..") if made.repository is None else made.repository.parent
        place = shell_word(str(beside / f"repeat-{made.run.info.run_id[:8]}"))
        steps += [f"git worktree add --detach {place} {made.commit}", f"cd {place}"]
        if made.patch is not None:
            path, run_id = provenance.DIFF_PATH, shell_word(made.program.info.run_id)
            steps += [f"mlflow artifacts download --run-id {run_id} --artifact-path {path} --dst-path .",
                      f"git apply --allow-empty {path}"]  # fmt: skip
        if made.folder not in (None, "."):
            steps.append(f"cd {shell_word(str(made.folder))}")
    return [*steps, made.parts.shown]
