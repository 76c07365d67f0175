"""The command ``mlflow-hp recover``."""

from __future__ import annotations

import functools
import sys
from typing import Any

import click

from mlflow_hp.cli.command import EXIT_DIFFERS, Command, at_most_one, show_progress
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import count, is_live, printable, say


@click.command(cls=Command)
@click.argument("run_ids", nargs=-1, metavar="[RUN]...")
@click.option(
    "--take-over", is_flag=True, help="Also recover recordings that a process on another machine may still write."
)
@click.option("--discard", is_flag=True, help="Delete the recordings of the named runs, with data that MLflow lacks.")
def recover(run_ids: tuple[str, ...], *, take_over: bool, discard: bool) -> int:
    """Send the recordings of killed processes to MLflow.

    RUN is the id of a run. Default: all recordings; both on this machine.
    """
    from mlflow_hp.delivery.folder_lock import FolderLockedError
    from mlflow_hp.tracking.home import local_home
    from mlflow_hp.tracking.redaction import masked
    from mlflow_hp.training import recovery

    at_most_one(take_over=take_over, discard=discard)
    if discard and not run_ids:
        raise UserError("--discard deletes recordings: name their runs, as in `mlflow-hp recover --discard RUN`")
    unusable: list[str] = []
    recordings = [
        item for item in recovery.recordings(on_unusable=unusable.append) if not run_ids or item.run_id in run_ids
    ]
    problems, n_locked = unusable, 0
    for recording in recordings:
        try:
            if discard:
                recovery.discard(recording)
                say(f"{recording.run_id}: discarded the recording in {recording.folder}")
            else:
                _recover_one(recording, take_over=take_over)
        except FolderLockedError as locked:
            if recording.is_done:  # the process that has recorded it still reads its history
                continue
            n_locked += 1
            say(f"{recording.run_id}: left alone in {recording.folder}: {locked}")
        except UserError as error:
            problems.append(masked(str(error)))
    for problem in problems:
        say(f"mlflow-hp recover: {problem}", file=sys.stderr)
    if missing := set(run_ids) - {recording.run_id for recording in recordings}:
        raise UserError(f"no recording of {', '.join(sorted(missing))} is on this machine, in {local_home()}")
    if not recordings and not unusable:
        say("nothing was left behind")
    return EXIT_DIFFERS if problems or (n_locked and run_ids) else 0


def _recover_one(recording: Any, *, take_over: bool) -> None:
    from tqdm import tqdm

    from mlflow_hp.search.recovery import KINDS
    from mlflow_hp.tracking.redaction import masked
    from mlflow_hp.training import recovery

    name = f"metrics of {printable(recording.run_id)}"
    with tqdm(desc=name, unit=" points", unit_scale=True, delay=1.0, disable=not is_live()) as bar:
        recovered = recovery.recover(recording, functools.partial(show_progress, bar), take_over=take_over, kinds=KINDS)
    if recovered is not None:
        problems = f"; {'; '.join(recovered.problems)}" if recovered.problems else ""
        content = "its search" if recording.kind == "search" else f"{count(recovered.n_steps, 'step')}"
        say(f"{recovered.run_id} in {masked(recording.tracking_uri)}: {content}, {recovered.status}{problems}")
