"""The command ``mlflow-hp recover``."""

from __future__ import annotations

import functools
import sys
from typing import TYPE_CHECKING, Any

from mlflow_hp.cli.command import EXIT_DIFFERS, show_progress
from mlflow_hp.errors import UserError
from mlflow_hp.terminal import printable, say

if TYPE_CHECKING:
    import argparse


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="ids of runs; default: all that were left behind here")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--take-over", action="store_true",
                     help="also what another machine has shown a sign of life of a moment ago")  # fmt: skip
    how.add_argument("--discard", action="store_true", help="remove what MLflow lacks of the runs named, for ever")


def run(runs: list[str], *, take_over: bool, discard: bool) -> int:
    """Recover, and tell what came of each recording."""
    from mlflow_hp.delivery.folder_lock import HeldError
    from mlflow_hp.tracking.redaction import masked
    from mlflow_hp.tracking.runs import local_home
    from mlflow_hp.training import recovery

    if discard and not runs:
        raise UserError("--discard gives up what was recorded: name the runs, as in `mlflow-hp recover --discard RUN`")
    unusable: list[str] = []
    chosen = [left for left in recovery.recordings(on_unusable=unusable.append) if not runs or left.run_id in runs]
    problems, n_held = unusable, 0
    for left in chosen:
        try:
            if discard:
                recovery.discard(left)
                say(f"{left.run_id}: discarded what was in {left.folder}")
            else:
                _recover_one(left, take_over=take_over)
        except HeldError as held:
            if left.is_done:  # its history is still read by the process that has recorded it
                continue
            n_held += 1
            say(f"{left.run_id}: left alone in {left.folder}: {held}")
        except UserError as error:
            problems.append(masked(str(error)))
    for problem in problems:
        say(f"mlflow-hp recover: {problem}", file=sys.stderr)
    if missing := set(runs) - {left.run_id for left in chosen}:
        raise UserError(f"nothing of {', '.join(sorted(missing))} is on this machine, in {local_home()}")
    if not chosen and not unusable:
        say("nothing was left behind")
    return EXIT_DIFFERS if problems or (n_held and runs) else 0


def _recover_one(left: Any, *, take_over: bool) -> None:
    from tqdm import tqdm

    from mlflow_hp.search.recovery import KINDS
    from mlflow_hp.tracking.redaction import masked
    from mlflow_hp.training.recovery import recover

    with tqdm(desc=f"metrics of {printable(left.run_id)}", unit=" points", unit_scale=True, delay=1.0) as bar:
        found = recover(left, functools.partial(show_progress, bar), take_over=take_over, kinds=KINDS)
    if found is not None:
        lost = f"; {'; '.join(found.problems)}" if found.problems else ""
        what = "its search" if left.kind == "search" else f"{found.n_steps:,} steps"
        say(f"{found.run_id} in {masked(left.tracking_uri)}: {what}, {found.status}{lost}")
