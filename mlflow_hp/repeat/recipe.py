"""What it takes to repeat a run: code, command, versions, data; and what is in the way."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_GIT_REPO_URL

from mlflow_hp import provenance
from mlflow_hp.errors import UserError
from mlflow_hp.masking import MASK, masked
from mlflow_hp.runs import CODE_TAG, ancestors, ensure_reachable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlflow.entities import Run


class Recipe(NamedTuple):
    """What it takes to repeat a run.

    Attributes
    ----------
    run : Run
        The one to be repeated.
    program : Run
        The topmost run of its program: all of that is run again.
    command : str
        As a shell takes it.
    commit, folder : str or None
        Of the program's repository, and where in it the program was started; None where it was not in one.
    patch : str or None
        What there was beside the commit, as `mlflow_hp.provenance.uncommitted` gives it.
    repository : Path or None
        Where the working folder's repository is, if it has the commit.
    obstacles : list of str
        Why it can't be run again by a command.
    doubts : list of str
        Why the results may be others.
    """

    run: Run
    program: Run
    command: str
    commit: str | None
    folder: str | None
    patch: str | None
    repository: Path | None
    obstacles: list[str]
    doubts: list[str]


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
    tags = program.data.tags
    command = tags.get("mlflow_hp.command") or run.data.tags.get("mlflow_hp.command")
    if command is None:
        raise UserError(
            f"nothing is recorded of how run {run_id} came about: it has no tag mlflow_hp.command, which runs of "
            f"programs that use mlflow_hp get, unless {provenance.SWITCH}=0"
        )
    commit, folder = tags.get("mlflow_hp.git_commit"), tags.get("mlflow_hp.git_folder")
    patch = _artifact(program.info.run_id, tags[CODE_TAG]) if CODE_TAG in tags else None
    repository = _repository_with(commit) if commit else None
    return Recipe(run, program, command, commit, folder, patch, repository, _obstacles(command, patch),
                  _doubts(tags, patch))  # fmt: skip


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


def _artifact(run_id: str, path: str) -> str:
    """A text with the line ends and the bytes that it has."""
    with tempfile.TemporaryDirectory() as folder:
        found = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=path, dst_path=folder)
        return Path(found).read_bytes().decode(errors="surrogateescape")


def _obstacles(command: str, patch: str | None) -> list[str]:
    found = []
    if MASK in command:
        found.append(f"the command had a secret, of which {MASK} is left: put it back, and run the command yourself")
    if "ipykernel" in command or len(shlex.split(command)) == 1:
        found.append("it was recorded in a notebook or at a prompt, which no command repeats")
    lacking = [line.removeprefix(provenance.LEFT_OUT) for line in _comments(patch, provenance.LEFT_OUT)]
    if lacking:
        found.append(f"the recorded changes of its code lack {'; '.join(lacking)}")
    return found


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
    by = tags.get("mlflow_hp.author") or tags.get("mlflow.user")
    lines = [f"run {info.run_id} ({info.run_name}), by {by or 'somebody'} on {tags.get('mlflow_hp.host', 'some host')}"]
    if made.program.info.run_id != info.run_id:
        lines.append(f"part of run {made.program.info.run_id} ({made.program.info.run_name}), which is repeated whole")
    digests = {name: made.run.data.tags.get(f"mlflow_hp.{name}_digest") for name in ("data", "split")}
    lines += [f"{name} digest: {value}" for name, value in digests.items() if value]
    lines += [f"versions: {tags['mlflow_hp.versions']}"] if "mlflow_hp.versions" in tags else []
    lines += [f"device: {tags['mlflow_hp.device']}"] if "mlflow_hp.device" in tags else []
    lines += [f"It may come out otherwise: {doubt}" for doubt in made.doubts]
    lines += [f"It can't be run by itself: {obstacle}" for obstacle in made.obstacles]
    return [*lines, "", *_steps(made)]


def _steps(made: Recipe) -> list[str]:
    """Commands for a shell."""
    steps = []
    if made.commit is not None:
        beside = Path("..") if made.repository is None else made.repository.parent
        place = shlex.quote(str(beside / f"repeat-{made.run.info.run_id[:8]}"))
        if made.repository is None:
            url = masked(made.program.data.tags.get(MLFLOW_GIT_REPO_URL, "URL"))
            steps.append(f"git fetch {url}    # commit {made.commit} is not in the repository here")
        steps += [f"git worktree add --detach {place} {made.commit}", f"cd {place}"]
        if made.patch is not None:
            path = made.program.data.tags[CODE_TAG]
            run_id = made.program.info.run_id
            steps += [f"mlflow artifacts download --run-id {run_id} --artifact-path {path} --dst-path .",
                      f"git apply --allow-empty {path}"]  # fmt: skip
        if made.folder not in (None, "."):
            steps.append(f"cd {shlex.quote(str(made.folder))}")
    return [*steps, made.command]


def _repository_with(commit: str) -> Path | None:
    """The repository of the working folder, if it has the commit."""
    words = ["git", "-C", str(Path.cwd()), "rev-parse", "--show-toplevel", f"{commit}^{{commit}}"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return Path(done.stdout.splitlines()[0])
