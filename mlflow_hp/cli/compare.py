"""The command ``mlflow-hp compare``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from mlflow_hp.compare.comparability import Goal


def declare(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    add = parser.add_argument
    add("runs", nargs="*", metavar="RUN", help="ids of runs, each with those nested in it")
    add(
        "--experiment",
        dest="experiments",
        action="append",
        default=[],
        metavar="NAME",
        help="all runs of an experiment; may be given several times",
    )
    add(
        "--filter",
        dest="filter_string",
        default="",
        metavar="TEXT",
        help="which runs of the experiments, in MLflow's language",
    )
    add(
        "--by",
        metavar="NAME",
        help="what colours and the leaderboard tell apart: author, or a param or tag; default: runs",
    )
    add("--metric", metavar="NAME", help="by what to judge; default: what each kind of run is usually judged by")
    add("--goal", choices=("min", "max"), help="which values of it are better; default: told from its name")
    add("--output", metavar="FILE", help="write the report to a file, too")


def run(
    runs: list[str],
    experiments: list[str],
    filter_string: str,
    by: str | None,
    metric: str | None,
    goal: Goal | None,
    output: str | None,
) -> int:
    """Compare, and print what was found and where the report is."""
    import mlflow

    from mlflow_hp.compare.api import REPORT, compare_runs
    from mlflow_hp.terminal import say
    from mlflow_hp.tracking.redaction import masked

    found = compare_runs(
        runs,
        experiments=experiments,
        filter_string=filter_string,
        metric=metric,
        goal=goal,
        by=by,
        output=output,
    )
    say(*found.told, "")
    say(f"Report: artifact {REPORT} of run {found.run_id} in {masked(mlflow.get_tracking_uri())}")
    if output is not None:
        say(f"        and {output}")
    return 0
