"""Recordings that a process left behind: found, locked, brought to MLflow, and removed from this machine."""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.delivery import journal
from mlflow_hp.delivery.folder_lock import FolderLock, HeldError, held_by
from mlflow_hp.delivery.journal import JournalError
from mlflow_hp.delivery.left_behind import TRAINING, Left, Recovered
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import runs
from mlflow_hp.training import training_recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    Bring = Callable[[Left, Any, Callable[[int], None] | None, Collection[str]], Recovered]

KINDS: Mapping[str, Bring] = MappingProxyType({TRAINING: training_recovery.bring})
"""How each kind of recording that is known here is brought to MLflow."""


def recordings(home: Path | None = None, on_unusable: Callable[[str], None] | None = None) -> Iterator[Left]:
    """What is recorded below `home`, by living processes too; by default where recordings are kept.

    Parameters
    ----------
    home : Path, optional
    on_unusable : callable, optional
        Given a sentence about each from which nothing can be recovered.
    """
    for path in sorted((home or runs.local_home()).glob(f"*/*/{journal.FILE}")):
        try:
            left = Left(path.parent, journal.read(path.parent))
            if left.kind == TRAINING:
                left = left._replace(entries=journal.of_a_training(left.entries))
            yield left
        except FileNotFoundError:  # removed meanwhile: MLflow has it all
            continue
        except (JournalError, OSError) as error:
            if on_unusable is not None:
                on_unusable(str(error))


def left_behind(home: Path | None = None, on_unusable: Callable[[str], None] | None = None) -> Iterator[Left]:
    """Those of `recordings` that nobody records any more."""
    return (left for left in recordings(home, on_unusable) if held_by(left.folder, left.process) is None)


def recover(
    left: Left,
    on_progress: Callable[[int], None] | None = None,
    *,
    take_over: bool = False,
    in_use: Collection[str] = (),
    kinds: Mapping[str, Bring] = KINDS,
) -> Recovered | None:
    """Send what MLflow lacks of a recording, end its run, and remove it from this machine.

    Doing so again, after an interruption, changes nothing that is there.

    Parameters
    ----------
    left : Left
        One of `recordings`.
    on_progress : callable, optional
        Given, some times a second, how many metric points have been sent.
    take_over : bool
        Whether to take it from a process on another machine that has given a sign of life a moment ago.
    in_use : collection of str
        Ids of runs that go on now: they are not ended.
    kinds : mapping of str to callable
        How each kind of recording is brought.

    Returns
    -------
    Recovered or None
        None where MLflow had everything already.

    Raises
    ------
    HeldError
        Where a living process records it, or recovers it now.
    UserError
        Where it can't be recovered now, with what to do. The recording stays.
    """
    try:
        lock = FolderLock(left.folder, left.process, take_over=take_over)
    except FileNotFoundError:
        return None  # somebody has brought it meanwhile
    except OSError as error:
        raise UserError(
            f"the record of run {left.run_id} can't be locked ({error}): it stays in {left.folder}; free the disk or "
            "make the folder writable, or copy it to a disk where it is and name that with MLFLOW_HP_FOLDER"
        ) from error
    with lock, _tracking(left.tracking_uri):
        found = None if left.is_done else _recover(left, kinds[left.kind], on_progress, in_use)
        _remove(left)
        return found


def discard(left: Left, *, take_over: bool = False) -> None:
    """Remove a recording with all that MLflow lacks of it.

    Raises
    ------
    HeldError, UserError
        As of `recover`.
    """
    with FolderLock(left.folder, left.process, take_over=take_over):
        _remove(left)


def recover_quietly(
    on_problem: Callable[[str], object],
    on_recovered: Callable[[Recovered], object],
    in_use: Collection[str] = (),
    kinds: Mapping[str, Bring] = KINDS,
) -> None:
    """Recover all that was left behind of runs of the tracking URI in force.

    Parameters
    ----------
    on_problem : callable
        Given a sentence about each that can't be recovered now.
    on_recovered : callable
        Given what came of each other.
    in_use : collection of str
        Ids of runs that go on now: they are recovered first, and not ended.
    kinds : mapping of str to callable
        How each kind of recording is brought; others are left alone.
    """
    uri = runs.absolute_uri(mlflow.get_tracking_uri())
    here = [left for left in left_behind() if left.kind in kinds and runs.absolute_uri(left.tracking_uri) == uri]
    for left in sorted(here, key=lambda left: left.run_id not in in_use):
        try:
            found = recover(left, in_use=in_use, kinds=kinds)
            if found is not None:
                on_recovered(found)
        except HeldError:  # by somebody who was faster
            continue
        except Exception as error:  # noqa: BLE001 - the training to come is another matter
            on_problem(f"run {left.run_id} could not be recovered from {left.folder}: {error}")


def _remove(left: Left) -> None:
    runs.remove_local(left.folder)
    if left.folder.exists():
        raise UserError(f"{left.folder} can't be removed, though nothing in it is needed any more: remove it")


def _recover(left: Left, bring: Bring, on_progress: Callable[[int], None] | None, in_use: Collection[str]) -> Recovered:
    run = _run_of(left)
    try:
        return bring(left, run, on_progress, in_use)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"MLflow does not take the rest of run {left.run_id} now ({type(error).__name__}: {error}); it stays in "
            f"{left.folder}: recover it when the cause is gone"
        ) from error


def _run_of(left: Left) -> Any:
    """The run of a recording, where it can be written."""
    stays = f"its record stays in {left.folder}"
    give_up = f"or give the record up, `mlflow-hp recover --discard {left.run_id}`"
    if (missing := runs.missing_store(left.tracking_uri)) is not None:
        raise UserError(f"run {left.run_id}: its store {missing} is not there; {stays}: put the store back, {give_up}")
    runs.ensure_reachable()
    try:
        run = mlflow.MlflowClient().get_run(left.run_id)
    except MlflowException as error:
        raise UserError(
            f"run {left.run_id} can't be had from {left.tracking_uri} ({error.message}); {stays}: restore the run or "
            f"the access to it, {give_up}"
        ) from error
    if run.info.lifecycle_stage == "deleted":
        raise UserError(
            f"run {left.run_id} is deleted; {stays}: bring it back, `mlflow runs restore --run-id {left.run_id}`, and "
            f"recover again, {give_up}"
        )
    return run


@contextlib.contextmanager
def _tracking(uri: str) -> Iterator[None]:
    """Have MLflow's tracking URI be `uri`."""
    before = mlflow.get_tracking_uri()
    if runs.absolute_uri(uri) == runs.absolute_uri(before):
        yield
        return
    try:
        mlflow.set_tracking_uri(uri)
        yield
    finally:
        mlflow.set_tracking_uri(before)
