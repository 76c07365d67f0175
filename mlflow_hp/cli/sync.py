"""The command ``mlflow-hp sync``."""

from __future__ import annotations

import gc
import sys
from typing import Any

import click

from mlflow_hp.cli.command import EXIT_DIFFERS, Command, print_some
from mlflow_hp.terminal import count, say


@click.command(cls=Command)
@click.argument("run_ids", nargs=-1, metavar="[RUN]...")
@click.option(
    "--to",
    "target_uri",
    required=True,
    metavar="URI",
    help="Tracking store to copy the runs to, such as http://HOST:5000.",
)
@click.option(
    "--from", "source_uri", metavar="URI", help="Tracking store to copy the runs from. Default: MLFLOW_TRACKING_URI."
)
@click.option(
    "--experiment",
    metavar="NAME",
    help="Experiment of the runs. Default: MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID, else Default.",
)
@click.option("--verify", is_flag=True, help="Compare both stores afterwards; the status is 1 if they differ.")
def sync(
    run_ids: tuple[str, ...], target_uri: str, source_uri: str | None, experiment: str | None, *, verify: bool
) -> int:
    """Copy runs to another tracking store, without duplicates.

    RUN is the id of a run; the runs nested in it are copied as well. Default: all runs of the experiment.
    Run it again to copy new data.
    """
    from mlflow_hp.sync import selection, stores, transfer
    from mlflow_hp.sync.verify import compare

    gc.freeze()  # garbage collection of the loaded libraries would take longer than reading the points
    pair = stores.connect(target_uri, source_uri)
    selected = selection.find(pair.source, experiment, list(run_ids))
    pair.ensure_distinct(selected)
    result = transfer.copy_missing(pair, selected, thorough=verify, on_wait=_say_problem)
    say(
        f"{count(result.new, 'run')} new, {result.completed:,} completed, {result.unchanged:,} unchanged; "
        f"{count(result.points, 'metric point')} and {count(result.files, 'artifact')} sent"
    )
    if result.copied_from_target:
        say(f"{result.copied_from_target} left out: they are copies of runs of the target")
    if result.duplicates and not verify:
        say(f"{result.duplicates} are at the target more than once: --verify names the duplicates")
    for name, reason in result.failed.items():
        _say_problem(f"{name} could not be copied: {reason}")
    for folder, reason in selected.damaged.items():
        _say_problem(f"{folder} is left out: {reason}. Restore that folder from a copy, or move it out of the store")
    differs = (
        _say_comparison(compare(pair, selection.find(pair.source, experiment, list(run_ids)))) if verify else False
    )
    return EXIT_DIFFERS if result.failed or selected.damaged or differs else 0


def _say_comparison(comparison: Any) -> bool:
    """Print a comparison, and return whether there are differences."""
    say(f"{'':14}{'source':>12}{'target':>12}")
    for kind, (n_source, n_target) in comparison.counts.items():
        say(f"{kind:14}{n_source:>12,}{n_target:>12,}")
    print_some(comparison.differences)
    say(count(len(comparison.differences), "difference") if comparison.differences else "no differences")
    return bool(comparison.differences)


def _say_problem(text: str) -> None:
    say(f"mlflow-hp sync: {text}", file=sys.stderr)
