"""The command ``mlflow-hp sync``."""

from __future__ import annotations

import gc
import sys
from typing import TYPE_CHECKING, Any

from mlflow_hp.cli.command import EXIT_DIFFERS, print_some
from mlflow_hp.terminal import say

if TYPE_CHECKING:
    import argparse


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add(
        "runs",
        nargs="*",
        metavar="RUN",
        help="ids of runs, each with those nested in it; default: all of the experiment",
    )
    add("--to", required=True, metavar="URI", help="the tracking store to bring them to, as http://HOST:5000")
    add(
        "--from",
        dest="source",
        metavar="URI",
        help="the store that has them; default: MLFLOW_TRACKING_URI",
    )
    named = "default: MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID, else Default"
    add("--experiment", metavar="NAME", help=f"whose runs; {named}")
    add("--verify", action="store_true", help="compare both sides afterwards: status 1 where something differs")


def run(runs: list[str], to: str, source: str | None, experiment: str | None, *, verify: bool) -> int:
    """Bring the runs, and tell how much that was."""
    from mlflow_hp.sync import selection, stores, transfer
    from mlflow_hp.sync.verify import compare

    gc.freeze()  # that the collector walks the libraries again and again takes longer than reading the points
    both = stores.connect(to, source)
    chosen = selection.find(both.source, experiment, runs)
    both.ensure_two(chosen)
    done = transfer.bring(both, chosen, thorough=verify, on_wait=_say_of_sync)
    say(
        f"{done.new} runs new, {done.completed} completed, {done.unchanged} unchanged; "
        f"{done.points:,} metric points and {done.files:,} artifacts sent"
    )
    if done.at_home:
        say(f"{done.at_home} left out: they are copies of runs of the target")
    if done.duplicates and not verify:
        say(f"{done.duplicates} are at the target more than once: --verify names the duplicates")
    for name, reason in done.failed.items():
        _say_of_sync(f"{name} could not be brought: {reason}")
    for folder, reason in chosen.damaged.items():
        _say_of_sync(f"{folder} is left out: {reason}. Restore that folder from a copy, or move it out of the store")
    differs = _verified(compare(both, selection.find(both.source, experiment, runs))) if verify else False
    return EXIT_DIFFERS if done.failed or chosen.damaged or differs else 0


def _verified(comparison: Any) -> bool:
    """Print a comparison, and tell whether there are differences."""
    say(f"{'':14}{'source':>12}{'target':>12}")
    for kind, (here, there) in comparison.counts.items():
        say(f"{kind:14}{here:>12,}{there:>12,}")
    print_some(comparison.differences)
    say(f"{len(comparison.differences)} differences" if comparison.differences else "no differences")
    return bool(comparison.differences)


def _say_of_sync(text: str) -> None:
    say(f"mlflow-hp sync: {text}", file=sys.stderr)
