"""Recovery of spools that a process left behind: find, lock, send to MLflow, and remove them."""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException

from mlflow_hp.delivery import journal, training_journal
from mlflow_hp.delivery.folder_lock import FolderLock, FolderLockedError, lock_holder
from mlflow_hp.delivery.journal import JournalError
from mlflow_hp.delivery.local_recording import TRAINING, LocalRecording, RecoveryResult
from mlflow_hp.errors import UserError
from mlflow_hp.tracking import runs
from mlflow_hp.tracking.home import local_home, remove_local
from mlflow_hp.tracking.store_uri import absolute_uri, missing_store
from mlflow_hp.training import training_recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    Recover = Callable[[LocalRecording, Any, Callable[[int], None] | None, Collection[str]], RecoveryResult]

KINDS: Mapping[str, Recover] = MappingProxyType({TRAINING: training_recovery.recover_training})
"""Kind of recording -> function that recovers it."""


def recordings(home: Path | None = None, on_unusable: Callable[[str], None] | None = None) -> Iterator[LocalRecording]:
    """Yield the spools below `home`, including those of living processes.

    Parameters
    ----------
    home : Path, optional
        Defaults to `mlflow_hp.tracking.home.local_home`.
    on_unusable : callable, optional
        Called with a sentence about each spool from which nothing can be recovered. Defaults to nothing.
    """
    for path in sorted((home or local_home()).glob(f"*/*/{journal.FILE}")):
        try:
            recording = LocalRecording(path.parent, journal.read(path.parent))
            if recording.kind == TRAINING:
                recording = recording._replace(entries=training_journal.validated(recording.entries))
            yield recording
        except FileNotFoundError:  # removed in the meantime: MLflow has everything
            continue
        except (JournalError, OSError) as error:
            if on_unusable is not None:
                on_unusable(str(error))


def left_behind(home: Path | None = None, on_unusable: Callable[[str], None] | None = None) -> Iterator[LocalRecording]:
    """Yield the spools of `recordings` that no living process uses."""
    return (
        recording
        for recording in recordings(home, on_unusable)
        if lock_holder(recording.folder, recording.process) is None
    )


def recover(
    recording: LocalRecording,
    on_progress: Callable[[int], None] | None = None,
    *,
    take_over: bool = False,
    in_use: Collection[str] = (),
    kinds: Mapping[str, Recover] = KINDS,
) -> RecoveryResult | None:
    """Send missing data of a spool to MLflow, end its run, and remove the spool. Idempotent.

    Parameters
    ----------
    recording : LocalRecording
        One of `recordings`.
    on_progress : callable, optional
        Called several times a second with the number of metric points sent so far. Defaults to nothing.
    take_over : bool
        Whether to take the spool from a process on another machine with a recent heartbeat. Defaults to False.
    in_use : collection of str
        Ids of runs in use, which are not ended. Defaults to none.
    kinds : mapping of str to callable
        Kind of recording -> function that recovers it. Defaults to trainings only.

    Returns
    -------
    RecoveryResult or None
        None if MLflow had everything already.

    Raises
    ------
    FolderLockedError
        If a living process is using the spool.
    UserError
        If it cannot be recovered now; the message says what to do. The spool stays.
    """
    try:
        lock = FolderLock(recording.folder, recording.process, take_over=take_over)
    except FileNotFoundError:
        return None  # another process has recovered it in the meantime
    except OSError as error:
        raise UserError(
            f"the record of run {recording.run_id} cannot be locked ({error}): it stays in {recording.folder}; free "
            "disk space or make the folder writable, or copy it to a writable disk and set MLFLOW_HP_FOLDER to that"
        ) from error
    with lock, _tracking(recording.tracking_uri):
        recovered = None if recording.is_done else _recover(recording, kinds[recording.kind], on_progress, in_use)
        _remove(recording)
        return recovered


def discard(recording: LocalRecording, *, take_over: bool = False) -> None:
    """Remove a spool, with everything in it that MLflow lacks.

    Raises
    ------
    FolderLockedError
        If a living process is using the spool.
    UserError
        If it cannot be removed.
    """
    with FolderLock(recording.folder, recording.process, take_over=take_over):
        _remove(recording)


def recover_quietly(
    on_problem: Callable[[str], object],
    on_recovered: Callable[[RecoveryResult], object],
    in_use: Collection[str] = (),
    kinds: Mapping[str, Recover] = KINDS,
) -> None:
    """Recover all spools left behind for runs of the current tracking URI; raises nothing about a single one.

    Parameters
    ----------
    on_problem : callable
        Called with a sentence about each spool that cannot be recovered now.
    on_recovered : callable
        Called with the result of each other one.
    in_use : collection of str
        Ids of runs in use, which are recovered first and not ended. Defaults to none.
    kinds : mapping of str to callable
        Kind of recording -> function that recovers it; other kinds are skipped. Defaults to trainings only.
    """
    tracking_uri = absolute_uri(mlflow.get_tracking_uri())
    spools = [
        recording
        for recording in left_behind()
        if recording.kind in kinds and absolute_uri(recording.tracking_uri) == tracking_uri
    ]
    for recording in sorted(spools, key=lambda recording: recording.run_id not in in_use):
        try:
            recovered = recover(recording, in_use=in_use, kinds=kinds)
            if recovered is not None:
                on_recovered(recovered)
        except FolderLockedError:  # another process was faster
            continue
        except Exception as error:  # noqa: BLE001 - the new recording does not depend on it
            on_problem(f"run {recording.run_id} could not be recovered from {recording.folder}: {error}")


def _remove(recording: LocalRecording) -> None:
    remove_local(recording.folder)
    if recording.folder.exists():
        raise UserError(f"{recording.folder} cannot be removed: delete it yourself, nothing in it is needed any more")


def _recover(
    recording: LocalRecording, recover_kind: Recover, on_progress: Callable[[int], None] | None, in_use: Collection[str]
) -> RecoveryResult:
    run = _run_of(recording)
    try:
        return recover_kind(recording, run, on_progress, in_use)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"MLflow does not accept the rest of run {recording.run_id} now ({type(error).__name__}: {error}); it "
            f"stays in {recording.folder}: recover it when the cause is gone"
        ) from error


def _run_of(recording: LocalRecording) -> Any:
    """Get the run of a spool; raise if it cannot be written to."""
    stays = f"its record stays in {recording.folder}"
    discard = f"or discard the record, `mlflow-hp recover --discard {recording.run_id}`"
    if (missing := missing_store(recording.tracking_uri)) is not None:
        raise UserError(
            f"run {recording.run_id}: its store {missing} is missing; {stays}: restore the store, {discard}"
        )
    runs.ensure_reachable()
    try:
        run = mlflow.MlflowClient().get_run(recording.run_id)
    except MlflowException as error:
        raise UserError(
            f"{recording.tracking_uri} does not return run {recording.run_id} ({error.message}); {stays}: restore the "
            f"run or the access to it, {discard}"
        ) from error
    if run.info.lifecycle_stage == "deleted":
        raise UserError(
            f"run {recording.run_id} is deleted; {stays}: restore it, `mlflow runs restore --run-id "
            f"{recording.run_id}`, and recover again, {discard}"
        )
    return run


@contextlib.contextmanager
def _tracking(tracking_uri: str) -> Iterator[None]:
    """Set MLflow's tracking URI inside the block."""
    before = mlflow.get_tracking_uri()
    if absolute_uri(tracking_uri) == absolute_uri(before):
        yield
        return
    try:
        mlflow.set_tracking_uri(tracking_uri)
        yield
    finally:
        mlflow.set_tracking_uri(before)
